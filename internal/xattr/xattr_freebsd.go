package xattr

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

var namespaces = map[string]int{"system.": unix.EXTATTR_NAMESPACE_SYSTEM, "user.": unix.EXTATTR_NAMESPACE_USER}

// Names lists the attributes of the file at path, sorted; a symbolic link is not
// followed. There are none where the file system has none.
func Names(path string) ([]string, error) {
	return all(func(ns int, buf []byte) (int, error) { return unix.LlistxattrNS(path, ns, buf) })
}

// NamesAt is Names of an open file.
func NamesAt(fd int) ([]string, error) {
	return all(func(ns int, buf []byte) (int, error) { return unix.FlistxattrNS(fd, ns, buf) })
}

// all lists the names of all namespaces, with the prefixes that unix.Lgetxattr and
// its like know them by.
func all(list func(ns int, buf []byte) (int, error)) (names []string, _ error) {
	for prefix, ns := range namespaces {
		data, err := Fill(func(buf []byte) (int, error) { return list(ns, buf) })
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && ns == unix.EXTATTR_NAMESPACE_SYSTEM {
			continue // the system's are for root only
		}
		if err != nil {
			return nil, err
		}
		// Each name follows its length in a byte (extattr_list_fd(2)).
		for len(data) > 0 {
			end := min(1+int(data[0]), len(data))
			names = append(names, prefix+string(data[1:end]))
			data = data[end:]
		}
	}
	slices.Sort(names)
	return names, nil
}
