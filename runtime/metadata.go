package runtime

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// Metadata is what runtime needs of a metadata service.
type Metadata interface {
	// Register makes a pod known until forget is called. Url is where its apps find the
	// service; "" means that none runs, and forget is nil then.
	Register(ctx context.Context, p Described) (url string, forget func(), err error)
}

// Described is what a metadata service is told of a pod.
type Described struct {
	UUID      string
	Addresses []netip.Addr // that its requests come from
	Manifest  []byte       // with what is known now: its addresses
	Images    map[string][]byte
}

// ipAddress is the annotation that tells apps the address of their pod (appc spec,
// pods.md, "Pod Manifest Schema").
const ipAddress = "ip-address"

// register makes the pod known to the metadata service, when its sandbox exists, and
// its apps know where that is. A pod without a network has nowhere to ask.
func (r *Run) register(ctx context.Context, images []*image.Image) error {
	p := r.pod
	if p.rt.Metadata == nil || p.Options.NoMetadata || p.Options.Network == sandbox.NetworkNone {
		return nil
	}
	d := Described{UUID: p.UUID, Images: map[string][]byte{}}
	m := *p.Manifest
	if p.Options.Network == sandbox.NetworkHost {
		d.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	} else {
		var err error
		if d.Addresses, err = p.rt.Engine.Addresses(ctx, p.UUID); err != nil {
			return err
		}
		m.Annotations = slices.Clone(m.Annotations)
		m.Annotations.Set(*types.MustACIdentifier(ipAddress), d.Addresses[0].String())
	}
	for i, app := range m.Apps {
		d.Images[app.Name.String()] = images[i].Manifest
	}
	var err error
	if d.Manifest, err = manifest.MarshalPod(&m); err != nil {
		return err
	}
	url, forget, err := p.rt.Metadata.Register(ctx, d)
	if err != nil {
		return fmt.Errorf("metadata service: %w", err)
	}
	r.forget = forget
	for _, a := range r.apps {
		a.metadataURL = url
	}
	return nil
}

// The metadata service's client, for apps that ask for it.
const (
	clientName = "ac-mdc"
	clientPath = "/usr/local/bin/" + clientName
)

// offerClient mounts the metadata service's client in every app.
func (r *Runtime) offerClient(m *schema.PodManifest, images []*image.Image, file func(system string) string) error {
	if file == nil {
		return nil
	}
	readOnly := true
	for i := range m.Apps {
		source := file(cmp.Or(images[i].Label("os"), r.OS))
		if _, err := os.Stat(source); err != nil {
			return fmt.Errorf("app %s: %w: no %s for it: %w", m.Apps[i].Name, ErrInvalid, clientName, err)
		}
		m.Apps[i].Mounts = append(m.Apps[i].Mounts, schema.Mount{
			Volume: clientName, Path: clientPath,
			AppVolume: &types.Volume{Name: clientName, Kind: "host", Source: source, ReadOnly: &readOnly},
		})
	}
	return nil
}
