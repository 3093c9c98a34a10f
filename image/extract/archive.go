package extract

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/jetpack-run/jetpack/image/layer"
)

// Archive is an uncompressed archive being read, entry by entry.
type Archive struct {
	content *content
	tar     *tar.Reader
}

// NewArchive reads an archive of at most limit bytes from r and hashes it with h.
func NewArchive(r io.Reader, h hash.Hash, limit int64) *Archive {
	c := &content{r: r, hash: h, limit: limit}
	return &Archive{c, tar.NewReader(c)}
}

// Next gives the next entry, or nil after the last. Comments are passed over. Errors:
// ErrTruncated, ErrFormat, those of the reader.
func (a *Archive) Next() (*tar.Header, error) {
	for {
		hdr, err := a.tar.Next()
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return nil, a.explain(err)
		}
		if !IsComment(hdr) {
			return hdr, nil
		}
	}
}

// IsComment tells what is no entry: git archive begins with a global header that has nothing but a comment.
// Any other would change the meaning of what follows for some readers, and not
// for archive/tar; formats refuse it for its type.
func IsComment(hdr *tar.Header) bool {
	_, ok := hdr.PAXRecords["comment"]
	return hdr.Typeflag == tar.TypeXGlobalHeader && ok && len(hdr.PAXRecords) == 1
}

// Read reads the content of the entry that Next gave.
func (a *Archive) Read(p []byte) (int, error) {
	n, err := a.tar.Read(p)
	return n, a.explain(err)
}

// Ended says, after the last entry, that the file ended there without the marker for
// the end of an archive.
func (a *Archive) Ended() bool { return a.content.ended }

// Finish reads what follows the last entry: the rest of the end marker and
// padding, all zeros (POSIX pax, "ustar Interchange Format"). Errors: ErrTrailing.
func (a *Archive) Finish() error {
	_, err := io.Copy(onlyZeros{}, a.content)
	return err
}

// Hash is the hash of what was read, in hexadecimal.
func (a *Archive) Hash() string { return hex.EncodeToString(a.content.hash.Sum(nil)) }

// Size is how much was read, in bytes.
func (a *Archive) Size() int64 { return a.content.size }

// explain tells what archive/tar found wrong with an archive, not all of which has
// a name, from what went wrong with reading it.
func (a *Archive) explain(err error) error {
	switch {
	case err == nil, err == io.EOF, a.content.failed: //nolint:errorlint // a wrapped EOF is a failure to read
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

// MaxSize is how long an archive of contents within l can be, in bytes: for each entry
// a header, padding and some extended attributes.
func MaxSize(l layer.Limits) int64 {
	const perEntry = 2048
	return min(l.MaxBytes, 1<<62) + min(l.MaxEntries, 1<<40)*perEntry
}

// MaxFile is how large the file of an archive within the limits may be, in bytes: it is
// compressed, or as large as the tar in it.
func MaxFile(l layer.Limits) int64 { return l.MaxBytes + l.MaxBytes/8 + 1<<20 }

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

// WithContext ends reading at the end of ctx.
func WithContext(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}
