package probe

import (
	"bytes"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempts are what root in a pod must not be able to do.
var attempts = map[string]func() error{
	"make device":        func() error { return unix.Mknod("/tmp/kmem", unix.S_IFCHR|0o600, 2) },
	"unmount root":       func() error { return unix.Unmount("/", unix.MNT_FORCE) },
	"trace process 1":    func() error { return unix.PtraceAttach(1) },
	"set clock":          func() error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) },
	"raw socket":         func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); return err },
	"read kernel memory": func() error { _, err := os.Open("/dev/mem"); return err },
}

// shmPath names a POSIX shared memory object (shm_open(2)), which is no file.
var shmPath = append([]byte("/probe"), 0)

func openShm(flags int) (*os.File, error) {
	fd, _, errno := unix.Syscall(unix.SYS_SHM_OPEN, uintptr(unsafe.Pointer(&shmPath[0])), uintptr(flags), 0o600)
	if errno != 0 {
		return nil, errno
	}
	return os.NewFile(fd, "shm"), nil
}

func putShm(text string) error {
	f, err := openShm(unix.O_RDWR | unix.O_CREAT)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return err
}

func getShm() ([]byte, error) {
	f, err := openShm(unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, 4096)
	n, err := f.Read(data)
	return bytes.TrimRight(data[:n], "\x00"), err
}
