package layer

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is mounted in the tree must survive the replacement of the directory.
func TestReplaceKeepsMounts(t *testing.T) {
	s := newSandbox(t)
	s.mustApply(t, dir("d/mnt"))
	mnt := filepath.Join(s.top, "d/mnt")
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("needs to mount: ", err)
	}
	defer func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	}()
	s.mustApply(t, file("d/mnt/x", "x"))
	if _, err := s.apply(t, roomy, file("d", "new")); !errors.Is(err, unix.EXDEV) {
		t.Errorf("got %v", err)
	}
	if s.read(t, "d/mnt/x") != "x" {
		t.Error("removed through a mount")
	}
}
