// Package acitest builds small images for tests, good ones and, entry by entry,
// bad ones.
//
// Not for: anything outside _test.go files.
package acitest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/jetpack-run/jetpack/image/extract"
)

// Entry is an entry of an archive. Size is set from Body by Tar.
type Entry struct {
	tar.Header
	Body string
}

// modTime is that of all entries, so that equal images have equal IDs.
var modTime = time.Date(2015, 10, 18, 12, 0, 0, 0, time.UTC)

func entry(typeflag byte, name, link string, mode int64) Entry {
	return Entry{Header: tar.Header{Typeflag: typeflag, Name: name, Linkname: link, Mode: mode, ModTime: modTime}}
}

// File is a regular file, 0755.
func File(name, body string) Entry {
	e := entry(tar.TypeReg, name, "", 0o755)
	e.Body = body
	return e
}

// Dir is a directory, 0755.
func Dir(name string) Entry { return entry(tar.TypeDir, name, "", 0o755) }

// Symlink is a symbolic link.
func Symlink(name, target string) Entry { return entry(tar.TypeSymlink, name, target, 0o777) }

// Link is a hard link; target is a name in the archive.
func Link(name, target string) Entry { return entry(tar.TypeLink, name, target, 0o755) }

// Tar is an archive of exactly these entries, uncompressed.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		e.Size = int64(len(e.Body))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatalf("write entry %q: %v", e.Name, err)
		}
		if _, err := io.WriteString(w, e.Body); err != nil {
			t.Fatalf("write entry %q: %v", e.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Build is an uncompressed image with the given manifest and root file system;
// the names of the entries begin with "rootfs/".
func Build(t testing.TB, manifest string, entries ...Entry) []byte {
	t.Helper()
	return Tar(t, append([]Entry{File("manifest", manifest), Dir("rootfs")}, entries...)...)
}

// Manifest is an image manifest; fields are further members of the object, such
// as `"labels":[…]`.
func Manifest(name string, fields ...string) string {
	all := append([]string{`"acKind":"ImageManifest","acVersion":"0.8.11","name":"` + name + `"`}, fields...)
	return "{" + strings.Join(all, ",") + "}"
}

// Option makes an Image more than empty.
type Option func(*image)

type image struct {
	fields  []string
	entries []Entry
}

// WithField adds a member to the manifest: `"app":{"exec":["/a"],…}`.
func WithField(field string) Option {
	return func(i *image) { i.fields = append(i.fields, field) }
}

// WithFile adds a file, 0755: path is absolute in the root file system.
func WithFile(path, body string) Option {
	return WithEntry(File("rootfs"+path, body))
}

// WithEntry adds an entry whose name begins with "rootfs/".
func WithEntry(e Entry) Option {
	return func(i *image) { i.entries = append(i.entries, e) }
}

// Image is a valid, uncompressed image of that name.
func Image(t testing.TB, name string, options ...Option) []byte {
	t.Helper()
	var i image
	for _, o := range options {
		o(&i)
	}
	return Build(t, Manifest(name, i.fields...), i.entries...)
}

// Compress compresses data. It skips the test if that takes a program which this
// machine lacks (bzip2).
func Compress(t testing.TB, kind extract.Compression, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser
	var err error
	switch kind {
	case extract.None:
		return data
	case extract.Gzip:
		w = gzip.NewWriter(&buf)
	case extract.Xz:
		w, err = xz.NewWriter(&buf)
	case extract.Zstd:
		w, err = zstd.NewWriter(&buf)
	case extract.Bzip2:
		return runBzip2(t, data)
	default:
		t.Fatalf("unknown compression %q", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func runBzip2(t testing.TB, data []byte) []byte {
	t.Helper()
	path, err := exec.LookPath("bzip2")
	if err != nil {
		t.Skip("needs bzip2: ", err)
	}
	cmd := exec.CommandContext(t.Context(), path, "-c")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal("bzip2: ", err)
	}
	return out
}
