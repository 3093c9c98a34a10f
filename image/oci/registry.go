package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Web is what a registry needs of httpclient.Client.
type Web interface {
	RoundTripper(host string, limit func(*http.Request) int64) http.RoundTripper
}

// findInRegistry finds the image of a location in its registry.
func findInRegistry(ctx context.Context, web Web, l Location, maxBlob int64, platforms []v1.Platform) (*found, error) {
	host := l.repository.RegistryStr()
	puller, err := remote.NewPuller(
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(web.RoundTripper(host, func(r *http.Request) int64 {
			if strings.Contains(r.URL.Path, "/manifests/") || r.URL.Path == "/v2/" {
				return maxDocument
			}
			return maxBlob // redirects may lead anywhere
		})),
	)
	if err != nil {
		return nil, err
	}
	top, err := puller.Get(ctx, l.reference())
	if err != nil {
		return nil, explain(err, host)
	}
	open := opener(func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		digest := l.repository.Digest(d.Digest.String())
		if !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
			layer, err := puller.Layer(ctx, digest)
			if err != nil {
				return nil, explain(err, host)
			}
			r, err := layer.Compressed()
			return r, explain(err, host)
		}
		got, err := puller.Get(ctx, digest)
		if err != nil {
			return nil, explain(err, host)
		}
		return io.NopCloser(strings.NewReader(string(got.Manifest))), nil
	})
	if got := digestOf(top.Manifest); got != top.Digest.String() || l.Digest != "" && got != l.Digest {
		return nil, fmt.Errorf("%w: what comes for %s is %s", ErrFormat, l, got)
	}
	f, err := open.resolve(ctx, top.Manifest, top.Descriptor, platforms)
	if err != nil {
		return nil, err
	}
	f.ref = l.Ref()
	return f, nil
}

// explain says what mends an answer of a registry.
func explain(err error, host string) error {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w; if it is there, 'docker login %s' or its like puts what opens it into $DOCKER_CONFIG/config.json (~/.docker/config.json)", err, host)
	}
	return err
}
