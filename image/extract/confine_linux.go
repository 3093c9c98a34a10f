package extract

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capabilities are what making files of any owner and mode takes
// (capabilities(7)). CAP_SYS_ADMIN is not among them, so attributes in trusted are
// left out with a warning, and CAP_MKNOD is not, since devices are never made.
const capabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID |
	1<<unix.CAP_SETFCAP

// dropPrivileges gives up all capabilities but those above, for ever. In a program
// that uses cgo it can do so for its own thread only, and keeps to it.
func dropPrivileges() error {
	runtime.LockOSThread()
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := new([2]unix.CapUserData) // the second is for capabilities from 32 on
	if err := unix.Capget(header, &data[0]); err != nil {
		return fmt.Errorf("get capabilities: %w", err)
	}
	few := data[0].Permitted & capabilities
	*data = [2]unix.CapUserData{{Effective: few, Permitted: few}}
	//nolint:gosec // the kernel's interface: both stay alive until the end
	err := onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)))
	runtime.KeepAlive(header)
	runtime.KeepAlive(data)
	if err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// onAllThreads makes a system call that concerns the thread that makes it.
func onAllThreads(call, a, b uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(call, a, b, 0, 0, 0, 0)
	if errno == syscall.ENOTSUP { // cgo
		_, _, errno = syscall.RawSyscall6(call, a, b, 0, 0, 0, 0)
	}
	if errno != 0 {
		return errno
	}
	return nil
}
