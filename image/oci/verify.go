package oci

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/treecmp"
)

// Verify hashes what is kept of an OCI image once more: its manifest and configuration, and
// its layers as they came and uncompressed. With deep it also applies all layers again and
// tells in what the sealed tree differs: a lost path is Deleted. Errors: image.ErrDamaged.
func Verify(ctx context.Context, s *image.Store, img *image.Image, l layer.Limits, deep bool) (_ []storage.Change, err error) {
	if err := s.Check(ctx, img); err != nil {
		return nil, err
	}
	if imageID(img.OCI.Config) != img.ID || img.OCI.Manifest != nil && digestOf(img.OCI.Manifest) != img.OCI.Digest {
		return nil, fmt.Errorf("image %s: %w: its configuration or its manifest is not what was imported; import it again", img.ID.Short(), image.ErrDamaged)
	}
	for _, kept := range img.OCI.Layers {
		if err := verifyLayer(ctx, s, kept, l); err != nil {
			return nil, fmt.Errorf("image %s: %w", img.ID.Short(), err)
		}
	}
	if !deep {
		return nil, nil
	}
	fresh, err := s.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fresh.Discard(ctx)) }()
	if err := fresh.MakeRoot(ctx, nil, l.MaxBytes); err != nil {
		return nil, err
	}
	for _, kept := range img.OCI.Layers {
		if err := applyKept(ctx, s, kept, fresh.Root, l); err != nil {
			return nil, err
		}
	}
	var changes []storage.Change
	err = s.WithRoot(ctx, img, func(root string) (err error) {
		changes, err = treecmp.Compare(ctx, fresh.Root, root)
		return err
	})
	return changes, err
}

func verifyLayer(ctx context.Context, s *image.Store, kept image.Layer, l layer.Limits) (err error) {
	blob, err := s.Layer(kept)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	wrong := fmt.Errorf("layer %s: %w: its blob is not what was imported; import it again", kept.ChainID, image.ErrDamaged)
	raw, content := sha256.New(), sha256.New()
	r, _, err := extract.Decompress(extract.WithContext(ctx, io.TeeReader(blob, raw)), recognise)
	if err != nil {
		return fmt.Errorf("%w: %w", wrong, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if _, err := io.Copy(content, io.LimitReader(r, extract.MaxSize(l)+1)); err != nil {
		return fmt.Errorf("%w: %w", wrong, err)
	}
	if sum(raw).String() != kept.Digest || sum(content).String() != kept.DiffID {
		return wrong
	}
	return nil
}

func applyKept(ctx context.Context, s *image.Store, kept image.Layer, root string, l layer.Limits) (err error) {
	blob, err := s.Layer(kept)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	_, err = format.Extract(ctx, blob, root, extract.Options{Limits: l})
	return err
}
