package extract

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/ulikunitz/xz"
)

// ParseCompression tells how an image file is to be written: "gzip" or "gz", "xz",
// "none". What else is read cannot be written: zstd is read by no other tool, and there
// is no well-kept library that writes bzip2.
func ParseCompression(name string) (Compression, error) {
	switch c := Compression(name); c {
	case "gz", Gzip:
		return Gzip, nil
	case Xz, None:
		return c, nil
	}
	return "", fmt.Errorf("images are written with gzip, xz or none, not %q", name)
}

// Compress compresses what is written to it, in a way that ParseCompression gives.
// Equal contents give equal bytes. Closing it does not close w.
func Compress(w io.Writer, c Compression) (io.WriteCloser, error) {
	switch c {
	case Gzip:
		return gzip.NewWriter(w), nil // with neither name nor time
	case Xz:
		return xz.NewWriter(w)
	case None:
		return nopCloser{w}, nil
	}
	return nil, fmt.Errorf("compress: %q cannot be written", c)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
