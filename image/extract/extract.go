// Package extract reads a hostile archive, compressed or not, and applies it to a
// directory in a process of its own, which is confined to that directory and has no
// privileges but those that making files takes.
//
// Not for: what an archive of a format consists of (image/aci, image/oci), how an entry
// is applied (image/layer).
package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/jetpack-run/jetpack/image/layer"
)

// Why an archive of any format is refused. Refused entries and exceeded limits are the
// errors of image/layer; any other error comes from the file system or from reading.
var (
	// ErrFormat: the file is not an image archive, or a broken one.
	ErrFormat = errors.New("not a valid image archive")
	// ErrCompression: the compressed data is damaged, or needs more memory to
	// decompress than is granted.
	ErrCompression = fmt.Errorf("%w: bad compression", ErrFormat)
	// ErrTruncated: the end is missing, be it of the compressed data or of the archive.
	ErrTruncated = fmt.Errorf("%w: truncated", ErrFormat)
	// ErrTrailing: something other than zeros follows the end of the archive, or
	// anything the end of the compressed data.
	ErrTrailing = fmt.Errorf("%w: garbage after the end", ErrFormat)
)

// Format is an image format's kind of archive. It is the same in both processes:
// a package registers its own when the program starts.
type Format struct {
	Name string
	// Recognise tells by the first 512 bytes of a file, or all of a shorter one, how it
	// is compressed.
	Recognise func(head []byte) (Compression, error)
	// Read reads an uncompressed archive to its end and applies what is in it. It gives
	// the archive's hash, of whatever form, and its size.
	Read func(r io.Reader, l layer.Limits, apply ApplyFunc) (hash string, size int64, err error)
	// OCI: entries are applied as those of an OCI layer (see layer.NewOCIApplier).
	OCI bool
	// Errors are those of Read that callers ask for, beside those of this package and
	// of image/layer.
	Errors []error
}

// ApplyFunc does with an entry what layer.Applier.Apply does.
type ApplyFunc = layer.ApplyFunc

var formats = map[string]*Format{}

// Register makes a format known, to be called before main.
func Register(f *Format) { formats[f.Name] = f }

// Options say what Extract makes. Only Limits is mandatory.
type Options struct {
	Limits layer.Limits
	// Keep is what of the image is made. Nothing else changes what is there.
	Keep *layer.Whitelist
	// Prune is what stays of the whole tree when the image has been applied to it.
	Prune *layer.Whitelist
}

// Result is what was learnt of an archive.
type Result struct {
	Hash        string // as the format's Read gives it
	Size        int64  // bytes of the uncompressed archive
	Compression Compression
	Warnings    []string // about what was left out
}

// Extract reads a file of a registered format from its beginning to its end and applies
// it to the existing directory rootfs: over what is there, as an upper layer over lower
// ones. It reads r twice when there is something to keep. After an error that directory
// is to be thrown away.
//
// A process of its own, confined to rootfs and without the privileges that making
// files does not need, does all but uncompressing: see child. So the program must
// call reexec.Init (github.com/moby/sys/reexec) first thing in its main, a test in
// its TestMain.
func (f *Format) Extract(ctx context.Context, r io.ReadSeeker, rootfs string, o Options) (Result, error) {
	return f.extract(ctx, r, rootfs, o)
}

// ExtractHere is Extract in this process, unconfined: for tests.
func (f *Format) ExtractHere(ctx context.Context, r io.ReadSeeker, rootfs string, o Options) (_ Result, err error) {
	dir, err := os.Open(rootfs)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return f.passes(dir, o, func(apply ApplyFunc) (Result, error) {
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return Result{}, err
		}
		return f.ReadFile(ctx, r, o.Limits, apply)
	})
}

// ReadFile reads a file, compressed or not, to its end.
func (f *Format) ReadFile(ctx context.Context, r io.Reader, l layer.Limits, apply ApplyFunc) (result Result, err error) {
	uncompressed, compression, err := Decompress(WithContext(ctx, r), f.Recognise)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, uncompressed.Close()) }()
	result, err = f.read(WithContext(ctx, uncompressed), l, apply)
	result.Compression = compression
	return result, err
}

func (f *Format) read(r io.Reader, l layer.Limits, apply ApplyFunc) (Result, error) {
	hash, size, err := f.Read(r, l, apply)
	return Result{Hash: hash, Size: size}, err
}

// passes extracts to an open directory what read reads, each time anew.
func (f *Format) passes(rootfs *os.File, o Options, read func(ApplyFunc) (Result, error)) (Result, error) {
	filter, err := survey(o, read)
	if err != nil {
		return Result{}, err
	}
	result, err := f.applyTo(rootfs, o.Limits, filter, read)
	if err != nil {
		return Result{}, err
	}
	return result, layer.Prune(rootfs, o.Prune)
}

// survey makes the filter for what is to be kept, nil for everything.
func survey(o Options, read func(ApplyFunc) (Result, error)) (*layer.Filter, error) {
	if o.Keep == nil {
		return nil, nil
	}
	s, err := layer.NewSurvey(o.Keep, o.Limits)
	if err != nil {
		return nil, err
	}
	if _, err := read(s.Add); err != nil {
		return nil, err
	}
	return s.Filter(), nil
}

func (f *Format) applyTo(rootfs *os.File, l layer.Limits, filter *layer.Filter, read func(ApplyFunc) (Result, error)) (Result, error) {
	applier, err := f.newApplier(rootfs, l, filter)
	if err != nil {
		return Result{}, err
	}
	result, err := read(applier.Apply)
	if closeErr := applier.Close(); err == nil {
		err = closeErr
	}
	result.Warnings = applier.Warnings()
	return result, err
}

func (f *Format) newApplier(rootfs *os.File, l layer.Limits, filter *layer.Filter) (*layer.Applier, error) {
	if f.OCI {
		return layer.NewOCIApplier(rootfs, l)
	}
	return layer.NewApplier(rootfs, l, filter)
}
