package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/storage/treedir"
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

func probe(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
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
	return probeLayer(target, upper, lower)
}

// probeLayer checks that deletions reach the upper layer as whiteouts and opaque
// directories, for which the file system must have both.
func probeLayer(target, upper, lower string) error {
	for _, name := range []string{"deleted", "replaced"} {
		if err := os.RemoveAll(filepath.Join(target, name)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(target, "replaced"), 0o700); err != nil {
		return err
	}
	changes, err := treedir.Diff(context.Background(), treedir.Layers{lower}, treedir.Layers{upper, lower})
	if err != nil {
		return err
	}
	for _, path := range []string{"/deleted", "/replaced/old"} {
		if !slices.Contains(changes, storage.Change{Path: path, Kind: storage.Deleted}) {
			return fmt.Errorf("the file system cannot hold an upper layer: %s is not marked as deleted", path)
		}
	}
	return nil
}
