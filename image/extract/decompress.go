package extract

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/klauspost/compress/gzip" // twice as fast as the standard one
)

// Compression names how a file is compressed.
type Compression string

// The kinds of compression that are read. Zstd is not in the specification;
// images that are to be read by other tools are not written with it.
const (
	None  Compression = "none"
	Gzip  Compression = "gzip"
	Bzip2 Compression = "bzip2"
	Xz    Compression = "xz"
	Zstd  Compression = "zstd"
)

// magics are the first bytes of compressed files.
var magics = map[Compression]string{
	Gzip:  "\x1f\x8b",
	Bzip2: "BZh",
	Xz:    "\xfd7zXZ\x00",
	Zstd:  "\x28\xb5\x2f\xfd",
}

// Decompress recognises by its first bytes, with recognise, how a file is compressed and
// gives its uncompressed contents. All members of a file of several are read, and to be
// sure that nothing else follows the reader is to be read to its end. It holds at most
// about 70 MiB whatever the file says. Closing does not close r.
//
// Errors, also of the reader: those of recognise, ErrFormat, ErrCompression,
// ErrTruncated, ErrTrailing, and those of r.
func Decompress(r io.Reader, recognise func(head []byte) (Compression, error)) (io.ReadCloser, Compression, error) {
	src := &source{r: r}
	buffered := bufio.NewReaderSize(src, 64<<10)
	head, _ := buffered.Peek(512) // less is a whole file, unless src could not be read
	if src.err != nil {
		return nil, "", fmt.Errorf("read image: %w", src.err)
	}
	compression, err := recognise(head)
	if err != nil {
		return nil, "", err
	}
	d := &decompressor{src: src, compression: compression}
	d.r, d.close, err = newReader(buffered, compression)
	if err != nil {
		return nil, "", d.explain(err)
	}
	return d, compression, nil
}

// Magic recognises compression by the first bytes of a file; None is anything else.
func Magic(head []byte) Compression {
	for compression, magic := range magics {
		if bytes.HasPrefix(head, []byte(magic)) {
			return compression
		}
	}
	return None
}

func newReader(r *bufio.Reader, compression Compression) (io.Reader, func(), error) {
	nothing := func() {}
	switch compression {
	case Gzip:
		z, err := newGzipReader(r)
		return z, nothing, err
	case Bzip2:
		return bzip2.NewReader(r), nothing, nil
	case Xz:
		z, err := newXzReader(r)
		return z, runtime.GC, err // see closeZstd
	case Zstd:
		z, err := newZstdReader(r)
		if err != nil {
			return nil, nothing, err
		}
		return z, func() { closeZstd(z) }, nil
	}
	return r, nothing, nil
}

// gzipReader reads one member after another. The library's own way of doing so
// takes a byte of garbage for the beginning of a member, and a first header that is
// malformed for garbage.
type gzipReader struct {
	src *bufio.Reader
	z   *gzip.Reader
}

func newGzipReader(src *bufio.Reader) (*gzipReader, error) {
	z, err := gzip.NewReader(src)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &gzipReader{src, z}, nil
}

func (g *gzipReader) Read(p []byte) (int, error) {
	n, err := g.z.Read(p)
	if err == io.EOF { //nolint:errorlint // a wrapped EOF is a failure to read
		err = g.next()
	}
	return n, err
}

// next begins the next member, if there is one.
func (g *gzipReader) next() error {
	head, err := g.src.Peek(len(magics[Gzip]))
	if len(head) == 0 {
		return err
	}
	if !strings.HasPrefix(magics[Gzip], string(head)) {
		return fmt.Errorf("%w of the gzip data", ErrTrailing)
	}
	if err := g.z.Reset(g.src); err != nil {
		return err
	}
	g.z.Multistream(false)
	return nil
}

// source remembers why reading the file failed, so that a bad disk is not taken
// for bad data.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

type decompressor struct {
	src         *source
	compression Compression
	r           io.Reader
	close       func()
}

func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // a wrapped EOF is a failure to read
		err = d.explain(err)
	}
	return n, err
}

func (d *decompressor) Close() error {
	d.close()
	return nil
}

// errBzip2Trailing is what the library says when something else follows the end of
// compressed data, if that is more than a byte.
const errBzip2Trailing = bzip2.StructuralError("bad magic value in continuation file")

func (d *decompressor) explain(err error) error {
	if d.src.err != nil {
		return fmt.Errorf("read image: %w", d.src.err)
	}
	if errors.Is(err, ErrFormat) {
		return err
	}
	if errors.Is(err, errBzip2Trailing) {
		return fmt.Errorf("%w of the bzip2 data", ErrTrailing)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s: %w", ErrTruncated, d.compression, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%w: %s: %w", ErrCompression, d.compression, err)
}
