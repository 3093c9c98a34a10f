package aci_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/testenv"
	"github.com/jetpack-run/jetpack/internal/treecmp"
)

// A tree is found again in the image that it was packed to, which has the same ID
// however it is compressed and whenever it is made.
func TestPack(t *testing.T) {
	testenv.Root(t)
	root := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(name), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	manifest := []byte(acitest.Manifest("example.com/packed"))
	pack := func(t *testing.T, o aci.PackOptions) []byte {
		t.Helper()
		var buf bytes.Buffer
		o.Root = root
		if err := aci.Pack(t.Context(), &buf, manifest, o); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	ids := map[string]bool{}
	for _, c := range []extract.Compression{extract.None, extract.Gzip, extract.Xz} {
		data := pack(t, aci.PackOptions{Compression: c})
		if !bytes.Equal(data, pack(t, aci.PackOptions{Compression: c})) {
			t.Errorf("%s: the second file differs", c)
		}
		target := t.TempDir()
		res, err := aci.Extract(t.Context(), bytes.NewReader(data), target, aci.ExtractOptions{Limits: roomy})
		if err != nil || res.Compression != c || len(res.Warnings) > 0 {
			t.Fatalf("%s: %+v, %v", c, res, err)
		}
		ids[res.ID] = true
		if changes, err := treecmp.Compare(t.Context(), root, target); err != nil || len(changes) > 0 {
			t.Errorf("%s: %v, %v", c, changes, err)
		}
		m, err := aci.ReadManifest(t.Context(), bytes.NewReader(data), roomy)
		if err != nil || !bytes.Equal(m.Raw, manifest) {
			t.Errorf("%s: manifest %q, %v", c, m.Raw, err)
		}
	}
	if len(ids) != 1 {
		t.Errorf("image IDs %v", ids)
	}

	// Rootfs is there, also of an image that has nothing else of the tree.
	some, err := aci.Validate(t.Context(), bytes.NewReader(pack(t, aci.PackOptions{Names: []string{}, Compression: extract.None})), roomy)
	if err != nil || some.Size > 5<<10 {
		t.Errorf("without names: %+v, %v", some, err)
	}
	// With a latest time, those of the tree do not matter.
	latest := aci.PackOptions{Latest: time.Unix(1e9, 0), Compression: extract.None}
	before := pack(t, latest)
	if err := os.Chtimes(filepath.Join(root, "a"), time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, pack(t, latest)) {
		t.Error("a file of another time makes another image")
	}
}

func TestPackFailure(t *testing.T) {
	testenv.Root(t)
	full := errors.New("disk full")
	for _, c := range []extract.Compression{extract.None, extract.Gzip, extract.Xz} {
		err := aci.Pack(t.Context(), failingWriter{full}, nil, aci.PackOptions{Root: t.TempDir(), Compression: c})
		if !errors.Is(err, full) {
			t.Errorf("%s: got %v", c, err)
		}
	}
	var buf bytes.Buffer
	err := aci.Pack(t.Context(), &buf, nil, aci.PackOptions{Root: t.TempDir(), Names: []string{"gone"}, Compression: extract.Gzip})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := aci.Validate(t.Context(), &buf, layer.Limits{MaxBytes: 1, MaxEntries: 1}); !errors.Is(err, aci.ErrFormat) {
		t.Errorf("what is left of it: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
