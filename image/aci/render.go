package aci

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/appc/spec/schema"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/treecmp"
)

// render makes the draft's root (appc spec, ace.md, "Filesystem Setup"): a clone of
// the first dependency's, which is rendered already; over it the archives of all
// that the others are made of, since what two dependencies share overrides once
// more the second time; then the image's own archive. What its pathWhitelist does
// not list is removed at the end.
func render(ctx context.Context, s *image.Store, d *image.Draft, archive *os.File, m *schema.ImageManifest, dependencies []*image.Image, l layer.Limits) (Result, error) {
	var origin *image.Image
	if len(dependencies) > 0 {
		origin, dependencies = dependencies[0], dependencies[1:]
	}
	if err := d.MakeRoot(ctx, origin, l.MaxBytes); err != nil {
		return Result{}, err
	}
	for _, dep := range dependencies {
		if err := overlay(ctx, s, d, dep, nil, l); err != nil {
			return Result{}, fmt.Errorf("dependency %s: %w", dep.Name(), err)
		}
	}
	return extractTo(ctx, s, d, archive, ExtractOptions{Limits: l, Prune: layer.NewWhitelist(m.PathWhitelist)})
}

// overlay applies an image, after what it depends on, to the draft's root. A file is
// filtered by the whitelist of its own image and of each that depends on it, keep.
func overlay(ctx context.Context, s *image.Store, d *image.Draft, img *image.Image, keep *layer.Whitelist, l layer.Limits) (err error) {
	keep = keep.Intersect(layer.NewWhitelist(img.Parsed().PathWhitelist))
	for _, id := range img.Dependencies {
		dep, err := s.Get(ctx, id)
		if err != nil {
			return err
		}
		if err := overlay(ctx, s, d, dep, keep, l); err != nil {
			return err
		}
	}
	archive, err := archiveOf(ctx, s, d, img)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	res, err := extractTo(ctx, s, d, archive, ExtractOptions{Limits: l, Keep: keep})
	if err == nil && img.OCI == nil && res.ID != string(img.ID) {
		err = wrongContent(img)
	}
	return err
}

// archiveOf opens the archive of an image. An OCI image has none: one is made of its root.
func archiveOf(ctx context.Context, s *image.Store, d *image.Draft, img *image.Image) (_ *os.File, err error) {
	if img.OCI == nil {
		return s.File(img)
	}
	file, err := d.Temp()
	if err != nil {
		return nil, err
	}
	err = s.WithRoot(ctx, img, func(root string) error {
		return Pack(ctx, file, img.Manifest, PackOptions{Root: root, Compression: extract.None})
	})
	if err == nil {
		err = rewind(file)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func extractTo(ctx context.Context, s *image.Store, d *image.Draft, archive *os.File, o ExtractOptions) (res Result, err error) {
	err = failpoint.Do(s.Points, "extract", func() (err error) {
		res, err = Extract(ctx, archive, d.Root, o)
		return err
	})
	return res, err
}

func wrongContent(img *image.Image) error {
	return fmt.Errorf("image %s: %w: its archive is not what was imported; import it again", img.ID.Short(), image.ErrDamaged)
}

// Verify hashes the kept archive of an image once more. With deep it also renders
// the image again and tells in what the sealed tree differs: a lost path is
// Deleted. A fault in the tree of its first dependency is that image's: a caller
// looks at all of Store.Walk. Errors: image.ErrDamaged for a wrong or lost archive, a
// lost tree, a lost dependency.
func Verify(ctx context.Context, s *image.Store, img *image.Image, l layer.Limits, deep bool) (_ []storage.Change, err error) {
	if err := s.Check(ctx, img); err != nil {
		return nil, err
	}
	archive, err := s.File(img)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	if err := checkContent(ctx, img, archive, l); err != nil || !deep {
		return nil, err
	}
	var dependencies []*image.Image
	for _, id := range img.Dependencies {
		dep, err := s.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		dependencies = append(dependencies, dep)
	}
	fresh, err := s.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fresh.Discard(ctx)) }()
	if _, err := render(ctx, s, fresh, archive, img.Parsed(), dependencies, l); err != nil {
		return nil, err
	}
	var changes []storage.Change
	err = s.WithRoot(ctx, img, func(kept string) (err error) {
		changes, err = treecmp.Compare(ctx, fresh.Root, kept)
		return err
	})
	return changes, err
}

func checkContent(ctx context.Context, img *image.Image, archive io.Reader, l layer.Limits) (err error) {
	r, _, err := Decompress(extract.WithContext(ctx, archive))
	if err != nil {
		return fmt.Errorf("%w: %w", wrongContent(img), err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	h := sha512.New()
	if _, err := io.Copy(h, io.LimitReader(r, maxSize(l)+1)); err != nil {
		return fmt.Errorf("%w: %w", wrongContent(img), err)
	}
	if "sha512-"+hex.EncodeToString(h.Sum(nil)) != string(img.ID) {
		return wrongContent(img)
	}
	return nil
}
