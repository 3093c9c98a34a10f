// Package oci brings OCI images, and Docker's, into a store: from registries, image
// layouts and archives (OCI image-spec and distribution-spec). Every byte of them is
// hostile: nothing is parsed before its digest is known to be right, but for what says
// what the digests are, and layers are applied in a confined process. The other way, an
// Exporter makes OCI images of a store's images, which go to the same places.
//
// Not for: applying a layer's entries, or packing them (image/layer), keeping images and
// layers (image), who is trusted (image/trust).
package oci

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
)

// format is a layer's kind of archive: its hash is the diff ID.
var format = &extract.Format{Name: "oci layer", Recognise: recognise, Read: readLayer, OCI: true}

func init() { extract.Register(format) }

// recognise goes by what there is, as all tools do; media types are often wrong.
func recognise(head []byte) (extract.Compression, error) {
	switch c := extract.Magic(head); c {
	case extract.None, extract.Gzip, extract.Zstd:
		return c, nil
	default:
		return "", fmt.Errorf("%w: a layer compressed with %s", extract.ErrFormat, c)
	}
}

// readLayer reads an uncompressed layer to its end. The diff ID tells whether it is
// complete, so it may lack the marker for its end, as some are written.
func readLayer(r io.Reader, l layer.Limits, apply extract.ApplyFunc) (diffID string, size int64, err error) {
	a := extract.NewArchive(r, sha256.New(), extract.MaxSize(l))
	for {
		hdr, err := a.Next()
		if err != nil {
			return "", 0, err
		}
		if hdr == nil {
			break
		}
		if err := applyEntry(hdr, a, apply); err != nil {
			return "", 0, err
		}
	}
	if err := a.Finish(); err != nil {
		return "", 0, err
	}
	return "sha256:" + a.Hash(), a.Size(), nil
}

func applyEntry(hdr *tar.Header, content io.Reader, apply extract.ApplyFunc) error {
	name, err := entryName(hdr.Name)
	if err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeLink {
		target, err := entryName(hdr.Linkname)
		if err != nil {
			return fmt.Errorf("entry %q: %w: %w", name, layer.ErrHardLink, err)
		}
		clean := *hdr
		clean.Linkname = target
		hdr = &clean
	}
	return apply(hdr, name, content)
}

// entryName takes absolute names, which some tools write, for what they mean.
func entryName(name string) (string, error) {
	rest := strings.TrimLeft(name, "/")
	if rest == "" && name != "" {
		return ".", nil
	}
	return layer.CleanName(rest)
}
