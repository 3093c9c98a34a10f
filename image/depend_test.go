package image_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// depending commits a made-up image that was made of others.
func (p *place) depending(t *testing.T, i image.ID, name string, on ...image.ID) *image.Image {
	t.Helper()
	d := p.draft(t)
	img, err := d.Commit(t.Context(), image.Image{
		ID: i, Manifest: json.RawMessage(manifestOn(name, on...)), Imported: time.Now(), Dependencies: on,
		FileSize: int64(len("archive")),
	})
	if err := errors.Join(err, d.Discard(t.Context())); err != nil {
		t.Fatal(err)
	}
	return img
}

// manifestOn is the manifest of an image that depends on others, by ID.
func manifestOn(name string, on ...image.ID) string {
	var list []string
	for _, i := range on {
		list = append(list, fmt.Sprintf(`{"imageName":"example.com/x","imageID":%q}`, i))
	}
	return acitest.Manifest(name, `"dependencies":[`+strings.Join(list, ",")+`]`)
}

func numbered(n int) image.ID { return id(fmt.Sprintf("%08x", n)) }

func dependency(t *testing.T, name string, on image.ID, pairs ...string) types.Dependency {
	t.Helper()
	d := types.Dependency{ImageName: types.ACIdentifier(name)}
	if on != "" {
		hash, err := types.NewHash(string(on))
		if err != nil {
			t.Fatal(err)
		}
		d.ImageID = hash
	}
	for i := 0; i < len(pairs); i += 2 {
		d.Labels = append(d.Labels, types.Label{Name: types.ACIdentifier(pairs[i]), Value: pairs[i+1]})
	}
	return d
}

func TestDepend(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	now := time.Now()
	p.add(t, id("a1"), "example.com/a", now, labels("version", "1.9", "os", "linux"))
	p.add(t, id("a2"), "example.com/a", now.Add(-time.Hour), labels("version", "1.10", "os", "linux"))
	p.add(t, id("b0"), "example.com/noarch", now)
	if _, err := p.Tag(t.Context(), id("b0"), "example.com/tagged"); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		d       types.Dependency
		want    image.ID
		wantErr error
		says    string
	}{
		"by name, the highest version": {d: dependency(t, "example.com/a", ""), want: id("a2")},
		"by name and version":          {d: dependency(t, "example.com/a", "", "version", "1.9"), want: id("a1")},
		"by ID":                        {d: dependency(t, "example.com/a", id("a1")), want: id("a1")},
		"by ID and label":              {d: dependency(t, "example.com/a", id("a1"), "os", "linux"), want: id("a1")},
		"without labels":               {d: dependency(t, "example.com/noarch", ""), want: id("b0")},
		"noarch has no os":             {d: dependency(t, "example.com/noarch", "", "os", "linux"), wantErr: image.ErrNotFound, says: "example.com/noarch"},
		"another's ID":                 {d: dependency(t, "example.com/a", id("b0")), wantErr: image.ErrMismatch, says: "dependency example.com/a: not the image that is meant: sha512-b00000000000 is example.com/noarch"},
		"another label":                {d: dependency(t, "example.com/a", id("a1"), "version", "1.10"), wantErr: image.ErrMismatch},
		"not there":                    {d: dependency(t, "example.com/gone", ""), wantErr: image.ErrNotFound, says: "dependency example.com/gone"},
		"ID not there":                 {d: dependency(t, "example.com/a", id("ff")), wantErr: image.ErrNotFound, says: "dependency example.com/a"},
		"a tag is the operator's":      {d: dependency(t, "example.com/tagged", ""), wantErr: image.ErrNotFound},
		"a prefix of an ID is no name": {d: dependency(t, "b0000000", ""), wantErr: image.ErrNotFound},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			found, warnings, err := p.Depend(t.Context(), []types.Dependency{tt.d})
			if !errors.Is(err, tt.wantErr) || len(warnings) > 0 {
				t.Fatalf("got error %v, warnings %q", err, warnings)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%v does not say %q", err, tt.says)
				}
				return
			}
			if len(found) != 1 || found[0].ID != tt.want {
				t.Errorf("got %v", found)
			}
		})
	}
	t.Run("size", func(t *testing.T) {
		d := dependency(t, "example.com/a", "")
		d.Size = 8
		if _, warnings, err := p.Depend(t.Context(), []types.Dependency{d}); err != nil || len(warnings) != 1 {
			t.Errorf("got %q, %v", warnings, err)
		}
	})
}

func TestWalk(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	a, b, c, d := numbered(0xa), numbered(0xb), numbered(0xc), numbered(0xd)
	p.depending(t, d, "example.com/d")
	p.depending(t, b, "example.com/b", d)
	p.depending(t, c, "example.com/c", d)
	top := p.depending(t, a, "example.com/a", b, c)
	walk, err := p.Walk(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	var got []image.ID
	for _, img := range walk {
		got = append(got, img.ID)
	}
	if want := []image.ID{d, b, d, c, a}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	users, err := p.Users(t.Context())
	if err != nil || len(users[d]) != 2 || len(users[a]) != 0 {
		t.Errorf("got %v, %v", users, err)
	}
}

// A chain of n images, and a ladder of which each rung doubles the walk.
func TestDependBounds(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	p.depending(t, numbered(0), "example.com/chain-0")
	for i := 1; i < 64; i++ {
		p.depending(t, numbered(i), fmt.Sprintf("example.com/chain-%d", i), numbered(i-1))
	}
	p.depending(t, numbered(1000), "example.com/ladder-0")
	for i := 1; i < 9; i++ {
		below := numbered(1000 + i - 1)
		p.depending(t, numbered(1000+i), fmt.Sprintf("example.com/ladder-%d", i), below, below)
	}
	tests := map[string]struct {
		on      []string
		wantErr error
	}{
		"64 levels":     {on: []string{"chain-62"}},
		"65 levels":     {on: []string{"chain-63"}, wantErr: image.ErrTooDeep},
		"256 to apply":  {on: []string{"ladder-6", "ladder-6", "ladder-0"}},
		"257 to apply":  {on: []string{"ladder-6", "ladder-6", "ladder-0", "ladder-0"}, wantErr: image.ErrTooDeep},
		"511 and more":  {on: []string{"ladder-8"}, wantErr: image.ErrTooDeep},
		"many and deep": {on: []string{"ladder-6", "chain-63"}, wantErr: image.ErrTooDeep},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var on []types.Dependency
			for _, name := range tt.on {
				on = append(on, dependency(t, "example.com/"+name, ""))
			}
			if _, _, err := p.Depend(t.Context(), on); !errors.Is(err, tt.wantErr) {
				t.Errorf("got %v, want %v", err, tt.wantErr)
			}
		})
	}
}

// An entry whose dependencies are not as many as its manifest's is damaged.
func TestDependenciesAreAsManyAsDeclared(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	p.depending(t, id("aa"), "example.com/a")
	p.enter(t, string(id("aa")), fmt.Sprintf(`{"id":%q,"manifest":%s}`, id("aa"), manifestOn("example.com/a", id("bb"))))
	if _, err := p.Get(t.Context(), id("aa")); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

// An index that says what cannot be is an error, not an endless loop.
func TestWalkInCircles(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	p.depending(t, id("aa"), "example.com/a")
	p.depending(t, id("bb"), "example.com/b", id("aa"))
	p.enter(t, string(id("aa")), fmt.Sprintf(`{"id":%q,"manifest":%s,"dependencies":[%q]}`, id("aa"), manifestOn("example.com/a", id("bb")), id("bb")))
	img, err := p.Get(t.Context(), id("aa"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Walk(t.Context(), img); !errors.Is(err, image.ErrTooDeep) {
		t.Errorf("got %v", err)
	}
}

func TestRemoveWhatOthersDependOn(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	p.depending(t, id("aa"), "example.com/a")
	p.depending(t, id("bb"), "example.com/b")
	p.depending(t, id("cc"), "example.com/c", id("aa"), id("bb"))
	for _, used := range []image.ID{id("aa"), id("bb")} {
		err := p.Remove(t.Context(), used)
		if !errors.Is(err, image.ErrInUse) || !strings.Contains(err.Error(), "example.com/c") {
			t.Errorf("got %v", err)
		}
	}
	for _, i := range []image.ID{id("cc"), id("bb"), id("aa")} {
		if err := p.Remove(t.Context(), i); err != nil {
			t.Error(err)
		}
	}
	p.holdsOnly(t)
}

// A dependency that is removed between the look-up and the commit.
func TestCommitWithoutDependency(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	d := p.draft(t)
	_, err := d.Commit(t.Context(), image.Image{
		ID: id("cc"), Manifest: json.RawMessage(manifestOn("example.com/c", id("aa"))), Dependencies: []image.ID{id("aa")},
	})
	if !errors.Is(err, image.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestTags(t *testing.T) {
	testenv.Root(t)
	p := newPlace(t)
	p.add(t, id("aa"), "example.com/a", time.Now())
	p.add(t, id("bb"), "example.com/b", time.Now())
	find := func(name string, want image.ID) {
		t.Helper()
		img, err := p.Find(t.Context(), name)
		switch {
		case want == "" && !errors.Is(err, image.ErrNotFound):
			t.Errorf("%s: got %v, %v", name, img, err)
		case want != "" && (err != nil || img.ID != want):
			t.Errorf("%s: got %v, %v", name, img, err)
		}
	}
	tag := func(i image.ID, name string, want image.ID) {
		t.Helper()
		if before, err := p.Tag(t.Context(), i, name); err != nil || before != want {
			t.Errorf("tag %s: it was %q's, %v", name, before, err)
		}
	}
	find("demo/x:1", "")
	tag(id("aa"), "demo/x:1", "")
	tag(id("aa"), "demo/y", "")
	find("demo/x:1", id("aa"))
	find("demo/x", "") // a tag is the whole of it
	tag(id("bb"), "demo/x:1", id("aa"))
	find("demo/x:1", id("bb"))
	tag(id("bb"), "example.com/a", "") // over the name of another
	find("example.com/a", id("bb"))
	if img, err := p.Get(t.Context(), id("bb")); err != nil || !slices.Equal(img.Tags, []string{"demo/x:1", "example.com/a"}) {
		t.Errorf("got %v, %v", img, err)
	}
	if err := p.Untag(t.Context(), "example.com/a"); err != nil {
		t.Error(err)
	}
	find("example.com/a", id("aa"))
	if err := p.Untag(t.Context(), "example.com/a"); !errors.Is(err, image.ErrNoTag) || !errors.Is(err, image.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"", "../x", "demo/x,os=linux", "demo/x:", "UPPER", string(id("bb")), "sha512-bb", "sha512-x:1"} {
		if _, err := p.Tag(t.Context(), id("aa"), bad); !errors.Is(err, image.ErrBadTag) {
			t.Errorf("tag %q: got %v", bad, err)
		}
	}
	if _, err := p.Tag(t.Context(), id("ff"), "demo/z"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	// A tag goes with its image, and does not come back with it.
	if err := p.Remove(t.Context(), id("bb")); err != nil {
		t.Fatal(err)
	}
	p.add(t, id("bb"), "example.com/b", time.Now())
	find("demo/x:1", "")
	find("demo/y", id("aa"))
}

// Importing again restores the archive when that was lost.
func TestLostFileIsRestored(t *testing.T) {
	testenv.Root(t)
	for name, damage := range map[string]struct {
		do   func(path string) error
		seen bool
	}{
		"lost":           {os.Remove, true},
		"truncated":      {func(path string) error { return os.Truncate(path, 3) }, true},
		"another byte":   {func(path string) error { return os.WriteFile(path, []byte("archiv_"), 0o600) }, false},
		"record is lost": {func(path string) error { return os.Remove(filepath.Join(filepath.Dir(path), "record.json")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			img := p.add(t, id("aa"), "example.com/a", time.Now())
			path := filepath.Join(p.dir, string(id("aa")), "aci")
			if err := damage.do(path); err != nil {
				t.Fatal(err)
			}
			if f, err := p.File(img); damage.seen && !errors.Is(err, image.ErrDamaged) {
				t.Fatalf("got %v", err)
			} else if err == nil {
				f.Close()
			}
			p.add(t, id("aa"), "example.com/a", time.Now())
			if raw, err := os.ReadFile(path); err != nil || string(raw) != "archive" {
				t.Errorf("got %q, %v", raw, err)
			}
			p.holdsOnly(t, id("aa"))
		})
	}
}
