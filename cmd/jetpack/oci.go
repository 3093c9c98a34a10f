package main

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/internal/platform"
)

// ociLong tells of OCI images in the help of what takes them in.
const ociLong = `OCI images are docker://REGISTRY/NAME[:TAG][@DIGEST], oci:DIR, oci-archive:FILE and
docker-archive:FILE, the last three with :TAG or @DIGEST behind them. What a digest names
is taken in; a tag alone needs --insecure=signature. Registries that are not open are
opened with what 'docker login' or its like has left.`

func addPlatform(cmd *cobra.Command, platform *string) {
	cmd.Flags().StringVar(platform, "platform", "", "of an OCI image for several, the one for `OS/ARCH[/VARIANT]` (default the host's)")
}

// ociOptions are how OCI images are brought in.
type ociOptions struct {
	waived   insecure
	strict   bool
	pull     string // for what is in a registry
	platform string // "" for the host's
}

// bringOCI brings in the image of an OCI location, unless the policy is content with what
// is here.
func (c *cli) bringOCI(ctx context.Context, h *host, location string, o ociOptions) (*image.Image, error) {
	l, err := oci.ParseLocation(location, o.waived.has("http"))
	if err != nil {
		return nil, usageError{err}
	}
	platforms, err := ociPlatforms(o.platform)
	if err != nil {
		return nil, err
	}
	if l.IsRegistry() && o.pull != pullNewer {
		img, err := findOCI(ctx, h, l)
		if err == nil && img.OCI == nil {
			err = fmt.Errorf("%s: %w", location, image.ErrNotFound)
		}
		if o.pull == pullNever || !errors.Is(err, image.ErrNotFound) {
			return img, err
		}
	}
	client, err := c.httpClient(o.waived)
	if err != nil {
		return nil, err
	}
	meter, done := c.meter()
	defer done()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(extract.Memory))
	img, warnings, err := oci.Import(ctx, h.images, l, oci.Options{
		Web: client, Platforms: platforms, Insecure: o.waived, Strict: o.strict, Limits: limits(c.cfg), Meter: meter,
	})
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		c.warn(location + ": " + w)
	}
	c.noteInsecure(img)
	return img, nil
}

// ociPlatforms are those whose images are taken, the best first.
func ociPlatforms(asked string) ([]v1.Platform, error) {
	if asked != "" {
		p, err := oci.ParsePlatform(asked)
		if err != nil {
			return nil, usageError{err}
		}
		return []v1.Platform{p}, nil
	}
	release, err := platform.Kernel()
	if err != nil {
		return nil, err
	}
	return oci.HostPlatforms(platform.OS(), goruntime.GOARCH, release), nil
}

// findOCI finds an image that is here already: by its digest, or by its name.
func findOCI(ctx context.Context, h *host, l oci.Location) (*image.Image, error) {
	if l.Digest == "" {
		return h.images.Find(ctx, l.Ref().String())
	}
	images, err := h.images.List(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(images, func(img *image.Image) bool {
		return img.OCI != nil && (img.OCI.Digest == l.Digest || strings.HasSuffix(img.Origin, "@"+l.Digest))
	})
	if i < 0 {
		return nil, fmt.Errorf("%s: %w", l, image.ErrNotFound)
	}
	return images[i], nil
}
