package xattr

import (
	"bytes"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// Names lists the attributes of the file at path, sorted; a symbolic link is not
// followed. There are none where the file system has none.
func Names(path string) ([]string, error) {
	return split(Fill(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) }))
}

// NamesAt is Names of an open file.
func NamesAt(fd int) ([]string, error) {
	return split(Fill(func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) }))
}

// split takes a list apart in which a NUL ends each name (listxattr(2)).
func split(list []byte, err error) (names []string, _ error) {
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	for name := range bytes.SplitSeq(list, []byte{0}) {
		if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	slices.Sort(names)
	return names, err
}
