package aci_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// stalling is an image file that stops in the middle until it is let go.
type stalling struct {
	first, rest io.Reader
	let         chan struct{}
}

func (s *stalling) Read(p []byte) (int, error) {
	if n, err := s.first.Read(p); err == nil {
		return n, nil
	}
	<-s.let
	return s.rest.Read(p)
}

func (s *stalling) Seek(int64, int) (int64, error) { return 0, nil }

// stalled starts to extract an image and returns when the child has made the first
// file and waits for more.
func stalled(t *testing.T, ctx context.Context) (rootfs string, pid int, letGo func(), result chan error) {
	t.Helper()
	testenv.Root(t)
	archive := acitest.Image(t, "example.com/a", acitest.WithFile("/first", "x"), acitest.WithFile("/second", strings.Repeat("y", 10_000)))
	half := bytes.Index(archive, []byte("yyyy")) + 2000
	s := &stalling{bytes.NewReader(archive[:half]), bytes.NewReader(archive[half:]), make(chan struct{})}
	rootfs = t.TempDir()
	result = make(chan error, 1)
	go func() {
		_, err := aci.Extract(ctx, s, rootfs, aci.ExtractOptions{Limits: small})
		result <- err
	}()
	waitUntil(t, "the first file is there", func() bool {
		_, err := os.Stat(filepath.Join(rootfs, "second"))
		return err == nil
	})
	return rootfs, childOf(t, os.Getpid()), func() { close(s.let) }, result
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timeout waiting until ", what)
		}
	}
}

// childOf finds the extracting process of a parent.
func childOf(t *testing.T, parent int) int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		status, err := os.ReadFile(dir + "/status")
		if err != nil || !strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			continue
		}
		if line, err := os.ReadFile(dir + "/cmdline"); err == nil && strings.HasPrefix(string(line), "jetpack-extract\x00") {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	t.Fatal("no extracting process")
	return 0
}

// What the child looks like from outside while it works.
func TestConfined(t *testing.T) {
	// A descriptor that leaks into every child.
	leaked, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leaked)
	rootfs, pid, letGo, result := stalled(t, t.Context())
	proc := fmt.Sprintf("/proc/%d", pid)
	if root, err := os.Readlink(proc + "/root"); err != nil || root != rootfs {
		t.Errorf("root %q, %v, want %q", root, err, rootfs)
	}
	if cwd, err := os.Readlink(proc + "/cwd"); err != nil || cwd != rootfs {
		t.Errorf("working directory %q, %v", cwd, err)
	}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(proc + "/fd/" + fd.Name())
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(target, rootfs), strings.HasPrefix(target, "pipe:"), strings.HasPrefix(target, "anon_inode:"),
			target == "/dev/null", strings.HasPrefix(target, "/sys/fs/cgroup/"):
		default:
			t.Errorf("descriptor %s is %s", fd.Name(), target)
		}
	}
	// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP
	const want = "CapPrm:\t000000008000001b\nCapEff:\t000000008000001b\n"
	confined := 0
	tasks, err := filepath.Glob(proc + "/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(status), want) && strings.Contains(string(status), "\nNoNewPrivs:\t1\n") {
			confined++
		}
	}
	// In a test that uses cgo, only the thread that works: see dropPrivileges.
	if confined != len(tasks) && (!usesCgo() || confined == 0) {
		t.Errorf("%d of %d threads gave up their privileges", confined, len(tasks))
	}
	letGo()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(proc); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the process is still there: %v", err)
	}
}

func usesCgo() bool {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0)
	return errno == syscall.ENOTSUP
}

func TestChildKilled(t *testing.T) {
	for _, tt := range []struct {
		signal syscall.Signal
		want   []string
	}{
		{syscall.SIGKILL, []string{"signal: killed"}},
		{syscall.SIGABRT, []string{"exit status 2", "SIGABRT: abort"}}, // as the runtime does when it crashes
	} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			_, pid, letGo, result := stalled(t, t.Context())
			if err := syscall.Kill(pid, tt.signal); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(100*time.Millisecond, letGo)
			err := <-result
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %q, want %q", err, want)
				}
			}
		})
	}
}

func TestChildEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, pid, letGo, result := stalled(t, ctx)
	cancel()
	letGo()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process is still there: %v", err)
	}
}

const doomedParent = "aci-test-doomed-parent"

// The process extracts what it reads, for ever, to the directory of its argument.
func init() {
	reexec.Register(doomedParent, func() {
		_, err := aci.Extract(context.Background(), once{os.Stdin}, os.Args[1], aci.ExtractOptions{Limits: small})
		fmt.Println(err)
		os.Exit(1)
	})
}

func TestChildEndsWithParent(t *testing.T) {
	testenv.Root(t)
	rootfs := t.TempDir()
	parent := reexec.Command(doomedParent, rootfs)
	in, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	archive := acitest.Image(t, "example.com/a", acitest.WithFile("/first", strings.Repeat("y", 10_000)))
	if _, err := in.Write(archive[:5000]); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the file is there", func() bool {
		_, err := os.Stat(filepath.Join(rootfs, "first"))
		return err == nil
	})
	child := childOf(t, parent.Process.Pid)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err == nil {
		t.Error(line)
	}
	_ = parent.Wait() // killed
	waitUntil(t, "the child is gone", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
		return err != nil || strings.Contains(string(status), "State:\tZ")
	})
}

// Links of a lower layer that lead outside are replaced.
func TestLinksStayInside(t *testing.T) {
	testenv.Root(t)
	canary := t.TempDir()
	rootfs := t.TempDir()
	for _, name := range []string{"l", "d/l"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(rootfs, filepath.Dir(name)), 0o755), os.Symlink(canary, filepath.Join(rootfs, name))); err != nil {
			t.Fatal(err)
		}
	}
	archive := acitest.Image(t, "example.com/a", acitest.WithFile("/l/x", "x"), acitest.WithFile("/d/l", "x"))
	if _, err := aci.Extract(t.Context(), bytes.NewReader(archive), rootfs, aci.ExtractOptions{Limits: small}); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(canary); err != nil || len(entries) != 0 {
		t.Errorf("canary: %v, %v", entries, err)
	}
	if data, err := os.ReadFile(filepath.Join(rootfs, "l/x")); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
}

// Links and fifos get all their metadata in a root without /proc.
func TestMetadataInChild(t *testing.T) {
	testenv.Root(t)
	fifo := acitest.File("rootfs/p", "")
	fifo.Typeflag, fifo.Mode, fifo.Uid = '6', 0o4613, 7
	capable := acitest.File("rootfs/c", "x")
	capable.Uid = 1
	capable.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	}
	link := acitest.Symlink("rootfs/l", "/etc/passwd")
	link.PAXRecords = map[string]string{"SCHILY.xattr.trusted.a": "b"}
	archive := acitest.Image(t, "example.com/a", acitest.WithEntry(fifo), acitest.WithEntry(capable), acitest.WithEntry(link))
	rootfs := t.TempDir()
	result, err := aci.Extract(t.Context(), bytes.NewReader(archive), rootfs, aci.ExtractOptions{Limits: small})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(rootfs+"/p", &st); err != nil || st.Mode != unix.S_IFIFO|0o4613 || st.Uid != 7 {
		t.Errorf("fifo: mode %o, owner %d, %v", st.Mode, st.Uid, err)
	}
	if n, err := unix.Lgetxattr(rootfs+"/c", "security.capability", make([]byte, 100)); err != nil || n != 20 {
		t.Errorf("capability: %d bytes, %v", n, err)
	}
	// Attributes in trusted take CAP_SYS_ADMIN, which only a program without cgo
	// gives up on all threads.
	if !usesCgo() && (len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "trusted.a")) {
		t.Errorf("warnings %q", result.Warnings)
	}
}

// A full disk is told as what it is, in the same words as without a child.
func TestNoSpace(t *testing.T) {
	testenv.Root(t)
	archive := acitest.Image(t, "example.com/a", acitest.WithFile("/a\x1b", strings.Repeat("x", 500_000)))
	var said []string
	for _, extract := range []func(context.Context, io.ReadSeeker, string, aci.ExtractOptions) (aci.Result, error){aci.Extract, aci.ExtractHere} {
		rootfs := t.TempDir()
		if err := unix.Mount("tmpfs", rootfs, "tmpfs", 0, "size=64k"); err != nil {
			t.Skip("needs to mount: ", err)
		}
		_, err := extract(t.Context(), bytes.NewReader(archive), rootfs, aci.ExtractOptions{Limits: small})
		if umountErr := unix.Unmount(rootfs, 0); umountErr != nil {
			t.Fatal(umountErr)
		}
		if !errors.Is(err, syscall.ENOSPC) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("error %q", err)
		}
		said = append(said, strip(err))
	}
	if said[0] != said[1] {
		t.Errorf("got %q", said)
	}
}

// What is kept and what is pruned reaches the child.
func TestKeepAndPrune(t *testing.T) {
	testenv.Root(t)
	archive := acitest.Image(t, "example.com/a", acitest.WithFile("/a", "new"), acitest.WithFile("/b", "new"),
		acitest.WithEntry(acitest.Link("rootfs/c", "rootfs/b")), acitest.WithFile("/d/e", "new"))
	for _, tt := range []struct {
		name        string
		keep, prune []string
		want        map[string]string
	}{
		{"all", nil, nil, map[string]string{"a": "new", "b": "new", "c": "new", "d/e": "new", "old": "old", "gone": "old"}},
		{"keep", []string{"/c", "/d/e"}, nil, map[string]string{"a": "old", "b": "old", "c": "new", "d/e": "new", "old": "old", "gone": "old"}},
		{"prune", nil, []string{"/a", "/d", "/old"}, map[string]string{"a": "new", "old": "old"}},
		{"both", []string{"/c", "/d/e"}, []string{"/a", "/c", "/d"}, map[string]string{"a": "old", "c": "new"}},
	} {
		for _, kind := range []extract.Compression{extract.None, extract.Gzip} {
			t.Run(tt.name+" "+string(kind), func(t *testing.T) {
				rootfs := t.TempDir()
				for _, name := range []string{"a", "b", "old", "gone"} {
					if err := os.WriteFile(filepath.Join(rootfs, name), []byte("old"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				result, err := aci.Extract(t.Context(), bytes.NewReader(acitest.Compress(t, kind, archive)), rootfs, aci.ExtractOptions{
					Limits: small, Keep: layer.NewWhitelist(tt.keep), Prune: layer.NewWhitelist(tt.prune),
				})
				if err != nil {
					t.Fatal(err)
				}
				if result.ID != idOf(archive) || result.Size != int64(len(archive)) || result.Compression != kind {
					t.Errorf("got %s, %d bytes, %s", result.ID, result.Size, result.Compression)
				}
				for _, name := range []string{"a", "b", "c", "d/e", "old", "gone"} {
					data, err := os.ReadFile(filepath.Join(rootfs, name))
					if want, there := tt.want[name]; string(data) != want || there != (err == nil) {
						t.Errorf("%s: %q, %v, want %q", name, data, err, want)
					}
				}
			})
		}
	}
}
