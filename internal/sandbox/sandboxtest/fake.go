//go:build unix

package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/inroot"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest/probe"
)

// NewFake makes an engine that isolates nothing and knows one program: whatever
// is executed runs as the probe, in this process. Commands are found, and files
// seen, in the apps' roots through their mounts. It needs no privileges.
func NewFake() sandbox.Engine { return &fake{pods: map[string]*fakePod{}} }

type fake struct {
	mu   sync.Mutex
	pods map[string]*fakePod
}

type fakePod struct {
	spec  sandbox.Pod
	tasks []*fakeTask
}

// Info implements sandbox.Engine.
func (e *fake) Info() sandbox.Info { return sandbox.Info{Name: "fake", DiesWithOwner: true} }

// Check implements sandbox.Engine.
func (e *fake) Check(_ context.Context, pod sandbox.Pod) (outcomes []sandbox.Outcome, err error) {
	if pod.Network != sandbox.NetworkNone {
		return nil, fmt.Errorf("network %q: %w", pod.Network, sandbox.ErrUnsupported)
	}
	for _, is := range pod.Isolators {
		outcomes = append(outcomes, is.Outcome("", sandbox.Ignored, isolatesNothing))
	}
	for _, app := range pod.Apps {
		for _, is := range app.Isolators {
			outcomes = append(outcomes, is.Outcome(app.Name, sandbox.Ignored, isolatesNothing))
		}
	}
	return outcomes, nil
}

const isolatesNothing = "the fake isolates nothing"

// Create implements sandbox.Engine.
func (e *fake) Create(ctx context.Context, pod sandbox.Pod) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("create pod %s: %w", pod.ID, ctx.Err())
	case e.pods[pod.ID] != nil:
		return fmt.Errorf("create pod %s: %w", pod.ID, sandbox.ErrExists)
	}
	if _, err := e.Check(ctx, pod); err != nil {
		return fmt.Errorf("create pod %s: %w", pod.ID, err)
	}
	e.pods[pod.ID] = &fakePod{spec: pod}
	return nil
}

// Start implements sandbox.Engine.
func (e *fake) Start(ctx context.Context, podID string, p sandbox.Process) (sandbox.Task, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, err := e.start(ctx, e.pods[podID], p)
	if err != nil {
		return nil, fmt.Errorf("start in pod %s: %w", podID, err)
	}
	return t, nil
}

func (e *fake) start(ctx context.Context, pod *fakePod, p sandbox.Process) (*fakeTask, error) {
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case pod == nil:
		return nil, sandbox.ErrNotFound
	case p.Terminal:
		return nil, fmt.Errorf("terminal: %w", sandbox.ErrUnsupported)
	}
	i := slices.IndexFunc(pod.spec.Apps, func(a sandbox.App) bool { return a.Name == p.App })
	if i < 0 {
		return nil, fmt.Errorf("app %s: %w", p.App, sandbox.ErrNotFound)
	}
	if _, err := sandbox.ResolveCommand(pod.spec.Apps[i], p); err != nil {
		return nil, err
	}
	t, err := newFakeTask(pod.spec.Apps[i], p)
	if err != nil {
		return nil, err
	}
	pod.tasks = append(pod.tasks, t)
	go func() { t.end(sandbox.Exit{Code: probe.Main(p.Args, t.system(p))}) }()
	return t, nil
}

// Listen implements sandbox.Engine: the host's network is the pod's.
func (e *fake) Listen(ctx context.Context, podID, protocol string, port uint16) ([]*os.File, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pods[podID] == nil {
		return nil, fmt.Errorf("listen in pod %s: %w", podID, sandbox.ErrNotFound)
	}
	socket, err := sandbox.Listen(ctx, protocol, netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	return []*os.File{socket}, err
}

// Destroy implements sandbox.Engine.
func (e *fake) Destroy(_ context.Context, podID string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if pod := e.pods[podID]; pod != nil {
		for _, t := range pod.tasks {
			t.end(sandbox.Exit{Signal: syscall.SIGKILL})
		}
	}
	delete(e.pods, podID)
	return nil
}

// Addresses implements sandbox.Engine.
func (e *fake) Addresses(_ context.Context, podID string) ([]netip.Addr, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pods[podID] == nil {
		return nil, fmt.Errorf("addresses of pod %s: %w", podID, sandbox.ErrNotFound)
	}
	return nil, nil
}

// List implements sandbox.Engine.
func (e *fake) List(context.Context) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.pods)), nil
}

type fakeTask struct {
	app   sandbox.App
	alive context.Context
	kill  context.CancelFunc
	files [3]*os.File // standard input, output, error; nil is the null device

	mu     sync.Mutex
	ended  bool
	exit   sandbox.Exit
	caught map[syscall.Signal]chan os.Signal
}

func newFakeTask(app sandbox.App, p sandbox.Process) (*fakeTask, error) {
	t := &fakeTask{app: app, caught: map[syscall.Signal]chan os.Signal{}}
	t.alive, t.kill = context.WithCancel(context.Background())
	for i, f := range []*os.File{p.Stdin, p.Stdout, p.Stderr} {
		if f == nil {
			continue
		}
		var err error
		if t.files[i], err = duplicate(f); err != nil {
			t.end(sandbox.Exit{})
			return nil, err
		}
	}
	return t, nil
}

// duplicate gives the task a descriptor of its own, as a fork would.
func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var dup int
	var dupErr error
	err = raw.Control(func(fd uintptr) { dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, dupErr); err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(dup), f.Name()), nil
}

// end ends the task, once.
func (t *fakeTask) end(exit sandbox.Exit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	t.ended, t.exit = true, exit
	for _, f := range t.files {
		if f != nil {
			_ = f.Close()
		}
	}
	t.kill()
}

// Wait implements sandbox.Task.
func (t *fakeTask) Wait(ctx context.Context) (sandbox.Exit, error) {
	select {
	case <-t.alive.Done():
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		return sandbox.Exit{}, ctx.Err()
	}
	return t.exit, nil
}

// Signal implements sandbox.Task.
func (t *fakeTask) Signal(_ context.Context, sig syscall.Signal) error {
	t.mu.Lock()
	ended, caught := t.ended, t.caught[sig]
	t.mu.Unlock()
	switch {
	case ended:
		return sandbox.ErrExited
	case caught != nil && sig != syscall.SIGKILL:
		caught <- sig
		return nil
	}
	switch sig {
	case 0, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH, syscall.SIGCONT:
	default:
		t.end(sandbox.Exit{Signal: sig})
	}
	return nil
}

// Console implements sandbox.Task.
func (t *fakeTask) Console() console.Console { return nil }

// system is what the probe sees.
func (t *fakeTask) system(p sandbox.Process) probe.System {
	sys := probe.System{
		Context:  t.alive,
		Env:      p.Env,
		Getwd:    func() (string, error) { return p.Dir, nil },
		Stdin:    strings.NewReader(""),
		Stdout:   io.Discard,
		Stderr:   io.Discard,
		ReadFile: t.readFile,
		Append:   t.append,
		Catch: func(sig syscall.Signal) <-chan os.Signal {
			t.mu.Lock()
			defer t.mu.Unlock()
			c := make(chan os.Signal, 16)
			t.caught[sig] = c
			return c
		},
	}
	if t.files[0] != nil {
		sys.Stdin = t.files[0]
	}
	if t.files[1] != nil {
		sys.Stdout = t.files[1]
	}
	if t.files[2] != nil {
		sys.Stderr = t.files[2]
	}
	return sys
}

func (t *fakeTask) root() (*inroot.Root, error) {
	root, err := inroot.Open(t.app.Root)
	if err != nil {
		return nil, err
	}
	for _, m := range t.app.Mounts {
		if err := root.Bind(m.Target, m.Source); err != nil {
			return nil, errors.Join(err, root.Close())
		}
	}
	return root, nil
}

func (t *fakeTask) readFile(name string) (_ []byte, err error) {
	root, err := t.root()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return root.ReadFile(name, 64<<20)
}

func (t *fakeTask) append(name string, data []byte) (err error) {
	t.mu.Lock() // what has ended does not write any more
	defer t.mu.Unlock()
	if t.ended {
		return os.ErrProcessDone
	}
	root, err := t.root()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	parent, err := root.Resolve(path.Dir(name))
	if err != nil {
		return err
	}
	file, readOnly := t.onHost(path.Join(parent, path.Base(name)))
	if readOnly {
		return &os.PathError{Op: "open", Path: name, Err: unix.EROFS}
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(data)
	return err
}

// onHost is where a path of the root that is free of symbolic links lies.
func (t *fakeTask) onHost(name string) (file string, readOnly bool) {
	for _, m := range slices.Backward(t.app.Mounts) {
		if rest, ok := strings.CutPrefix(name, m.Target); ok && (rest == "" || rest[0] == '/') {
			return filepath.Join(m.Source, rest), m.ReadOnly
		}
	}
	return filepath.Join(t.app.Root, name), t.app.ReadOnly
}
