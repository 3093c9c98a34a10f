package treedir

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func isOpaque(dir string) (bool, error) {
	var buf [1]byte
	n, err := unix.Lgetxattr(dir, overlayAttr+"opaque", buf[:])
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ERANGE), errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, &os.PathError{Op: "getxattr", Path: dir, Err: err}
	}
	return n == 1 && buf[0] == 'y', nil
}
