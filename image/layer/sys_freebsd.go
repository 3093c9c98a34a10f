package layer

import (
	"archive/tar"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/xattr"
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

// maxXattrs is what the attributes of a file may take, in bytes. ZFS keeps some 64 KiB
// with the file; others are files in a hidden directory, which cannot be reached in
// capability mode: the attempt (OpenZFS 2.1) leaves the file system busy for ever.
const maxXattrs = 32 << 10

// xattrUnfit says why an attribute is not to be set, if so; size is what those of the
// file would take with it. In the namespace of the system are access control lists, as
// the kernel has them in memory.
func xattrUnfit(name string, size int) string {
	switch {
	case !strings.HasPrefix(name, "user."):
		return "only those of users are"
	case size > maxXattrs:
		return "the file has too many, or too large ones"
	}
	return ""
}

// xattrRefused says whether the file system does not take such an attribute at
// all; golang.org/x/sys answers ENOATTR for namespaces other than user and system.
func xattrRefused(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOATTR)
}

// readXattrs gives an entry the attributes of base in dir, if it is a directory or
// a regular file: setXattrsAt says why no other has any.
func readXattrs(hdr *tar.Header, dir int, base string) error {
	if hdr.Typeflag != tar.TypeReg && hdr.Typeflag != tar.TypeDir {
		return nil
	}
	fd, err := openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeDir(fd)
	return xattrsOf{
		names: func() ([]string, error) { return xattr.NamesAt(fd) },
		value: func(name string) ([]byte, error) { return xattr.ValueAt(fd, name) },
	}.addTo(hdr)
}

// isPortable: attributes of users. In the namespace of the system are access control
// lists, as the kernel has them in memory.
func isPortable(name string) bool {
	return strings.HasPrefix(name, "user.") && !strings.Contains(name, ".overlay.")
}
