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
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/appc/spec/schema"

	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// Why a file is refused. All but ErrEncrypted wrap ErrFormat. Refused manifests
// are manifest.ErrInvalid; refused entries and exceeded limits are the errors of
// image/layer; any other error comes from the file system or from reading.
var (
	// ErrFormat: the file is not an image, or a broken one.
	ErrFormat = errors.New("not a valid ACI")
	// ErrEncrypted: the file is an OpenPGP message.
	ErrEncrypted = errors.New("encrypted images are not supported")
	// ErrCompression: the compressed data is damaged, or needs more memory to
	// decompress than is granted.
	ErrCompression = fmt.Errorf("%w: bad compression", ErrFormat)
	// ErrTruncated: the end is missing, be it of the compressed data or of the archive.
	ErrTruncated = fmt.Errorf("%w: truncated", ErrFormat)
	// ErrTrailing: something other than zeros follows the end of the archive, or
	// anything the end of the compressed data.
	ErrTrailing = fmt.Errorf("%w: garbage after the end", ErrFormat)
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
	Compression Compression
	Warnings    []string // about what was left out of the root file system
	// Manifest is what Validate read. Extract leaves it to ReadManifest.
	Manifest Manifest
}

// ReadManifest reads the manifest out of an image file, compressed or not. It
// stops reading there, so it says nothing about the rest of the file. The
// manifest may be the last entry (actool writes it last). It uncompresses at
// most what an image within the limits can have.
func ReadManifest(ctx context.Context, r io.Reader, l layer.Limits) (m Manifest, err error) {
	uncompressed, _, err := Decompress(withContext(ctx, r))
	if err != nil {
		return Manifest{}, fmt.Errorf("read image manifest: %w", err)
	}
	defer func() { err = errors.Join(err, uncompressed.Close()) }()
	m, err = newStream(withContext(ctx, uncompressed), l).findManifest()
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
	result, err := readImage(ctx, r, l, checker.Check)
	if err == nil {
		result.Manifest, err = parseManifest(result.Manifest.Raw)
	}
	if err != nil {
		return Result{}, fmt.Errorf("validate image: %w", err)
	}
	result.Warnings = checker.Warnings()
	return result, nil
}

// readImage reads an image file, compressed or not, to its end, and calls apply
// for what is below rootfs. Of the manifest it gives the bytes only.
func readImage(ctx context.Context, r io.Reader, l layer.Limits, apply applyFunc) (result Result, err error) {
	uncompressed, compression, err := Decompress(withContext(ctx, r))
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, uncompressed.Close()) }()
	result, err = readArchive(withContext(ctx, uncompressed), l, apply)
	result.Compression = compression
	return result, err
}

// readArchive reads an uncompressed image as readImage does.
func readArchive(r io.Reader, l layer.Limits, apply applyFunc) (Result, error) {
	s := newStream(r, l)
	raw, err := s.readAll(apply)
	if err != nil {
		return Result{}, err
	}
	id := "sha512-" + hex.EncodeToString(s.content.hash.Sum(nil))
	return Result{ID: id, Size: s.content.size, Manifest: Manifest{Raw: raw}}, nil
}

// applyFunc does with an entry below rootfs what Applier.Apply does.
type applyFunc func(hdr *tar.Header, name string, content io.Reader) error

// stream is an uncompressed image being read, entry by entry.
type stream struct {
	content *content
	tar     *tar.Reader
	seen    map[string]bool // of the entries at the top: ".", "manifest", "rootfs"
}

// The names that an archive consists of.
const (
	manifestName = "manifest"
	rootfsName   = "rootfs"
)

func newStream(r io.Reader, l layer.Limits) *stream {
	c := &content{r: r, hash: sha512.New(), limit: maxSize(l)}
	return &stream{c, tar.NewReader(c), map[string]bool{}}
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
func (s *stream) readAll(apply applyFunc) (raw []byte, err error) {
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
	return raw, s.finish()
}

// missing says what the archive that was read lacks.
func (s *stream) missing() error {
	switch {
	case s.content.ended:
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
	for {
		hdr, err := s.tar.Next()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF is a failure to read
			return nil, "", nil
		}
		if err != nil {
			return nil, "", s.tarError(err)
		}
		if isComment(hdr) {
			continue
		}
		name, err := layer.CleanName(hdr.Name)
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", ErrLayout, err)
		}
		if err := s.checkPlace(hdr, name); err != nil {
			return nil, "", err
		}
		return hdr, name, nil
	}
}

// isComment: git archive begins with a global header that has nothing but a comment.
// Any other would change the meaning of what follows for some readers, and not
// for archive/tar; checkPlace refuses it for its type.
func isComment(hdr *tar.Header) bool {
	_, ok := hdr.PAXRecords["comment"]
	return hdr.Typeflag == tar.TypeXGlobalHeader && ok && len(hdr.PAXRecords) == 1
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
	_, err := io.ReadFull(s.tar, raw)
	return raw, s.tarError(err)
}

func parseManifest(raw []byte) (Manifest, error) {
	image, warnings, err := manifest.ParseImage(raw)
	if err != nil {
		return Manifest{}, err
	}
	return Manifest{image, raw, warnings}, nil
}

func (s *stream) apply(apply applyFunc, hdr *tar.Header) error {
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
	return apply(hdr, name, readerFunc(func(p []byte) (int, error) {
		n, err := s.tar.Read(p)
		return n, s.tarError(err)
	}))
}

// finish reads what follows the last entry: the rest of the end marker and
// padding, all zeros (POSIX pax, "ustar Interchange Format").
func (s *stream) finish() error {
	_, err := io.Copy(onlyZeros{}, s.content)
	return err
}

// tarError tells what archive/tar found wrong with an archive, not all of which has
// a name, from what went wrong with reading it.
func (s *stream) tarError(err error) error {
	switch {
	case err == nil, err == io.EOF, s.content.failed: //nolint:errorlint // a wrapped EOF is a failure to read
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	return fmt.Errorf("%w: %w", ErrFormat, err)
}

// content is the uncompressed archive passing by.
type content struct {
	r     io.Reader
	hash  hash.Hash // of what was read
	size  int64     // of what was read
	limit int64     // of size

	ended  bool // a read was answered by the end of the archive only
	failed bool // a read was answered by an error
}

func (c *content) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.failed = err != nil && err != io.EOF
	c.size += int64(n)
	if c.size > c.limit {
		c.failed = true
		return 0, fmt.Errorf("%w: the archive has more than %d bytes", layer.ErrTooLarge, c.limit)
	}
	c.hash.Write(p[:n])
	c.ended = n == 0 && err == io.EOF
	return n, err
}

// maxSize is how long an archive of contents within l can be: for each entry a
// header, padding and some extended attributes, and the manifest.
func maxSize(l layer.Limits) int64 {
	const perEntry = 2048
	return min(l.MaxBytes, 1<<62) + min(l.MaxEntries, 1<<40)*perEntry + 2*manifest.MaxSize
}

// onlyZeros is a writer that refuses anything but zeros.
type onlyZeros struct{}

func (onlyZeros) Write(p []byte) (int, error) {
	if len(bytes.Trim(p, "\x00")) > 0 {
		return 0, ErrTrailing
	}
	return len(p), nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// withContext ends reading at the end of ctx.
func withContext(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}
