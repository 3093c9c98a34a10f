package jail

import (
	"cmp"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/self"
)

// Of sys/procctl.h and sys/cpuset.h.
const (
	procProtect        = 1        // PROC_SPROTECT
	protectInherit     = 1 | 0x20 // PPROT_SET, PPROT_INHERIT
	procNoNewPrivs     = 19       // PROC_NO_NEW_PRIVS_CTL
	procNoNewPrivsTell = 20       // PROC_NO_NEW_PRIVS_STATUS
	noNewPrivsEnable   = 1
	cpuLevelWhich      = 3
	cpuWhichJail       = 5
)

// procControl is procctl(2) for one process, whose argument is a number.
func procControl(pid, command int, value *int32) error {
	_, _, errno := unix.Syscall6(unix.SYS_PROCCTL, 0, uintptr(pid), uintptr(command), uintptr(unsafe.Pointer(value)), 0, 0) //nolint:gosec // no wrapper in x/sys
	if errno != 0 {
		return errno
	}
	return nil
}

// hostAbilities asks the kernel.
func hostAbilities() (a abilities) {
	on, err := unix.SysctlRaw("kern.racct.enable")
	a.racct = err == nil && len(on) > 0 && on[0] != 0
	var status int32
	a.noNewPrivileges = procControl(os.Getpid(), procNoNewPrivsTell, &status) == nil
	a.processors = runtime.NumCPU()
	if n, err := unix.SysctlUint32("hw.ncpu"); err == nil {
		a.processors = int(n)
	}
	return a
}

// rctl does a system call of rctl(8)'s with a rule or filter. What the kernel answers is
// written to out.
func rctl(trap uintptr, text string, out []byte) error {
	in := append([]byte(text), 0)
	var to uintptr
	if len(out) > 0 {
		to = uintptr(unsafe.Pointer(&out[0])) //nolint:gosec // no wrapper in x/sys
	}
	_, _, errno := unix.Syscall6(trap, uintptr(unsafe.Pointer(&in[0])), uintptr(len(in)), to, uintptr(len(out)), 0, 0) //nolint:gosec // no wrapper in x/sys
	runtime.KeepAlive(out)
	if errno != 0 {
		return errno
	}
	return nil
}

// apply sets the limits of a pod, whose jail has no process yet.
func (p *pod) apply() error {
	for _, rule := range p.plan.rules {
		if err := rctl(unix.SYS_RCTL_ADD_RULE, rule, nil); err != nil {
			return fmt.Errorf("limit %s: %w", rule, err)
		}
	}
	if len(p.plan.processors) == 0 {
		return nil
	}
	size, err := unix.SysctlUint32("kern.sched.cpusetsize")
	if err != nil {
		return fmt.Errorf("kern.sched.cpusetsize: %w", err)
	}
	mask := cpuMask(p.plan.processors, int(size))
	_, _, errno := unix.Syscall6(unix.SYS_CPUSET_SETAFFINITY, cpuLevelWhich, cpuWhichJail, uintptr(p.jid), uintptr(size), uintptr(unsafe.Pointer(&mask[0])), 0) //nolint:gosec // no wrapper in x/sys
	if errno != 0 {
		return fmt.Errorf("bind jail to processors %v: %w", p.plan.processors, errno)
	}
	return nil
}

// removeRules removes the rules of a pod: they would outlive it.
func removeRules(podID string) error {
	all, err := rules(":")
	if err != nil {
		return err
	}
	for _, rule := range all {
		if !ruleOf(rule, podID) {
			continue
		}
		if err := rctl(unix.SYS_RCTL_REMOVE_RULE, rule, nil); err != nil && !errors.Is(err, unix.ESRCH) { // by another Destroy
			return fmt.Errorf("remove resource limit %s: %w", rule, err)
		}
	}
	return nil
}

// rules lists those that match a filter, as rctl(8) does.
func rules(filter string) ([]string, error) {
	for size := 4 << 10; ; size *= 4 {
		out := make([]byte, size)
		err := rctl(unix.SYS_RCTL_GET_RULES, filter, out)
		switch {
		case errors.Is(err, unix.ERANGE):
			continue
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("list resource limits: %w", err)
		}
		return strings.FieldsFunc(unix.ByteSliceToString(out), func(r rune) bool { return r == ',' }), nil
	}
}

// launch is what a process does to itself before it executes a program, where
// syscall.SysProcAttr does not know how: it is a re-executed jetpack, outside the jail.
type launch struct {
	JID             int
	Root            string
	Dir             string
	UID, GID        int
	Groups          []int
	Class           string
	NoNewPrivileges bool
	Command         string
	Args, Env       []string
}

const launchName = "jetpack-launch"

// A launch has two descriptors behind those of the process: for its report, and for its
// order, which is not among its arguments, since other users of the host see those (ps(1)).
// Its only argument is the number of the first.
func init() {
	reexec.Register(launchName, func() {
		report, err := strconv.Atoi(os.Args[1])
		if err != nil {
			os.Exit(1) // nobody can be told
		}
		order := report + 1
		unix.CloseOnExec(report)
		unix.CloseOnExec(order)
		err = launchMain(os.NewFile(uintptr(order), "order"))
		var errno syscall.Errno
		errors.As(err, &errno)
		fmt.Fprintf(os.NewFile(uintptr(report), "report"), "%d %v", errno, err) // nobody is there to read it if that fails
		os.Exit(1)
	})
}

// launchMain returns only on failure.
func launchMain(order io.Reader) error {
	var l launch
	if err := gob.NewDecoder(order).Decode(&l); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	// What it has of the host no process of the pod may look into (own).
	how := int32(traceDisableTillExec)
	if err := procControl(os.Getpid(), procTraceControl, &how); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("forbid tracing: %w", err)
	}
	if l.Class != "" {
		name := append([]byte(l.Class), 0)
		if _, _, errno := unix.Syscall(unix.SYS_SETLOGINCLASS, uintptr(unsafe.Pointer(&name[0])), 0, 0); errno != 0 { //nolint:gosec // no wrapper in x/sys
			return fmt.Errorf("set login class: %w", errno)
		}
	}
	if l.NoNewPrivileges {
		on := int32(noNewPrivsEnable)
		if err := procControl(os.Getpid(), procNoNewPrivs, &on); err != nil {
			return fmt.Errorf("give up new privileges: %w", err)
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_JAIL_ATTACH, uintptr(l.JID), 0, 0); errno != 0 {
		return fmt.Errorf("attach to jail: %w", errno)
	}
	for _, step := range []func() error{
		func() error { return syscall.Chroot(l.Root) },
		func() error { return syscall.Setgroups(l.Groups) },
		func() error { return syscall.Setgid(l.GID) },
		func() error { return syscall.Setuid(l.UID) },
		func() error { return syscall.Chdir(l.Dir) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return syscall.Exec(l.Command, l.Args, l.Env)
}

// startLaunch starts a process through a launch and returns once it executes the program.
// attr is for the launch: its files and its session.
func startLaunch(l launch, attr *os.ProcAttr) (_ *os.Process, err error) {
	program, err := self.Path(launchName)
	if err != nil {
		return nil, err
	}
	report, theirReport, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = report.Close() }() // it was only read
	theirOrder, order, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirReport.Close())
	}
	own, sys := *attr, *attr.Sys
	sys.Jail, sys.Chroot, sys.Credential = 0, "", nil
	own.Dir, own.Env, own.Sys = "/", []string{}, &sys // nothing of the app's is to steer it
	own.Files = slices.Concat(attr.Files, []*os.File{theirReport, theirOrder})
	process, err := os.StartProcess(program, []string{launchName, strconv.Itoa(len(attr.Files))}, &own)
	if err := errors.Join(err, theirReport.Close(), theirOrder.Close()); err != nil {
		return nil, errors.Join(err, order.Close())
	}
	// If it does not read that, it says why.
	_ = gob.NewEncoder(order).Encode(l)
	_ = order.Close()
	answer := make([]byte, 4096)
	n, _ := report.Read(answer) // nothing: it was executed, or killed, which Wait will tell
	if n == 0 {
		return process, nil
	}
	_, waitErr := process.Wait()
	number, reason, _ := strings.Cut(string(answer[:n]), " ")
	if errno, err := strconv.Atoi(number); err == nil && errno > 0 {
		return nil, errors.Join(syscall.Errno(errno), waitErr)
	}
	return nil, errors.Join(errors.New(reason), waitErr)
}

// protect spares a process and its descendants when memory is short (protect(1)).
func protect(pid int) error {
	how := int32(protectInherit)
	if err := procControl(pid, procProtect, &how); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("protect process %d: %w", pid, err)
	}
	return nil
}

// launchFor is the launch that a process needs, which sys would do without one.
func launchFor(a appPlan, sys *syscall.SysProcAttr, command string, process sandbox.Process) launch {
	l := launch{
		JID: sys.Jail, Root: cmp.Or(sys.Chroot, "/"), Dir: process.Dir, UID: int(process.UID), GID: int(process.GID),
		Class: a.class, NoNewPrivileges: a.noNewPrivileges, Command: command, Args: process.Args, Env: process.Env,
	}
	for _, g := range sys.Credential.Groups {
		l.Groups = append(l.Groups, int(g))
	}
	return l
}
