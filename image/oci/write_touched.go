package oci

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// addTouched adds to listed the directories of cur that have another modification time
// in old. One that is not listed so far is in old, too, with all above it.
func addTouched(ctx context.Context, listed map[string]bool, old, cur string) (err error) {
	before, err := os.OpenRoot(old)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, before.Close()) }()
	return filepath.WalkDir(cur, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !d.IsDir() {
			return err
		}
		name, err := filepath.Rel(cur, path)
		if err != nil || listed[name] {
			return err
		}
		now, err := d.Info()
		if err != nil {
			return err
		}
		then, err := before.Lstat(name)
		if err != nil {
			return err
		}
		if !then.ModTime().Equal(now.ModTime()) {
			listed[name] = true
		}
		return nil
	})
}
