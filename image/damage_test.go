package image_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func (p *place) index() string { return filepath.Join(p.dir, "index.db") }

func (p *place) loseTree(t *testing.T, i image.ID) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(p.dir), "storage", image.Tree(i), "tree.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// prune removes debris once, and gives what could not be.
func (p *place) prune(t *testing.T) error {
	t.Helper()
	debris, err := p.Debris(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	for _, d := range debris {
		errs = append(errs, d.Remove(t.Context()))
	}
	return errors.Join(errs...)
}

// Whatever happens to the index, it is an error that says what to do, and the images
// come back.
func TestDamagedIndex(t *testing.T) {
	for name, tt := range map[string]struct {
		damage func(path string) error
		want   error
	}{
		"lost":      {os.Remove, image.ErrNotInitialized},
		"empty":     {func(path string) error { return os.Truncate(path, 0) }, image.ErrDamaged},
		"100 bytes": {func(path string) error { return os.Truncate(path, 100) }, image.ErrDamaged},
		"a page":    {func(path string) error { return os.Truncate(path, 4096) }, image.ErrDamaged},
		"two pages": {func(path string) error { return os.Truncate(path, 8192) }, image.ErrDamaged},
		"zeros": {func(path string) error {
			fi, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, make([]byte, fi.Size()), 0o600)
		}, image.ErrDamaged},
		"no sense in its pages": {func(path string) error {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for i := 8192; i < len(raw); i++ {
				raw[i] = 'x'
			}
			return os.WriteFile(path, raw, 0o600)
		}, image.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			now := time.Now().UTC()
			p.add(t, id("aa"), "example.com/a", now)
			p.depending(t, id("bb"), "example.com/b", id("aa"))
			if err := tt.damage(p.index()); err != nil {
				t.Fatal(err)
			}
			_, listErr := p.List(t.Context())
			_, tagErr := p.Tag(t.Context(), id("aa"), "demo/x")
			for _, err := range []error{listErr, tagErr} {
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), "'jetpack init'") {
					t.Errorf("got %v", err)
				}
			}
			did, err := image.Init(t.Context(), p.dir)
			if err != nil || len(did) != 1 || !strings.Contains(did[0], "2 images") {
				t.Errorf("did %q, %v", did, err)
			}
			if did, err := image.Init(t.Context(), p.dir); err != nil || len(did) > 0 {
				t.Errorf("did it again: %q, %v", did, err)
			}
			if err := os.RemoveAll(p.index() + ".damaged"); err != nil {
				t.Fatal(err)
			}
			p.holdsOnly(t, id("aa"), id("bb"))
			img, err := p.Get(t.Context(), id("aa"))
			if err != nil || !img.Imported.Equal(now) {
				t.Errorf("got %+v, %v", img, err)
			}
		})
	}
}

// A new store is nothing to speak of.
func TestInitFresh(t *testing.T) {
	if did, err := image.Init(t.Context(), filepath.Join(t.TempDir(), "images")); err != nil || len(did) > 0 {
		t.Errorf("did %q, %v", did, err)
	}
}

// An entry that is lost or damaged comes back from the record.
func TestRestoreEntry(t *testing.T) {
	p := newPlace(t)
	p.add(t, id("aa"), "example.com/a", time.Now())
	p.depending(t, id("bb"), "example.com/b", id("aa"))
	p.enter(t, string(id("aa")), "{")
	if what := p.debris(t); len(what) != 2 { // it, and what depends on it
		t.Errorf("debris: %q", what)
	}
	p.clean(t)
	p.holdsOnly(t, id("aa"), id("bb"))
}

// An image that is damaged, and that another depends on, is told and not removed.
func TestDamagedDependency(t *testing.T) {
	testenv.Root(t)
	for name, damage := range map[string]func(t *testing.T, p *place){
		"tree": func(t *testing.T, p *place) { p.loseTree(t, id("aa")) },
		"entry": func(t *testing.T, p *place) {
			p.enter(t, string(id("aa")), "{")
			p.unrecord(t, id("aa"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.add(t, id("aa"), "example.com/a", time.Now())
			top := p.depending(t, id("bb"), "example.com/b", id("aa"))
			damage(t, p)
			if what := p.debris(t); len(what) == 0 {
				t.Error("not told")
			}
			if err := p.prune(t); !errors.Is(err, image.ErrInUse) || !strings.Contains(err.Error(), "import it again") {
				t.Errorf("prune: %v", err)
			}
			if err := p.Check(t.Context(), top); name == "entry" && !errors.Is(err, image.ErrDamaged) {
				t.Errorf("check: %v", err)
			}
			p.add(t, id("aa"), "example.com/a", time.Now())
			p.holdsOnly(t, id("aa"), id("bb"))
		})
	}
}

// A dependency that is gone is told with the image, which stays.
func TestLostDependency(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	p.add(t, id("aa"), "example.com/a", time.Now())
	top := p.depending(t, id("bb"), "example.com/b", id("aa"))
	p.unlist(t, "images", string(id("aa")))
	p.unrecord(t, id("aa"))
	what := p.debris(t)
	if !slices.ContainsFunc(what, func(s string) bool {
		return strings.Contains(s, "image "+id("bb").Short()+": damaged: its dependency "+id("aa").Short()+" is gone; import that again")
	}) {
		t.Errorf("debris: %q", what)
	}
	if err := p.prune(t); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("prune: %v", err)
	}
	if _, err := p.Walk(t.Context(), top); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("walk: %v", err)
	}
	p.add(t, id("aa"), "example.com/a", time.Now())
	p.holdsOnly(t, id("aa"), id("bb"))
}

// unlist deletes a key from a bucket of the index.
func (p *place) unlist(t *testing.T, bucket, key string) {
	t.Helper()
	db, err := bbolt.Open(p.index(), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Delete([]byte(key)) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// One look is enough for what stands on each other.
func TestDebrisInOrder(t *testing.T) {
	testenv.Root(t)
	for _, last := range []string{"0c", "ff"} { // before and after the others, by name
		p := newPlace(t)
		p.add(t, id("aa"), "example.com/a", time.Now())
		p.cloned(t, id("bb"), id("aa"))
		p.cloned(t, id(last), id("bb"))
		for _, i := range []image.ID{id("aa"), id("bb"), id(last)} {
			p.unlist(t, "images", string(i))
			p.unrecord(t, i)
		}
		if err := os.RemoveAll(filepath.Join(p.dir, string(id("bb")))); err != nil {
			t.Fatal(err)
		}
		p.clean(t)
		p.holdsOnly(t)
	}
}

func TestTreelessInOrder(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	p.add(t, id("aa"), "example.com/a", time.Now())
	p.depending(t, id("bb"), "example.com/b", id("aa"))
	p.depending(t, id("0c"), "example.com/c", id("bb"), id("aa"))
	for _, i := range []image.ID{id("aa"), id("bb"), id("0c")} {
		p.loseTree(t, i)
	}
	if err := p.prune(t); err != nil {
		t.Error(err)
	}
	p.holdsOnly(t)
}

// cloned commits an image of which the tree is a clone of its dependency's.
func (p *place) cloned(t *testing.T, i, on image.ID) {
	t.Helper()
	origin, err := p.Get(t.Context(), on)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = d.MakeRoot(t.Context(), origin, 0)
	if err == nil {
		_, err = d.Commit(t.Context(), image.Image{ID: i, Manifest: []byte(manifestOn("example.com/x", on)), Dependencies: []image.ID{on}})
	}
	if err := errors.Join(err, d.Discard(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// An import on a dependency without tree says what to do.
func TestMakeRootOfTreeless(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	origin := p.add(t, id("aa"), "example.com/a", time.Now())
	p.loseTree(t, id("aa"))
	d, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.MakeRoot(t.Context(), origin, 0); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if err := d.Discard(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRemoveDamagedEntry(t *testing.T) {
	p := newPlace(t)
	p.add(t, id("aa"), "example.com/a", time.Now())
	p.enter(t, string(id("aa")), "{")
	if _, err := p.Find(t.Context(), string(id("aa"))); !errors.Is(err, image.ErrDamaged) || !strings.Contains(err.Error(), "'jetpack system prune'") {
		t.Errorf("got %v", err)
	}
	if err := p.Remove(t.Context(), id("aa")); err != nil {
		t.Fatal(err)
	}
	p.holdsOnly(t)
}

// No tag of an older store goes before a whole ID.
func TestFindWholeID(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	p.add(t, id("aa"), "example.com/a", time.Now())
	p.add(t, id("bb"), "example.com/b", time.Now())
	db, err := bbolt.Open(p.index(), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("tags")).Put([]byte(id("bb")), []byte(id("aa"))) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if img, err := p.Find(t.Context(), string(id("bb"))); err != nil || img.ID != id("bb") {
		t.Errorf("got %v, %v", img, err)
	}
}
