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
	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// ImportOptions are what an import records and how far it may go.
type ImportOptions struct {
	Origin   string   // where the archive comes from, for the record
	Insecure []string // the checks that were waived, for the record
	Strict   bool     // refuse a manifest that there are warnings about
	Limits   layer.Limits
}

// Import takes an archive into a store: one copy of the file as it comes, one of
// its root, and nothing that is seen before all of it has been checked. What it
// depends on must be there already. It gives the image, the one that is there
// already for an archive imported before, and what is odd about it, a line each.
// Errors: those of ReadManifest, of Store.Depend and of Extract.
func Import(ctx context.Context, s *image.Store, src io.Reader, o ImportOptions) (_ *image.Image, warnings []string, err error) {
	d, err := s.Begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		discardErr := d.Discard(ctx)
		if err == nil && discardErr != nil { // the image is in: what is left is for a prune
			warnings, discardErr = append(warnings, discardErr.Error()), nil
		}
		err = errors.Join(err, discardErr)
	}()

	size, err := receive(ctx, s, d, src, o.Limits)
	if err != nil {
		return nil, nil, err
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
	if o.Strict && len(m.Warnings) > 0 {
		return nil, nil, fmt.Errorf("%w: %s, and --strict asks for a manifest without flaw", manifest.ErrInvalid, m.Warnings[0])
	}
	dependencies, odd, err := s.Depend(ctx, m.Image.Dependencies)
	if err != nil {
		return nil, nil, err
	}
	res, err := render(ctx, s, d, d.File, m.Image, dependencies, o.Limits)
	if err != nil {
		return nil, nil, err
	}
	img := image.Image{
		ID: image.ID(res.ID), Manifest: m.Raw, Origin: o.Origin, Imported: time.Now().UTC(),
		Size: res.Size, FileSize: size, Compression: string(res.Compression), Insecure: o.Insecure,
	}
	for _, dep := range dependencies {
		img.Dependencies = append(img.Dependencies, dep.ID)
	}
	known, err := d.Commit(ctx, img)
	return known, slices.Concat(m.Warnings, odd, res.Warnings), err
}

// receive copies the archive into the draft.
func receive(ctx context.Context, s *image.Store, d *image.Draft, src io.Reader, l layer.Limits) (size int64, err error) {
	// The file is compressed, or as large as the tar in it.
	limit := l.MaxBytes + l.MaxBytes/8 + 1<<20
	err = failpoint.Do(s.Points, "receive", func() (err error) {
		size, err = io.Copy(d.File, io.LimitReader(withContext(ctx, src), limit+1))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("receive: %w", err)
	}
	if size > limit {
		return 0, fmt.Errorf("receive: %w: more than %d bytes", layer.ErrTooLarge, limit)
	}
	return size, nil
}

func rewind(f io.Seeker) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}
