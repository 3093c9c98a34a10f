package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/self"
)

var (
	// errGone: the child does not read any more; what it says tells why.
	errGone = errors.New("the extracting process stopped reading")
	// errNoAnswer: the child ended without saying anything.
	errNoAnswer = errors.New("no answer")
)

// startTime is how long a child may take to come to life.
const startTime = 30 * time.Second

// extract extracts in a confined process.
func (f *Format) extract(ctx context.Context, r io.ReadSeeker, rootfs string, o Options) (Result, error) {
	if os.Getenv(childEnv) != "" {
		return Result{}, errors.New("the program does not call reexec.Init")
	}
	// The child is killed when the thread that started it ends (prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, err := startChild(ctx, rootfs)
	if err != nil {
		return Result{}, fmt.Errorf("start extracting process: %w", err)
	}
	fed := make(chan feeding, 1)
	go func() { fed <- p.feed(ctx, f, r, o) }()
	result, err := p.result()
	end := <-fed
	result.Compression = end.compression
	switch {
	case ctx.Err() != nil:
		return Result{}, ctx.Err()
	case err != nil && !errors.Is(err, errCut):
		return Result{}, err
	}
	return result, end.err // why the archive was cut
}

// process is the child as its parent sees it.
type process struct {
	cmd    *exec.Cmd
	in     *os.File // orders
	out    *os.File // answers
	stderr head
}

func startChild(ctx context.Context, rootfs string) (*process, error) {
	// Clean, since O_NOFOLLOW does not hold for "link/".
	fd, err := unix.Open(filepath.Clean(rootfs), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: rootfs, Err: err}
	}
	root := os.NewFile(uintptr(fd), rootfs)
	defer closeAll(root)
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer closeAll(theirIn)
	out, theirOut, err := os.Pipe()
	if err != nil {
		closeAll(in)
		return nil, err
	}
	defer closeAll(theirOut)

	program, err := self.Path(childName)
	if err != nil {
		closeAll(in, out)
		return nil, err
	}
	p := &process{in: in, out: out}
	p.cmd = exec.CommandContext(ctx, program)
	p.cmd.Args = []string{childName}
	p.cmd.Dir = "/"
	// Without TZ, printing a time would read the time zone of the image.
	p.cmd.Env = []string{childEnv + "=1", "GOMAXPROCS=2", "TZ=UTC"}
	p.cmd.Stderr = &p.stderr
	p.cmd.ExtraFiles = []*os.File{root, theirIn, theirOut}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setsid:    true, // no signals from our terminal
	}
	if err := p.cmd.Start(); err != nil {
		closeAll(in, out)
		return nil, err
	}
	return p, nil
}

// closeAll closes pipes and directories, which have nothing to lose.
func closeAll(files ...*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// feeding is how feed ended.
type feeding struct {
	compression Compression
	err         error // of reading the image; not of writing to the child
}

// feed sends the child its order and the archive.
func (p *process) feed(ctx context.Context, f *Format, r io.ReadSeeker, o Options) (end feeding) {
	defer closeAll(p.in)
	if err := f.writeOrder(p.in, o); err != nil {
		return end // the child is gone
	}
	passes := 1
	if o.Keep != nil {
		passes = 2
	}
	for range passes {
		end.compression, end.err = p.feedArchive(ctx, f, r)
		if errors.Is(end.err, errGone) {
			end.err = nil
			return end
		}
		if end.err != nil {
			return end
		}
	}
	return end
}

func (p *process) feedArchive(ctx context.Context, f *Format, r io.ReadSeeker) (_ Compression, err error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	uncompressed, compression, err := Decompress(WithContext(ctx, r), f.Recognise)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, uncompressed.Close()) }()
	return compression, writeArchive(p.in, uncompressed)
}

// result waits for the child's answer and its end.
func (p *process) result() (Result, error) {
	started, err := p.started()
	var result Result
	if err == nil {
		result, err = readReply(p.out)
	}
	// It has said all, has ended already, or never comes to anything; and the race
	// detector has every program sleep for a second before it ends.
	_ = p.cmd.Process.Kill()
	closeAll(p.out)
	ended := p.cmd.Wait()
	switch {
	case !errors.Is(err, errNoAnswer):
		return result, err
	case !started:
		return Result{}, fmt.Errorf("the extracting process did not start (does the program call reexec.Init?): %w", p.end(ended))
	}
	return Result{}, fmt.Errorf("the extracting process ended: %w", p.end(ended))
}

// started waits for the sign that the child is one.
func (p *process) started() (bool, error) {
	if err := p.out.SetReadDeadline(time.Now().Add(startTime)); err != nil {
		return false, err
	}
	var sign [1]byte
	if _, err := io.ReadFull(p.out, sign[:]); err != nil || sign[0] != ready {
		return false, errNoAnswer // whatever the reason
	}
	return true, p.out.SetReadDeadline(time.Time{})
}

// end says how the child ended and the first thing that it said about it.
func (p *process) end(ended error) error {
	if ended == nil {
		ended = errors.New("without an answer")
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(p.stderr.text)), "\n")
	if line == "" {
		return ended
	}
	return fmt.Errorf("%w: %.200q", ended, line)
}

// head keeps the beginning of what is written to it.
type head struct{ text []byte }

func (h *head) Write(data []byte) (int, error) {
	const limit = 4 << 10
	h.text = append(h.text, data[:min(len(data), limit-len(h.text))]...)
	return len(data), nil
}
