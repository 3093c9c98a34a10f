package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/xattr"
)

// openBeneath opens a directory below an open one if there is no link on the way,
// in one go: an archive may leave and enter directories that are 500 levels deep
// with every entry. After any error there is the way on foot, which is also that of
// kernels before Linux 5.6.
func openBeneath(root int, name string) (int, error) {
	return unix.Openat2(root, name, &unix.OpenHow{
		Flags:   dirFlags,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// chmodFifo does not follow links with fchmodat2(2); before Linux 6.6, which lacks
// that, the name must not have become one since it was made.
func chmodFifo(dir int, name string, mode uint32) error {
	err := unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return unix.Fchmodat(dir, name, mode, 0)
	}
	return err
}

// setXattrsAt calls do with what sets an attribute of name in dir, which is neither
// opened nor followed. setxattrat(2) is new in Linux 6.13, and the root may be one
// without /proc, so a thread goes there and ends with the goroutine.
func setXattrsAt(dir int, name string, do func(setXattr) error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Fchdir(dir)
		}
		if err == nil {
			err = do(func(attr string, value []byte) error { return unix.Lsetxattr(name, attr, value, 0) })
		}
		result <- err
	}()
	return <-result
}

// xattrUnfit says why an attribute is not to be set; here the kernel decides.
func xattrUnfit(string, int) string { return "" }

// xattrRefused says whether the file system does not take such an attribute at
// all: attributes of users are not for links and fifos (EPERM, xattr(7)), and
// those in trusted and most in security need more privileges than applying a
// layer does otherwise.
func xattrRefused(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM)
}

// readXattrs gives an entry the attributes of base in dir, which is not opened: the
// path leads through the descriptor of its directory and ends there.
func readXattrs(hdr *tar.Header, dir int, base string) error {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir, base)
	return xattrsOf{
		names: func() ([]string, error) { return xattr.Names(path) },
		value: func(name string) ([]byte, error) { return xattr.Value(path, name) },
	}.addTo(hdr)
}

// isPortable: attributes of users, capabilities and access control lists (xattr(7),
// capabilities(7), acl(5)). The others are labels of this host, or the state of a
// file system.
func isPortable(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.Contains(name, ".overlay.")
}
