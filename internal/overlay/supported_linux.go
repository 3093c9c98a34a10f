package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Supported tells, by an error, why trees cannot be kept in dir, which is made
// unless it exists. It tries all kinds of mounts in a scratch directory there,
// and removes it.
func Supported(dir string) error {
	if err := probe(dir); err != nil {
		return fmt.Errorf("overlayfs in %s: %w", dir, err)
	}
	return nil
}

var errStacked = errors.New("it is on an overlayfs itself, as in a container, and that holds no upper layers")

func probe(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return errStacked
	}
	scratch, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return err
	}
	target := filepath.Join(scratch, "merged")
	defer func() {
		// What is still mounted must not be removed.
		if errUnmount := unmount(context.Background(), target); errUnmount != nil {
			err = errors.Join(err, errUnmount)
			return
		}
		err = errors.Join(err, os.RemoveAll(scratch))
	}()
	lower, upper, work := filepath.Join(scratch, "lower"), filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	for _, d := range []string{lower, upper, work, target, filepath.Join(lower, "deleted"), filepath.Join(lower, "replaced", "old")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if err := bind(lower, target, true); err != nil {
		return err
	}
	if err := unmount(context.Background(), target); err != nil {
		return err
	}
	if err := mountOverlay("probe", target, []string{lower}, upper, work); err != nil {
		return err
	}
	return probeLayer(target, upper)
}

// probeLayer checks that deletions reach the upper layer as whiteouts and opaque
// directories, for which the file system must have both.
func probeLayer(target, upper string) error {
	for _, name := range []string{"deleted", "replaced"} {
		if err := os.RemoveAll(filepath.Join(target, name)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(target, "replaced"), 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(filepath.Join(upper, "deleted"))
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeDevice|fs.ModeCharDevice {
		return fmt.Errorf("a whiteout is %v instead of a character device", info.Mode())
	}
	if _, err := unix.Lgetxattr(filepath.Join(upper, "replaced"), "trusted.overlay.opaque", nil); err != nil {
		return fmt.Errorf("a replaced directory is not marked as opaque: %w", err)
	}
	return nil
}
