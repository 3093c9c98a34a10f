package treecmp

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
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
	list, err := fill(func(buf []byte) (int, error) { return unix.Llistxattr(x.path, buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	var names []string
	for name := range bytes.SplitSeq(list, []byte{0}) {
		if len(name) > 0 && !strings.HasPrefix(string(name), overlayAttr) {
			names = append(names, string(name))
		}
	}
	slices.Sort(names)
	return names, err
}

func (x attributes) value(name string) ([]byte, error) {
	return fill(func(buf []byte) (int, error) { return unix.Lgetxattr(x.path, name, buf) })
}
