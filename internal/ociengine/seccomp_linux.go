package ociengine

import (
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// defaultSeccomp is the containers' default profile for a set of capabilities, less
// the x32 ABI: hardly a kernel has it, and the runtime takes milliseconds for its
// rules. System calls of an ABI that the profile does not have are fatal.
func defaultSeccomp(capabilities []string) (*specs.LinuxSeccomp, error) {
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}},
	})
	if err != nil {
		return nil, err
	}
	profile.Architectures = slices.DeleteFunc(profile.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
	return profile, nil
}

// Groups of system calls. The first two are of the appc specification; the others are
// rkt's names for what the default profile allows, and what it does not.
const (
	groupAll   = "@appc.io/all"
	groupEmpty = "@appc.io/empty"
)

var (
	groupsAllowed = []string{"@docker/default-whitelist", "@rkt/default-whitelist"}
	groupsDenied  = []string{"@docker/default-blacklist", "@rkt/default-blacklist"}
)

// runtimeCalls are what the runtime itself does between the making of the filter and
// the execution of the program, and what every program needs to end (appc spec, ace.md:
// the minimum set required for app life-cycle).
var runtimeCalls = []string{
	"brk", "capget", "capset", "chdir", "clock_gettime", "close", "close_range", "dup3", "epoll_ctl", "epoll_pwait",
	"execve", "exit", "exit_group", "faccessat", "faccessat2", "fchdir", "fchown", "fcntl", "fstat", "fstatfs", "futex", "getcwd",
	"getdents64", "getgid", "getpid", "getppid", "gettid", "getuid", "lseek", "lstat", "madvise", "mmap",
	"mprotect", "munmap", "nanosleep", "newfstatat", "openat", "openat2", "prctl", "pread64", "read", "readlinkat",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "setgid", "setgroups", "setuid",
	"sigaltstack", "stat", "statfs", "tgkill", "umask", "write",
}

// restrict applies an isolator to the filter of the profile. One of an image only takes
// from it. The operator's retain-set is put in its place; nil is no filter. detail says
// where the result is not what the isolator asks for.
func restrict(base *specs.LinuxSeccomp, is sandbox.Isolator) (filter *specs.LinuxSeccomp, detail string) {
	set := is.Value.(sandbox.Set)
	retain := is.Name == sandbox.SeccompRetain
	var calls, unknown []string
	var allowed, all, empty bool
	for _, name := range set.Names {
		switch {
		case !strings.HasPrefix(name, "@"):
			calls = append(calls, name)
		case name == groupAll && retain:
			all = true
		case name == groupEmpty && !retain:
			empty = true
		case slices.Contains(groupsAllowed, name) && retain:
			allowed = true
		case slices.Contains(groupsDenied, name) && !retain: // the profile has removed them
		default:
			unknown = append(unknown, name)
		}
	}
	action, errno, ok := denial(set.Errno)
	var details []string
	if !ok {
		details = append(details, set.Errno+" is unknown here: EPERM")
	}
	if len(unknown) > 0 {
		details = append(details, "unknown: "+strings.Join(unknown, " "))
	}
	switch {
	case all && !is.Image:
		return nil, ""
	case all:
		return base, "the filter of the profile stays"
	case empty:
		return base, ""
	case retain:
		filter = retainCalls(base, append(calls, runtimeCalls...), allowed, is.Image)
		filter.DefaultAction, filter.DefaultErrnoRet = action, errno
	default:
		filter = withoutCalls(base, calls)
		if len(calls) > 0 {
			filter.Syscalls = append(filter.Syscalls, specs.LinuxSyscall{Names: calls, Action: action, ErrnoRet: errno})
		}
	}
	return filter, strings.Join(details, "; ")
}

// retainCalls is the filter that allows only some calls: those of an image, and a group's
// beside others, as far and under the conditions that base has.
func retainCalls(base *specs.LinuxSeccomp, calls []string, group, image bool) *specs.LinuxSeccomp {
	filter := &specs.LinuxSeccomp{Architectures: base.Architectures}
	keep := func(name string) bool { return group || slices.Contains(calls, name) }
	if !image {
		filter.Syscalls = []specs.LinuxSyscall{{Names: calls, Action: specs.ActAllow}}
		if !group {
			return filter
		}
		keep = func(name string) bool { return !slices.Contains(calls, name) }
	}
	for _, rule := range base.Syscalls {
		rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(name string) bool { return !keep(name) })
		if len(rule.Names) > 0 {
			filter.Syscalls = append(filter.Syscalls, rule)
		}
	}
	return filter
}

// withoutCalls is a copy of a filter without the rules for some calls.
func withoutCalls(base *specs.LinuxSeccomp, calls []string) *specs.LinuxSeccomp {
	filter := *base
	filter.Syscalls = nil
	for _, rule := range base.Syscalls {
		rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(name string) bool { return slices.Contains(calls, name) })
		if len(rule.Names) > 0 {
			filter.Syscalls = append(filter.Syscalls, rule)
		}
	}
	return &filter
}

// aliases are names of errors that have another one as well.
var aliases = map[string]unix.Errno{"EOPNOTSUPP": unix.EOPNOTSUPP, "ENOTSUP": unix.ENOTSUP, "EWOULDBLOCK": unix.EWOULDBLOCK, "EDEADLOCK": unix.EDEADLOCK}

// denial is what becomes of a call that is not allowed: an error, or without one the
// end by SIGSYS. ok is false for an error that Linux does not have, for which there is EPERM.
func denial(name string) (action specs.LinuxSeccompAction, errno *uint, ok bool) {
	if name == "" {
		return specs.ActKillProcess, nil, true
	}
	n, ok := aliases[name]
	for e := unix.Errno(1); !ok && e < 4096; e++ {
		if unix.ErrnoName(e) == name {
			n, ok = e, true
		}
	}
	if !ok {
		n = unix.EPERM
	}
	value := uint(n)
	return specs.ActErrno, &value, ok
}
