package treecmp

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/xattr"
)

// openIn opens an entry of a directory; EXDEV when something is mounted there: every
// mount has a file system ID of its own, nullfs(5) too.
func openIn(dir int, name string, flags int) (int, error) {
	fd, err := unix.Openat(dir, name, flags, 0)
	if err != nil {
		return -1, err
	}
	var above, here unix.Stat_t
	err = errors.Join(unix.Fstat(dir, &above), unix.Fstat(fd, &here))
	if err == nil && above.Dev != here.Dev {
		err = unix.EXDEV
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// attributes are those of a directory or regular file, and none of any other.
type attributes struct{ file *os.File }

func openAttributes(n *node) (attributes, error) {
	if n.kind() != unix.S_IFREG && !n.isDir() {
		return attributes{}, nil
	}
	f, err := n.open()
	return attributes{f}, err
}

func (x attributes) close() error {
	if x.file == nil {
		return nil
	}
	return x.file.Close()
}

// names lists the attributes, sorted; none if the file system has none.
func (x attributes) names() ([]string, error) {
	if x.file == nil {
		return nil, nil
	}
	return xattr.NamesAt(int(x.file.Fd()))
}

func (x attributes) value(name string) ([]byte, error) { return xattr.ValueAt(int(x.file.Fd()), name) }
