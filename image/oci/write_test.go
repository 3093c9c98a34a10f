package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/vbatts/go-mtree"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/image/oci/ocitest"
	"github.com/jetpack-run/jetpack/internal/httpclient"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// exporter exports of a place.
func (p *place) exporter() oci.Exporter {
	return oci.Exporter{Store: p.Store, Driver: p.driver, OS: "linux", Arch: "amd64"}
}

func (p *place) importACI(t *testing.T, data []byte) *image.Image {
	t.Helper()
	img, _, err := aci.Import(t.Context(), p.Store, bytes.NewReader(data), aci.ImportOptions{Limits: roomy})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (p *place) open(t *testing.T, img *image.Image) *oci.Export {
	t.Helper()
	x, err := p.exporter().Open(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return x
}

// flat is an image as an ACI that depends on nothing.
func (p *place) flat(t *testing.T, img *image.Image) []byte {
	t.Helper()
	m := *img.Parsed()
	m.Dependencies, m.PathWhitelist = nil, nil
	raw, err := manifest.MarshalImage(&m)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	err = p.WithRoot(t.Context(), img, func(root string) error {
		return aci.Pack(t.Context(), &buf, raw, aci.PackOptions{Root: root, Compression: "gzip"})
	})
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sameRoot compares the roots of two images with mtree(8)'s keywords.
func sameRoot(t *testing.T, a *place, x *image.Image, b *place, y *image.Image) {
	t.Helper()
	keywords := []mtree.Keyword{"type", "mode", "uid", "gid", "size", "link", "nlink", "sha256digest", "time", "xattr"}
	err := a.WithRoot(t.Context(), x, func(before string) error {
		return b.WithRoot(t.Context(), y, func(after string) error {
			want, err := mtree.Walk(before, nil, keywords, nil)
			if err != nil {
				return err
			}
			deltas, err := mtree.Check(after, want, keywords, nil)
			for _, d := range deltas {
				// How large a directory is, is the file system's business.
				if keys := d.Diff(); len(keys) != 1 || keys[0].Name() != "size" || !strings.Contains(d.Old().String(), "type=dir") {
					t.Errorf("%s", d.String())
				}
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func timed(e acitest.Entry, uid, gid int, mode int64, sec, nsec int64) acitest.Entry {
	e.Uid, e.Gid, e.Mode, e.ModTime, e.Format = uid, gid, mode, time.Unix(sec, nsec), tar.FormatPAX
	return e
}

// chain takes in images of which each changes something in the one below, in all ways.
func chain(t *testing.T, s *place) (base, top *image.Image) {
	t.Helper()
	attributed := acitest.File("rootfs/etc/attributed", "x")
	attributed.Format, attributed.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.xattr.user.é": "\x00\n"}
	base = s.importACI(t, acitest.Image(t, "example.com/base", acitest.WithField(`"labels":[{"name":"version","value":"1.0"}]`),
		acitest.WithEntry(timed(acitest.Dir("rootfs/etc"), 1, 2, 0o1777, 1e9, 5)),
		acitest.WithEntry(timed(acitest.File("rootfs/etc/set", "uid"), 3, 4, 0o4755, 1e9, 123456789)),
		acitest.WithEntry(acitest.Link("rootfs/etc/hard", "rootfs/etc/set")), acitest.WithEntry(attributed),
		acitest.WithFile("/etc/gone", "x"), acitest.WithFile("/etc/changed", "x"), acitest.WithFile("/file", "x"),
		acitest.WithEntry(acitest.Symlink("rootfs/link", "etc")), acitest.WithFile("/dir/below", "x"),
		acitest.WithEntry(timed(acitest.Dir("rootfs/touched"), 0, 0, 0o755, 1e9, 0)), acitest.WithFile("/touched/x", "x"),
		acitest.WithFile("/lost/a/b", "x"), acitest.WithFile("/é\n", "x")))
	s.importACI(t, acitest.Image(t, "example.com/other", acitest.WithFile("/other/x", "x"), acitest.WithFile("/etc/changed", "other")))
	middle := acitest.Image(t, "example.com/middle", acitest.WithField(`"dependencies":[{"imageName":"example.com/base"},{"imageName":"example.com/other"}]`),
		acitest.WithField(`"pathWhitelist":["/etc/set","/etc/hard","/etc/attributed","/etc/changed","/file/now","/link/now","/dir","/touched/x","/other/x","/é\n"]`),
		acitest.WithFile("/file/now", "dir"), acitest.WithFile("/link/now", "dir"), acitest.WithFile("/dir", "file"),
		acitest.WithEntry(timed(acitest.Dir("rootfs/touched"), 0, 0, 0o755, 2e9, 7)))
	s.importACI(t, middle)
	top = s.importACI(t, acitest.Image(t, "example.com/top", acitest.WithField(`"dependencies":[{"imageName":"example.com/middle"}]`),
		acitest.WithField(`"labels":[{"name":"version","value":"2.0"},{"name":"os","value":"linux"},{"name":"arch","value":"aarch64"}]`),
		acitest.WithField(`"annotations":[{"name":"created","value":"2026-01-02T03:04:05Z"},{"name":"authors","value":"me"},{"name":"x","value":"y"},{"name":"jetpack/healthcheck","value":"{\"Test\":[\"CMD\",\"x\"],\"Interval\":5}"}]`),
		acitest.WithField(`"app":{"exec":["/a","b"],"user":"1","group":"2","workingDirectory":"/w","supplementaryGIDs":[3],
			"environment":[{"name":"A","value":"b=c"}],"mountPoints":[{"name":"data","path":"/data"}],
			"ports":[{"name":"web","protocol":"tcp","port":80,"count":2}],"eventHandlers":[{"name":"pre-start","exec":["/p"]}]}`),
		acitest.WithFile("/etc/set", "again")))
	return base, top
}

// What is exported is valid to the library, has the same digests each time, and a layer
// for each image of the chain.
func TestExport(t *testing.T) {
	s := newPlace(t)
	base, top := chain(t, s)
	x, again, below := s.open(t, top), s.open(t, top), s.open(t, base)
	if err := validate.Image(x); err != nil {
		t.Error(err)
	}
	a, errA := x.Digest()
	b, errB := again.Digest()
	if a != b || errA != nil || errB != nil {
		t.Errorf("digests %s and %s, %v, %v", a, b, errA, errB)
	}
	layers, err := x.Layers()
	lowest, errLowest := below.Layers()
	if err != nil || errLowest != nil || len(layers) != 3 || len(lowest) != 1 {
		t.Fatalf("%d and %d layers, %v, %v", len(layers), len(lowest), err, errLowest)
	}
	if digest(t, layers[0]) != digest(t, lowest[0]) {
		t.Error("the lowest layer is not that of the base")
	}
	c, err := x.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := v1.Config{
		Entrypoint: []string{"/a", "b"}, User: "1:2", WorkingDir: "/w", Env: []string{"A=b=c"}, Volumes: map[string]struct{}{"/data": {}},
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "81/tcp": {}},
		Labels:       map[string]string{"x": "y", "org.opencontainers.image.version": "2.0"},
		Healthcheck:  &v1.HealthConfig{Test: []string{"CMD", "x"}, Interval: 5},
	}
	if got, want := asJSON(t, c.Config), asJSON(t, want); got != want {
		t.Errorf("configuration\n%s, want\n%s", got, want)
	}
	if c.OS != "linux" || c.Architecture != "arm64" || c.Author != "me" || c.Created.Format(time.RFC3339) != "2026-01-02T03:04:05Z" || c.RootFS.Type != "layers" || len(c.History) != 3 {
		t.Errorf("got %+v", c)
	}
	if len(x.Warnings) != 2 {
		t.Errorf("warnings %q", x.Warnings)
	}
	if got, want := entryNames(t, layers[2]), []string{"./", "etc/", "etc/set"}; !slices.Equal(got, want) {
		t.Errorf("highest layer %q, want %q", got, want)
	}
	for _, w := range []string{".wh.lost", "etc/.wh.gone"} {
		if got := entryNames(t, layers[1]); !slices.Contains(got, w) {
			t.Errorf("no %s in %q", w, got)
		}
	}
}

// What is no healthcheck, though it has the name of one, is a label as other annotations are.
func TestExportNoHealthcheck(t *testing.T) {
	s := newPlace(t)
	img := s.importACI(t, acitest.Image(t, "example.com/x", acitest.WithField(`"annotations":[{"name":"jetpack/healthcheck","value":"[1]"}]`)))
	c, err := s.open(t, img).ConfigFile()
	if err != nil || c.Config.Healthcheck != nil || c.Config.Labels["jetpack/healthcheck"] != "[1]" {
		t.Errorf("got %+v, %v", c, err)
	}
}

// ACI → OCI → ACI → OCI keeps all there is to a tree, by whichever way it goes.
func TestRoundTrip(t *testing.T) {
	s := newPlace(t)
	_, top := chain(t, s)
	x := s.open(t, top)
	dir := t.TempDir()
	ref := oci.RefName(top)
	if err := oci.WriteLayout(filepath.Join(dir, "layout"), x, ref); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(io.Writer) error{
		"oci.tar":    func(w io.Writer) error { return oci.WriteLayoutArchive(t.Context(), w, x, ref) },
		"docker.tar": func(w io.Writer) error { return oci.WriteDockerArchive(w, x, ref) },
	} {
		var one, two bytes.Buffer
		if err := errors.Join(write(&one), write(&two), os.WriteFile(filepath.Join(dir, name), one.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one.Bytes(), two.Bytes()) {
			t.Errorf("%s is another one the second time", name)
		}
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	pushed := send(t, x, "docker://"+host+"/a/b:1")
	if want := host + "/a/b@" + digest(t, x); pushed != want {
		t.Errorf("pushed %s, want %s", pushed, want)
	}
	o := options()
	o.Web, o.Insecure = client(t), []string{"signature", "http"}
	o.Platforms = []v1.Platform{{OS: "linux", Architecture: "arm64"}}
	for _, location := range []string{
		"oci:" + dir + "/layout", "oci-archive:" + dir + "/oci.tar", "docker-archive:" + dir + "/docker.tar", "docker://" + host + "/a/b:1",
	} {
		t.Run(location[:strings.Index(location, ":")], func(t *testing.T) {
			other := newPlace(t)
			img := other.mustLoad(t, location, o)
			sameRoot(t, s, top, other, img)
			if raw, err := x.RawConfigFile(); err != nil || !bytes.Equal(img.OCI.Config, raw) {
				t.Errorf("configuration %s, %v", img.OCI.Config, err)
			}
			again := other.open(t, img)
			if err := validate.Image(again); err != nil {
				t.Error(err)
			}
			if a, b := layerDigests(t, again), layerDigests(t, x); !slices.Equal(a, b) {
				t.Errorf("layers %v, want %v", a, b)
			}
			third := newPlace(t)
			back := third.importACI(t, other.flat(t, img))
			sameRoot(t, s, top, third, back)
			fourth := newPlace(t)
			if err := oci.WriteLayout(filepath.Join(dir, "flat"), third.open(t, back), "flat:1"); err != nil {
				t.Fatal(err)
			}
			sameRoot(t, s, top, fourth, fourth.mustLoad(t, "oci:"+dir+"/flat:flat:1", o))
		})
	}
}

func send(t *testing.T, x *oci.Export, location string) string {
	t.Helper()
	l, err := oci.ParseLocation(location, true)
	if err != nil {
		t.Fatal(err)
	}
	var complete, total int64
	got, err := oci.Push(t.Context(), client(t), x, l, func(c, n int64) { complete, total = c, n })
	if err != nil {
		t.Fatal(err)
	}
	if complete != total {
		t.Errorf("%d bytes of %d", complete, total)
	}
	return got
}

// What a registry has is not sent again.
func TestPushAgain(t *testing.T) {
	s := newPlace(t)
	base, top := chain(t, s)
	var uploads atomic.Int64
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch || r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/") && r.ContentLength > 0 {
			uploads.Add(1)
		}
		reg.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for i, step := range []struct {
		img  *image.Image
		want int64
	}{{base, 2}, {base, 2}, {top, 5}} {
		send(t, s.open(t, step.img), "docker://"+host+"/a:1")
		if n := uploads.Load(); n != step.want {
			t.Errorf("step %d: %d uploads, want %d", i, n, step.want)
		}
	}
	l, err := oci.ParseLocation("docker://"+host+"/a:1", true)
	if err != nil {
		t.Fatal(err)
	}
	strict, err := httpclient.New(httpclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Push(t.Context(), strict, s.open(t, base), l, nil); !errors.Is(err, httpclient.ErrInsecure) {
		t.Errorf("plain http: %v", err)
	}
	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	defer denied.Close()
	l, err = oci.ParseLocation("docker://"+strings.TrimPrefix(denied.URL, "http://")+"/a:1", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Push(t.Context(), client(t), s.open(t, base), l, nil); err == nil || !strings.Contains(err.Error(), "docker login") {
		t.Errorf("forbidden: %v", err)
	}
}

func TestWriteLayout(t *testing.T) {
	s := newPlace(t)
	base, top := chain(t, s)
	dir := t.TempDir()
	for _, img := range []*image.Image{base, top, base} {
		if err := oci.WriteLayout(dir, s.open(t, img), oci.RefName(img)); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != 2 {
		t.Errorf("%+v, %v", m, err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := oci.WriteLayout(other, s.open(t, base), "a"); err == nil {
		t.Error("a directory with something else became a layout")
	}
}

// An image that OCI cannot have is refused, and nothing is left of it.
func TestNoOCI(t *testing.T) {
	s := newPlace(t)
	for name, options := range map[string][]acitest.Option{
		"whiteout": {acitest.WithFile("/etc/.wh.x", "")},
		"owner":    {acitest.WithField(`"app":{"exec":["/a"],"user":"/a","group":"0"}`)},
		"arch":     {acitest.WithField(`"labels":[{"name":"os","value":"linux"},{"name":"arch","value":"aarch64_be"}]`)},
	} {
		img := s.importACI(t, acitest.Image(t, "example.com/"+name, options...))
		if x, err := s.exporter().Open(t.Context(), img); !errors.Is(err, oci.ErrNoOCI) {
			t.Errorf("%s: %v, %v", name, x, err)
		}
		s.clean(t)
	}
	odd := s.importACI(t, acitest.Image(t, "example.com/odd~name"))
	if err := oci.WriteDockerArchive(io.Discard, s.open(t, odd), oci.RefName(odd)); !errors.Is(err, oci.ErrNoOCI) {
		t.Errorf("name: %v", err)
	}
}

// An image from a registry is called what it was there.
func TestRefName(t *testing.T) {
	s := newPlace(t)
	for name, want := range map[string]string{
		"reg.example.com~3a5000/my~5fapp/x~2d-y": "reg.example.com:5000/my_app/x--y",
		"index.docker.io/library/debian":         "index.docker.io/library/debian",
		"example.com/a~bc":                       "example.com/a~bc",
	} {
		img := s.importACI(t, acitest.Image(t, name))
		if got := oci.RefName(img); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// A docker-archive is one to the library.
func TestDockerArchive(t *testing.T) {
	s := newPlace(t)
	base, _ := chain(t, s)
	x := s.open(t, base)
	file := filepath.Join(t.TempDir(), "a.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(oci.WriteDockerArchive(f, x, oci.RefName(base)), f.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
}

func digest(t *testing.T, of interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := of.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func layerDigests(t *testing.T, img v1.Image) (list []string) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		list = append(list, digest(t, l))
	}
	return list
}

func entryNames(t *testing.T, l v1.Layer) (names []string) {
	t.Helper()
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, hdr.Name)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// An image that came with a manifest leaves with that manifest, byte for byte; unless one of its
// layers is here already, compressed in another way.
func TestSameManifest(t *testing.T) {
	s, dir := newPlace(t), t.TempDir()
	annotated := func(l v1.Layer) v1.Image {
		return mutate.Annotations(ocitest.Image(t, nil, l), map[string]string{"org.example": "kept"}).(v1.Image)
	}
	was := ocitest.Layout(t, dir, "1", annotated(base(t)))
	img := s.mustLoad(t, "oci:"+dir, options())
	if img.OCI.Digest != was {
		t.Fatalf("digest %s, want %s", img.OCI.Digest, was)
	}
	x := s.open(t, img)
	if got := digest(t, x); got != was {
		t.Errorf("it leaves as %s, and came as %s", got, was)
	}
	if err := validate.Image(x); err != nil {
		t.Error(err)
	}
	again := filepath.Join(t.TempDir(), "layout")
	if err := oci.WriteLayout(again, x, "again:1"); err != nil {
		t.Fatal(err)
	}
	if img := newPlace(t).mustLoad(t, "oci:"+again, options()); img.OCI.Digest != was {
		t.Errorf("it comes back as %s, and was %s", img.OCI.Digest, was)
	}
	larger, err := tarball.LayerFromOpener(base(t).Uncompressed, tarball.WithCompressionLevel(gzip.NoCompression), tarball.WithMediaType(types.OCILayer))
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	ocitest.Layout(t, other, "1", ocitest.Image(t, func(c *v1.ConfigFile) { c.Author = "another" }, larger))
	shared := newPlace(t)
	shared.mustLoad(t, "oci:"+other, options())
	y := shared.open(t, shared.mustLoad(t, "oci:"+dir, options()))
	if err := validate.Image(y); err != nil {
		t.Error(err)
	}
	if digest(t, y) == was {
		t.Error("it has a layer that is not in its manifest")
	}
}
