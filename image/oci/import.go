package oci

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// Options are how an import goes about it.
type Options struct {
	Web       Web
	Platforms []v1.Platform // the best first
	Insecure  []string      // the checks that are waived; without "signature", a digest admits
	Strict    bool          // refuse an image of which something is left out
	Limits    layer.Limits
	// Meter shows how far a blob is: it passes r on. Have of size bytes are there
	// already; size is -1 when it is unknown.
	Meter func(what string, have, size int64, r io.Reader) io.ReadCloser
}

// parallel is how many blobs come at a time.
const parallel = 4

// Import takes an OCI image into a store, with the layers that it lacks, and gives it the
// tag that its name is. It gives what is odd about it, too, a line each. Nothing is seen
// before all of it has been checked. It gives the image that is there already for a
// configuration imported before.
//
// The image ID is the SHA-512 of the configuration's bytes, which name the layers by
// their uncompressed content: however they are compressed on their way, it is the same
// image.
//
// Errors: image.ErrUntrusted, ErrNotFound, ErrFormat, ErrUnsupported, ErrPlatform,
// extract.ErrFormat, those of image/layer, of the file system and the network.
func Import(ctx context.Context, s *image.Store, l Location, o Options) (_ *image.Image, warnings []string, err error) {
	img, warnings, err := importImage(ctx, s, l, o)
	if err != nil {
		return nil, nil, fmt.Errorf("import %s: %w", l, err)
	}
	return img, warnings, nil
}

func importImage(ctx context.Context, s *image.Store, l Location, o Options) (_ *image.Image, _ []string, err error) {
	var in files
	if !l.IsRegistry() {
		if in, err = openFiles(l); err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, in.Close()) }()
	}
	f, err := find(ctx, in, l, o)
	if err != nil {
		return nil, nil, err
	}
	i := &importer{Options: o, store: s, found: f}
	if i.origin, err = i.admit(l); err != nil {
		return nil, nil, err
	}
	if err := i.read(); err != nil {
		return nil, nil, err
	}
	img, warnings, err := i.bring(ctx)
	if err != nil {
		return nil, nil, err
	}
	if l.Digest == "" || l.tag != "" || !l.IsRegistry() { // else the name alone would mean any version
		if _, err := s.Tag(ctx, img.ID, f.ref.String()); err != nil {
			return nil, nil, err
		}
	}
	img, err = s.Get(ctx, img.ID)
	return img, warnings, err
}

func find(ctx context.Context, in files, l Location, o Options) (*found, error) {
	switch l.transport {
	case registryTransport:
		return findInRegistry(ctx, o.Web, l, extract.MaxFile(o.Limits), o.Platforms)
	case dockerArchive:
		return findInDocker(in, l)
	}
	return findInLayout(ctx, in, l, o.Platforms)
}

// importer is the import of one image.
type importer struct {
	Options
	*found
	store    *image.Store
	origin   string
	file     *v1.ConfigFile
	chainIDs []string
	warnings []string
	cut      atomic.Bool // a blob did not come whole
}

// admit decides whether the image may come in: by the digest that was asked for, or
// because that is waived. It gives the image's origin, for the record.
func (i *importer) admit(l Location) (origin string, err error) {
	resolved := l.at(i.top)
	if l.Digest != "" {
		i.Insecure = slices.DeleteFunc(slices.Clone(i.Insecure), func(w string) bool { return w == "signature" })
	} else if !slices.Contains(i.Insecure, "signature") {
		waive := ""
		if len(i.Insecure) > 0 {
			waive = "--insecure=" + strings.Join(i.Insecure, ",") + " "
		}
		return "", fmt.Errorf("%w: nobody vouches for what this names; if it is meant, 'jetpack image import %s%s' takes in what it names now, by its digest, and --insecure=signature whatever it is",
			image.ErrUntrusted, waive, resolved)
	}
	return resolved.String(), nil
}

// read reads the configuration and checks it against the layers and the platform.
func (i *importer) read() (err error) {
	if i.file, err = parseConfig(i.config); err != nil {
		return err
	}
	if has := i.file.Platform(); has != nil && !slices.ContainsFunc(i.Platforms, func(want v1.Platform) bool { return rank(*has, want) >= 0 }) {
		return noPlatform(i.Platforms, []string{has.String()})
	}
	diffIDs := i.file.RootFS.DiffIDs
	if len(diffIDs) != len(i.layers) {
		return fmt.Errorf("%w: %d layers, of which the configuration knows %d", ErrFormat, len(i.layers), len(diffIDs))
	}
	var total int64
	for n, b := range i.layers {
		if b.Digest.Algorithm == "" {
			continue
		}
		if err := checkDescriptor(b.Descriptor, extract.MaxFile(i.Limits)-total); err != nil {
			return fmt.Errorf("layer %d: %w", n, err)
		}
		total += b.Size
	}
	i.chainIDs = chainIDs(diffIDs)
	return nil
}

// chainIDs gives the chain IDs of layers (image-spec, config.md, "Layer ChainID").
func chainIDs(diffIDs []v1.Hash) (ids []string) {
	for n, id := range diffIDs {
		chain := id.String()
		if n > 0 {
			chain = digestOf([]byte(ids[n-1] + " " + chain))
		}
		ids = append(ids, chain)
	}
	return ids
}

// imageID is the ID of the image with a configuration.
func imageID(config []byte) image.ID {
	sum := sha512.Sum512(config)
	return image.ID("sha512-" + hex.EncodeToString(sum[:]))
}

// bring takes in the layers that are missing, and then the image.
func (i *importer) bring(ctx context.Context) (_ *image.Image, warnings []string, err error) {
	d, err := i.store.Begin(ctx)
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
	if err := d.Pin(ctx, i.chainIDs); err != nil {
		return nil, nil, err
	}
	defer func() {
		// What was cut short goes on from the layers that are complete.
		if err != nil && !i.cut.Load() && ctx.Err() == nil {
			err = errors.Join(err, d.Unpin(ctx))
		}
	}()
	layers, err := i.bringLayers(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := d.MakeLayerRoot(ctx, i.below(len(layers)), i.Limits.MaxBytes); err != nil {
		return nil, nil, err
	}
	group, groups, err := groupsOf(d.Root, i.file)
	if err != nil {
		return nil, nil, err
	}
	m, odd, err := appcManifest(i.ref, i.file, group, groups)
	if err != nil {
		return nil, nil, err
	}
	if i.Strict && len(odd) > 0 {
		return nil, nil, fmt.Errorf("%w: %s, and --strict asks for an image without flaw", manifest.ErrInvalid, odd[0])
	}
	raw, err := manifest.MarshalImage(m)
	if err != nil {
		return nil, nil, err
	}
	img := image.Image{
		ID: imageID(i.config), Manifest: raw, Origin: i.origin, Imported: time.Now().UTC(), Insecure: i.Insecure,
		Compression: string(extract.None), FileSize: int64(len(i.config)),
		OCI: &image.OCI{Manifest: i.manifest, Config: i.config, Layers: layers},
	}
	if i.manifest != nil {
		img.OCI.Digest = digestOf(i.manifest)
	}
	for _, l := range layers {
		img.Size += l.Content
		img.FileSize += l.Size
		img.Compression = l.Compression
	}
	known, err := d.Commit(ctx, img)
	return known, slices.Concat(odd, i.warnings), err
}

// below is the chain ID of the layer below layer n, "" for none.
func (i *importer) below(n int) string {
	if n == 0 {
		return ""
	}
	return i.chainIDs[n-1]
}

// bringLayers takes in the layers that are missing: blobs come side by side, and are
// applied one after the other, while others still come.
func (i *importer) bringLayers(ctx context.Context) ([]image.Layer, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel + 1) // the last applies
	layers := make([]image.Layer, len(i.layers))
	here := make([]chan *arrival, len(i.layers))
	for n := range i.layers {
		here[n] = make(chan *arrival, 1)
	}
	defer func() {
		for _, c := range here {
			select {
			case a := <-c:
				a.discard(ctx) //nolint:errcheck // what is left is for a prune
			default:
			}
		}
	}()
	group.Go(func() error {
		used := int64(0)
		for n := range layers {
			var a *arrival
			select {
			case a = <-here[n]:
			case <-ctx.Done():
				return ctx.Err()
			}
			l, err := i.apply(ctx, n, a, used)
			if err != nil {
				return fmt.Errorf("layer %d (%s): %w", n, i.file.RootFS.DiffIDs[n], err)
			}
			layers[n] = l
			used += l.Content
		}
		return nil
	})
	for n := range i.layers {
		group.Go(func() error {
			a, err := i.receive(ctx, n)
			if err != nil {
				i.cut.CompareAndSwap(false, !errors.Is(err, ErrFormat))
				return fmt.Errorf("layer %d (%s): %w", n, i.file.RootFS.DiffIDs[n], err)
			}
			here[n] <- a
			return nil
		})
	}
	return layers, group.Wait()
}

// arrival is a layer that is here: as it is known, or as a blob in a draft.
type arrival struct {
	known  *image.Layer
	draft  *image.Draft
	digest string
	size   int64
}

func (a *arrival) discard(ctx context.Context) error {
	if a.draft == nil {
		return nil
	}
	return a.draft.Discard(ctx)
}

// receive copies the blob of a layer that is missing into a draft and verifies it: it is
// hashed as it is written.
func (i *importer) receive(ctx context.Context, n int) (_ *arrival, err error) {
	known, err := i.store.KnownLayer(ctx, i.chainIDs[n])
	if known != nil || err != nil {
		return &arrival{known: known}, err
	}
	d, err := i.store.Begin(ctx)
	if err != nil {
		return nil, err
	}
	a := &arrival{draft: d}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.discard(ctx))
		}
	}()
	b := i.layers[n]
	from, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	limit, size := extract.MaxFile(i.Limits), int64(-1)
	if b.Digest.Algorithm != "" {
		limit, size = b.Size, b.Size
	}
	metered := i.Meter(i.file.RootFS.DiffIDs[n].Hex[:12], 0, size, extract.WithContext(ctx, from))
	hash := sha256.New()
	err = failpoint.Do(i.store.Points, "receive", func() (err error) {
		if a.size, err = io.Copy(io.MultiWriter(d.File, hash), io.LimitReader(metered, limit+1)); err != nil {
			return err
		}
		return d.File.Sync() // while another layer is applied, and not when this one is sealed
	})
	if err := errors.Join(err, metered.Close()); err != nil {
		return nil, err
	}
	a.digest = sum(hash).String()
	switch {
	case size >= 0 && (a.size != size || a.digest != b.Digest.String()):
		return nil, fmt.Errorf("%w: what comes for %s is %s, of %d bytes instead of %d", ErrFormat, b.Digest, a.digest, a.size, size)
	case a.size > limit:
		return nil, fmt.Errorf("%w: more than %d bytes", layer.ErrTooLarge, limit)
	}
	return a, nil
}

// apply applies a layer to a clone of the one below and takes it in. used are the bytes
// that the layers below have of what is permitted.
func (i *importer) apply(ctx context.Context, n int, a *arrival, used int64) (_ image.Layer, err error) {
	if a.known != nil {
		return *a.known, nil
	}
	defer func() { err = errors.Join(err, a.discard(ctx)) }()
	limits := i.Limits
	if limits.MaxBytes -= used; limits.MaxBytes <= 0 {
		return image.Layer{}, fmt.Errorf("%w: more than %d bytes", layer.ErrTooLarge, i.Limits.MaxBytes)
	}
	if err := a.draft.MakeLayerRoot(ctx, i.below(n), i.Limits.MaxBytes); err != nil {
		return image.Layer{}, err
	}
	var result extract.Result
	err = failpoint.Do(i.store.Points, "extract", func() (err error) {
		result, err = format.Extract(ctx, a.draft.File, a.draft.Root, extract.Options{Limits: limits})
		return err
	})
	if err != nil {
		return image.Layer{}, err
	}
	diffID := i.file.RootFS.DiffIDs[n].String()
	if result.Hash != diffID {
		return image.Layer{}, fmt.Errorf("%w: its content is %s, not what the configuration says", ErrFormat, result.Hash)
	}
	i.warnings = append(i.warnings, result.Warnings...)
	b := i.layers[n]
	return a.draft.CommitLayer(ctx, image.Layer{
		ChainID: i.chainIDs[n], DiffID: diffID, Digest: a.digest, MediaType: mediaType(b.MediaType, result.Compression),
		Size: a.size, Content: result.Size, Compression: string(result.Compression),
	})
}

// mediaType is what a blob is called, or what it is where nobody calls it anything.
func mediaType(called types.MediaType, c extract.Compression) string {
	if called != "" {
		return string(called)
	}
	return string(map[extract.Compression]types.MediaType{
		extract.None: types.OCIUncompressedLayer, extract.Gzip: types.OCILayer, extract.Zstd: types.OCILayerZStd,
	}[c])
}
