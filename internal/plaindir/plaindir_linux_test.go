package plaindir_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mount mounts source on target until the test ends, at most.
func mount(t *testing.T, source, target, fstype string, flags uintptr) {
	t.Helper()
	do(t, unix.Mount(source, target, fstype, flags, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Error(err)
		}
	})
}

// A volume that is still mounted in a pod's root survives the removal of the
// root, also when the storage was opened through a symbolic link and when the
// root is debris; and it does not count as part of the root.
func TestDestroyWithVolume(t *testing.T) {
	testenv.Root(t)
	ctx := t.Context()
	parent, canary := t.TempDir(), t.TempDir()
	mount(t, "tmpfs", canary, "tmpfs", 0)
	do(t, os.WriteFile(filepath.Join(canary, "file"), make([]byte, 4<<20), 0o600))
	do(t, os.Mkdir(filepath.Join(parent, "place"), 0o700))
	do(t, os.Symlink("place", filepath.Join(parent, "link")))
	d := open(t, filepath.Join(parent, "link"))
	do(t, d.Create(ctx, "pods/a", storage.Options{}))
	dir, err := d.Mount(ctx, "pods/a")
	do(t, err)
	target := filepath.Join(dir, "volume")
	do(t, os.Mkdir(target, 0o700))
	mount(t, canary, target, "", unix.MS_BIND)

	busy := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, storage.ErrBusy) {
			t.Errorf("%s: error is %v, want ErrBusy", what, err)
		}
	}
	busy("Destroy", d.Destroy(ctx, "pods/a"))
	busy("Rename", d.Rename(ctx, "pods/a", "pods/b"))
	if u, err := d.Usage(ctx, "pods/a"); err != nil || u.Own > 1<<20 {
		t.Errorf("Usage is %+v, %v", u, err)
	}
	do(t, os.Remove(filepath.Join(d.Dir("pods/a"), "tree.json")))
	busy("Destroy of debris", d.Destroy(ctx, "pods/a"))
	busy("Create over debris", d.Create(ctx, "pods/a", storage.Options{}))
	if info, err := os.Stat(filepath.Join(canary, "file")); err != nil || info.Size() != 4<<20 {
		t.Errorf("canary is %v, %v", info, err)
	}
	do(t, unix.Unmount(target, unix.UMOUNT_NOFOLLOW))
	do(t, d.Destroy(ctx, "pods/a"))
	if _, err := os.Stat(filepath.Join(canary, "file")); err != nil {
		t.Error(err)
	}
}
