package plaindir_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/storage/storagetest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }

// place is a driver that the suite can open again, litter and take away.
type place struct {
	*plaindir.Driver
	dir string
}

func open(tb testing.TB, dir string) *place {
	tb.Helper()
	d, err := plaindir.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return &place{d, dir}
}

func (p *place) Reopen(t *testing.T) storage.Driver { return open(t, p.dir) }

func (p *place) MakePartial(t *testing.T, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(p.dir, name, "fs", "debris"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func (p *place) Damage(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name, "tree.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *place) Vanish(t *testing.T) {
	t.Helper()
	away := p.dir + ".away"
	if err := os.Rename(p.dir, away); err != nil {
		t.Fatal(err)
	}
	// What is left is an empty mount point.
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(p.dir); err != nil {
			t.Error(err)
		}
		if err := os.Rename(away, p.dir); err != nil {
			t.Error(err)
		}
	})
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Driver { return open(t, filepath.Join(t.TempDir(), "place")) })
}

func BenchmarkClone(b *testing.B) {
	storagetest.BenchmarkClone(b, func(b *testing.B) storage.Driver { return open(b, filepath.Join(b.TempDir(), "place")) })
}

func TestOpenRelative(t *testing.T) {
	if _, err := plaindir.Open("relative"); err == nil {
		t.Fatal("no error")
	}
}
