package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/jetpack-run/jetpack/internal/manifest"
)

// Bounds of what an image consists of.
const (
	maxDocument = manifest.MaxSize // bytes of an index, a manifest or a configuration
	maxLayers   = 128              // overlayfs and the mounts of a pod take some more
	maxIndexes  = 4                // one in another
)

// Why an image is not taken in, beside the errors of image/extract and image/layer.
var (
	// ErrFormat: a document is not what an OCI image has there.
	ErrFormat = errors.New("not a valid OCI image")
	// ErrUnsupported: it is an image, of a kind that is not supported.
	ErrUnsupported = errors.New("unsupported kind of image")
	// ErrNotFound: there is no such image where it is said to be.
	ErrNotFound = errors.New("there is no such image")
	// ErrPlatform: there is no image for the platform.
	ErrPlatform = errors.New("no image for this platform")
)

// document is an index or a manifest: one of the fields is set.
type document struct {
	index    *v1.IndexManifest
	manifest *v1.Manifest
}

// parseDocument reads an index or a manifest. What it is is decided by what it has, and
// has to be what it is called in every place: one that could be read as both is refused
// (CVE-2021-41190).
func parseDocument(raw []byte, called types.MediaType) (document, error) {
	var keys struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := manifest.Decode(raw, &keys); err != nil {
		return document{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if keys.SchemaVersion == 1 || keys.FSLayers != nil || called.IsSchema1() {
		return document{}, fmt.Errorf("%w: Docker's schema 1; push the image again with a Docker of 2017 or later", ErrUnsupported)
	}
	isIndex := keys.Manifests != nil
	if isIndex == (keys.Config != nil || keys.Layers != nil) || keys.SchemaVersion != 2 {
		return document{}, fmt.Errorf("%w: neither an index nor a manifest, or both", ErrFormat)
	}
	for _, t := range []types.MediaType{called, keys.MediaType} {
		if known := t.IsIndex() || t.IsImage(); known && t.IsIndex() != isIndex {
			return document{}, fmt.Errorf("%w: it is called %s, and is none", ErrFormat, t)
		}
	}
	var d document
	var err error
	if isIndex {
		d.index = new(v1.IndexManifest)
		err = manifest.Decode(raw, d.index)
	} else {
		d.manifest = new(v1.Manifest)
		err = manifest.Decode(raw, d.manifest)
	}
	if err != nil {
		return document{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return d, nil
}

// checkManifest refuses what is no image, or one that cannot be read.
func checkManifest(m *v1.Manifest) error {
	if t := m.Config.MediaType; !t.IsConfig() {
		return fmt.Errorf("%w: it is an artifact of %.100q", ErrUnsupported, t)
	}
	for i, l := range m.Layers {
		switch {
		case !l.MediaType.IsLayer() && l.MediaType != dockerZstdLayer:
			return fmt.Errorf("%w: layer %d is of %.100q", ErrUnsupported, i, l.MediaType)
		case len(l.URLs) > 0 || !l.MediaType.IsDistributable():
			return fmt.Errorf("%w: layer %d is to be had elsewhere", ErrUnsupported, i)
		}
	}
	return nil
}

// dockerZstdLayer is what Docker calls its layers that are compressed with zstd.
const dockerZstdLayer types.MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"

// parseConfig reads an image's configuration.
func parseConfig(raw []byte) (*v1.ConfigFile, error) {
	c := new(v1.ConfigFile)
	if err := manifest.Decode(raw, c); err != nil {
		return nil, fmt.Errorf("%w: configuration: %w", ErrFormat, err)
	}
	if t := c.RootFS.Type; t != "layers" {
		return nil, fmt.Errorf("%w: configuration: rootfs of type %.100q", ErrFormat, t)
	}
	if n := len(c.RootFS.DiffIDs); n > maxLayers {
		return nil, fmt.Errorf("%w: %d layers, at most %d are supported", ErrUnsupported, n, maxLayers)
	}
	for _, id := range c.RootFS.DiffIDs {
		if id.Algorithm != "sha256" {
			return nil, fmt.Errorf("%w: a diff ID by %.20q", ErrUnsupported, id.Algorithm)
		}
	}
	return c, nil
}

// checkDescriptor refuses one whose digest or size could not be.
func checkDescriptor(d v1.Descriptor, limit int64) error {
	if d.Digest.Algorithm != "sha256" {
		return fmt.Errorf("%w: a digest by %.20q", ErrUnsupported, d.Digest.Algorithm)
	}
	if d.Size < 0 || d.Size > limit {
		return fmt.Errorf("%w: %s has %d bytes, at most %d are permitted", ErrFormat, d.Digest, d.Size, limit)
	}
	return nil
}

// ParsePlatform reads OS/ARCH[/VARIANT] in the words of OCI.
func ParsePlatform(s string) (v1.Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || strings.Contains("/"+s+"/", "//") {
		return v1.Platform{}, fmt.Errorf("platform %q: want OS/ARCH[/VARIANT], as linux/arm64", s)
	}
	p := v1.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// HostPlatforms are the platforms whose images run on a host of this GOOS, GOARCH and
// release of the system, the best first: FreeBSD runs programs for Linux, too.
func HostPlatforms(goos, goarch, release string) []v1.Platform {
	native := v1.Platform{OS: goos, Architecture: goarch}
	if goos != "freebsd" {
		return []v1.Platform{native}
	}
	native.OSVersion, _, _ = strings.Cut(release, "-") // 14.3-RELEASE runs images for 14.3
	return []v1.Platform{native, {OS: "linux", Architecture: goarch}}
}

// variants are the variants of an architecture that run where none is asked for, the
// best first.
var variants = map[string][]string{
	"amd64": {"", "v1"},
	"arm64": {"", "v8"},
	"arm":   {"v7", "", "v6", "v5"},
}

// rank tells how well an image's platform suits the one that is asked for, 0 being the
// best and -1 not at all. What an image does not say suits.
func rank(has, want v1.Platform) int {
	if has.OS != "" && has.OS != want.OS || has.Architecture != "" && has.Architecture != want.Architecture {
		return -1
	}
	if want.Variant != "" {
		if has.Variant != want.Variant {
			return -1
		}
		return 0
	}
	order := variants[want.Architecture]
	if order == nil {
		order = []string{""}
	}
	for i, v := range order {
		if v == has.Variant {
			return i
		}
	}
	return -1
}

// choose finds the best of an index's manifests for the first platform that has one; of
// several releases of a system the newest that is not newer than the host's. Errors:
// ErrPlatform, with what there is.
func choose(index *v1.IndexManifest, platforms []v1.Platform) (v1.Descriptor, error) {
	for _, want := range platforms {
		var best *v1.Descriptor
		for i := range index.Manifests {
			d := &index.Manifests[i]
			if isImage(d) && rank(platformOf(d), want) >= 0 && (best == nil || better(platformOf(d), platformOf(best), want)) {
				best = d
			}
		}
		if best != nil {
			return *best, nil
		}
	}
	var there []string
	for _, d := range index.Manifests {
		if isImage(&d) {
			there = append(there, platformOf(&d).String())
		}
	}
	return v1.Descriptor{}, noPlatform(platforms, there)
}

func noPlatform(wanted []v1.Platform, there []string) error {
	var want []string
	for _, p := range wanted {
		want = append(want, p.String())
	}
	return fmt.Errorf("%w: wanted %s, there is %s; --platform chooses", ErrPlatform,
		strings.Join(want, " or "), strings.Join(there, ", "))
}

// isImage leaves out what is attached to images, as attestations are.
func isImage(d *v1.Descriptor) bool {
	return (d.MediaType.IsImage() || d.MediaType.IsIndex() || d.MediaType == "") && platformOf(d).OS != "unknown"
}

func platformOf(d *v1.Descriptor) v1.Platform {
	if d.Platform == nil {
		return v1.Platform{}
	}
	return *d.Platform
}

func better(a, b, want v1.Platform) bool {
	if ra, rb := rank(a, want), rank(b, want); ra != rb {
		return ra < rb
	}
	tooNew := func(p v1.Platform) bool {
		return want.OSVersion != "" && manifest.LessVersion(want.OSVersion, p.OSVersion)
	}
	if tooNew(a) != tooNew(b) {
		return tooNew(b)
	}
	return manifest.LessVersion(b.OSVersion, a.OSVersion)
}
