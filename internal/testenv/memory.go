package testenv

import (
	"os/exec"
	"testing"
)

// InMemory puts a file system of memory on dir, an empty directory, for as long as the
// test lasts: times are not the disk's then.
func InMemory(t testing.TB, dir string) {
	t.Helper()
	Root(t)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount a tmpfs: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("unmount a tmpfs: %v: %s", err, out)
		}
	})
}
