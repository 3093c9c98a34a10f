package jail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/descriptors"
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

// starting has one process at a time looked for and started. The former opens directories, and
// the latter fails as long as one is open: many at once would keep each other from it.
var starting sync.Mutex

// start runs a process of the pod. The child attaches itself to the jail, changes
// its root to the app's, gives up its privileges and executes the program, all of
// it in the order of syscall.SysProcAttr.
func (p *pod) start(process sandbox.Process) (_ *task, err error) {
	i := slices.IndexFunc(p.spec.Apps, func(a sandbox.App) bool { return a.Name == process.App })
	if i < 0 {
		return nil, fmt.Errorf("app %s: %w", process.App, sandbox.ErrNotFound)
	}
	app := p.spec.Apps[i]
	starting.Lock()
	defer starting.Unlock()
	command, err := sandbox.ResolveCommand(app, process)
	if err != nil {
		return nil, err
	}
	lock, err := p.enter(0)
	if err != nil {
		return nil, err
	}
	// The child has a copy until it executes the program, which gives the lock back.
	defer func() { _ = lock.Close() }()

	// setgroups(2) before FreeBSD 15 takes the first group for the effective one.
	groups := append([]uint32{process.GID}, process.Groups...)
	attr := &os.ProcAttr{
		Dir: process.Dir,
		Env: process.Env,
		Sys: &syscall.SysProcAttr{
			Jail:       p.jid,
			Chroot:     AppRoot("/", app.Name),
			Credential: &syscall.Credential{Uid: process.UID, Gid: process.GID, Groups: groups},
			Setsid:     true,
			Pdeathsig:  syscall.SIGKILL, // not that of its descendants
		},
	}
	if jid, own := p.own[app.Name]; own {
		attr.Sys.Jail, attr.Sys.Chroot = jid, ""
	}
	t := &task{ended: make(chan struct{})}
	if process.Terminal {
		tty, err := t.openTerminal(process)
		if err != nil {
			return nil, err
		}
		defer func() { _ = tty.Close() }() // the child's copies stay
		attr.Files = []*os.File{tty, tty, tty}
		attr.Sys.Setctty = true
	} else {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		defer func() { _ = null.Close() }()
		for _, f := range []*os.File{process.Stdin, process.Stdout, process.Stderr} {
			if f == nil {
				f = null
			}
			attr.Files = append(attr.Files, f)
		}
	}
	attr.Files = append(attr.Files, process.Files...)
	limits := p.plan.apps[app.Name]
	err = retryNotPermitted(func() (err error) {
		if limits.class != "" || limits.noNewPrivileges {
			t.process, err = startLaunch(launchFor(limits, attr.Sys, command, process), attr)
		} else {
			t.process, err = os.StartProcess(command, process.Args, attr)
		}
		return err
	})
	if err == nil && limits.protect {
		if err = protect(t.process.Pid); err != nil {
			_ = t.process.Kill()
			_, _ = t.process.Wait()
		}
	}
	if err != nil {
		if t.console != nil {
			_ = t.console.Close()
		}
		return nil, cause(app, command, process, err)
	}
	p.tasks.Go(t.wait)
	return t, nil
}

// retryNotPermitted tries again for a while: chroot(2) in a jail fails while this
// process has any directory open, which the child has as well.
func retryNotPermitted(start func() error) (err error) {
	for range 200 {
		if err = start(); !errors.Is(err, unix.EPERM) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

// cause finds the sentinel for what the kernel says. These are rare, since
// sandbox.ResolveCommand has looked before.
func cause(app sandbox.App, command string, process sandbox.Process, err error) error {
	switch {
	case errors.Is(err, unix.ENOEXEC) && app.OS == "linux":
		return fmt.Errorf("%s: %w: a static program without a note of its system needs 'sysctl kern.elf64.fallback_brand=3'", command, sandbox.ErrCommandNotExecutable)
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%s: exec format error: %w", command, sandbox.ErrCommandNotExecutable)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s: %w", command, sandbox.ErrCommandNotFound)
	case errors.Is(err, unix.EACCES):
		// Of the program as well as of the directory, which the user enters.
		return fmt.Errorf("%s in %s: permission denied: %w", command, process.Dir, sandbox.ErrCommandNotExecutable)
	case errors.Is(err, unix.EINVAL):
		return sandbox.ErrNotFound // the jail is gone
	}
	return fmt.Errorf("%s: %w", command, err)
}

// openTerminal makes the terminal of a process: t.console is our side of it, what
// is returned the process's. The user may open it by name as well.
func (t *task) openTerminal(process sandbox.Process) (_ *os.File, err error) {
	fd, _, errno := unix.Syscall(unix.SYS_POSIX_OPENPT, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("open terminal: %w", errno)
	}
	// So that closing it ends a Read that is under way (os.File).
	if err := unix.SetNonblock(int(fd), true); err != nil {
		return nil, errors.Join(err, unix.Close(int(fd)))
	}
	ours := os.NewFile(fd, "terminal")
	defer func() {
		if err != nil {
			_ = ours.Close()
		}
	}()
	n, err := unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
	if err != nil {
		return nil, fmt.Errorf("name of terminal: %w", err)
	}
	theirs, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = theirs.Close()
		}
	}()
	if err := theirs.Chown(int(process.UID), int(process.GID)); err != nil {
		return nil, err
	}
	if t.console, err = console.ConsoleFromFile(ours); err != nil {
		return nil, err
	}
	return theirs, t.console.Resize(process.Size)
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
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, unix.ESRCH) {
		return sandbox.ErrExited
	}
	return err
}

// Console implements sandbox.Task.
func (t *task) Console() console.Console { return t.console }

// Of sys/procctl.h and sys/sysctl.h.
const (
	procTraceControl     = 7 // PROC_TRACE_CTL
	traceDisableTillExec = 3 // PROC_TRACE_CTL_DISABLE_EXEC
)

// own prepares this process for owning pods.
func own() error {
	// Until it executes the program, a child in the jail has what this process has: no
	// process of the pod may trace it (FreeBSD-SA-21:05.jail_chdir).
	how := int32(traceDisableTillExec)
	_, _, errno := unix.Syscall6(unix.SYS_PROCCTL, 0, uintptr(os.Getpid()), procTraceControl, uintptr(unsafe.Pointer(&how)), 0, 0) //nolint:gosec // no wrapper in x/sys
	if errno != 0 && errno != unix.EBUSY {                                                                                         // somebody traces this process, who may
		return fmt.Errorf("forbid tracing: %w", errno)
	}
	// A signal that is ignored (nohup(1), "&" in sh) would be ignored by every
	// process of the pods as well (execve(2)); one that is caught is not.
	for sig := syscall.Signal(1); sig < 32; sig++ {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	// Like these: Go has nowhere to say what a child is to get.
	unix.Umask(0o022)
	return keepInherited()
}

// keepInherited keeps the descriptors that this process was started with from the
// pods' processes. Directories are replaced by /dev/null: as long as one is open, be it
// standard input, nothing can be started (see retryNotPermitted).
func keepInherited() error {
	fds, err := descriptors.Inherited(0)
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = errors.Join(err, replaceByNull(fd))
		}
		if fd > unix.Stderr {
			unix.CloseOnExec(fd)
		}
	}
	return err
}

func replaceByNull(fd int) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Dup2(int(null.Fd()), fd), null.Close())
}

// hasModule tells whether the kernel has a module, by the name that kldstat -v shows.
func hasModule(name string) bool {
	b := append([]byte(name), 0)
	_, _, errno := unix.Syscall(unix.SYS_MODFIND, uintptr(unsafe.Pointer(&b[0])), 0, 0) //nolint:gosec // no wrapper in x/sys
	return errno == 0
}
