package zfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	loadCommand = "kldload zfs"
	installHint = "it is part of the base system"
)

// systemProperties are those of a kind that this system needs: without xattr=sa an
// extended attribute is a file in a hidden directory, which nobody can reach in
// capability mode. zfsprops(7), capsicum(4).
var systemProperties = map[string]string{"xattr": "sa"}

// attach mounts a dataset or a snapshot with nmount(2). The kernel goes by the
// properties of the dataset. MNT_IGNORE keeps the mounts of pods out of df(1).
func attach(source, target string, readOnly bool) error {
	flags := unix.MNT_IGNORE
	if readOnly {
		flags |= unix.MNT_RDONLY
	}
	message := make([]byte, 256)
	var iov []unix.Iovec
	add := func(name string, value []byte) {
		key := append([]byte(name), 0)
		iov = append(iov,
			unix.Iovec{Base: &key[0], Len: uint64(len(key))},
			unix.Iovec{Base: &value[0], Len: uint64(len(value))})
	}
	add("fstype", []byte("zfs\x00"))
	add("fspath", append([]byte(target), 0))
	add("from", append([]byte(source), 0))
	add("errmsg", message)
	_, _, errno := unix.Syscall(unix.SYS_NMOUNT, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)), uintptr(flags)) //nolint:gosec // no wrapper in x/sys
	runtime.KeepAlive(iov)
	text := unix.ByteSliceToString(message)
	// The kernel takes any absence for that of the file system (vfs_donmount in
	// vfs_mount.c), and here it is that of the dataset.
	if errno == unix.EINVAL && text == "Invalid fstype" {
		errno, text = unix.ENOENT, ""
	}
	if errno != 0 {
		err := &os.PathError{Op: "mount zfs on", Path: target, Err: errno}
		if text != "" {
			return fmt.Errorf("%w (%s)", err, text)
		}
		return err
	}
	return nil
}

func detach(target string) error {
	if err := unix.Unmount(target, 0); err != nil {
		return &os.PathError{Op: "unmount", Path: target, Err: err}
	}
	return nil
}

// isMountpoint tells whether something is mounted on path, which is absolute and
// without symbolic links. A path that does not exist is none.
func isMountpoint(path string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return unix.ByteSliceToString(st.Mntonname[:]) == path, nil
}

// isMounted tells whether dir, open at path, is what is mounted there.
func isMounted(dir *os.File, path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return unix.ByteSliceToString(st.Mntonname[:]) == path, nil
}

// isReadOnly tells how path is mounted.
func isReadOnly(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return st.Flags&unix.MNT_RDONLY != 0, nil
}
