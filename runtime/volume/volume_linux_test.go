package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/overlay"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

// drivers are those that the tests run on, by name.
var drivers = map[string]func(t *testing.T, root string) storage.Driver{"plaindir": openPlain, "overlay": openOverlay}

func openOverlay(t *testing.T, root string) storage.Driver {
	t.Helper()
	if err := overlay.Supported(root); err != nil {
		t.Skip(err)
	}
	d, err := reopenMounting(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// reopenMounting opens a driver that mounts trees.
func reopenMounting(root string) (storage.Driver, error) {
	return overlay.Open(filepath.Join(root, "storage"))
}

// A volume that the administrator looks at stays mounted, and cannot be removed.
func TestBusy(t *testing.T) {
	root := t.TempDir()
	s := newStore(t, root, openOverlay(t, root))
	create(t, s, "data")
	l := acquire(t, s, "data")
	f, err := os.Open(l.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context()); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("released: %v", err)
	}
	if err := s.Remove(t.Context(), "data"); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("removed: %v", err)
	}
	if what := found(t, s); len(what) != 1 {
		t.Errorf("found %q", what)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink == 0 {
		t.Errorf("the directory is gone: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	clean(t, s)
}
