package layer

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// chmodFifo does not follow links with fchmodat2(2); before Linux 6.6, which lacks
// that, the name must not have become one since it was made.
func chmodFifo(dir int, name string, mode uint32) error {
	err := unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return unix.Fchmodat(dir, name, mode, 0)
	}
	return err
}

// setXattrAt sets an attribute of name in dir, which is neither opened nor
// followed. setxattrat(2) is new in Linux 6.13, and the root may be one without
// /proc, so a thread goes there and ends with the goroutine.
func setXattrAt(dir int, name, attr string, value []byte) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Fchdir(dir)
		}
		if err == nil {
			err = unix.Lsetxattr(name, attr, value, 0)
		}
		result <- err
	}()
	return <-result
}

// xattrRefused says whether the file system does not take such an attribute at
// all: attributes of users are not for links and fifos (EPERM, xattr(7)), and
// those in trusted and most in security need more privileges than applying a
// layer does otherwise.
func xattrRefused(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM)
}
