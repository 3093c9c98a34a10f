package layer

import (
	"errors"

	"golang.org/x/sys/unix"
)

// openBeneath cannot: O_RESOLVE_BENEATH follows links that lead to places beneath.
func openBeneath(int, string) (int, error) { return -1, unix.ENOSYS }

func chmodFifo(dir int, name string, mode uint32) error {
	return unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW)
}

// setXattrsAt cannot: extattr_set_link(2) takes only a path, on which links would
// be followed.
func setXattrsAt(_ int, _ string, do func(setXattr) error) error {
	return do(func(string, []byte) error { return unix.ENOTSUP })
}

// xattrRefused says whether the file system does not take such an attribute at
// all; golang.org/x/sys answers ENOATTR for namespaces other than user and system.
func xattrRefused(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOATTR)
}
