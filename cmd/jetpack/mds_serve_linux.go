package main

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// open and creat have numbers on amd64 only.
const amd64Open, amd64Creat = 2, 85

// abroad are the system calls that the service has no use for once all is open: they reach
// files, programs and other processes, or make connections.
var abroad = []uint32{
	unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_EXECVE, unix.SYS_EXECVEAT,
	unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_PIDFD_GETFD, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_BPF, unix.SYS_IO_URING_SETUP,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
}

// confineMDS has the kernel refuse such calls with EPERM (seccomp(2)), as capability mode does on
// FreeBSD. Who is not root any more has no capabilities to give up.
func confineMDS() error {
	arch, calls := uint32(unix.AUDIT_ARCH_AARCH64), abroad
	switch runtime.GOARCH {
	case "arm64":
	case "amd64":
		arch, calls = unix.AUDIT_ARCH_X86_64, append([]uint32{amd64Open, amd64Creat}, abroad...)
	default:
		return nil
	}
	filter := refuse(arch, calls)
	// Both are of this thread; the second makes them all threads'.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))) //nolint:gosec // the kernel's interface
	if errno != 0 && errno != unix.ENOSYS && errno != unix.EINVAL {                                                                                // a kernel without filters
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}

// refuse is a filter in classic BPF for struct seccomp_data: calls fail, as do those of
// amd64's x32 ABI, whose numbers have bit 30 set; one by another architecture kills.
func refuse(arch uint32, calls []uint32) []unix.SockFilter {
	const number, architecture = 0, 4 // offsets
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	verdict := func(v uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v}
	}
	filter := []unix.SockFilter{
		load(architecture),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: arch, Jt: 1},
		verdict(unix.SECCOMP_RET_KILL_PROCESS),
		load(number),
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: 1 << 30, Jt: uint8(len(calls) + 1)},
	}
	for i, call := range calls {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jt: uint8(len(calls) - i)})
	}
	return append(filter, verdict(unix.SECCOMP_RET_ALLOW), verdict(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM)))
}
