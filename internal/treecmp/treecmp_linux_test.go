package treecmp_test

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/testenv"
	"github.com/jetpack-run/jetpack/internal/treecmp"
)

// TestMounts: what is mounted inside a tree, be it from the same file system, is no
// part of it, and is not passed over in silence either.
func TestMounts(t *testing.T) {
	testenv.Root(t)
	for _, target := range []string{"/dir/sub", "/file"} {
		t.Run(target, func(t *testing.T) {
			a, b := t.TempDir(), t.TempDir()
			fill(t, a)
			fill(t, b)
			must(t, unix.Mount(b+target, b+target, "", unix.MS_BIND, ""))
			t.Cleanup(func() { must(t, unix.Unmount(b+target, 0)) })
			_, err := treecmp.Compare(t.Context(), a, b)
			if err == nil || !strings.Contains(err.Error(), target+": something is mounted there") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestOverlayAttributes: the marks of overlayfs in a layer are not the tree's.
func TestOverlayAttributes(t *testing.T) {
	testenv.Root(t)
	a, b := t.TempDir(), t.TempDir()
	fill(t, a)
	fill(t, b)
	if err := unix.Setxattr(b+"/dir", "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Skip("cannot set trusted attributes: ", err)
	}
	must(t, unix.Lsetxattr(b+"/link", "trusted.x", []byte("y"), 0))
	must(t, unix.Lsetxattr(b+"/fifo", "trusted.x", []byte("y"), 0))
	got, err := treecmp.Compare(t.Context(), a, b)
	must(t, err)
	if s := text(got); s != "M/fifo M/link" {
		t.Errorf("got %q", s)
	}
}

// TestDescriptors: none is left open.
func TestDescriptors(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	fill(t, a)
	fill(t, b)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	before := count()
	for range 20 {
		_, err := treecmp.Compare(t.Context(), a, b)
		must(t, err)
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestDevices(t *testing.T) {
	testenv.Root(t)
	a, b := t.TempDir(), t.TempDir()
	for dir, minor := range map[string]uint32{a: 3, b: 5} {
		must(t, unix.Mknod(dir+"/dev", unix.S_IFCHR|0o600, int(unix.Mkdev(1, minor))))
		setTime(t, dir+"/dev", mtime)
	}
	got, err := treecmp.Compare(t.Context(), a, b)
	must(t, err)
	if s := text(got); s != "M/dev" {
		t.Errorf("got %q", s)
	}
}
