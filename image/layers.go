package image

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// OCI is what an image that came as an OCI image has instead of an archive.
type OCI struct {
	// Digest is that of the image's manifest as it came, "sha256:" and hexadecimal
	// digits; "" when it came without one (a docker-archive).
	Digest string `json:"digest,omitempty"`
	// Config is the very bytes of the image's configuration, base64 in the index. The
	// image ID is their SHA-512: by the diff IDs they pin every byte of the root,
	// however the layers were compressed on their way.
	Config []byte  `json:"config"`
	Layers []Layer `json:"layers"` // the lowest first
}

// Layer is a layer of OCI images, which share it by its chain ID (OCI image-spec,
// config.md, "Layer ChainID"): the tree that it and all below it make. All IDs are
// "sha256:" and hexadecimal digits.
type Layer struct {
	ChainID string `json:"chainID"`
	DiffID  string `json:"diffID"` // of the uncompressed tar archive
	// Digest, MediaType and Size, in bytes, are of the blob that is kept, as it came.
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	// Content is the size of the uncompressed tar archive, in bytes.
	Content int64 `json:"content"`
}

const (
	layersDir = "layers" // in the store's directory
	layerKind = "layers" // of trees
	blobName  = "blob"
)

// LayerTree is the name of the sealed storage tree of a layer with all below it.
func LayerTree(chainID string) string { return layerKind + "/" + layerName(chainID) }

// layerName is a chain ID as the name of a tree and of a directory.
func layerName(chainID string) string { return strings.Replace(chainID, ":", "-", 1) }

// CheckDigest accepts "sha256:" and 64 lower-case hexadecimal digits.
func CheckDigest(digest string) error {
	digits, ok := strings.CutPrefix(digest, "sha256:")
	if raw, err := hex.DecodeString(digits); !ok || err != nil || len(raw) != 32 || strings.ToLower(digits) != digits {
		return fmt.Errorf("digest %.100q: want sha256: and 64 lower-case hex digits", digest)
	}
	return nil
}

func (s *Store) layerDir(chainID string) string {
	return filepath.Join(s.dir, layersDir, layerName(chainID))
}

// Layer opens the blob of a layer as it came. Errors: ErrDamaged when it is gone or has
// another length; the content is not looked at.
func (s *Store) Layer(l Layer) (*os.File, error) {
	if err := CheckDigest(l.ChainID); err != nil {
		return nil, err
	}
	return openKept(filepath.Join(s.layerDir(l.ChainID), blobName), l.Size, "layer "+l.ChainID, "blob")
}

// openKept opens a file that the store keeps, of which it knows the size. Errors:
// ErrDamaged.
func openKept(path string, size int64, of, what string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: its %s is gone; import it again", of, ErrDamaged, what)
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Size() != size {
		err = fmt.Errorf("%s: %w: its %s has %d bytes of %d; import it again", of, ErrDamaged, what, fi.Size(), size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
