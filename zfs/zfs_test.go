package zfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/storage/storagetest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// testDataset is the environment variable with an empty dataset for tests. Each test
// makes datasets of its own below it, whose names begin with testPrefix; what earlier
// tests left of these is removed.
const (
	testDataset = "JETPACK_TEST_ZFS"
	testPrefix  = "jp-"
)

func TestMain(m *testing.M) {
	actAsCommand() // and exit, if called as zfs or zpool
	if place := os.Getenv(churnPlace); place != "" {
		churn(place) // until it is killed
	}
	os.Exit(testenv.PrivateMounts(m))
}

// place is a driver that the suite can open again, litter and take away.
type place struct {
	*Driver
	tb testing.TB
}

// newDataset names a dataset for a test, or skips it.
func newDataset(tb testing.TB) string {
	tb.Helper()
	parent := os.Getenv(testDataset)
	if parent == "" {
		tb.Skipf("needs ZFS: set %s to a dataset", testDataset)
	}
	testenv.Root(tb)
	dataset := parent + "/" + testPrefix + randomID()[:6]
	tb.Cleanup(func() { zfs(tb, "destroy", "-r", dataset) })
	return dataset
}

func open(tb testing.TB) *place {
	tb.Helper()
	dataset := newDataset(tb)
	if _, err := Init(tb.Context(), dataset, "12345678", "/"); err != nil {
		tb.Fatal(err)
	}
	// Characters that the options of mount(2) use themselves.
	d, err := Open(dataset, filepath.Join(tb.TempDir(), `a:b,c=d \ e`))
	if err != nil {
		tb.Fatal(err)
	}
	return &place{d, tb}
}

// zfs runs a command that must succeed, after the test, too.
func zfs(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := run(tb.Context(), "zfs", args...)
	if tb.Context().Err() != nil {
		out, err = run(backgroundContext, "zfs", args...)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func (p *place) Reopen(t *testing.T) storage.Driver {
	t.Helper()
	d, err := Open(p.dataset, p.dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// MakePartial makes a dataset that was created, filled and never committed.
func (p *place) MakePartial(t *testing.T, name string) {
	t.Helper()
	dir := t.TempDir()
	if err := p.makeKind(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	zfs(t, "create", "-o", "readonly=off", p.fs(name))
	if err := attach(p.fs(name), dir, false); err != nil {
		t.Fatal(err)
	}
	err := os.WriteFile(filepath.Join(dir, "debris"), nil, 0o600)
	if err := errors.Join(err, detach(dir)); err != nil {
		t.Fatal(err)
	}
	zfs(t, "inherit", "readonly", p.fs(name))
}

// Damage takes away what makes a tree whole, or sealed.
func (p *place) Damage(t *testing.T, name string) {
	t.Helper()
	if strings.Contains(zfs(t, "list", "-H", "-d", "1", "-t", "snapshot", "-o", "name", p.fs(name)), sealSuffix) {
		zfs(t, "rename", p.fs(name)+sealSuffix, p.fs(name)+"@damaged")
	}
	zfs(t, "inherit", createdProperty, p.fs(name))
	zfs(t, "inherit", "readonly", p.fs(name))
}

func (p *place) Vanish(t *testing.T) {
	t.Helper()
	away := p.dataset + ".away"
	zfs(t, "rename", p.dataset, away)
	t.Cleanup(func() { zfs(t, "rename", away, p.dataset) })
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Driver { return open(t) })
}

// A sealed tree that is mounted elsewhere, not by its snapshot, is refused with its seal
// untouched: made anew, it would be another, and on a full pool none.
func TestDestroyKeepsSeal(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	do(t, d.Create(ctx, "images/a", storage.Options{}))
	elsewhere := t.TempDir()
	do(t, attach(d.fs("images/a"), elsewhere, false))
	do(t, d.Seal(ctx, "images/a"))
	seal := func() string {
		t.Helper()
		return zfs(t, "get", "-H", "-o", "value", "guid", d.fs("images/a")+sealSuffix)
	}
	before := seal()
	if err := d.tryRemove(ctx, "images/a", false); !errors.Is(err, unix.EBUSY) {
		t.Errorf("destroyed while it is mounted elsewhere: %v", err)
	}
	if after := seal(); after != before {
		t.Errorf("the seal was %s, and is %s", before, after)
	}
	do(t, detach(elsewhere))
	do(t, d.Destroy(ctx, "images/a"))
}

func TestPrepareDestroy(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	make := func(name string) {
		t.Helper()
		if err := d.Create(ctx, name, storage.Options{}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Mount(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(name string) {
		t.Helper()
		if _, err := d.Stat(ctx, name); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"pods/a", "pods/b"} {
		make(name)
		d.PrepareDestroy(name)
	}
	for _, name := range []string{"pods/a", "pods/b"} {
		if err := storage.Remove(ctx, d, name); err != nil {
			t.Error(err)
		}
		gone(name)
	}
	// What is mounted all the same is not destroyed, and can be later.
	make("pods/a")
	d.PrepareDestroy("pods/a")
	if err := d.Destroy(ctx, "pods/a"); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("Destroy of a mounted tree = %v", err)
	}
	if err := storage.Remove(ctx, d, "pods/a"); err != nil {
		t.Error(err)
	}
	gone("pods/a")
	// Without a Destroy nothing comes of it.
	make("pods/a")
	d.PrepareDestroy("pods/a")
	if p, ok := d.destroys.LoadAndDelete("pods/a"); !ok {
		t.Error("nothing was prepared")
	} else if out, err := p.(*process).finish(ctx, ""); err != nil {
		t.Errorf("no program: %q, %v", out, err)
	}
	if tree, err := d.Stat(ctx, "pods/a"); err != nil || !tree.Mounted {
		t.Errorf("the tree is %+v, %v", tree, err)
	}
	// One command for a tree, and it does not wait for ever.
	d.PrepareDestroy("pods/a")
	first, _ := d.destroys.Load("pods/a")
	d.PrepareDestroy("pods/a")
	if p, ok := d.destroys.LoadAndDelete("pods/a"); !ok || p != first {
		t.Error("a second command was started")
	} else if _, err := p.(*process).finish(ctx, ""); err != nil {
		t.Error(err)
	}
	d.patience = time.Millisecond
	d.PrepareDestroy("pods/a")
	for {
		if _, ok := d.destroys.Load("pods/a"); !ok {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if tree, err := d.Stat(ctx, "pods/a"); err != nil || !tree.Mounted {
		t.Errorf("the tree is %+v, %v", tree, err)
	}
	d.PrepareDestroy("pods/none")
	if err := d.Destroy(ctx, "pods/none"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("Destroy of no tree = %v", err)
	}
	if err := storage.Remove(ctx, d, "pods/a"); err != nil {
		t.Error(err)
	}
}

func BenchmarkClone(b *testing.B) {
	storagetest.BenchmarkClone(b, func(b *testing.B) storage.Driver { return open(b) })
}
