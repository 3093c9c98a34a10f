package image_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// roomy limits bound nothing that a test makes.
var roomy = layer.Limits{MaxBytes: 32 << 30, MaxEntries: 1_000_000}

// place is a store and what is under it.
type place struct {
	*image.Store
	dir    string
	driver storage.Driver
}

func newPlace(t *testing.T) *place {
	t.Helper()
	return openPlace(t, t.TempDir(), func(d storage.Driver) storage.Driver { return d })
}

func openPlace(t *testing.T, root string, wrap func(storage.Driver) storage.Driver) *place {
	t.Helper()
	d, err := plaindir.Open(filepath.Join(root, "storage"))
	if err != nil {
		t.Fatal(err)
	}
	p := &place{dir: filepath.Join(root, "images"), driver: wrap(d)}
	if _, err := image.Init(t.Context(), p.dir); err != nil {
		t.Fatal(err)
	}
	if p.Store, err = image.Open(p.dir, p.driver); err != nil {
		t.Fatal(err)
	}
	return p
}

// id is a made-up image ID that begins with the digits.
func id(digits string) image.ID {
	return image.ID("sha512-" + digits + strings.Repeat("0", 128-len(digits)))
}

// labels is the member of a manifest: pairs of name and value.
func labels(pairs ...string) string {
	var all []string
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, fmt.Sprintf(`{"name":%q,"value":%q}`, pairs[i], pairs[i+1]))
	}
	return `"labels":[` + strings.Join(all, ",") + `]`
}

// draft begins an image with a file in its tree.
func (p *place) draft(t *testing.T) *image.Draft {
	t.Helper()
	d, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.MakeRoot(t.Context(), nil, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Discard(t.Context()); err != nil {
			t.Error("discard:", err)
		}
	})
	if _, err := d.File.WriteString("archive"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Root, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	return d
}

// add commits a made-up image.
func (p *place) add(t *testing.T, i image.ID, name string, imported time.Time, fields ...string) *image.Image {
	t.Helper()
	d := p.draft(t)
	img, err := d.Commit(t.Context(), image.Image{
		ID: i, Manifest: json.RawMessage(acitest.Manifest(name, fields...)), Imported: imported, FileSize: int64(len("archive")),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	return img
}

// files lists the store's directory, one level deep.
func (p *place) files(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*", "*/*", "*/*/*"} {
		found, err := filepath.Glob(filepath.Join(p.dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			names = append(names, strings.TrimPrefix(f, p.dir+"/"))
		}
	}
	slices.Sort(names)
	return names
}

func (p *place) trees(t *testing.T) []string {
	t.Helper()
	trees, err := p.driver.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, tree := range trees {
		names = append(names, tree.Name)
	}
	return names
}

// holdsOnly checks that the store has these images, whole, and nothing else.
func (p *place) holdsOnly(t *testing.T, ids ...image.ID) {
	t.Helper()
	slices.Sort(ids)
	wantFiles, wantTrees, listed := []string{"index.db", "lock"}, []string{}, []image.ID{}
	for _, i := range ids {
		wantFiles = append(wantFiles, string(i), string(i)+"/aci", string(i)+"/record.json")
		wantTrees = append(wantTrees, image.Tree(i))
	}
	images, err := p.List(t.Context())
	if err != nil {
		t.Error("list:", err)
	}
	for _, img := range images {
		listed = append(listed, img.ID)
		if img.OCI != nil {
			wantFiles = slices.DeleteFunc(wantFiles, func(f string) bool { return f == string(img.ID)+"/aci" })
		}
		for _, l := range img.Layers() {
			dir := strings.Replace("layers/"+l.ChainID, ":", "-", 1)
			wantFiles = append(wantFiles, dir, dir+"/blob", dir+"/record.json")
			wantTrees = append(wantTrees, image.LayerTree(l.ChainID))
		}
	}
	slices.Sort(listed)
	slices.Sort(wantFiles)
	slices.Sort(wantTrees)
	wantFiles, wantTrees = slices.Compact(wantFiles), slices.Compact(wantTrees)
	if !slices.Equal(listed, ids) {
		t.Errorf("images %v, want %v", listed, ids)
	}
	if got := slices.DeleteFunc(p.files(t), func(f string) bool { return f == "layers" }); !slices.Equal(got, wantFiles) {
		t.Errorf("files %q, want %q", got, wantFiles)
	}
	if got := p.trees(t); !slices.Equal(got, wantTrees) {
		t.Errorf("trees %q, want %q", got, wantTrees)
	}
	if what := p.debris(t); len(what) > 0 {
		t.Errorf("debris: %q", what)
	}
}

func (p *place) debris(t *testing.T) (what []string) {
	t.Helper()
	debris, err := p.Debris(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range debris {
		what = append(what, d.What)
	}
	return what
}

// clean removes all debris.
func (p *place) clean(t *testing.T) {
	t.Helper()
	debris, err := p.Debris(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range debris {
		if err := d.Remove(t.Context()); err != nil {
			t.Errorf("remove %s: %v", d.What, err)
		}
	}
}

// enter writes raw bytes into the index.
func (p *place) enter(t *testing.T, key, value string) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(p.dir, "index.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("images")).Put([]byte(key), []byte(value))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestParseID(t *testing.T) {
	good := strings.Repeat("0123456789abcdef", 8)
	tests := []struct {
		name, id string
		ok       bool
	}{
		{"whole", "sha512-" + good, true},
		{"empty", "", false},
		{"without algorithm", good, false},
		{"another algorithm", "sha256-" + good, false},
		{"short", "sha512-" + good[1:], false},
		{"long", "sha512-" + good + "0", false},
		{"upper case", "sha512-" + strings.ToUpper(good), false},
		{"no hexadecimal digit", "sha512-g" + good[1:], false},
		{"path", "sha512-../../../../etc/passwd", false},
		{"path of the right length", "sha512-" + strings.Repeat("../", 42) + "ab", false},
		{"newline after", "sha512-" + good + "\n", false},
		{"newline within", "sha512-\n" + good[1:], false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := image.ParseID(tt.id)
			if (err == nil) != tt.ok {
				t.Fatalf("error %v, want success %v", err, tt.ok)
			}
			if tt.ok && string(got) != tt.id || !tt.ok && got != "" {
				t.Errorf("got %q", got)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("the message has several lines: %q", err)
			}
		})
	}
}

func TestShort(t *testing.T) {
	if got := id("0123456789abcdef").Short(); got != "sha512-0123456789ab" {
		t.Error(got)
	}
	if got := image.ID("x").Short(); got != "x" {
		t.Error(got)
	}
}

func TestOpen(t *testing.T) {
	driver, err := plaindir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("nothing there", func(t *testing.T) {
		if _, err := image.Open(filepath.Join(t.TempDir(), "none"), driver); !errors.Is(err, image.ErrNotInitialized) {
			t.Error(err)
		}
	})
	t.Run("empty directory", func(t *testing.T) {
		if _, err := image.Open(t.TempDir(), driver); !errors.Is(err, image.ErrNotInitialized) {
			t.Error(err)
		}
	})
	t.Run("cannot tell", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := image.Open(file, driver); err == nil || errors.Is(err, image.ErrNotInitialized) {
			t.Errorf("a failure is not an absence: %v", err)
		}
	})
	t.Run("init cut short", func(t *testing.T) {
		dir := t.TempDir()
		db, err := bbolt.Open(filepath.Join(dir, "index.db"), 0o600, nil)
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		s, err := image.Open(dir, driver)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.List(t.Context()); !errors.Is(err, image.ErrNotInitialized) {
			t.Errorf("list: %v", err)
		}
		if _, err := image.Init(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("after another init: %v, %v", list, err)
		}
	})
	t.Run("not an index", func(t *testing.T) {
		p := newPlace(t)
		if err := os.WriteFile(filepath.Join(p.dir, "index.db"), bytes.Repeat([]byte("x"), 1<<16), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := p.List(t.Context()); err == nil {
			t.Errorf("read as %v", list)
		}
		if _, err := image.Init(t.Context(), p.dir); err != nil {
			t.Error(err)
		}
		if list, err := p.List(t.Context()); err != nil || len(list) > 0 {
			t.Errorf("after init: %v, %v", list, err)
		}
		if fi, err := os.Stat(filepath.Join(p.dir, "index.db.damaged")); err != nil || fi.Size() != 1<<16 {
			t.Errorf("the damaged one was not kept: %v", err)
		}
	})
	t.Run("private", func(t *testing.T) {
		p := newPlace(t)
		fi, err := os.Stat(p.dir)
		if err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v; want 0700", fi.Mode(), err)
		}
	})
}

// A store with images is the same for who opens it later.
func TestReopen(t *testing.T) {
	root := t.TempDir()
	same := func(d storage.Driver) storage.Driver { return d }
	p := openPlace(t, root, same)
	now := time.Now().UTC()
	first := p.add(t, id("aa"), "example.com/a", now, labels("version", "1"))
	p.add(t, id("bb"), "example.com/b", now)
	again := openPlace(t, root, same)
	again.holdsOnly(t, id("aa"), id("bb"))
	got, err := again.Get(t.Context(), id("aa"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Name() != first.Name() || got.Label("version") != "1" || !got.Imported.Equal(now) ||
		!bytes.Equal(got.Manifest, first.Manifest) {
		t.Errorf("%+v, want %+v", got, first)
	}
	f, err := again.File(got)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := io.ReadAll(f); err != nil || string(data) != "archive" {
		t.Errorf("file %q, %v", data, err)
	}
}

func TestFind(t *testing.T) {
	p := newPlace(t)
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	p.add(t, id("11111111"), "example.com/app", day(1), labels("version", "1.9", "os", "linux", "arch", "amd64"))
	p.add(t, id("22222222aa"), "example.com/app", day(1), labels("version", "1.10", "os", "linux", "arch", "amd64"))
	p.add(t, id("22222222bb"), "example.com/app", day(3), labels("version", "1.10", "os", "linux", "arch", "amd64"))
	p.add(t, id("33333333"), "example.com/app", day(2), labels("version", "1.10", "os", "freebsd", "arch", "amd64"))
	p.add(t, id("44444444"), "example.com/app", day(9), labels("version", "1.10-rc1"))
	p.add(t, id("55555555"), "example.com/plain", day(1))
	p.add(t, id("66666666"), "example.com/noarch", day(1), labels("version", "2"))
	p.add(t, id("77777777"), "deadbeef", day(1))
	p.add(t, id("deadbeef"), "example.com/other", day(1))
	p.add(t, id("abcdef12"), "example.com/prefixed", day(1))

	tests := []struct {
		name, want string // want is the beginning of the ID
		err        error
	}{
		{string(id("11111111")), "11111111", nil},
		{"sha512-11111111", "11111111", nil},
		{"11111111", "11111111", nil},
		{string(id("11111111"))[len("sha512-"):], "11111111", nil},
		{"sha512-1111111", "", image.ErrNotFound},
		{"1111111", "", image.ErrNotFound},
		{"sha512-", "", image.ErrNotFound},
		{"sha512-22222222", "", image.ErrAmbiguous},
		{"22222222", "", image.ErrAmbiguous},
		{"22222222a", "22222222aa", nil},
		{string(id("99")), "", image.ErrNotFound},
		{"sha512-ABCDEF12", "", image.ErrNotFound},
		{"abcdef12", "abcdef12", nil},
		{"example.com/app", "22222222bb", nil},
		{"example.com/app:1.9", "11111111", nil},
		{"example.com/app:1.10", "22222222bb", nil},
		{"example.com/app,os=freebsd", "33333333", nil},
		{"example.com/app:1.10,os=freebsd,arch=amd64", "33333333", nil},
		{"example.com/app:1.10,arch=arm64", "", image.ErrNotFound},
		{"example.com/app:2", "", image.ErrNotFound},
		{"example.com/ap", "", image.ErrNotFound},
		{"example.com/plain", "55555555", nil},
		{"example.com/plain,os=linux", "", image.ErrNotFound},
		{"example.com/noarch:2", "66666666", nil},
		{"deadbeef", "77777777", nil}, // a name goes before a prefix
		{"sha512-deadbeef", "deadbeef", nil},
		{"", "", manifest.ErrBadRef},
		{"../../etc", "", manifest.ErrBadRef},
		{"example.com/app:", "", manifest.ErrBadRef},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%.60q", tt.name), func(t *testing.T) {
			img, err := p.Find(t.Context(), tt.name)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && !strings.HasPrefix(string(img.ID), "sha512-"+tt.want) {
				t.Errorf("found %s (%s:%s), want %s", img.ID.Short(), img.Name(), img.Label("version"), tt.want)
			}
		})
	}
}

func TestListOrder(t *testing.T) {
	p := newPlace(t)
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	p.add(t, id("10"), "example.com/b", day(1))
	p.add(t, id("20"), "example.com/a", day(9)) // no version comes last
	p.add(t, id("30"), "example.com/a", day(1), labels("version", "9"))
	p.add(t, id("40"), "example.com/a", day(1), labels("version", "10"))
	p.add(t, id("50"), "example.com/a", day(2), labels("version", "10"))
	p.add(t, id("5f"), "example.com/a", day(2), labels("version", "10"))
	want := []image.ID{id("50"), id("5f"), id("40"), id("30"), id("20"), id("10")}
	images, err := p.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []image.ID
	for _, img := range images {
		got = append(got, img.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestCommit(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	t.Run("twice", func(t *testing.T) {
		p := newPlace(t)
		p.add(t, id("aa"), "example.com/a", now)
		again := p.add(t, id("aa"), "example.com/a", now.Add(time.Hour))
		if !again.Imported.Equal(now) {
			t.Errorf("imported %v: the first import counts", again.Imported)
		}
		p.holdsOnly(t, id("aa"))
	})
	t.Run("tree is sealed and whole", func(t *testing.T) {
		p := newPlace(t)
		p.add(t, id("aa"), "example.com/a", now)
		tree, err := p.driver.Stat(t.Context(), image.Tree(id("aa")))
		if err != nil || !tree.Sealed {
			t.Errorf("%+v, %v", tree, err)
		}
		dir, err := p.driver.Mount(t.Context(), image.Tree(id("aa")))
		if err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(data) != "content" {
			t.Errorf("%q, %v", data, err)
		}
	})
	t.Run("bad ID", func(t *testing.T) {
		p := newPlace(t)
		d := p.draft(t)
		if _, err := d.Commit(t.Context(), image.Image{ID: "../x", Manifest: json.RawMessage(acitest.Manifest("a"))}); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("bad manifest", func(t *testing.T) {
		p := newPlace(t)
		d := p.draft(t)
		if _, err := d.Commit(t.Context(), image.Image{ID: id("aa"), Manifest: json.RawMessage(`{}`)}); !errors.Is(err, manifest.ErrInvalid) {
			t.Error(err)
		}
	})

	t.Run("file lost", func(t *testing.T) {
		p := newPlace(t)
		d := p.draft(t)
		if err := os.Remove(d.File.Name()); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Commit(t.Context(), image.Image{ID: id("aa"), Manifest: json.RawMessage(acitest.Manifest("a"))}); err == nil {
			t.Error("committed")
		}
		if err := d.Discard(t.Context()); err != nil {
			t.Error(err)
		}
		p.holdsOnly(t)
	})

	// What lies in the place of an image that is not there is replaced.
	debris := []struct {
		name string
		make func(t *testing.T, p *place)
	}{
		{"over a tree", func(t *testing.T, p *place) { makeTree(t, p, image.Tree(id("aa"))) }},
		{"over a sealed tree", func(t *testing.T, p *place) {
			makeTree(t, p, image.Tree(id("aa")))
			if err := p.driver.Seal(t.Context(), image.Tree(id("aa"))); err != nil {
				t.Fatal(err)
			}
		}},
		{"over a directory", func(t *testing.T, p *place) { makeFiles(t, p, string(id("aa"))) }},
		{"over tree and directory", func(t *testing.T, p *place) {
			makeTree(t, p, image.Tree(id("aa")))
			makeFiles(t, p, string(id("aa")))
		}},
		{"over an image without tree", func(t *testing.T, p *place) {
			p.add(t, id("aa"), "example.com/old", now)
			if err := p.driver.Destroy(t.Context(), image.Tree(id("aa"))); err != nil {
				t.Fatal(err)
			}
		}},
		{"over a damaged entry", func(t *testing.T, p *place) { p.enter(t, string(id("aa")), "{") }},
		{"over a damaged image", func(t *testing.T, p *place) {
			p.add(t, id("aa"), "example.com/old", now)
			p.enter(t, string(id("aa")), "{")
		}},
	}
	for _, tt := range debris {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			tt.make(t, p)
			p.add(t, id("aa"), "example.com/a", now)
			p.holdsOnly(t, id("aa"))
			img, err := p.Get(t.Context(), id("aa"))
			if err != nil || img.Name() != "example.com/a" {
				t.Errorf("%+v, %v", img, err)
			}
			dir, err := p.driver.Mount(t.Context(), image.Tree(id("aa")))
			if err != nil {
				t.Fatal(err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "file" {
				t.Errorf("the tree holds %v, %v", entries, err)
			}
		})
	}
}

func makeTree(t *testing.T, p *place, name string) {
	t.Helper()
	if err := p.driver.Create(t.Context(), name, storage.Options{}); err != nil {
		t.Fatal(err)
	}
}

func makeFiles(t *testing.T, p *place, name string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(p.dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, name, "aci"), []byte("debris"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Many processes import one image at a time: one copy stays.
func TestConcurrentImports(t *testing.T) {
	testenv.Root(t)
	root := t.TempDir()
	raw := acitest.Image(t, "example.com/a", acitest.WithFile("/bin/a", "a"))
	p := openPlace(t, root, func(d storage.Driver) storage.Driver { return d })
	var wg sync.WaitGroup
	ids := make([]image.ID, 16)
	for i := range ids {
		// As another process would: with handles of its own.
		other := openPlace(t, root, func(d storage.Driver) storage.Driver { return d })
		wg.Go(func() {
			img, _, err := aci.Import(t.Context(), other.Store, bytes.NewReader(raw), aci.ImportOptions{Limits: roomy})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = img.ID
		})
	}
	// What is on its way is no debris at any time.
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		default:
			debris, err := p.Debris(t.Context())
			if err != nil {
				t.Error(err)
			}
			for _, d := range debris {
				if err := d.Remove(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("different IDs: %v", ids)
	}
	p.holdsOnly(t, ids[0])
}

func TestDiscard(t *testing.T) {
	commit := func(t *testing.T, d *image.Draft) {
		if _, err := d.Commit(t.Context(), image.Image{ID: id("aa"), Manifest: json.RawMessage(acitest.Manifest("a"))}); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		stage  func(t *testing.T, p *place, d *image.Draft)
		remain []image.ID
	}{
		{"begun", func(*testing.T, *place, *image.Draft) {}, nil},
		{"file closed", func(t *testing.T, _ *place, d *image.Draft) {
			if err := d.File.Close(); err != nil {
				t.Fatal(err)
			}
			d.File = nil
		}, nil},
		{"sealed", func(t *testing.T, p *place, _ *image.Draft) {
			for _, tree := range p.trees(t) {
				if err := p.driver.Seal(t.Context(), tree); err != nil {
					t.Fatal(err)
				}
			}
		}, nil},
		{"refused", func(t *testing.T, _ *place, d *image.Draft) {
			if _, err := d.Commit(t.Context(), image.Image{ID: "x"}); err == nil {
				t.Fatal("committed")
			}
		}, nil},
		{"committed", func(t *testing.T, _ *place, d *image.Draft) { commit(t, d) }, []image.ID{id("aa")}},
		{"known already", func(t *testing.T, p *place, d *image.Draft) {
			commit(t, p.draft(t))
			commit(t, d)
		}, []image.ID{id("aa")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			t.Run("draft", func(t *testing.T) { // whose end discards all drafts
				d := p.draft(t)
				if what := p.debris(t); len(what) > 0 {
					t.Errorf("a live draft is debris: %q", what)
				}
				if images, err := p.List(t.Context()); err != nil || len(images) > 0 {
					t.Errorf("a draft is seen: %v, %v", images, err)
				}
				tt.stage(t, p, d)
				if err := d.Discard(t.Context()); err != nil {
					t.Error(err)
				}
			})
			p.holdsOnly(t, tt.remain...)
		})
	}
}

func TestRemove(t *testing.T) {
	now := time.Now()
	t.Run("one of two", func(t *testing.T) {
		p := newPlace(t)
		a := p.add(t, id("aa"), "example.com/a", now)
		p.add(t, id("bb"), "example.com/b", now)
		if err := p.Remove(t.Context(), id("aa")); err != nil {
			t.Fatal(err)
		}
		p.holdsOnly(t, id("bb"))
		if _, err := p.Get(t.Context(), id("aa")); !errors.Is(err, image.ErrNotFound) {
			t.Errorf("get: %v", err)
		}
		if _, err := p.File(a); !errors.Is(err, image.ErrDamaged) {
			t.Errorf("file: %v", err)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		p := newPlace(t)
		if err := p.Remove(t.Context(), id("aa")); !errors.Is(err, image.ErrNotFound) {
			t.Error(err)
		}
	})
	t.Run("in use", func(t *testing.T) {
		p := newPlace(t)
		p.add(t, id("aa"), "example.com/a", now)
		if err := p.driver.Clone(t.Context(), image.Tree(id("aa")), "pods/x", storage.Options{}); err != nil {
			t.Fatal(err)
		}
		if err := p.Remove(t.Context(), id("aa")); !errors.Is(err, image.ErrInUse) {
			t.Fatalf("error %v, want ErrInUse", err)
		}
		if err := p.driver.Destroy(t.Context(), "pods/x"); err != nil {
			t.Fatal(err)
		}
		p.holdsOnly(t, id("aa"))
		if err := p.Remove(t.Context(), id("aa")); err != nil {
			t.Error(err)
		}
		p.holdsOnly(t)
	})
	t.Run("without its tree", func(t *testing.T) {
		p := newPlace(t)
		p.add(t, id("aa"), "example.com/a", now)
		if err := p.driver.Destroy(t.Context(), image.Tree(id("aa"))); err != nil {
			t.Fatal(err)
		}
		if err := p.Remove(t.Context(), id("aa")); err != nil {
			t.Fatal(err)
		}
		p.holdsOnly(t)
	})
	t.Run("without its file", func(t *testing.T) {
		p := newPlace(t)
		a := p.add(t, id("aa"), "example.com/a", now)
		if err := os.RemoveAll(filepath.Join(p.dir, string(id("aa")))); err != nil {
			t.Fatal(err)
		}
		if _, err := p.File(a); !errors.Is(err, image.ErrDamaged) {
			t.Errorf("file: %v", err)
		}
		if err := p.Remove(t.Context(), id("aa")); err != nil {
			t.Fatal(err)
		}
		p.holdsOnly(t)
	})
}

func TestDebris(t *testing.T) {
	p := newPlace(t)
	now := time.Now()
	p.add(t, id("aa"), "example.com/a", now)
	p.add(t, id("bb"), "example.com/b", now)
	p.add(t, id("cc"), "example.com/c", now)
	live := p.draft(t)
	if what := p.debris(t); len(what) > 0 {
		t.Fatalf("a good store has debris: %q", what)
	}

	makeFiles(t, p, ".import-5b1d5f0c-0000-4000-8000-000000000001")
	makeTree(t, p, "imports/5b1d5f0c-0000-4000-8000-000000000001")
	makeTree(t, p, "imports/5b1d5f0c-0000-4000-8000-000000000002")
	makeFiles(t, p, string(id("d1")))
	makeTree(t, p, image.Tree(id("d2")))
	makeFiles(t, p, string(id("d3")))
	makeTree(t, p, image.Tree(id("d3")))
	if err := p.driver.Destroy(t.Context(), image.Tree(id("bb"))); err != nil {
		t.Fatal(err)
	}
	p.enter(t, string(id("cc")), `{"id":`)
	p.unrecord(t, id("cc"))
	makeFiles(t, p, "lost+found") // of who made the file system
	want := []string{
		"index entry \"" + string(id("cc")) + "\": damaged",
		"tree imports/5b1d5f0c-0000-4000-8000-000000000001",
		"tree imports/5b1d5f0c-0000-4000-8000-000000000002",
		"directory " + filepath.Join(p.dir, ".import-5b1d5f0c-0000-4000-8000-000000000001"),
		"directory " + filepath.Join(p.dir, string(id("d1"))),
		"directory " + filepath.Join(p.dir, string(id("d3"))),
		"tree " + image.Tree(id("d2")),
		"tree " + image.Tree(id("d3")),
		"image " + id("bb").Short() + ": damaged: it has lost its tree; import it again",
	}
	got := p.debris(t)
	if len(got) != len(want) {
		t.Errorf("%d kinds of debris, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("got %q, want %q…", got[i], want[i])
		}
	}

	p.clean(t)
	if what := p.debris(t); len(what) > 0 {
		t.Errorf("left: %q", what)
	}
	if err := live.Discard(t.Context()); err != nil {
		t.Errorf("the live draft was harmed: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(p.dir, "lost+found")); err != nil {
		t.Fatal(err)
	}
	p.holdsOnly(t, id("aa"))
}

// Between the look and the removal, the image was imported.
func TestDebrisComesToLife(t *testing.T) {
	now := time.Now()
	tests := []struct {
		name string
		make func(t *testing.T, p *place)
	}{
		{"tree", func(t *testing.T, p *place) { makeTree(t, p, image.Tree(id("aa"))) }},
		{"directory", func(t *testing.T, p *place) { makeFiles(t, p, string(id("aa"))) }},
		{"lost tree", func(t *testing.T, p *place) {
			p.add(t, id("aa"), "example.com/a", now)
			if err := p.driver.Destroy(t.Context(), image.Tree(id("aa"))); err != nil {
				t.Fatal(err)
			}
		}},
		{"damaged entry", func(t *testing.T, p *place) { p.enter(t, string(id("aa")), "x") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			tt.make(t, p)
			debris, err := p.Debris(t.Context())
			if err != nil || len(debris) != 1 {
				t.Fatalf("debris %v, %v", debris, err)
			}
			p.add(t, id("aa"), "example.com/a", now)
			if err := debris[0].Remove(t.Context()); err != nil {
				t.Errorf("remove: %v", err)
			}
			p.holdsOnly(t, id("aa"))
		})
	}
}

// One entry that cannot be read is told, does not hide behind others, and can be
// got rid of.
func TestDamagedEntry(t *testing.T) {
	other, err := json.Marshal(image.Image{ID: id("bb"), Manifest: json.RawMessage(acitest.Manifest("example.com/b"))})
	if err != nil {
		t.Fatal(err)
	}
	nameless, err := json.Marshal(image.Image{ID: id("aa"), Manifest: json.RawMessage(`{"acKind":"ImageManifest"}`)})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, key, value string }{
		{"not JSON", string(id("aa")), "{"},
		{"empty", string(id("aa")), ""},
		{"bad manifest", string(id("aa")), string(nameless)},
		{"of another image", string(id("aa")), string(other)},
		{"key is a path", "../../../etc", string(other)},
		{"key is an ID prefix", "sha512-aa", "{"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			p.add(t, id("cc"), "example.com/c", time.Now())
			p.enter(t, tt.key, tt.value)
			if list, err := p.List(t.Context()); err != nil || len(list) != 1 {
				t.Errorf("list: %v, %v", list, err)
			}
			if _, damaged, err := p.ListAll(t.Context()); err != nil || len(damaged) != 1 || !errors.Is(damaged[0], image.ErrDamaged) {
				t.Errorf("damaged: %v, %v", damaged, err)
			}
			for _, name := range []string{"example.com/c", string(id("cc")), "cc000000"} {
				if _, err := p.Find(t.Context(), name); err != nil {
					t.Errorf("find: %v", err)
				}
			}
			if _, err := p.Get(t.Context(), image.ID(tt.key)); !errors.Is(err, image.ErrDamaged) {
				t.Errorf("get: %v", err)
			}
			if _, err := p.Get(t.Context(), id("cc")); err != nil {
				t.Errorf("get another: %v", err)
			}
			if what := p.debris(t); len(what) != 1 {
				t.Errorf("debris: %q", what)
			}
			p.clean(t)
			p.holdsOnly(t, id("cc"))
		})
	}
}

// unrecord removes what an entry can be mended with.
func (p *place) unrecord(t *testing.T, i image.ID) {
	t.Helper()
	if err := os.Remove(filepath.Join(p.dir, string(i), "record.json")); err != nil {
		t.Fatal(err)
	}
}
