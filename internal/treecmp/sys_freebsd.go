package treecmp

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"
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

var namespaces = map[string]int{"system.": unix.EXTATTR_NAMESPACE_SYSTEM, "user.": unix.EXTATTR_NAMESPACE_USER}

// names lists the attributes, sorted; none if the file system has none.
func (x attributes) names() ([]string, error) {
	if x.file == nil {
		return nil, nil
	}
	var names []string
	for prefix, ns := range namespaces {
		list, err := fill(func(buf []byte) (int, error) { return unix.FlistxattrNS(int(x.file.Fd()), ns, buf) })
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && ns == unix.EXTATTR_NAMESPACE_SYSTEM {
			continue // the system's are for root only
		}
		if err != nil {
			return nil, err
		}
		// Each name follows its length in a byte, see extattr_list_fd(2).
		for len(list) > 0 {
			end := min(1+int(list[0]), len(list))
			names = append(names, prefix+string(list[1:end]))
			list = list[end:]
		}
	}
	slices.Sort(names)
	return names, nil
}

func (x attributes) value(name string) ([]byte, error) {
	return fill(func(buf []byte) (int, error) { return unix.Fgetxattr(int(x.file.Fd()), name, buf) })
}
