package hostile

import (
	"testing"

	"golang.org/x/sys/unix"
)

// inMemory puts a file system of memory on dir for as long as the test lasts: the
// time that an import may take is not the disk's.
func inMemory(t *testing.T, dir string) {
	t.Helper()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
}
