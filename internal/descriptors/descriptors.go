//go:build unix

// Package descriptors finds the descriptors that this process was started with:
// they would be passed on to every program that it executes.
//
// Not for: descriptors that were opened here, which Go makes close-on-exec.
package descriptors

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// Inherited gives the open descriptors from first on that are not close-on-exec,
// sorted.
func Inherited(first int) ([]int, error) {
	all, err := open()
	if err != nil {
		return nil, err
	}
	var inherited []int
	for _, fd := range all {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if errors.Is(err, unix.EBADF) || fd < first || flags&unix.FD_CLOEXEC != 0 {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, err
		}
		inherited = append(inherited, fd)
	}
	slices.Sort(inherited)
	return inherited, nil
}
