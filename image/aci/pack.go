package aci

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
)

// PackOptions say what Pack writes.
type PackOptions struct {
	// Root is an absolute directory, the root file system, which nobody writes to
	// meanwhile.
	Root string
	// Names are what of Root the image has, clean names; nil for all.
	Names []string
	// Latest is written in place of all later modification times, and is the
	// manifest's; zero for none (SOURCE_DATE_EPOCH).
	Latest time.Time
	// Compression is how the file is compressed; see extract.Compress.
	Compression extract.Compression
}

// Pack writes an image file: the manifest, rootfs, and what is below it as
// layer.Pack does. The manifest's entry is 0644, 0:0, of the time Latest or, without
// one, 1970: equal trees and manifests give equal image IDs. The manifest is not
// looked at.
func Pack(ctx context.Context, w io.Writer, manifest []byte, o PackOptions) error {
	err := compress(w, o.Compression, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		if err := writeManifest(tw, manifest, o.Latest); err != nil {
			return err
		}
		names := o.Names
		if names != nil && !slices.Contains(names, ".") {
			names = append([]string{"."}, names...)
		}
		if err := layer.Pack(ctx, tw, o.Root, names, layer.PackOptions{Below: rootfsName, Latest: o.Latest}); err != nil {
			return err
		}
		return tw.Close()
	})
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}

// writeManifest writes the entry of a manifest.
func writeManifest(w *tar.Writer, manifest []byte, modTime time.Time) error {
	hdr := &tar.Header{
		Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: manifestName, Mode: 0o644,
		ModTime: manifestTime(modTime), Size: int64(len(manifest)),
	}
	if err := w.WriteHeader(hdr); err != nil {
		return err
	}
	_, err := w.Write(manifest)
	return err
}

// manifestTime is a time that does not depend on when an image is made.
func manifestTime(latest time.Time) time.Time {
	if latest.IsZero() {
		return time.Unix(0, 0)
	}
	return latest
}

// compress gives write what compresses to w. After an error the end is missing, so that
// who reads w does not take the file for a whole one.
func compress(w io.Writer, c extract.Compression, write func(io.Writer) error) error {
	z, err := extract.Compress(w, c)
	if err != nil {
		return err
	}
	if err := write(z); err != nil {
		return err
	}
	return z.Close()
}
