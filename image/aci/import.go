package aci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/appc/spec/schema"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// ImportOptions are what an import records and how far it may go.
type ImportOptions struct {
	Origin   string   // where the archive comes from, for the record
	ETag     string   // what it is called there
	Insecure []string // the checks that were waived
	Strict   bool     // refuse a manifest that there are warnings about
	Limits   layer.Limits
	// Admit decides by the manifest and the archive, which it gets at its start, whether
	// the image may come in, and sees to it that what it depends on is there. It gives
	// what vouches for the archive, if anything does. Nil admits all.
	Admit func(ctx context.Context, m *schema.ImageManifest, archive io.ReadSeeker) (*image.Signature, error)
}

// Import takes an archive into a store: one copy of the file as it comes, one of
// its root, and nothing that is seen before all of it has been checked. What it
// depends on must be there already. It gives the image, the one that is there
// already for an archive imported before, and what is odd about it, a line each.
// Errors: those of ReadManifest, of Store.Depend and of Extract.
func Import(ctx context.Context, s *image.Store, src io.Reader, o ImportOptions) (*image.Image, []string, error) {
	return importDraft(ctx, s, o, func(d *image.Draft) error { return receive(ctx, s, d, src, o.Limits) })
}

// ImportFile is Import of a file that is the caller's alone and on the store's file
// system: it is not copied but moved, if the import succeeds. The caller closes it, too.
func ImportFile(ctx context.Context, s *image.Store, file *os.File, o ImportOptions) (*image.Image, []string, error) {
	return importDraft(ctx, s, o, func(d *image.Draft) error { return d.Use(file) })
}

// ImportWritten is Import of an archive that write makes meanwhile, whose error comes before
// what follows from it.
func ImportWritten(ctx context.Context, s *image.Store, write func(io.Writer) error, o ImportOptions) (*image.Image, []string, error) {
	r, w := io.Pipe()
	written := make(chan error)
	go func() {
		err := write(w)
		w.CloseWithError(err)
		written <- err
	}()
	img, warnings, err := Import(ctx, s, r, o)
	_ = r.Close() // it cannot fail: it ends a write that nobody reads any more
	if writeErr := <-written; writeErr != nil && !errors.Is(writeErr, io.ErrClosedPipe) {
		return nil, nil, writeErr
	}
	return img, warnings, err
}

// importDraft imports what fill gives a draft.
func importDraft(ctx context.Context, s *image.Store, o ImportOptions, fill func(*image.Draft) error) (_ *image.Image, warnings []string, err error) {
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

	if err := fill(d); err != nil {
		return nil, nil, err
	}
	// Everything below reads the same private file, so that nobody can change it
	// between one look and the next.
	size, err := d.File.Seek(0, io.SeekEnd)
	if err == nil {
		err = rewind(d.File)
	}
	if err != nil {
		return nil, nil, err
	}
	m, err := ReadManifest(ctx, d.File, o.Limits)
	if err != nil {
		return nil, nil, err
	}
	if o.Strict && len(m.Warnings) > 0 {
		return nil, nil, fmt.Errorf("%w: %s, and --strict asks for a manifest without flaw", manifest.ErrInvalid, m.Warnings[0])
	}
	var signature *image.Signature
	if o.Admit != nil {
		if err := rewind(d.File); err != nil {
			return nil, nil, err
		}
		if signature, err = o.Admit(ctx, m.Image, d.File); err != nil {
			return nil, nil, err
		}
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
		ID: image.ID(res.ID), Manifest: m.Raw, Origin: o.Origin, ETag: o.ETag, Imported: time.Now().UTC(),
		Size: res.Size, FileSize: size, Compression: string(res.Compression), Insecure: o.Insecure, Signature: signature,
	}
	for _, dep := range dependencies {
		img.Dependencies = append(img.Dependencies, dep.ID)
	}
	known, err := d.Commit(ctx, img)
	return known, slices.Concat(m.Warnings, odd, res.Warnings), err
}

// receive copies the archive into the draft.
func receive(ctx context.Context, s *image.Store, d *image.Draft, src io.Reader, l layer.Limits) error {
	limit := extract.MaxFile(l)
	var size int64
	err := failpoint.Do(s.Points, "receive", func() (err error) {
		size, err = io.Copy(d.File, io.LimitReader(extract.WithContext(ctx, src), limit+1))
		return err
	})
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if size > limit {
		return fmt.Errorf("receive: %w: more than %d bytes", layer.ErrTooLarge, limit)
	}
	return nil
}

func rewind(f io.Seeker) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}
