// Package aci is the App Container Image format (appc spec, aci.md): it
// recognises an image file, reads its manifest, validates its layout and
// extracts its root file system. Every byte of such a file is hostile.
//
// Not for: signatures (image/trust; they are to be checked before anything
// here), the tree that entries are applied to (image/layer), the contents of
// manifests (internal/manifest), keeping images (image).
package aci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/appc/spec/schema"

	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// Why a file is refused. All but ErrEncrypted wrap ErrFormat. Refused manifests
// are manifest.ErrInvalid; refused entries and exceeded limits are the errors of
// image/layer; any other error comes from the file system or from reading.
var (
	// ErrFormat: the file is not an image, or a broken one.
	ErrFormat = extract.ErrFormat
	// ErrEncrypted: the file is an OpenPGP message.
	ErrEncrypted = errors.New("encrypted images are not supported")
	// ErrCompression, ErrTruncated, ErrTrailing: see package extract.
	ErrCompression = extract.ErrCompression
	ErrTruncated   = extract.ErrTruncated
	ErrTrailing    = extract.ErrTrailing
	// ErrLayout: an entry that is neither the manifest nor rootfs or below it, is
	// there twice, or is of the wrong type.
	ErrLayout = fmt.Errorf("%w: bad layout", ErrFormat)
	// ErrNoManifest: there is no manifest.
	ErrNoManifest = fmt.Errorf("%w: no manifest", ErrFormat)
	// ErrNoRootfs: there is no entry for rootfs itself.
	ErrNoRootfs = fmt.Errorf("%w: no rootfs", ErrFormat)
)

// Manifest is an image's manifest as read from the image.
type Manifest struct {
	Image    *schema.ImageManifest
	Raw      []byte   // the very bytes of the entry
	Warnings []string // of internal/manifest, for the user
}

// Result is what Extract or Validate learnt.
type Result struct {
	// ID is the image ID, of the form that image.ParseID accepts: the SHA-512 of
	// the uncompressed archive.
	ID          string
	Size        int64 // bytes of the uncompressed archive
	Compression extract.Compression
	Warnings    []string // about what was left out of the root file system
	// Manifest is what Validate read. Extract leaves it to ReadManifest.
	Manifest Manifest
}

func newResult(r extract.Result) Result {
	return Result{ID: r.Hash, Size: r.Size, Compression: r.Compression, Warnings: r.Warnings}
}

// format is ACI's kind of archive.
var format = &extract.Format{
	Name:      "aci",
	Recognise: recognise,
	Read: func(r io.Reader, l layer.Limits, apply extract.ApplyFunc) (string, int64, error) {
		id, size, _, err := readArchive(r, l, apply)
		return id, size, err
	},
	Errors: []error{ErrEncrypted, ErrLayout, ErrNoManifest, ErrNoRootfs, manifest.ErrInvalid},
}

func init() { extract.Register(format) }

// ReadManifest reads the manifest out of an image file, compressed or not. It
// stops reading there, so it says nothing about the rest of the file. The
// manifest may be the last entry (actool writes it last). It uncompresses at
// most what an image within the limits can have.
func ReadManifest(ctx context.Context, r io.Reader, l layer.Limits) (m Manifest, err error) {
	uncompressed, _, err := Decompress(extract.WithContext(ctx, r))
	if err != nil {
		return Manifest{}, fmt.Errorf("read image manifest: %w", err)
	}
	defer func() { err = errors.Join(err, uncompressed.Close()) }()
	m, err = newStream(extract.WithContext(ctx, uncompressed), l).findManifest()
	if err != nil {
		return Manifest{}, fmt.Errorf("read image manifest: %w", err)
	}
	return m, nil
}

// Validate reads an image file, compressed or not, to its end and checks all that
// Extract checks, without a file system to extract to and without privileges. Only
// a file system can refuse what it accepts.
func Validate(ctx context.Context, r io.Reader, l layer.Limits) (Result, error) {
	checker, err := layer.NewChecker(l)
	if err != nil {
		return Result{}, fmt.Errorf("validate image: %w", err)
	}
	var raw []byte
	reading := *format
	reading.Read = func(r io.Reader, l layer.Limits, apply extract.ApplyFunc) (id string, size int64, err error) {
		id, size, raw, err = readArchive(r, l, apply)
		return id, size, err
	}
	read, err := reading.ReadFile(ctx, r, l, checker.Check)
	result := newResult(read)
	if err == nil {
		result.Manifest, err = parseManifest(raw)
	}
	if err != nil {
		return Result{}, fmt.Errorf("validate image: %w", err)
	}
	result.Warnings = checker.Warnings()
	return result, nil
}

// readArchive reads an uncompressed image to its end, and calls apply for what is below
// rootfs. It gives its ID, its size and the manifest's bytes.
func readArchive(r io.Reader, l layer.Limits, apply extract.ApplyFunc) (id string, size int64, raw []byte, err error) {
	s := newStream(r, l)
	if raw, err = s.readAll(apply); err != nil {
		return "", 0, nil, err
	}
	return "sha512-" + s.archive.Hash(), s.archive.Size(), raw, nil
}

// stream is an uncompressed image being read, entry by entry.
type stream struct {
	archive *extract.Archive
	seen    map[string]bool // of the entries at the top: ".", "manifest", "rootfs"
}

// The names that an archive consists of.
const (
	manifestName = "manifest"
	rootfsName   = "rootfs"
)

func newStream(r io.Reader, l layer.Limits) *stream {
	return &stream{extract.NewArchive(r, sha512.New(), maxSize(l)), map[string]bool{}}
}

func (s *stream) findManifest() (Manifest, error) {
	for {
		hdr, name, err := s.next()
		if err != nil {
			return Manifest{}, err
		}
		if hdr == nil {
			return Manifest{}, s.missing()
		}
		if name != manifestName {
			continue
		}
		raw, err := s.readManifest(hdr)
		if err != nil {
			return Manifest{}, err
		}
		return parseManifest(raw)
	}
}

// readAll reads the archive to its end and gives the manifest's bytes.
func (s *stream) readAll(apply extract.ApplyFunc) (raw []byte, err error) {
	for {
		hdr, name, err := s.next()
		if err != nil {
			return nil, err
		}
		if hdr == nil {
			break
		}
		switch name {
		case ".":
		case manifestName:
			raw, err = s.readManifest(hdr)
		default:
			err = s.apply(apply, hdr)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.missing(); err != nil {
		return nil, err
	}
	return raw, s.archive.Finish()
}

// missing says what the archive that was read lacks.
func (s *stream) missing() error {
	switch {
	case s.archive.Ended():
		return fmt.Errorf("%w: no end-of-archive marker", ErrTruncated)
	case !s.seen[manifestName]:
		return ErrNoManifest
	case !s.seen[rootfsName]:
		return ErrNoRootfs
	}
	return nil
}

// next gives the next entry with its clean name, which is fit for its place in
// the layout, or nil after the last.
func (s *stream) next() (*tar.Header, string, error) {
	hdr, err := s.archive.Next()
	if hdr == nil || err != nil {
		return nil, "", err
	}
	name, err := layer.CleanName(hdr.Name)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrLayout, err)
	}
	return hdr, name, s.checkPlace(hdr, name)
}

// checkPlace applies the rules of the specification's "Image Layout". What is
// twice below rootfs is image/layer's to refuse.
func (s *stream) checkPlace(hdr *tar.Header, name string) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return fmt.Errorf("%w: PAX global header", ErrLayout)
	}
	want := byte(tar.TypeDir)
	switch {
	case strings.HasPrefix(name, rootfsName+"/"):
		return nil
	case name == manifestName:
		want = tar.TypeReg
	case name != rootfsName && name != ".":
		return fmt.Errorf("%w: unexpected entry %.100q", ErrLayout, name)
	}
	if hdr.Typeflag != want {
		return fmt.Errorf("%w: %s is an entry of type %q, not %q", ErrLayout, name, hdr.Typeflag, want)
	}
	if s.seen[name] {
		return fmt.Errorf("%w: second entry %s", ErrLayout, name)
	}
	s.seen[name] = true
	return nil
}

func (s *stream) readManifest(hdr *tar.Header) ([]byte, error) {
	if hdr.Size > manifest.MaxSize {
		return nil, fmt.Errorf("%w: manifest of %d bytes", ErrLayout, hdr.Size)
	}
	raw := make([]byte, hdr.Size)
	_, err := io.ReadFull(s.archive, raw)
	return raw, err
}

func parseManifest(raw []byte) (Manifest, error) {
	image, warnings, err := manifest.ParseImage(raw)
	if err != nil {
		return Manifest{}, err
	}
	return Manifest{image, raw, warnings}, nil
}

func (s *stream) apply(apply extract.ApplyFunc, hdr *tar.Header) error {
	name, err := layer.Below(rootfsName, hdr.Name)
	if err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeLink {
		target, err := layer.Below(rootfsName, hdr.Linkname)
		if err != nil {
			return fmt.Errorf("entry %q: %w: %w", name, layer.ErrHardLink, err)
		}
		inside := *hdr
		inside.Linkname = target
		hdr = &inside
	}
	return apply(hdr, name, s.archive)
}

// maxSize is how long an archive of contents within l can be, in bytes.
func maxSize(l layer.Limits) int64 { return extract.MaxSize(l) + 2*manifest.MaxSize }

func recognise(head []byte) (extract.Compression, error) {
	if compression := extract.Magic(head); compression != extract.None {
		return compression, nil
	}
	switch {
	case isTar(head):
		return extract.None, nil
	case isOpenPGP(head):
		return "", ErrEncrypted
	}
	return "", fmt.Errorf("%w: neither a tar archive nor compressed in a known way", ErrFormat)
}

// isTar: head is a tar header with the right checksum, of any dialect ("ustar"
// is missing in the oldest one).
func isTar(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil || errors.Is(err, io.ErrUnexpectedEOF) // the header announces more than head has
}

// isOpenPGP: head begins an encrypted message, binary or armoured. A message
// begins with a packet of tag 1, 3, 9 or 18 (RFC 4880, sections 4.2 and 11.3).
func isOpenPGP(head []byte) bool {
	if bytes.HasPrefix(head, []byte("-----BEGIN PGP MESSAGE-----")) {
		return true
	}
	if len(head) == 0 || head[0]&0x80 == 0 {
		return false
	}
	tag := head[0] & 0x3f
	if head[0]&0x40 == 0 {
		tag >>= 2
	}
	return tag == 1 || tag == 3 || tag == 9 || tag == 18
}

// Compression names how a file is compressed: see package extract.
type Compression = extract.Compression

// The kinds of compression that are read. Zstd is not in the specification;
// images that are to be read by other tools are not written with it.
const (
	None  = extract.None
	Gzip  = extract.Gzip
	Bzip2 = extract.Bzip2
	Xz    = extract.Xz
	Zstd  = extract.Zstd
)

// Decompress is extract.Decompress for images. Errors, also of the reader: ErrFormat,
// ErrEncrypted, ErrCompression, ErrTruncated, ErrTrailing, and those of r.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	return extract.Decompress(r, recognise)
}

// ExtractOptions say what Extract makes. Only Limits is mandatory.
type ExtractOptions = extract.Options

// Extract reads an image file, compressed or not, from its beginning to its end,
// validates it as a whole but for what its manifest says, and applies what is below
// rootfs to the existing directory rootfs, in a confined process: see
// extract.Format.Extract.
func Extract(ctx context.Context, r io.ReadSeeker, rootfs string, o ExtractOptions) (Result, error) {
	result, err := format.Extract(ctx, r, rootfs, o)
	if err != nil {
		return Result{}, fmt.Errorf("extract image: %w", err)
	}
	return newResult(result), nil
}
