package aci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/jetpack-run/jetpack/image/layer"
)

// ExtractOptions say what Extract makes. Only Limits is mandatory.
type ExtractOptions struct {
	Limits layer.Limits
	// Keep is what of the image is made. Nothing else changes what is there.
	Keep *layer.Whitelist
	// Prune is what stays of the whole tree when the image has been applied to it.
	Prune *layer.Whitelist
}

// Extract reads an image file, compressed or not, from its beginning to its end,
// validates it as a whole but for what its manifest says, and applies what is below rootfs to the existing
// directory rootfs: over what is there, as an upper layer over lower ones. It
// reads r twice when there is something to keep. After an error that directory is
// to be thrown away.
//
// A process of its own, confined to rootfs and without the privileges that making
// files does not need, does all but uncompressing: see child. So the program must
// call reexec.Init (github.com/moby/sys/reexec) first thing in its main, a test in
// its TestMain.
func Extract(ctx context.Context, r io.ReadSeeker, rootfs string, o ExtractOptions) (Result, error) {
	result, err := extract(ctx, r, rootfs, o)
	if err != nil {
		return Result{}, fmt.Errorf("extract image: %w", err)
	}
	return result, nil
}

// extractHere extracts in this process, unconfined.
func extractHere(ctx context.Context, r io.ReadSeeker, rootfs string, o ExtractOptions) (_ Result, err error) {
	dir, err := os.Open(rootfs)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return extractPasses(dir, o, func(apply applyFunc) (Result, error) {
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return Result{}, err
		}
		return readImage(ctx, r, o.Limits, apply)
	})
}

// extractPasses extracts to an open directory what read reads, each time anew.
func extractPasses(rootfs *os.File, o ExtractOptions, read func(applyFunc) (Result, error)) (Result, error) {
	filter, err := survey(o, read)
	if err != nil {
		return Result{}, err
	}
	result, err := applyTo(rootfs, o.Limits, filter, read)
	if err != nil {
		return Result{}, err
	}
	result.Manifest = Manifest{}
	return result, layer.Prune(rootfs, o.Prune)
}

// survey makes the filter for what is to be kept, nil for everything.
func survey(o ExtractOptions, read func(applyFunc) (Result, error)) (*layer.Filter, error) {
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

func applyTo(rootfs *os.File, l layer.Limits, filter *layer.Filter, read func(applyFunc) (Result, error)) (Result, error) {
	applier, err := layer.NewApplier(rootfs, l, filter)
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
