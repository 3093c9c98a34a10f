package probe

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempts are what root in a pod must not be able to do.
var attempts = map[string]func() error{
	"mount tmpfs":          func() error { return unix.Mount("x", "/tmp", "tmpfs", 0, "") },
	"remount root":         func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "") },
	"unmount /proc":        func() error { return unix.Unmount("/proc", unix.MNT_DETACH) },
	"make block device":    func() error { return unix.Mknod("/tmp/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))) },
	"make kmem":            func() error { return unix.Mknod("/tmp/kmem", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 2))) },
	"trace process 1":      func() error { return unix.PtraceAttach(1) },
	"root of process 1":    func() error { _, err := os.ReadDir("/proc/1/root/"); return err },
	"files of process 1":   func() error { _, err := os.Open("/proc/1/fd/0"); return err },
	"program of process 1": func() error { _, err := os.ReadFile("/proc/1/exe"); return err },
	"set host name":        func() error { return unix.Sethostname([]byte("mine")) },
	"set clock":            func() error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) },
	"new user namespace":   func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"new namespaces":       func() error { return unix.Unshare(unix.CLONE_NEWNS) },
	"raw socket":           func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); return err },
	"write sysctl":         func() error { return os.WriteFile("/proc/sys/kernel/core_pattern", []byte("|/x"), 0) },
	"trigger sysrq":        func() error { return os.WriteFile("/proc/sysrq-trigger", []byte("h"), 0) },
	"read kernel memory":   func() error { return readSome("/proc/kcore") },
	"read keys":            func() error { return readSome("/proc/keys") },
	"write sysfs":          func() error { return os.WriteFile("/sys/kernel/uevent_helper", []byte("/x"), 0) },
	"make cgroup":          func() error { return makeCgroup() },
	"load module":          func() error { return unix.InitModule([]byte{0}, "") },
	"kernel keyring":       func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); return err },
	"open by handle":       openByHandle,
	"push input":           pushInput,
}

// readSome fails also when there is nothing to read: masked files are empty.
func readSome(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 1))
	return err
}

func makeCgroup() error {
	entries, err := os.ReadDir("/sys/fs/cgroup")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err = os.Mkdir("/sys/fs/cgroup/"+e.Name()+"/mine", 0o755); err == nil {
				return nil
			}
		}
	}
	return fmt.Errorf("none: %w", err)
}

func openByHandle() error {
	h, mount, err := unix.NameToHandleAt(unix.AT_FDCWD, "/", 0)
	if err != nil {
		return err
	}
	_, err = unix.OpenByHandleAt(mount, h, unix.O_RDONLY)
	return err
}

// pushInput types into the terminal that standard input may be (TIOCSTI).
func pushInput() error {
	char := byte('x')
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&char)))
	if errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

const shmFile = "/dev/shm/probe"

func putShm(text string) error { return os.WriteFile(shmFile, []byte(text), 0o600) }

func getShm() ([]byte, error) { return os.ReadFile(shmFile) }
