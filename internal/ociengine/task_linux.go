package ociengine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/console"
	runc "github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// task is a process that was started; it is a child of ours.
type task struct {
	process *os.Process
	console console.Console
	ended   chan struct{}
	exit    sandbox.Exit // after ended
	err     error        // after ended
}

// start runs a process of a pod in a container of its own.
func (e *Engine) start(p *pod, process sandbox.Process) (_ *task, err error) {
	i := slices.IndexFunc(p.spec.Apps, func(a sandbox.App) bool { return a.Name == process.App })
	if i < 0 {
		return nil, fmt.Errorf("app %s: %w", process.App, sandbox.ErrNotFound)
	}
	command, err := sandbox.ResolveCommand(p.spec.Apps[i], process)
	if err != nil {
		return nil, err
	}
	if err := sandbox.CheckMountPoints(p.spec.Apps[i].Root, "/dev", "/proc", "/sys"); err != nil {
		return nil, err
	}
	process.Args = argsFor(process, command)
	lock, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }() // which gives the lock back

	n := strconv.FormatInt(p.next.Add(1), 10)
	b := bundle{dir: filepath.Join(p.dir, n), name: e.containerName(p.spec.ID, n)}
	f := e.facts(p, process.App, n)
	b.cgroup = f.Cgroup
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.discard(p, b))
		}
	}()
	if err := b.write(containerSpec(p.spec.Apps[i], process, f)); err != nil {
		return nil, err
	}
	t, err := e.run(p, b, process, lock)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", process.Args[0], err)
	}
	p.tasks.Go(func() {
		t.wait()
		_ = e.discard(p, b) // while descendants live Destroy has to do it
	})
	return t, nil
}

// argsFor gives the arguments under which the runtime, whose own search knows
// only absolute directories in PATH, executes command.
func argsFor(p sandbox.Process, command string) []string {
	searched, _ := p.Lookup("PATH")
	absolute := !slices.ContainsFunc(strings.Split(searched, ":"), func(dir string) bool { return !path.IsAbs(dir) })
	if absolute || strings.Contains(p.Args[0], "/") {
		return p.Args
	}
	return append([]string{command}, p.Args[1:]...)
}

// bundle is the directory, the name and the cgroup of one container.
type bundle struct{ dir, name, cgroup string }

func (b bundle) path(name string) string { return filepath.Join(b.dir, name) }

func (b bundle) write(spec *specs.Spec) error {
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(b.path("config.json"), data, 0o600)
}

// run has the runtime start the container, which outlives it.
func (e *Engine) run(p *pod, b bundle, process sandbox.Process, lock *os.File) (_ *task, err error) {
	cmd := exec.Command(e.cfg.Runtime, //nolint:noctx // a start under way is not interrupted (sandbox.Engine)
		"--root", filepath.Join(p.dir, runtimeDir),
		"--log", b.path("log.json"), "--log-format", "json",
		"run", "--detach", "--bundle", b.dir, "--pid-file", b.path("pid"))
	cmd.Dir = b.dir
	if n := len(process.Files); n > 0 {
		cmd.Args = append(cmd.Args, "--preserve-fds", strconv.Itoa(n))
	}
	// The lock is for the runtime itself; go-runc would pass it on to the container.
	cmd.ExtraFiles = append(slices.Clone(process.Files), lock)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}

	var tty *terminal
	if process.Terminal {
		if tty, err = listenForTerminal(b.dir); err != nil {
			return nil, err
		}
		defer tty.close()
		cmd.Args = append(cmd.Args, "--console-socket", tty.socket.Path())
	}
	cmd.Args = append(cmd.Args, b.name)

	owners, err := attach(cmd, process)
	if err != nil {
		return nil, err
	}
	if err := runLocked(cmd); err != nil {
		reapGroup(cmd)
		return nil, b.cause(err)
	}
	t := &task{ended: make(chan struct{})}
	if t.process, err = b.find(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.process.Kill())
			t.wait()
		}
	}()
	if tty != nil {
		if t.console, err = tty.receive(); err != nil {
			return nil, fmt.Errorf("receive terminal: %w", err)
		}
	}
	return t, owners.restore()
}

// find finds the process that the runtime has started. As our child it keeps its
// number until we have waited for it.
func (b bundle) find() (*os.Process, error) {
	data, err := os.ReadFile(b.path("pid"))
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", b.path("pid"), err)
	}
	return os.FindProcess(pid)
}

// runLocked runs a command that ends with us: the kernel ties that to the thread.
func runLocked(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// reapGroup reaps what a runtime that has failed left us of its process group;
// without it, that ends.
func reapGroup(cmd *exec.Cmd) {
	for err := error(nil); cmd.Process != nil && (err == nil || errors.Is(err, unix.EINTR)); {
		_, err = unix.Wait4(-cmd.Process.Pid, nil, 0, nil)
	}
}

// cause turns the end of the runtime into the reason that it logged.
func (b bundle) cause(err error) error {
	data, readErr := os.ReadFile(b.path("log.json"))
	if readErr != nil {
		return err // it did not get as far as logging
	}
	var reason string
	for line := range strings.Lines(string(data)) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "error" {
			reason = strings.TrimPrefix(entry.Msg, "runc run failed: ")
		}
	}
	reason, _, _ = strings.Cut(reason, "\n")
	if reason == "" {
		return err
	}
	return causeError(reason)
}

// causeError finds the sentinel for what the runtime says. These are rare, since
// sandbox.ResolveCommand has looked before.
func causeError(reason string) error {
	for _, known := range []struct {
		text string
		err  error
	}{
		{"executable file not found", sandbox.ErrCommandNotFound},
		{"exec format error", sandbox.ErrCommandNotExecutable},
		{"chdir to cwd", sandbox.ErrNoWorkDir},
	} {
		if strings.Contains(reason, known.text) {
			return fmt.Errorf("%s: %w", reason, known.err)
		}
	}
	return errors.New(reason)
}

// discard removes what is left of a container.
func (e *Engine) discard(p *pod, b bundle) error {
	_, err := e.cgroups.remove(b.cgroup)
	return errors.Join(err, os.RemoveAll(filepath.Join(p.dir, runtimeDir, b.name)), os.RemoveAll(b.dir))
}

// terminal is where the runtime sends the terminal of a process to.
type terminal struct {
	dir    *os.File
	socket *runc.Socket
}

// listenForTerminal makes a socket in dir. Its path goes through a descriptor,
// because the direct one may be too long for a socket (unix(7)).
func listenForTerminal(dir string) (*terminal, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	socket, err := runc.NewConsoleSocket(fmt.Sprintf("/proc/%d/fd/%d/tty", os.Getpid(), d.Fd()))
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("listen for terminal: %w", err)
	}
	return &terminal{d, socket}, nil
}

// receive gives the terminal that the runtime has sent, such that closing it ends
// a Read that is under way: for that the descriptor must not block before os.File
// gets it.
func (t *terminal) receive() (console.Console, error) {
	sent, err := t.socket.ReceiveMaster()
	if err != nil {
		return nil, err
	}
	defer func() { _ = sent.Close() }() // the duplicate stays
	fd, err := unix.FcntlInt(sent.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return console.ConsoleFromFile(os.NewFile(uintptr(fd), "terminal"))
}

func (t *terminal) close() {
	_ = t.socket.Close()
	_ = t.dir.Close()
}

// owners are the owners of files before the runtime gave them to the user of the
// process, as it does with its standard files.
type owners map[*os.File]uint32

// attach gives the runtime the descriptors of the process.
func attach(cmd *exec.Cmd, p sandbox.Process) (owners, error) {
	before := owners{}
	for _, f := range []*os.File{p.Stdin, p.Stdout, p.Stderr} {
		if f == nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return nil, fmt.Errorf("stat %s: %w", f.Name(), err)
		}
		// A pipe has no name, so that nobody else can open it, and the process may want to
		// by /dev/stdout.
		if st.Mode&unix.S_IFMT != unix.S_IFIFO {
			before[f] = st.Uid
		}
	}
	// A nil *os.File in an interface is not a nil interface.
	if p.Stdin != nil {
		cmd.Stdin = p.Stdin
	}
	if p.Stdout != nil {
		cmd.Stdout = p.Stdout
	}
	if p.Stderr != nil {
		cmd.Stderr = p.Stderr
	}
	return before, nil
}

func (o owners) restore() error {
	for f, uid := range o {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return fmt.Errorf("stat %s: %w", f.Name(), err)
		}
		if st.Uid != uid {
			if err := unix.Fchown(int(f.Fd()), int(uid), -1); err != nil {
				return fmt.Errorf("give %s back: %w", f.Name(), err)
			}
		}
	}
	return nil
}

// wait waits for the process and records how it ended.
func (t *task) wait() {
	defer close(t.ended)
	state, err := t.process.Wait()
	if err != nil {
		t.exit, t.err = sandbox.Exit{Unknown: true}, fmt.Errorf("wait for process: %w", err)
		return
	}
	status := state.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		t.exit.Signal = status.Signal()
	} else {
		t.exit.Code = status.ExitStatus()
	}
}

// Wait implements sandbox.Task.
func (t *task) Wait(ctx context.Context) (sandbox.Exit, error) {
	select {
	case <-t.ended:
		return t.exit, t.err
	case <-ctx.Done():
	}
	select {
	case <-t.ended: // it counts when both have happened
		return t.exit, t.err
	default:
		return sandbox.Exit{}, ctx.Err()
	}
}

// Signal implements sandbox.Task.
func (t *task) Signal(_ context.Context, sig syscall.Signal) error {
	err := t.process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return sandbox.ErrExited
	}
	return err
}

// Console implements sandbox.Task.
func (t *task) Console() console.Console { return t.console }
