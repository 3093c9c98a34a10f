package image

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// OCI is what an image that came as an OCI image has instead of an archive.
type OCI struct {
	// Digest is that of the image's manifest as it came, "sha256:" and hexadecimal
	// digits; "" when it came without one (a docker-archive).
	Digest string `json:"digest,omitempty"`
	// Manifest is that manifest, base64 in the index; nil when it came without one.
	Manifest []byte `json:"manifest,omitempty"`
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
	// Compression is how the blob is compressed, whatever its media type: "none", "gzip"
	// or "zstd".
	Compression string `json:"compression"`
}

const (
	layersDir = "layers" // in the store's directory
	layerKind = "layers" // of trees
	blobName  = "blob"
	pinsName  = "layers.json" // in a draft's directory
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

// KnownLayer gives a layer as it is kept; nil if it is not there as a whole.
func (s *Store) KnownLayer(ctx context.Context, chainID string) (*Layer, error) {
	l, err := s.layerRecord(chainID)
	if l == nil || err != nil {
		return nil, err
	}
	if blob, err := s.Layer(*l); errors.Is(err, ErrDamaged) {
		return nil, nil
	} else if err != nil {
		return nil, err
	} else if err := blob.Close(); err != nil {
		return nil, err
	}
	there, err := s.hasTree(ctx, LayerTree(chainID))
	if !there {
		return nil, err
	}
	return l, nil
}

// layerRecord reads what is known of a layer; nil if that is nothing of use.
func (s *Store) layerRecord(chainID string) (*Layer, error) {
	raw, err := os.ReadFile(filepath.Join(s.layerDir(chainID), recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := new(Layer)
	if err := json.Unmarshal(raw, l); err != nil || l.ChainID != chainID {
		return nil, nil //nolint:nilerr // a damaged record is made anew
	}
	return l, nil
}

func (s *Store) hasTree(ctx context.Context, name string) (bool, error) {
	_, err := s.driver.Stat(ctx, name)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Pin keeps layers from being taken away, those that are there and those that others
// bring, as long as the draft lives. It comes before a look at what is there.
func (d *Draft) Pin(ctx context.Context, chainIDs []string) error {
	return d.store.exclusively(ctx, func() error {
		raw, err := json.Marshal(chainIDs)
		if err != nil {
			return err
		}
		return failpoint.Do(d.store.Points, "pin layers", func() error {
			return atomicfile.Replace(filepath.Join(d.dir(), pinsName), raw, 0o600)
		})
	})
}

// Unpin gives up what was pinned, and takes away those of the layers that nothing else
// counts on: what an import brought that comes to nothing.
func (d *Draft) Unpin(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	return d.store.exclusively(ctx, func() error {
		chainIDs, err := d.store.pins(d.id)
		if err == nil {
			err = failpoint.Do(d.store.Points, "unpin layers", func() error { return os.RemoveAll(filepath.Join(d.dir(), pinsName)) })
		}
		if err != nil {
			return err
		}
		var layers []Layer
		for _, id := range chainIDs {
			layers = append(layers, Layer{ChainID: id})
		}
		return d.store.removeLayers(ctx, layers)
	})
}

// pins gives the layers that a draft counts on.
func (s *Store) pins(draft string) (chainIDs []string, err error) {
	raw, err := os.ReadFile(filepath.Join(s.dir, draftPrefix+draft, pinsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &chainIDs)
	}
	return chainIDs, err
}

// MakeLayerRoot gives the draft its root: a clone of that of a layer, which the caller
// has pinned, or an empty one for "". quota is as for MakeRoot.
func (d *Draft) MakeLayerRoot(ctx context.Context, chainID string, quota int64) error {
	if chainID == "" {
		return d.makeRoot(ctx, "", quota)
	}
	return d.makeRoot(ctx, LayerTree(chainID), quota)
}

// CommitLayer publishes the draft, whose root a layer was applied to and whose file is
// its blob, and gives the layer as it is kept: the one that is there already if another
// import was faster. It mends one that is damaged. The caller has pinned it.
func (d *Draft) CommitLayer(ctx context.Context, l Layer) (_ Layer, err error) {
	s := d.store
	if err := d.finish(ctx); err != nil {
		return Layer{}, fmt.Errorf("commit layer: %w", err)
	}
	err = s.exclusively(ctx, func() error {
		known, err := s.KnownLayer(ctx, l.ChainID)
		if err != nil {
			return err
		}
		if known != nil {
			l = *known
			return nil
		}
		return d.publishLayer(ctx, l)
	})
	if err != nil {
		return Layer{}, fmt.Errorf("commit layer: %w", err)
	}
	return l, nil
}

// publishLayer puts what the layer lacks in its place, the record last. What a crash or a
// failure leaves is pinned, and nobody's without the pin.
func (d *Draft) publishLayer(ctx context.Context, l Layer) error {
	s := d.store
	there, err := s.hasTree(ctx, LayerTree(l.ChainID))
	if err != nil {
		return err
	}
	if !there { // else it is what was applied when its blob was whole
		if err := storage.Remove(ctx, s.driver, LayerTree(l.ChainID)); err != nil {
			return err
		}
		if err := s.driver.Rename(ctx, d.tree(), LayerTree(l.ChainID)); err != nil {
			return err
		}
		d.committed = true
	}
	raw, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := d.moveFile(s.layerDir(l.ChainID), blobName); err != nil {
		return err
	}
	err = failpoint.Do(s.Points, "write layer record", func() error {
		return atomicfile.Write(filepath.Join(s.layerDir(l.ChainID), recordName), raw, 0o600)
	})
	if err != nil {
		return err
	}
	return s.relayer(ctx, l)
}

// relayer tells the images that have a layer of its new blob: it may be compressed in
// another way than the one that was lost.
func (s *Store) relayer(ctx context.Context, l Layer) error {
	images, _, err := s.scan(ctx)
	if err != nil {
		return err
	}
	for _, img := range images {
		i := slices.IndexFunc(img.Layers(), func(old Layer) bool { return old.ChainID == l.ChainID && old != l })
		if i < 0 {
			continue
		}
		img.OCI.Layers[i] = l
		value, err := json.Marshal(img)
		if err == nil {
			err = s.enter(img.ID, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Layers gives the layers of an OCI image, the lowest first; none for an ACI.
func (i *Image) Layers() []Layer {
	if i.OCI == nil {
		return nil
	}
	return i.OCI.Layers
}

// Entrypoint tells how many words of an OCI image's command are its entrypoint; the rest
// are arguments for where there are none. An ACI does not tell them apart.
func (i *Image) Entrypoint() (words int, ok bool) {
	if i.OCI == nil {
		return 0, false
	}
	var c struct {
		Config struct{ Entrypoint []string } `json:"config"`
	}
	if err := json.Unmarshal(i.OCI.Config, &c); err != nil {
		return 0, false
	}
	return len(c.Config.Entrypoint), true
}

// usedLayers gives the chain IDs that images and living drafts count on.
func (s *Store) usedLayers(ctx context.Context) (map[string]bool, error) {
	images, _, err := s.scan(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, e := range entries {
		if id, err := ParseID(e.Name()); err == nil {
			// One whose entry is lost or damaged can be entered again.
			if img, err := decode([]byte(id), s.record(id)); err == nil {
				images = append(images, img)
			}
		}
		draft, ok := strings.CutPrefix(e.Name(), draftPrefix)
		if !ok {
			continue
		}
		if busy, err := locked(filepath.Join(s.dir, e.Name(), "lock")); err != nil {
			return nil, err
		} else if !busy {
			continue
		}
		chainIDs, err := s.pins(draft)
		if err != nil {
			return nil, err
		}
		for _, id := range chainIDs {
			used[id] = true
		}
	}
	for _, img := range images {
		for _, l := range img.Layers() {
			used[l.ChainID] = true
		}
	}
	return used, nil
}

// removeLayers takes away those of an image's layers that nothing counts on any more,
// from the top down: what is above one that is used may go.
func (s *Store) removeLayers(ctx context.Context, layers []Layer) error {
	if len(layers) == 0 {
		return nil
	}
	used, err := s.usedLayers(ctx)
	if err != nil {
		return err
	}
	for _, l := range slices.Backward(layers) {
		if used[l.ChainID] {
			return nil
		}
		if err := s.removeLayer(ctx, l.ChainID); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) removeLayer(ctx context.Context, chainID string) error {
	err := storage.Remove(ctx, s.driver, LayerTree(chainID))
	if errors.Is(err, storage.ErrBusy) {
		err = ErrInUse
	}
	if err == nil {
		err = failpoint.Do(s.Points, "remove layer files", func() error {
			err := os.RemoveAll(s.layerDir(chainID))
			_ = os.Remove(filepath.Join(s.dir, layersDir)) // unless there are others
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("remove layer %.19s: %w", chainID, err)
	}
	return nil
}

// strayLayers finds what there is of layers that nothing counts on; what is cloned
// comes after its clones.
func (s *Store) strayLayers(ctx context.Context) (debris []Debris, err error) {
	used, err := s.usedLayers(ctx)
	if err != nil {
		return nil, err
	}
	trees, err := s.driver.List(ctx, layerKind)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, t := range trees {
		names[strings.TrimPrefix(t.Name, layerKind+"/")] = true
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, layersDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		names[e.Name()] = true
	}
	for name := range names {
		chainID := strings.Replace(name, "-", ":", 1)
		if used[chainID] || CheckDigest(chainID) != nil {
			continue
		}
		debris = append(debris, Debris{
			What: "layer " + name + " of an interrupted import or removal", tree: LayerTree(chainID),
			remove: func(ctx context.Context) error { return s.removeStrayLayer(ctx, chainID) },
		})
	}
	slices.SortFunc(debris, func(a, b Debris) int { return strings.Compare(a.What, b.What) })
	clonesFirst(trees, debris)
	return debris, nil
}

func (s *Store) removeStrayLayer(ctx context.Context, chainID string) error {
	return s.exclusively(ctx, func() error {
		used, err := s.usedLayers(ctx)
		if err != nil || used[chainID] {
			return err // an import counts on it by now
		}
		return s.removeLayer(ctx, chainID)
	})
}
