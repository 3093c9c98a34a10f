package aci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/layer"
)

// ErrUnsupported means that the image needs something that jetpack cannot do.
var ErrUnsupported = errors.New("not supported")

// ImportOptions are what an import records and how far it may go.
type ImportOptions struct {
	Origin   string   // where the archive comes from, for the record
	Insecure []string // the checks that were waived, for the record
	Limits   layer.Limits
}

// Import takes an archive into a store: one copy of the file as it comes, one of
// its root, and nothing that is seen before all of it has been checked. It gives
// the image, the one that is there already for an archive imported before, and
// what is odd about it, a line each. Errors: those of ReadManifest and Extract,
// ErrUnsupported.
func Import(ctx context.Context, s *image.Store, src io.Reader, o ImportOptions) (_ *image.Image, warnings []string, err error) {
	d, err := s.Begin(ctx, o.Limits.MaxBytes)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, d.Discard(ctx)) }()

	// The file is compressed, or as large as the tar in it.
	limit := o.Limits.MaxBytes + o.Limits.MaxBytes/8 + 1<<20
	size, err := io.Copy(d.File, io.LimitReader(contextReader{ctx, src}, limit+1))
	if err != nil {
		return nil, nil, fmt.Errorf("receive: %w", err)
	}
	if size > limit {
		return nil, nil, fmt.Errorf("receive: %w: more than %d bytes", layer.ErrTooLarge, limit)
	}
	// Everything below reads the same private file, so that nobody can change it
	// between one look and the next.
	if err := rewind(d.File); err != nil {
		return nil, nil, err
	}
	m, err := ReadManifest(ctx, d.File, o.Limits)
	if err != nil {
		return nil, nil, err
	}
	if len(m.Image.Dependencies) > 0 || len(m.Image.PathWhitelist) > 0 {
		return nil, nil, fmt.Errorf("%w: the image has dependencies or a pathWhitelist", ErrUnsupported)
	}
	if err := rewind(d.File); err != nil {
		return nil, nil, err
	}
	res, err := Extract(ctx, d.File, d.Root, o.Limits)
	if err != nil {
		return nil, nil, err
	}
	img, err := d.Commit(ctx, image.Image{
		ID: image.ID(res.ID), Manifest: m.Raw, Origin: o.Origin, Imported: time.Now().UTC(),
		Size: res.Size, FileSize: size, Compression: string(res.Compression), Insecure: o.Insecure,
	})
	return img, slices.Concat(m.Warnings, res.Warnings), err
}

func rewind(f io.Seeker) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// contextReader ends a copy with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
