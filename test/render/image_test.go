package render_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(testenv.PrivateMounts(m))
}

// backend is a storage driver under test.
type backend struct {
	name string
	// seeds is how many random cases it gets unless a flag says otherwise.
	seeds int
	// links: clones keep hard links. On overlayfs, writing to one of several hard
	// links of a lower layer parts it from the others (see storage.Driver.Clone).
	links bool
	open  func(t testing.TB, dir string) storage.Driver
}

// backends are the drivers that this system has.
var backends = []backend{{"plaindir", 200, true, func(t testing.TB, dir string) storage.Driver {
	t.Helper()
	d, err := plaindir.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}}}

func onEachBackend(t *testing.T, test func(t *testing.T, b backend)) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { test(t, b) })
	}
}

// world is an image store under test.
type world struct {
	testing.TB
	dir      string // where everything is
	backend  backend
	driver   storage.Driver
	store    *image.Store
	imported map[*spec]*image.Image
}

func newWorld(t testing.TB, b backend) *world {
	t.Helper()
	testenv.Root(t)
	dir := scratch(t)
	driver := b.open(t, filepath.Join(dir, "trees"))
	images := filepath.Join(dir, "images")
	if _, err := image.Init(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	store, err := image.Open(images, driver)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, dir, b, driver, store, map[*spec]*image.Image{}}
	t.Cleanup(w.unmountAll)
	return w
}

// unmountAll leaves a directory that can be removed.
func (w *world) unmountAll() {
	ctx := context.Background() // the test's own has ended
	trees, err := w.driver.List(ctx, "")
	if err != nil {
		w.Error(err)
	}
	for _, tr := range trees {
		if err := w.driver.Unmount(ctx, tr.Name); err != nil {
			w.Error(err)
		}
	}
}

// scratch gives a directory that lasts as long as the test. It is in memory, because on
// a disk this is what takes most of the time.
func scratch(t testing.TB) string {
	t.Helper()
	testenv.Root(t)
	dir := t.TempDir()
	testenv.InMemory(t, dir)
	return dir
}

var limits = layer.Limits{MaxBytes: 1 << 30, MaxEntries: 1_000_000}

// load imports an image whose dependencies are there.
func (w *world) load(s *spec) (*image.Image, error) {
	w.Helper()
	img, _, err := aci.Import(w.Context(), w.store, bytes.NewReader(w.archive(s)), aci.ImportOptions{
		Origin: s.name, Insecure: []string{"signature"}, Limits: limits,
	})
	if err == nil {
		w.imported[s] = img
	}
	return img, err
}

func (w *world) mustLoad(specs ...*spec) {
	w.Helper()
	for _, s := range specs {
		if _, err := w.load(s); err != nil {
			w.Fatalf("import %s: %v", s.name, err)
		}
	}
}

// root describes the root that jetpack made of an image.
func (w *world) root(s *spec) tree {
	w.Helper()
	name := image.Tree(w.imported[s].ID)
	dir, err := w.driver.Mount(w.Context(), name)
	if err != nil {
		w.Fatal(err)
	}
	got, err := scan(dir, w.backend.links)
	if err != nil {
		w.Fatal(err)
	}
	if err := w.driver.Unmount(w.Context(), name); err != nil {
		w.Fatal(err)
	}
	return got
}

// differs tells how the root that jetpack made differs from the naive one.
func (w *world) differs(s *spec) string {
	w.Helper()
	return compare(w.root(s), naive(w, w.dir, s, w.backend.links))
}

// naive is the root of an image as the specification's text has it. It is made
// in a directory of its own below dir.
func naive(t testing.TB, dir string, s *spec, links bool) tree {
	t.Helper()
	root, err := os.MkdirTemp(dir, "naive") //nolint:usetesting // in memory, and removed before the next one
	if err != nil {
		t.Fatal(err)
	}
	if err := render(root, s); err != nil {
		t.Fatal(err)
	}
	want, err := scan(root, links)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	return want
}

// archive writes an image as a file; its byID dependencies have to be imported.
func (w *world) archive(s *spec) []byte {
	w.Helper()
	var entries []acitest.Entry
	for _, e := range s.entries {
		h := tar.Header{
			Typeflag: e.kind, Name: "rootfs" + strings.TrimSuffix(e.path, "/"),
			Mode: e.mode, Uid: e.uid, Gid: e.gid, ModTime: e.mtime, Linkname: e.target,
		}
		if e.kind == tar.TypeLink {
			h.Linkname = "rootfs" + e.target
		}
		if e.mtime.Nanosecond() != 0 {
			h.Format = tar.FormatPAX // the others have whole seconds
		}
		entries = append(entries, acitest.Entry{Header: h, Body: e.body})
	}
	manifest := acitest.File("manifest", w.manifest(s))
	return acitest.Tar(w, append([]acitest.Entry{manifest}, entries...)...)
}

// object is a JSON object.
type object map[string]any

func (w *world) manifest(s *spec) string {
	w.Helper()
	m := object{"acKind": "ImageManifest", "acVersion": "0.8.11", "name": s.name, "labels": labels(s.labels)}
	var deps []object
	for _, d := range s.deps {
		o := object{"imageName": d.on.name, "labels": labels(d.labels)}
		if d.byID {
			img := w.imported[d.on]
			if img == nil {
				w.Fatalf("%s depends on %s by ID, which is not imported", s.name, d.on.name)
			}
			o["imageID"] = img.ID
		}
		deps = append(deps, o)
	}
	if deps != nil {
		m["dependencies"] = deps
	}
	if s.whitelist != nil {
		m["pathWhitelist"] = s.whitelist
	}
	if s.app != "" {
		m["app"] = json.RawMessage(s.app)
	}
	data, err := json.Marshal(m)
	if err != nil {
		w.Fatal(err)
	}
	return string(data)
}

func labels(m map[string]string) []object {
	list := []object{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, object{"name": name, "value": m[name]})
	}
	return list
}

// String prints an image for the report of a failure.
func (s *spec) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v whitelist %q\n", s.name, s.labels, s.whitelist)
	for _, d := range s.deps {
		fmt.Fprintf(&b, "\tdepends on %s %v %v by ID: %v\n", d.on.name, d.on.labels, d.labels, d.byID)
	}
	for _, e := range s.entries {
		fmt.Fprintf(&b, "\t%c %s %04o %d:%d %q %d bytes\n", e.kind, e.path, e.mode, e.uid, e.gid, e.target, len(e.body))
	}
	return b.String()
}
