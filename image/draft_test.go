package image_test

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// use gives a draft a file of the test's.
func use(t *testing.T, p *place, d *image.Draft, content string) (path string) {
	t.Helper()
	path = filepath.Join(filepath.Dir(p.dir), "mine")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Use(f); err != nil {
		t.Fatal(err)
	}
	return path
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

func (p *place) archive(t *testing.T, img *image.Image) string {
	t.Helper()
	f, err := p.File(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A file that a draft uses is moved by Commit, and stays where it is without.
func TestUse(t *testing.T) {
	testenv.Root(t)
	record := func(size int) image.Image {
		return image.Image{ID: id("aa"), Manifest: json.RawMessage(acitest.Manifest("example.com/a")), FileSize: int64(size)}
	}
	t.Run("commit", func(t *testing.T) {
		p := newPlace(t)
		d := p.draft(t)
		path := use(t, p, d, "another")
		img, err := d.Commit(t.Context(), record(len("another")))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.archive(t, img); got != "another" || exists(t, path) {
			t.Errorf("%q is kept; still in its place: %t", got, exists(t, path))
		}
	})
	t.Run("discard", func(t *testing.T) {
		p := newPlace(t)
		d := p.draft(t)
		path := use(t, p, d, "another")
		if err := d.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !exists(t, path) {
			t.Error("it is gone")
		}
	})
	t.Run("not wanted", func(t *testing.T) {
		p := newPlace(t)
		known := p.add(t, id("aa"), "example.com/a", time.Now())
		d := p.draft(t)
		path := use(t, p, d, "compressed")
		if _, err := d.Commit(t.Context(), record(len("compressed"))); err != nil {
			t.Fatal(err)
		}
		if got := p.archive(t, known); got != "archive" || !exists(t, path) {
			t.Errorf("%q is kept; still in its place: %t", got, exists(t, path))
		}
	})
	t.Run("gone", func(t *testing.T) {
		p := newPlace(t)
		d := p.draft(t)
		if err := os.Remove(use(t, p, d, "another")); err != nil {
			t.Fatal(err)
		}
		if img, err := d.Commit(t.Context(), record(len("another"))); err == nil {
			t.Errorf("committed %+v", img)
		}
		if images, err := p.List(t.Context()); err != nil || len(images) > 0 {
			t.Errorf("in the store: %v, %v", images, err)
		}
	})
}

// Which file of an image that comes twice is kept, and what vouches for it: a signed
// one gives way to a signed one only.
func TestCommitAgain(t *testing.T) {
	testenv.Root(t)
	by := func(fingerprint string) *image.Signature {
		if fingerprint == "" {
			return nil
		}
		return &image.Signature{Armored: "by " + fingerprint, Fingerprint: fingerprint}
	}
	for _, tt := range []struct {
		name        string
		here, comes string // who signed it
		size        string // of what comes: "same" or "other"
		lost        bool   // the file that is here
		kept        string // the file: "here" or "comes"
		signer      string
		origin      string
	}{
		{"both signed", "a", "b", "same", false, "comes", "b", "comes"},
		{"both signed, other size", "a", "b", "other", false, "comes", "b", "comes"},
		{"signed here", "a", "", "same", false, "here", "a", "here"},
		{"signed here, other size", "a", "", "other", false, "here", "a", "here"},
		{"signed here, but lost", "a", "", "same", true, "comes", "", "comes"},
		{"both signed, lost", "a", "b", "other", true, "comes", "b", "comes"},
		{"signed comes", "", "b", "same", false, "comes", "b", "comes"},
		{"signed comes, other size", "", "b", "other", false, "comes", "b", "comes"},
		{"none signed", "", "", "same", false, "comes", "", "here"},
		{"none signed, other size", "", "", "other", false, "here", "", "here"},
		{"none signed, lost", "", "", "other", true, "comes", "", "here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			commit := func(content, origin, signer string) *image.Image {
				d := p.draft(t)
				use(t, p, d, content)
				img := image.Image{
					ID: id("aa"), Manifest: json.RawMessage(acitest.Manifest("example.com/a")), FileSize: int64(len(content)),
					Origin: origin, ETag: origin, Compression: origin, Signature: by(signer), Imported: time.Now(),
				}
				if signer == "" {
					img.Insecure = []string{"signature"}
				}
				known, err := d.Commit(t.Context(), img)
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Discard(t.Context()); err != nil {
					t.Fatal(err)
				}
				return known
			}
			first := commit("1234", "here", tt.here)
			if tt.lost {
				if err := os.Remove(filepath.Join(p.dir, string(first.ID), "aci")); err != nil {
					t.Fatal(err)
				}
			}
			second := map[string]string{"same": "5678", "other": "56789"}[tt.size]
			commit(second, "comes", tt.comes)
			got, err := p.Get(t.Context(), first.ID)
			if err != nil {
				t.Fatal(err)
			}
			if file := p.archive(t, got); file != map[string]string{"here": "1234", "comes": second}[tt.kept] || got.Compression != tt.kept {
				t.Errorf("%q is kept, %s", file, got.Compression)
			}
			if got.Origin != tt.origin || got.ETag != tt.origin || !got.Imported.Equal(first.Imported) {
				t.Errorf("from %s, %s, at %v", got.Origin, got.ETag, got.Imported)
			}
			signer := ""
			if got.Signature != nil {
				signer = got.Signature.Fingerprint
			}
			if signer != tt.signer || (len(got.Insecure) > 0) != (signer == "") {
				t.Errorf("signed by %q, waived %q", signer, got.Insecure)
			}
			// The copy of the entry, of which the index is made anew, says the same.
			raw, err := os.ReadFile(filepath.Join(p.dir, string(got.ID), "record.json"))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			var record image.Image
			if err := json.Unmarshal(raw, &record); err != nil {
				t.Fatal(err)
			}
			if (record.Signature == nil) != (got.Signature == nil) || record.Origin != got.Origin || record.FileSize != got.FileSize {
				t.Errorf("record %+v", record)
			}
		})
	}
}
