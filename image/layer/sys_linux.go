package layer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// chmodFifo goes through an O_PATH descriptor, which opens nothing:
// fchmodat2(2), which would not follow links, is new in Linux 6.6.
func chmodFifo(dir int, name string, mode uint32) (err error) {
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if fileType(&st) != unix.S_IFIFO {
		return unix.EEXIST
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}

// setXattrAt sets an attribute of name in dir, which is neither opened nor followed.
func setXattrAt(dir int, name, attr string, value []byte) error {
	return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name), attr, value, 0)
}

// xattrRefused says whether the file system does not take such an attribute at
// all: attributes of users are not for links and fifos (EPERM, xattr(7)).
func xattrRefused(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM)
}
