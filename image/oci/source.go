package oci

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/manifest"
)

// found is an image that a location was found to be.
type found struct {
	top      string // the digest of what the location named: an index, a manifest, or a configuration
	manifest []byte // nil if there is none
	ref      manifest.Ref
	config   []byte
	layers   []blob // the lowest first
}

// blob is a layer as it comes.
type blob struct {
	// Descriptor is what is known of it; a Digest.Algorithm of "" says that nothing is.
	v1.Descriptor
	open func(ctx context.Context) (io.ReadCloser, error)
}

// opener opens what has a digest. Nobody has verified what it gives.
type opener func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)

// fetch reads a document and verifies it.
func (open opener) fetch(ctx context.Context, d v1.Descriptor) (_ []byte, err error) {
	if err := checkDescriptor(d, maxDocument); err != nil {
		return nil, err
	}
	r, err := open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	raw, err := readAll(r, d.Digest.String())
	if err != nil {
		return nil, err
	}
	if got := digestOf(raw); got != d.Digest.String() || int64(len(raw)) != d.Size {
		return nil, fmt.Errorf("%w: what comes for %s is %s, of %d bytes instead of %d", ErrFormat, d.Digest, got, len(raw), d.Size)
	}
	return raw, nil
}

func readAll(r io.Reader, what string) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err == nil && len(raw) > maxDocument {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrFormat, what, maxDocument)
	}
	return raw, err
}

func digestOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// resolve finds the image for one of the platforms, from a document on.
func (open opener) resolve(ctx context.Context, raw []byte, d v1.Descriptor, platforms []v1.Platform) (*found, error) {
	f := &found{top: digestOf(raw)}
	for range maxIndexes {
		doc, err := parseDocument(raw, d.MediaType)
		if err != nil {
			return nil, err
		}
		if m := doc.manifest; m != nil {
			f.manifest = raw
			return f, open.complete(ctx, f, m)
		}
		if d, err = choose(doc.index, platforms); err != nil {
			return nil, err
		}
		if raw, err = open.fetch(ctx, d); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: indexes in indexes", ErrUnsupported)
}

func (open opener) complete(ctx context.Context, f *found, m *v1.Manifest) (err error) {
	if err := checkManifest(m); err != nil {
		return err
	}
	for _, d := range m.Layers {
		f.layers = append(f.layers, blob{d, func(ctx context.Context) (io.ReadCloser, error) { return open(ctx, d) }})
	}
	f.config, err = open.fetch(ctx, m.Config)
	return err
}

// files are the files of a layout or an archive, by slash-separated clean names.
type files interface {
	open(name string) (io.ReadCloser, error)
	Close() error
}

func openFiles(l Location) (files, error) {
	if l.transport == layoutTransport {
		return directory(l.path), nil
	}
	return openArchive(l.path)
}

func readFile(in files, name string) (_ []byte, err error) {
	r, err := in.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return readAll(r, name)
}

// directory is an image layout.
type directory string

func (d directory) open(name string) (io.ReadCloser, error) {
	return openRegular(filepath.Join(string(d), filepath.FromSlash(name)))
}

func (directory) Close() error { return nil }

// openRegular does not wait for a writer to a fifo.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// archive is a tar archive of files, read where they are: it is not compressed.
type archive struct {
	file  *os.File
	parts map[string]part
}

// part is a file in an archive, or a link to one.
type part struct {
	offset, size int64
	link         string
}

// maxParts bounds what is remembered of an archive.
const maxParts = 10_000

func openArchive(file string) (_ *archive, err error) {
	f, err := openRegular(file)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	a := &archive{f, map[string]part{}}
	for r := tar.NewReader(f); ; {
		hdr, err := r.Next()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF is a failure to read
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s: no tar archive, which must not be compressed: %w", ErrFormat, file, err)
		}
		name := path.Clean(hdr.Name)
		if _, twice := a.parts[name]; twice && hdr.Typeflag != tar.TypeDir || len(a.parts) == maxParts {
			return nil, fmt.Errorf("%w: %s: %.100q is there twice, or there are too many files", ErrFormat, file, name)
		}
		at, err := f.Seek(0, io.SeekCurrent) // what the reader has read, which does not read ahead
		if err != nil {
			return nil, err
		}
		switch hdr.Typeflag {
		case tar.TypeReg:
			a.parts[name] = part{offset: at, size: hdr.Size}
		case tar.TypeSymlink:
			a.parts[name] = part{link: path.Join(path.Dir(name), hdr.Linkname)} //nolint:gosec // a key of the map, no path
		case tar.TypeLink:
			a.parts[name] = part{link: path.Clean(hdr.Linkname)}
		}
	}
}

func (a *archive) open(name string) (io.ReadCloser, error) {
	p, ok := a.parts[path.Clean(name)]
	if p.link != "" {
		p, ok = a.parts[p.link]
	}
	if !ok || p.link != "" {
		return nil, fmt.Errorf("%s: it has no file %.100q: %w", a.file.Name(), name, os.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(a.file, p.offset, p.size)), nil
}

func (a *archive) Close() error { return a.file.Close() }

// findInLayout finds the image of a location in an image layout (image-layout.md).
func findInLayout(ctx context.Context, in files, l Location, platforms []v1.Platform) (*found, error) {
	marker, err := readFile(in, "oci-layout")
	if err != nil {
		return nil, fmt.Errorf("not an image layout: %w", err)
	}
	var layout struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := manifest.Decode(marker, &layout); err != nil || !strings.HasPrefix(layout.Version, "1.") {
		return nil, fmt.Errorf("%w: an image layout of version %.20q", ErrUnsupported, layout.Version)
	}
	raw, err := readFile(in, "index.json")
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(raw, "")
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if doc.index == nil {
		return nil, fmt.Errorf("%w: index.json is no index", ErrFormat)
	}
	open := opener(func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		return in.open("blobs/sha256/" + d.Digest.Hex)
	})
	d, err := entry(doc.index, l, platforms)
	if err != nil {
		return nil, err
	}
	if raw, err = open.fetch(ctx, d); err != nil {
		return nil, err
	}
	f, err := open.resolve(ctx, raw, d, platforms)
	if err != nil {
		return nil, err
	}
	f.ref = l.named(cmp.Or(d.Annotations[containerdName], d.Annotations[refName]))
	return f, nil
}

// Annotations that name an image in an index.
const (
	refName        = "org.opencontainers.image.ref.name"
	containerdName = "io.containerd.image.name"
)

// entry finds what a location means in the index of a layout: the one with its tag or
// digest, else the only one, else that for the platform.
func entry(index *v1.IndexManifest, l Location, platforms []v1.Platform) (v1.Descriptor, error) {
	if l.Digest != "" {
		for _, d := range index.Manifests {
			if d.Digest.String() == l.Digest {
				return d, nil
			}
		}
		return v1.Descriptor{}, fmt.Errorf("%w: %s names no %s", ErrNotFound, filepath.Join(l.path, "index.json"), l.Digest)
	}
	some := &v1.IndexManifest{}
	var names []string
	for _, d := range index.Manifests {
		name := d.Annotations[refName]
		if name != "" {
			names = append(names, name)
		}
		if l.tag == "" || name == l.tag || d.Annotations[containerdName] == l.tag {
			some.Manifests = append(some.Manifests, d)
		}
	}
	switch {
	case len(some.Manifests) == 0:
		return v1.Descriptor{}, fmt.Errorf("%w: %s names %s", ErrNotFound, filepath.Join(l.path, "index.json"), cmp.Or(strings.Join(names, ", "), "none with a name"))
	case len(some.Manifests) == 1:
		return some.Manifests[0], nil
	case l.tag == "" && len(names) > 1:
		return v1.Descriptor{}, fmt.Errorf("%s: which image? there is %s", l.path, strings.Join(names, ", "))
	}
	return choose(some, platforms)
}

// findInDocker finds the image of a location in an archive as docker save makes it.
func findInDocker(in files, l Location) (*found, error) {
	raw, err := readFile(in, "manifest.json")
	if err != nil {
		return nil, err
	}
	var doc struct {
		Images []dockerImage `json:"images"`
	}
	// A list, which manifest.Decode does not read.
	if err := manifest.Decode([]byte(`{"images":`+string(raw)+`}`), &doc); err != nil {
		return nil, fmt.Errorf("%w: manifest.json: %w", ErrFormat, err)
	}
	var there []string
	for _, img := range doc.Images {
		config, err := readFile(in, img.Config)
		if err != nil {
			return nil, err
		}
		f := &found{top: digestOf(config), config: config, ref: l.named(cmp.Or(append(img.RepoTags, "")...))}
		there = append(there, append(img.RepoTags, f.top)...)
		if !img.is(l, f.top, len(doc.Images) == 1) {
			continue
		}
		for _, name := range img.Layers {
			f.layers = append(f.layers, blob{open: func(context.Context) (io.ReadCloser, error) { return in.open(name) }})
		}
		return f, nil
	}
	return nil, fmt.Errorf("%w: which one? %s has %s", ErrNotFound, l.path, strings.Join(there, ", "))
}

// dockerImage is an image in a manifest.json (Docker image specification v1.2,
// "Combined Image JSON + Filesystem Changeset Format").
type dockerImage struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// is tells whether a location means the image, of which there may be only one.
func (i dockerImage) is(l Location, digest string, only bool) bool {
	switch {
	case l.Digest != "":
		return digest == l.Digest
	case l.tag == "":
		return only
	}
	for _, t := range i.RepoTags {
		if t == l.tag || l.named(t).String() == l.named(l.tag).String() {
			return true
		}
	}
	return false
}
