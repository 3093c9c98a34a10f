package render_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// scratch gives a directory that lasts as long as the test. It is in memory,
// because on a disk this is what takes most of the time.
func scratch(t testing.TB) string {
	t.Helper()
	testenv.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}
