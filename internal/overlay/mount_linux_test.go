package overlay_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// share makes dir a mount that propagates, as the mounts of most hosts do.
func share(t *testing.T, dir string) {
	t.Helper()
	bindMount(t, dir, dir)
	do(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
}

// bindMount mounts source on target until unmount is called or the test ends.
func bindMount(t *testing.T, source, target string) {
	t.Helper()
	do(t, unix.Mount(source, target, "", unix.MS_BIND, ""))
	t.Cleanup(func() {
		// EINVAL, ENOENT: unmounted by the test.
		if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			t.Error(err)
		}
	})
}

func unmount(t *testing.T, target string) {
	t.Helper()
	do(t, unix.Unmount(target, unix.UMOUNT_NOFOLLOW))
}
