package oci_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/image/oci/ocitest"
	"github.com/jetpack-run/jetpack/internal/httpclient"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// place is a store of a test's own.
type place struct {
	*image.Store
	dir    string
	driver storage.Driver
}

func newPlace(t testing.TB) *place {
	t.Helper()
	testenv.Root(t)
	root := t.TempDir()
	driver, err := plaindir.Open(root + "/storage")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.Init(t.Context(), root+"/images"); err != nil {
		t.Fatal(err)
	}
	s, err := image.Open(root+"/images", driver)
	if err != nil {
		t.Fatal(err)
	}
	return &place{s, root + "/images", driver}
}

var roomy = layer.Limits{MaxBytes: 1 << 30, MaxEntries: 10_000}

func options() oci.Options {
	return oci.Options{
		Platforms: oci.HostPlatforms("linux", "amd64", "6.1"), Insecure: []string{"signature"}, Limits: roomy,
		Meter: func(_ string, _, _ int64, r io.Reader) io.ReadCloser { return io.NopCloser(r) },
	}
}

func (p *place) load(t testing.TB, location string, o oci.Options) (*image.Image, error) {
	t.Helper()
	l, err := oci.ParseLocation(location, slices.Contains(o.Insecure, "http"))
	if err != nil {
		t.Fatal(err)
	}
	img, _, err := oci.Import(t.Context(), p.Store, l, o)
	return img, err
}

func (p *place) mustLoad(t testing.TB, location string, o oci.Options) *image.Image {
	t.Helper()
	img, err := p.load(t, location, o)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// clean fails if there is anything but images and their layers.
func (p *place) clean(t testing.TB) {
	t.Helper()
	debris, err := p.Debris(t.Context())
	if err != nil || len(debris) > 0 {
		t.Errorf("debris: %v, %v", debris, err)
	}
}

// trees gives the names of the trees of a kind.
func (p *place) trees(t testing.TB, kind string) (names []string) {
	t.Helper()
	trees, err := p.driver.List(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	for _, tree := range trees {
		names = append(names, tree.Name)
	}
	return names
}

func (p *place) content(t testing.TB, img *image.Image) (tree map[string]string) {
	t.Helper()
	err := p.WithRoot(t.Context(), img, func(root string) (err error) {
		tree, err = contentOf(root)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// contentOf gives the paths of a tree with what is there: "/" for a directory, "->" and
// the target of a link, the content of a file.
func contentOf(root string) (map[string]string, error) {
	tree := map[string]string{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == root {
			return err
		}
		name := strings.TrimPrefix(file, root+"/")
		switch {
		case d.IsDir():
			tree[name] = "/"
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(file)
			tree[name] = "->" + target
			return err
		default:
			data, err := os.ReadFile(file)
			tree[name] = string(data)
			return err
		}
		return nil
	})
	return tree, err
}

func base(t testing.TB) v1.Layer {
	t.Helper()
	return ocitest.Layer(t, acitest.Dir("etc"), acitest.File("etc/a", "a"), acitest.File("etc/b", "b"))
}

// Images that have layers in common share them, each stored and applied once, and give
// them back with the last image.
func TestLayersAreShared(t *testing.T) {
	p, dir := newPlace(t), t.TempDir()
	common := []v1.Layer{base(t), ocitest.Layer(t, acitest.File("etc/.wh.a", ""))}
	one := append(slices.Clone(common), ocitest.Layer(t, acitest.File("one", "1")))
	two := append(slices.Clone(common), ocitest.Layer(t, acitest.File("two", "2")))
	ocitest.Layout(t, dir, "1", ocitest.Image(t, nil, one...))
	ocitest.Layout(t, dir, "2", ocitest.Image(t, nil, two...))
	var came atomic.Int32
	o := options()
	o.Meter = func(_ string, _, _ int64, r io.Reader) io.ReadCloser { came.Add(1); return io.NopCloser(r) }
	first := p.mustLoad(t, "oci:"+dir+":1", o)
	if came.Load() != 3 || len(p.trees(t, "layers")) != 3 {
		t.Errorf("%d blobs came, trees %v", came.Load(), p.trees(t, "layers"))
	}
	came.Store(0)
	second := p.mustLoad(t, "oci:"+dir+":2", o)
	if came.Load() != 1 || len(p.trees(t, "layers")) != 4 {
		t.Errorf("%d blobs came, trees %v", came.Load(), p.trees(t, "layers"))
	}
	if got := p.content(t, second); fmt.Sprint(got) != "map[etc:/ etc/b:b two:2]" {
		t.Error(got)
	}
	for _, img := range []*image.Image{first, second} {
		if changes, err := oci.Verify(t.Context(), p.Store, img, roomy, true); err != nil || len(changes) > 0 {
			t.Error(changes, err)
		}
		if img.Size != img.OCI.Layers[0].Content+img.OCI.Layers[1].Content+img.OCI.Layers[2].Content {
			t.Errorf("size %d of %+v", img.Size, img.OCI.Layers)
		}
	}
	p.clean(t)
	if err := p.Remove(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	p.clean(t)
	if n := len(p.trees(t, "layers")); n != 3 {
		t.Errorf("%d layers", n)
	}
	if err := p.Remove(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	p.clean(t)
	if left := append(p.trees(t, ""), glob(t, p.dir+"/layers/*")...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// The same image is the same image however it comes.
func TestTransports(t *testing.T) {
	p, dir := newPlace(t), t.TempDir()
	img := ocitest.Image(t, func(c *v1.ConfigFile) { c.Config.Cmd = []string{"/x"} }, base(t), ocitest.Layer(t, acitest.File("x", "x")))
	digest := ocitest.Digest(t, img)
	ocitest.Layout(t, dir+"/layout", "1", img)
	archive(t, dir+"/layout", dir+"/oci.tar")
	tag, err := name.NewTag("example.com/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(dir+"/docker.tar", tag, img); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	push(t, host+"/a/app:1", img)
	o := options()
	o.Insecure = []string{"signature", "http"}
	o.Web = client(t)
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	var id image.ID
	for _, tt := range []struct{ location, tag, origin string }{
		{"oci:" + dir + "/layout", "layout:1", "oci:" + dir + "/layout@" + digest},
		{"oci-archive:" + dir + "/oci.tar:1", "oci:1", "oci-archive:" + dir + "/oci.tar@" + digest},
		{"docker-archive:" + dir + "/docker.tar", "example.com/app:1", "docker-archive:" + dir + "/docker.tar@" + config.String()},
		{"docker://" + host + "/a/app:1", strings.Replace(host, ":", "~3a", 1) + "/a/app:1", "docker://" + host + "/a/app:1@" + digest},
	} {
		t.Run(tt.location[:6], func(t *testing.T) {
			fresh := newPlace(t)
			got := fresh.mustLoad(t, tt.location, o)
			if id == "" {
				id = got.ID
			}
			if got.ID != id || !slices.Equal(got.Tags, []string{tt.tag}) || got.Origin != tt.origin {
				t.Errorf("%s, %v, %s", got.ID, got.Tags, got.Origin)
			}
			if tree := fresh.content(t, got); fmt.Sprint(tree) != "map[etc:/ etc/a:a etc/b:b x:x]" {
				t.Error(tree)
			}
			// By its digest it needs no leave, and nothing is recorded as waived.
			strict := o
			strict.Insecure = []string{"http"}
			if _, err := fresh.load(t, tt.location, strict); !errors.Is(err, image.ErrUntrusted) || !strings.Contains(err.Error(), "import --insecure=http "+tt.origin) {
				t.Error(err)
			}
			if again := fresh.mustLoad(t, tt.origin, strict); again.ID != id || slices.Contains(again.Insecure, "signature") {
				t.Errorf("%s, %v", again.ID, again.Insecure)
			}
			fresh.clean(t)
			all := p.mustLoad(t, tt.location, o) // one after the other
			if all.ID != id {
				t.Error(all.ID)
			}
		})
	}
	if n := len(p.trees(t, "layers")); n != 2 {
		t.Errorf("%d layers", n)
	}
}

// archive makes an archive of a layout.
func archive(t testing.TB, dir, file string) {
	t.Helper()
	var entries []acitest.Entry
	tree, err := contentOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range tree {
		if content != "/" {
			entries = append(entries, acitest.File(name, content))
		}
	}
	if err := os.WriteFile(file, acitest.Tar(t, entries...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func push(t testing.TB, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err == nil {
		err = remote.Write(r, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func client(t testing.TB) *httpclient.Client {
	t.Helper()
	c, err := httpclient.New(httpclient.Options{HTTP: true, UserAgent: "jetpack/test"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What comes is not what was named: nothing stays of it.
func TestRefused(t *testing.T) {
	layers := []v1.Layer{base(t), ocitest.Layer(t, acitest.File("x", "xxxx"))}
	blob := func(t *testing.T, l v1.Layer) string {
		d, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return "/blobs/sha256/" + d.Hex
	}
	config := func(change func(*v1.ConfigFile)) func(*testing.T, string) {
		return func(t *testing.T, dir string) { ocitest.Layout(t, dir, "1", ocitest.Image(t, change, layers...)) }
	}
	spoilt := func(change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			config(nil)(t, dir)
			file := dir + blob(t, layers[1])
			data, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file, change(data), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	with := func(l v1.Layer) func(*testing.T, string) {
		return func(t *testing.T, dir string) { ocitest.Layout(t, dir, "1", ocitest.Image(t, nil, layers[0], l)) }
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, dir string)
		want error
	}{
		{"a blob with a bit flipped", spoilt(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), oci.ErrFormat},
		{"a blob that goes on", spoilt(func(b []byte) []byte { return append(b, 0) }), oci.ErrFormat},
		{"a blob cut short", spoilt(func(b []byte) []byte { return b[:len(b)-1] }), oci.ErrFormat},
		{"no blob", spoilt(func([]byte) []byte { return nil }), oci.ErrFormat},
		{"another diff ID", config(func(c *v1.ConfigFile) { c.RootFS.DiffIDs[1] = c.RootFS.DiffIDs[0] }), oci.ErrFormat},
		{"a diff ID too few", config(func(c *v1.ConfigFile) { c.RootFS.DiffIDs = c.RootFS.DiffIDs[:1] }), oci.ErrFormat},
		{"no rootfs", config(func(c *v1.ConfigFile) { c.RootFS.Type = "tar" }), oci.ErrFormat},
		{"another platform", config(func(c *v1.ConfigFile) { c.Architecture = "s390x" }), oci.ErrPlatform},
		{"out of the root", with(ocitest.Layer(t, acitest.File("../../x", "x"))), layer.ErrName},
		{"a device", with(ocitest.Layer(t, func() acitest.Entry { e := acitest.File("x", ""); e.Typeflag = '3'; e.Devmajor = 1; return e }())), layer.ErrDevice},
		{"no archive", with(ocitest.Raw(t, bytes.Repeat([]byte("hello "), 1000))), oci.ErrFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, dir := newPlace(t), t.TempDir()
			tt.make(t, dir)
			_, err := p.load(t, "oci:"+dir, options())
			if !errors.Is(err, tt.want) && (tt.name != "no archive" || err == nil) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if trees := p.trees(t, "images"); len(trees) > 0 {
				t.Error(trees)
			}
			p.clean(t)
			if left := append(p.trees(t, ""), glob(t, p.dir+"/layers/*")...); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// A registry that asks for a password, serves several platforms, and lies.
func TestRegistry(t *testing.T) {
	var asked atomic.Int32
	var lie atomic.Pointer[[]byte]
	inner := registry.New()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if body := lie.Load(); body != nil && strings.Contains(r.URL.Path, "/blobs/") {
			_, _ = w.Write(*body)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	docker := t.TempDir()
	t.Setenv("DOCKER_CONFIG", docker)
	p, o := newPlace(t), options()
	o.Insecure, o.Web = []string{"signature", "http"}, client(t)
	location := "docker://" + host + "/app:1"

	if _, err := p.load(t, location, o); err == nil || !strings.Contains(err.Error(), "docker login "+host) {
		t.Errorf("without a password: %v", err)
	}
	auth := fmt.Sprintf(`{"auths":{%q:{"username":"me","password":"secret"}}}`, host)
	if err := os.WriteFile(docker+"/config.json", []byte(auth), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.load(t, location, o); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("no image: %v", err)
	}

	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"arm64", "amd64"} {
		img := ocitest.Image(t, func(c *v1.ConfigFile) { c.Architecture = arch }, base(t), ocitest.Layer(t, acitest.File("arch", arch)))
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	index = mutate.IndexMediaType(index, types.OCIImageIndex)
	ref, err := name.ParseReference(host + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index, remote.WithAuth(basic{})); err != nil {
		t.Fatal(err)
	}
	if got := p.content(t, p.mustLoad(t, location, o)); got["arch"] != "amd64" {
		t.Error(got)
	}
	other := o
	other.Platforms = []v1.Platform{{OS: "linux", Architecture: "arm64"}}
	if got := p.content(t, p.mustLoad(t, location, other)); got["arch"] != "arm64" {
		t.Error(got)
	}
	other.Platforms = []v1.Platform{{OS: "linux", Architecture: "riscv64"}}
	if _, err := p.load(t, location, other); !errors.Is(err, oci.ErrPlatform) || !strings.Contains(err.Error(), "linux/arm64, linux/amd64") {
		t.Error(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	other = o
	other.Insecure = []string{"http"}
	if img := p.mustLoad(t, "docker://"+host+"/app@"+digest.String(), other); slices.Contains(img.Insecure, "signature") {
		t.Error(img.Insecure)
	}

	fresh := newPlace(t)
	body := []byte("not what you asked for")
	lie.Store(&body)
	if _, err := fresh.load(t, location, o); err == nil {
		t.Error("a lie is believed")
	}
	fresh.clean(t)
}

// basic is what opens the registry.
type basic struct{}

func (basic) Authorization() (*authn.AuthConfig, error) {
	return &authn.AuthConfig{Username: "me", Password: "secret"}, nil
}

// A lost or damaged blob is found, and mended by an import, be it of an image in which
// the layer is compressed in another way.
func TestDamage(t *testing.T) {
	p, dir := newPlace(t), t.TempDir()
	ocitest.Layout(t, dir, "1", ocitest.Image(t, nil, base(t)))
	img := p.mustLoad(t, "oci:"+dir, options())
	blobs := glob(t, p.dir+"/layers/*/blob")
	if len(blobs) != 1 {
		t.Fatal(blobs)
	}
	data, err := os.ReadFile(blobs[0])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(blobs[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Verify(t.Context(), p.Store, img, roomy, false); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("flipped: %v", err)
	}
	if err := os.Remove(blobs[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Verify(t.Context(), p.Store, img, roomy, false); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("lost: %v", err)
	}
	tag, err := name.NewTag("example.com/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(dir+"/docker.tar", tag, uncompressed(t, base(t))); err != nil {
		t.Fatal(err)
	}
	p.mustLoad(t, "docker-archive:"+dir+"/docker.tar", options())
	if img, err = p.Get(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if changes, err := oci.Verify(t.Context(), p.Store, img, roomy, true); err != nil || len(changes) > 0 {
		t.Error(changes, err)
	}
	if got := img.OCI.Layers[0].Compression; got != "none" {
		t.Errorf("compressed with %s", got)
	}
	p.clean(t)
}

// uncompressed is an image with another configuration and the same layer, uncompressed.
func uncompressed(t testing.TB, l v1.Layer) v1.Image {
	t.Helper()
	return ocitest.Image(t, func(c *v1.ConfigFile) { c.Config.Cmd = []string{"/other"} }, plain{l})
}

// plain is a layer as it is uncompressed.
type plain struct{ v1.Layer }

func (p plain) Compressed() (io.ReadCloser, error)  { return p.Uncompressed() }
func (p plain) Digest() (v1.Hash, error)            { return p.DiffID() }
func (p plain) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }

func (p plain) Size() (int64, error) {
	r, err := p.Uncompressed()
	if err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, r)
}

// Layers of any kind make the tree that they make in the plainest way.
func TestRandomLayers(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		want := map[string]string{}
		var layers []v1.Layer
		var told [][]acitest.Entry
		for range 1 + random.IntN(4) {
			entries := randomLayer(random, want)
			want = squash(want, entries)
			told = append(told, entries)
			layers = append(layers, ocitest.Layer(t, entries...))
		}
		p, dir := newPlace(t), t.TempDir()
		ocitest.Layout(t, dir, "1", ocitest.Image(t, nil, layers...))
		got := p.content(t, p.mustLoad(t, "oci:"+dir, options()))
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("seed %d:\ngot  %v\nwant %v\nlayers %v", seed, got, want, told)
		}
	}
}

// randomLayer makes a layer that fits on what is there: every parent has an entry.
func randomLayer(random *rand.Rand, there map[string]string) (entries []acitest.Entry) {
	pick := func() string { return string(rune('a' + random.IntN(4))) }
	made := map[string]bool{}
	for range random.IntN(8) {
		dir := ""
		for range random.IntN(3) {
			dir = path.Join(dir, pick())
			if made[dir] {
				break
			}
			made[dir] = true
			entries = append(entries, acitest.Dir(dir))
		}
		if dir != "" && !slices.ContainsFunc(entries, func(e acitest.Entry) bool { return e.Name == dir && e.Typeflag == '5' }) {
			continue
		}
		name := path.Join(dir, pick())
		switch kind := random.IntN(5); {
		case kind == 0:
			entries = append(entries, acitest.File(path.Join(dir, ".wh.."+"wh..opq"), ""))
		case kind == 1:
			entries = append(entries, acitest.File(path.Join(dir, ".wh."+path.Base(name)), ""))
		case made[name]:
		case kind == 2:
			made[name] = true
			entries = append(entries, acitest.Symlink(name, "/etc"))
		default:
			made[name] = true
			entries = append(entries, acitest.File(name, fmt.Sprint(random.IntN(1000))))
		}
	}
	return entries
}

// squash applies a layer to a tree in memory: first all that it hides, then all that it
// makes.
func squash(lower map[string]string, entries []acitest.Entry) map[string]string {
	tree := map[string]string{}
	for name, content := range lower {
		tree[name] = content
	}
	remove := func(name string, itself bool) {
		for n := range tree {
			if strings.HasPrefix(n, name+"/") || name == "." || itself && n == name {
				delete(tree, n)
			}
		}
	}
	for _, e := range entries {
		dir, base := path.Split(e.Name)
		if base == ".wh..wh..opq" {
			remove(path.Clean(dir), false)
		} else if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
			remove(dir+hidden, true)
		}
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(path.Base(e.Name), ".wh."):
		case e.Typeflag == '5':
			if tree[e.Name] != "/" {
				remove(e.Name, true)
			}
			tree[e.Name] = "/"
		default:
			remove(e.Name, true)
			tree[e.Name] = e.Body
			if e.Typeflag == '2' {
				tree[e.Name] = "->" + e.Linkname
			}
		}
	}
	return tree
}
