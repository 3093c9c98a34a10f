package oci

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// ErrNoOCI means that an image has what an OCI image cannot have.
var ErrNoOCI = errors.New("cannot be an OCI image")

// Exporter makes OCI images of a store's images.
type Exporter struct {
	Store  *image.Store
	Driver storage.Driver // that of the store
	// OS and Arch are, in the words of appc, those of images that have no such label.
	OS, Arch string
}

// Export is an image of the store as an OCI image. It needs what it keeps of it until it
// is closed.
type Export struct {
	v1.Image
	Platform v1.Platform
	// Warnings are what the OCI image lacks that the image has, a line each.
	Warnings []string

	drafts []*image.Draft
}

// Open gives an image of the store as an OCI image. One that came as such has its own
// configuration and its own layers, as they came. An ACI has a layer for each image of
// the chain of first dependencies, of each of which the next one's tree is a clone: what
// that changes in it, the lowest one all of its tree; so further dependencies and
// whitelists come out right. Layers are compressed with gzip. The same image gives the
// same digests on every host.
//
// Errors: ErrNoOCI, image.ErrDamaged, those of the storage driver.
func (e Exporter) Open(ctx context.Context, img *image.Image) (_ *Export, err error) {
	x := new(Export)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("image %s: %w", img.ID.Short(), err), x.Close(ctx))
		}
	}()
	layers, history, err := e.layers(ctx, x, img)
	if err != nil {
		return nil, err
	}
	if img.OCI != nil {
		x.Image, err = keptImage(img.OCI, layers)
		if err != nil {
			return nil, err
		}
		config, err := x.ConfigFile()
		if err == nil {
			x.Platform = *config.Platform()
		}
		return x, err
	}
	config, warnings, err := e.config(img.Parsed())
	if err != nil {
		return nil, err
	}
	x.Platform, x.Warnings = *config.Platform(), warnings
	x.Image, err = assemble(config, layers, history)
	return x, err
}

// Close releases what the image is kept in.
func (x *Export) Close(ctx context.Context) error {
	var errs []error
	for _, d := range x.drafts {
		errs = append(errs, d.Discard(ctx))
	}
	x.drafts = nil
	return errors.Join(errs...)
}

// assemble puts an image together of what an ACI gives.
func assemble(config *v1.ConfigFile, layers []v1.Layer, history []v1.History) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(base, config)
	if err != nil {
		return nil, err
	}
	var adds []mutate.Addendum
	for i, l := range layers {
		mediaType, err := l.MediaType()
		if err != nil {
			return nil, err
		}
		adds = append(adds, mutate.Addendum{Layer: l, History: history[i], MediaType: mediaType})
	}
	return mutate.Append(img, adds...)
}

// layers gives the layers of an image, the lowest first, and what made each.
func (e Exporter) layers(ctx context.Context, x *Export, img *image.Image) ([]v1.Layer, []v1.History, error) {
	if img.OCI != nil {
		return e.keptLayers(img)
	}
	var layers []v1.Layer
	var history []v1.History
	var below *image.Image
	if len(img.Dependencies) > 0 {
		var err error
		if below, err = e.Store.Get(ctx, img.Dependencies[0]); err != nil {
			return nil, nil, err
		}
		if layers, history, err = e.layers(ctx, x, below); err != nil {
			return nil, nil, err
		}
	}
	l, err := e.pack(ctx, x, img, below)
	if err != nil || l == nil {
		return layers, history, err
	}
	made := v1.History{CreatedBy: "jetpack image " + RefName(img), Created: created(img.Parsed())}
	return append(layers, l), append(history, made), nil
}

// keptLayers gives the layers of an image that came as an OCI image.
func (e Exporter) keptLayers(img *image.Image) (layers []v1.Layer, history []v1.History, err error) {
	for _, kept := range img.OCI.Layers {
		l := &packed{size: kept.Size, mediaType: types.MediaType(kept.MediaType), open: func() (io.ReadCloser, error) { return e.Store.Layer(kept) }}
		if l.digest, err = v1.NewHash(kept.Digest); err != nil {
			return nil, nil, err
		}
		if l.diffID, err = v1.NewHash(kept.DiffID); err != nil {
			return nil, nil, err
		}
		whole, err := partial.CompressedToLayer(l)
		if err != nil {
			return nil, nil, err
		}
		layers, history = append(layers, whole), append(history, v1.History{CreatedBy: "layer of " + RefName(img)})
	}
	return layers, history, nil
}

// packed is a compressed layer that is kept in a file.
type packed struct {
	digest, diffID v1.Hash
	size           int64
	mediaType      types.MediaType
	open           func() (io.ReadCloser, error)
}

func (p *packed) Digest() (v1.Hash, error)            { return p.digest, nil }
func (p *packed) DiffID() (v1.Hash, error)            { return p.diffID, nil }
func (p *packed) Size() (int64, error)                { return p.size, nil }
func (p *packed) MediaType() (types.MediaType, error) { return p.mediaType, nil }
func (p *packed) Compressed() (io.ReadCloser, error)  { return p.open() }

// pack makes the layer of an ACI in the file of a draft; nil if it changes nothing in the
// image below.
func (e Exporter) pack(ctx context.Context, x *Export, img, below *image.Image) (v1.Layer, error) {
	changes, err := e.Driver.Diff(ctx, image.Tree(img.ID))
	if err != nil {
		return nil, err
	}
	d, err := e.Store.Begin(ctx)
	if err != nil {
		return nil, err
	}
	x.drafts = append(x.drafts, d)
	l := &packed{mediaType: types.OCILayer, open: func() (io.ReadCloser, error) { return os.Open(d.File.Name()) }}
	err = e.Store.WithRoot(ctx, img, func(root string) error {
		names, deleted, err := e.contents(ctx, changes, root, below)
		if err != nil || below != nil && len(names)+len(deleted) == 0 {
			return err
		}
		return l.write(d.File, func(w *tar.Writer) error {
			if err := writeWhiteouts(w, deleted); err != nil {
				return err
			}
			return layer.Pack(ctx, w, root, names, layer.PackOptions{})
		})
	})
	if err != nil || l.size == 0 {
		return nil, err
	}
	return partial.CompressedToLayer(l)
}

// contents gives what of a tree belongs in a layer, and what the layer deletes. Directories
// above what changes are in it, too, and those whose times alone differ from the image
// below: no diff lists these.
func (e Exporter) contents(ctx context.Context, changes []storage.Change, root string, below *image.Image) (names, deleted []string, err error) {
	listed := map[string]bool{}
	for _, c := range changes {
		name := path.Join(".", strings.TrimPrefix(c.Path, "/"))
		if c.Kind == storage.Deleted {
			deleted = append(deleted, name)
		} else {
			listed[name] = true
		}
		for p := path.Dir(name); !listed[p]; p = path.Dir(p) {
			listed[p] = true
		}
	}
	if below == nil {
		listed["."] = true
	} else {
		err = e.Store.WithRoot(ctx, below, func(old string) error { return addTouched(ctx, listed, old, root) })
	}
	for name := range listed {
		if strings.HasPrefix(path.Base(name), layer.WhiteoutPrefix) {
			return nil, nil, fmt.Errorf("%w: %q would delete a file in it", ErrNoOCI, name)
		}
		names = append(names, name)
	}
	return names, deleted, err
}

// writeWhiteouts writes entries that delete what lower layers have.
func writeWhiteouts(w *tar.Writer, deleted []string) error {
	for _, name := range deleted {
		dir, base := path.Split(name)
		hdr := &tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: dir + layer.WhiteoutPrefix + base, ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(hdr); err != nil {
			return err
		}
	}
	return nil
}

// write fills the layer's file and learns what identifies it.
func (p *packed) write(f *os.File, content func(*tar.Writer) error) error {
	diffID, digest := sha256.New(), sha256.New()
	counter := &counter{w: io.MultiWriter(f, digest)}
	z, err := extract.Compress(counter, extract.Gzip)
	if err != nil {
		return err
	}
	w := tar.NewWriter(io.MultiWriter(z, diffID))
	if err := content(w); err != nil {
		return err
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return err
	}
	p.diffID, p.digest, p.size = sum(diffID), sum(digest), counter.size
	return nil
}

func sum(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

type counter struct {
	w    io.Writer
	size int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.size += int64(n)
	return n, err
}

// keptCore is an image that came as an OCI image.
type keptCore struct {
	config   []byte
	manifest []byte
	kind     types.MediaType
	layers   []v1.Layer
}

// keptImage gives an image with the configuration and the layers that it came with, and the
// very manifest, unless a layer that is shared has come compressed in another way before.
func keptImage(kept *image.OCI, layers []v1.Layer) (v1.Image, error) {
	raw, doc := kept.Manifest, document{}
	if raw != nil {
		var err error
		if doc, err = parseDocument(raw, ""); err != nil {
			return nil, err
		}
	}
	m := doc.manifest
	same := func(d v1.Descriptor, l image.Layer) bool { return d.Digest.String() == l.Digest }
	if m == nil || !slices.EqualFunc(m.Layers, kept.Layers, same) {
		var err error
		if m, raw, err = newManifest(kept, layers); err != nil {
			return nil, err
		}
	}
	return partial.CompressedToImage(&keptCore{kept.Config, raw, cmp.Or(m.MediaType, types.OCIManifestSchema1), layers})
}

// newManifest makes the manifest of an image with the configuration and the layers that it
// came with.
func newManifest(kept *image.OCI, layers []v1.Layer) (_ *v1.Manifest, raw []byte, err error) {
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	m.Config = v1.Descriptor{MediaType: types.OCIConfigJSON}
	// Docker's words are for images that have them: mixing is what some tools refuse.
	if slices.ContainsFunc(kept.Layers, func(l image.Layer) bool { return strings.HasPrefix(l.MediaType, "application/vnd.docker.") }) {
		m.MediaType, m.Config.MediaType = types.DockerManifestSchema2, types.DockerConfigJSON
	}
	if m.Config.Digest, m.Config.Size, err = v1.SHA256(bytes.NewReader(kept.Config)); err != nil {
		return nil, nil, err
	}
	for _, l := range layers {
		d, err := partial.Descriptor(l)
		if err != nil {
			return nil, nil, err
		}
		m.Layers = append(m.Layers, *d)
	}
	raw, err = json.Marshal(m)
	return &m, raw, err
}

func (k *keptCore) RawConfigFile() ([]byte, error)      { return k.config, nil }
func (k *keptCore) RawManifest() ([]byte, error)        { return k.manifest, nil }
func (k *keptCore) MediaType() (types.MediaType, error) { return k.kind, nil }

func (k *keptCore) LayerByDigest(want v1.Hash) (partial.CompressedLayer, error) {
	for _, l := range k.layers {
		if digest, err := l.Digest(); err == nil && digest == want {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no layer %s", want)
}
