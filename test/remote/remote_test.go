package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPack(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"a": "one", "b": "two"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	err := pack(&archive, map[string]string{
		"src/a": filepath.Join(dir, "a"), "bin/b": filepath.Join(dir, "b"),
		"l": filepath.Join(dir, "l"), "gone": filepath.Join(dir, "gone"),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&archive); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, header.Name+"="+string(data)+header.Linkname)
	}
	slices.Sort(got)
	if want := []string{"bin/b=two", "l=a", "src/a=one"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
