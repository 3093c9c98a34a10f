// Package image keeps images: their identity, the index that finds them, the
// file they came in and the sealed tree that pods clone.
//
// Not for: reading a format (image/aci), unpacking (image/layer), trees
// themselves (internal/storage), where images come from.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/appc/spec/schema"
)

// Sentinels of this package, wrapped with the object.
var (
	// ErrNotFound: the store has no such image.
	ErrNotFound = errors.New("no such image")
	// ErrAmbiguous: an ID prefix stands for several images.
	ErrAmbiguous = errors.New("ambiguous image ID")
	// ErrNoTag: no image has that tag. It is an ErrNotFound.
	ErrNoTag = fmt.Errorf("%w by that tag", ErrNotFound)
	// ErrBadTag: not NAME[:VERSION], or it looks like an image ID.
	ErrBadTag = errors.New("invalid tag")
	// ErrInUse: a pod or another image depends on the image.
	ErrInUse = errors.New("image is in use")
	// ErrMismatch: an image is not the one that was asked for.
	ErrMismatch = errors.New("not the image that is meant")
	// ErrTooDeep: an image is made of too many others.
	ErrTooDeep = errors.New("too many dependencies")
	// ErrUntrusted: no signature by a trusted key vouches for the image.
	ErrUntrusted = errors.New("no trusted signature")
	// ErrNoArchive: an OCI image is kept as layers, and has no ACI archive.
	ErrNoArchive = errors.New("an OCI image has no ACI archive")
	// ErrNotInitialized: there is no store where one was expected.
	ErrNotInitialized = errors.New("store is not initialized")
	// ErrDamaged: what is kept of an image, or the index, is not what was written.
	ErrDamaged = errors.New("damaged")
)

// ID is an image ID: "sha512-" and the 128 lower-case hexadecimal digits of the
// SHA-512 of the uncompressed archive (appc spec, "Image Archives").
type ID string

// ParseID checks that s is a whole image ID. The library's types.Hash accepts
// prefixes, upper case and path separators, so it is never trusted as a path.
func ParseID(s string) (ID, error) {
	// By hand: compiling a pattern with such a bound takes milliseconds at each start.
	hex, ok := strings.CutPrefix(s, "sha512-")
	if !ok || len(hex) != 128 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", fmt.Errorf("image ID %.160q: want sha512- and 128 lower-case hex digits", s)
	}
	return ID(s), nil
}

// Short is the ID as tables show it: "sha512-" and 12 digits.
func (id ID) Short() string { return string(id[:min(len(id), 19)]) }

// StopSignal is the annotation of an image that names the signal by which its app is
// asked to end, by name or number, in place of SIGTERM.
const StopSignal = "jetpack/stop-signal"

// Image is what the store knows of an image.
type Image struct {
	ID       ID              `json:"id"`
	Manifest json.RawMessage `json:"manifest"` // the very bytes of the archive's manifest
	// Origin is where it came from: an absolute path, a URL, "stdin", or, of an image made
	// here, the command that made it: "image create".
	Origin   string    `json:"origin"`
	Imported time.Time `json:"imported"`
	// Size and FileSize are bytes: of the uncompressed archive, of the file that came.
	Size        int64  `json:"size"`
	FileSize    int64  `json:"fileSize"`
	Compression string `json:"compression"`
	// Insecure lists the checks that were waived when it was admitted: "signature".
	Insecure []string `json:"insecure"`
	// Signature vouched for the file when it was admitted; nil when that was waived.
	Signature *Signature `json:"signature,omitempty"`
	// ETag is what the server of Origin called this version of the file, if it did.
	ETag string `json:"etag,omitempty"`
	// Dependencies are the images that it was made of, in its manifest's order.
	Dependencies []ID `json:"dependencies,omitempty"`
	// OCI is what an image that came as an OCI image has instead of an archive; nil for
	// an ACI.
	OCI *OCI `json:"oci,omitempty"`
	// Tags are its further names here, sorted. They are no part of its entry.
	Tags []string `json:"-"`

	parsed *schema.ImageManifest
}

// Signature is an OpenPGP signature of an image's file.
type Signature struct {
	Armored     string    `json:"armored"`     // detached
	Fingerprint string    `json:"fingerprint"` // of the primary key, lower-case hexadecimal
	Created     time.Time `json:"created"`
}

// Name is the image's name.
func (i *Image) Name() string { return string(i.parsed.Name) }

// Label is the value of a label, or "".
func (i *Image) Label(name string) string {
	v, _ := i.parsed.GetLabel(name)
	return v
}

// Parsed is the manifest. It is shared: not to be changed.
func (i *Image) Parsed() *schema.ImageManifest { return i.parsed }
