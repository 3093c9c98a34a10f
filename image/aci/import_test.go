package aci_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/appc/spec/schema"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func newStore(t *testing.T, dir string) *image.Store {
	t.Helper()
	driver, err := plaindir.Open(filepath.Join(dir, "storage"))
	if err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(dir, "images")
	if _, err := image.Init(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	s, err := image.Open(images, driver)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A file is moved into the store if the image comes in; else it stays where it is.
func TestImportFile(t *testing.T) {
	testenv.Root(t)
	good := acitest.Image(t, "example.com/a", acitest.WithFile("/a", "x"), acitest.WithField(`"bogus":1`))
	no := errors.New("no")
	vouched := &image.Signature{Armored: "x", Fingerprint: "f"}
	for _, tt := range []struct {
		name  string
		data  []byte
		admit error
		opts  aci.ImportOptions
		want  error
	}{
		{"good", good, nil, aci.ImportOptions{Origin: "o", ETag: "e", Limits: small}, nil},
		{"not admitted", good, no, aci.ImportOptions{Limits: small}, no},
		{"strict", good, nil, aci.ImportOptions{Limits: small, Strict: true}, manifest.ErrInvalid},
		{"cut", good[:len(good)-1200], nil, aci.ImportOptions{Limits: small}, aci.ErrFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := newStore(t, dir)
			path := filepath.Join(dir, "mine")
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			tt.opts.Admit = func(_ context.Context, m *schema.ImageManifest, archive io.ReadSeeker) (*image.Signature, error) {
				if seen, err := io.ReadAll(archive); err != nil || !bytes.Equal(seen, tt.data) || m.Name != "example.com/a" {
					t.Errorf("to be admitted: %s, %d bytes, %v", m.Name, len(seen), err)
				}
				return vouched, tt.admit
			}
			img, warnings, err := aci.ImportFile(t.Context(), s, f, tt.opts)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			data, readErr := os.ReadFile(path)
			if tt.want != nil {
				if readErr != nil || !bytes.Equal(data, tt.data) {
					t.Error("the file is not what it was:", readErr)
				}
				images, err := s.List(t.Context())
				debris, debrisErr := s.Debris(t.Context())
				if err := errors.Join(err, debrisErr); err != nil || len(images) > 0 || len(debris) > 0 {
					t.Error("left:", images, debris, err)
				}
				return
			}
			if !os.IsNotExist(readErr) {
				t.Error("the file is still in its place:", readErr)
			}
			if string(img.ID) != idOf(good) || img.Origin != "o" || img.ETag != "e" || img.Signature.Fingerprint != "f" || len(warnings) != 1 {
				t.Errorf("got %+v, %q", img, warnings)
			}
			kept, err := s.File(img)
			if err != nil {
				t.Fatal(err)
			}
			defer kept.Close()
			if data, err := io.ReadAll(kept); err != nil || !bytes.Equal(data, good) {
				t.Errorf("%d bytes are kept, %v", len(data), err)
			}
		})
	}
}
