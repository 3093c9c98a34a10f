package treedir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// syncFiles puts everything in dir on stable storage, with all else on its
// file system: one system call is cheaper than an fsync(2) for every file.
func syncFiles(dir string) (err error) {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync file system of %s: %w", dir, err)
	}
	return nil
}
