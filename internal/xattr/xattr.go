//go:build linux || freebsd

// Package xattr lists and reads extended attributes, by the names that Linux has
// for them on both systems: FreeBSD's namespaces (extattr(9)) are the prefixes
// "user." and "system.".
//
// Not for: setting them, deciding which of them belong to a file (drivers and
// archives know).
package xattr

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Value reads one attribute of the file at path; a symbolic link is not followed.
func Value(path, name string) ([]byte, error) {
	return Fill(func(buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
}

// ValueAt is Value of an open file.
func ValueAt(fd int, name string) ([]byte, error) {
	return Fill(func(buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) })
}

// Fill gives what get writes to a buffer that is larger than that: readlinkat(2),
// and FreeBSD's extattr_get_fd(2), cut off what does not fit.
func Fill(get func(buf []byte) (int, error)) ([]byte, error) {
	for buf := make([]byte, 256); ; buf = make([]byte, 4*len(buf)) {
		n, err := get(buf)
		if errors.Is(err, unix.ERANGE) || err == nil && n >= len(buf) {
			continue
		}
		return buf[:max(n, 0)], err
	}
}
