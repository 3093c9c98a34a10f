//go:build unix && !linux

package treedir

import (
	"errors"
	"os"
)

// syncFiles puts every file and directory in dir on stable storage. sync(2) would not
// do: it may return before the data is written. Directories are opened one in the other,
// as paths may be longer than the kernel takes at once.
func syncFiles(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	return syncRoot(root)
}

// syncRoot closes root.
func syncRoot(root *os.Root) (err error) {
	defer func() { err = errors.Join(err, root.Close()) }()
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case e.IsDir():
			sub, err := root.OpenRoot(e.Name())
			if err != nil {
				return err
			}
			if err := syncRoot(sub); err != nil {
				return err
			}
		case e.Type().IsRegular():
			if err := syncFile(root, e.Name()); err != nil {
				return err
			}
		}
	}
	return dir.Sync()
}

func syncFile(root *os.Root, name string) (err error) {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Sync()
}
