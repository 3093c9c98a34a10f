package treecmp

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/xattr"
)

// openIn opens an entry of a directory; EXDEV when something is mounted there, also
// from the same file system, which st_dev would not tell.
func openIn(dir int, name string, flags int) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags: uint64(flags), Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
}

// overlayAttr are the attributes in which overlayfs keeps its own state.
const overlayAttr = "trusted.overlay."

// attributes are those of an entry, which is not opened: the path leads through the
// descriptor of its directory and ends there.
type attributes struct{ path string }

func openAttributes(n *node) (attributes, error) {
	return attributes{fmt.Sprintf("/proc/self/fd/%d/%s", n.dir.Fd(), n.name)}, nil
}

func (attributes) close() error { return nil }

// names lists the attributes, sorted; none if the file system has none.
func (x attributes) names() ([]string, error) {
	names, err := xattr.Names(x.path)
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, overlayAttr) }), err
}

func (x attributes) value(name string) ([]byte, error) { return xattr.Value(x.path, name) }
