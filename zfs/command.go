package zfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	gozfs "github.com/mistifyio/go-zfs/v3"

	"github.com/jetpack-run/jetpack/internal/storage"
)

// What zfs(8) says is told apart as these.
var (
	errAbsent   = errors.New("absent")    // a dataset that is named; which one is not told
	errNoParent = errors.New("no parent") // of the dataset to be made
	errPresent  = errors.New("present")   // the dataset to be made
	errNoModule = errors.New("no module") // the kernel has no ZFS
)

// causes are searched for in what a command prints, the first that fits. The names of
// datasets, which it prints too, have no blanks (CheckDataset).
var causes = []struct {
	text  string
	cause error
}{
	{"parent does not exist", errNoParent},
	{"no such parent", errAbsent}, // clone: or its origin vanished meanwhile
	{"does not exist", errAbsent},
	{"no such pool", errAbsent},
	{"already exists", errPresent},
	{"is busy", storage.ErrBusy},
	{"modules are not loaded", errNoModule},                 // Linux
	{"failed to initialize ZFS library", errNoModule},       // FreeBSD
	{"ZFS utilities must be run as root", os.ErrPermission}, // Linux
}

// failure is a command that failed, in one line.
type failure struct {
	text  string
	cause error // nil when it is none of causes
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

// explain makes an error of what a command printed on its standard error.
func explain(command, stderr string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s(8) is not installed, or not in PATH: %s", command, installHint)
	}
	text := strings.Join(strings.FieldsFunc(stderr, func(r rune) bool { return r == '\n' }), "; ")
	if text == "" {
		return fmt.Errorf("%s: %w", command, err)
	}
	f := &failure{text: command + ": " + text}
	for _, c := range causes {
		if strings.Contains(stderr, c.text) {
			f.cause = c.cause
			break
		}
	}
	if errors.Is(f.cause, errNoModule) {
		f.text = "the kernel has no ZFS loaded: run '" + loadCommand + "'"
	}
	return f
}

// library gives an error of go-zfs as run gives its own.
func library(err error) error {
	if e, ok := errors.AsType[*gozfs.Error](err); ok {
		return explain("zfs", e.Stderr, e.Err)
	}
	return err
}

// run runs zfs(8) or zpool(8) and returns what it prints. It is killed when ctx ends,
// and then nobody knows whether the change was made, but it was made as a whole or not.
func run(ctx context.Context, command string, args ...string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	p, err := start(command, args...)
	if err != nil {
		return "", err
	}
	return p.finish(ctx, "")
}

// process is a command that has been started.
type process struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr strings.Builder
}

func start(command string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(program(command), args...)} //nolint:gosec,noctx // no shell, names are checked; see finish
	p.cmd.Args[0] = command
	p.cmd.Env = append(os.Environ(), "LC_ALL=C")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // no signals from our terminal
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, explain(command, "", err)
	}
	return p, nil
}

// finish gives the process its input and waits for its end.
func (p *process) finish(ctx context.Context, stdin string) (string, error) {
	stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() }) // it may have ended
	defer stop()
	_, _ = io.WriteString(p.stdin, stdin) // one that has failed does not read it
	_ = p.stdin.Close()
	err := p.cmd.Wait()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", explain(p.cmd.Args[0], p.stderr.String(), err)
	}
	return p.stdout.String(), nil
}

// change runs zfs(8) for what it does.
func change(ctx context.Context, args ...string) error {
	_, err := run(ctx, "zfs", args...)
	return err
}
