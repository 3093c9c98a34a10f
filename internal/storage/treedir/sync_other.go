//go:build unix && !linux

package treedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// syncFiles puts every file and directory in dir on stable storage. sync(2)
// would not do: it may return before the data is written.
func syncFiles(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() && !e.Type().IsRegular() {
			return err
		}
		return syncFile(path)
	})
}

func syncFile(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Sync()
}
