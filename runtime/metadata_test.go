package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// networked is an engine whose pods may have networks, though nothing comes of it.
type networked struct{ sandbox.Engine }

var podAddress = netip.MustParseAddr("172.23.0.7")

func (e networked) Check(ctx context.Context, pod sandbox.Pod) ([]sandbox.Outcome, error) {
	pod.Network = sandbox.NetworkNone
	return e.Engine.Check(ctx, pod)
}

func (e networked) Create(ctx context.Context, pod sandbox.Pod) error {
	pod.Network = sandbox.NetworkNone
	return e.Engine.Create(ctx, pod)
}

func (e networked) Addresses(context.Context, string) ([]netip.Addr, error) {
	return []netip.Addr{podAddress}, nil
}

// service is a metadata service that remembers who is registered.
type service struct {
	err   error
	none  bool // it does not run
	known map[string]Described
}

func (s *service) Register(_ context.Context, p Described) (string, func(), error) {
	if s.err != nil || s.none {
		return "", nil, s.err
	}
	s.known[p.UUID] = p
	return "http://127.0.0.1:1104/~token", func() { delete(s.known, p.UUID) }, nil
}

func TestMetadata(t *testing.T) {
	const url = "AC_METADATA_URL=http://127.0.0.1:1104/~token"
	for _, tt := range []struct {
		network   sandbox.Network
		none      bool
		addresses string // that the pod is registered with; "" if it is not
		annotated string
	}{
		{network: sandbox.NetworkNone},
		{network: sandbox.NetworkHost, none: true},
		{network: sandbox.NetworkHost, addresses: "[127.0.0.1 ::1]"},
		{network: sandbox.NetworkPrivate, addresses: "[172.23.0.7]", annotated: "172.23.0.7"},
	} {
		t.Run(fmt.Sprint(tt.network, tt.none), func(t *testing.T) {
			h := newHost(t)
			s := &service{none: tt.none, known: map[string]Described{}}
			h.Engine, h.Metadata = networked{h.Engine}, s
			run, c := h.up(t, h.probes(t, "env", "sleep"), Options{Network: tt.network})
			c.wait(1, "AC_APP_NAME")
			if strings.Contains(c.text(), url) != (tt.addresses != "") {
				t.Errorf("the environment is %s", c.text())
			}
			if p, ok := s.known[run.UUID()]; ok != (tt.addresses != "") {
				t.Errorf("registered: %v", s.known)
			} else if ok {
				m, _, err := manifest.ParsePod(p.Manifest)
				if err != nil {
					t.Fatal(err)
				}
				if got, _ := m.Annotations.Get(ipAddress); got != tt.annotated || fmt.Sprint(p.Addresses) != tt.addresses {
					t.Errorf("its address is %q, of %v", got, p.Addresses)
				}
				if string(p.Images["probe"]) == "" || string(p.Images["probe"]) != string(p.Images["probe-2"]) {
					t.Errorf("images: %v", p.Images)
				}
			}
			run.Kill()
			ended(t, run)
			if len(s.known) > 0 {
				t.Error("it is known after its end")
			}
			seen, err := h.Inspect(t.Context(), run.UUID())
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := seen.Manifest.Annotations.Get(ipAddress); ok {
				t.Error("the address of one run is in the manifest of all")
			}
		})
	}
}

func TestMetadataRefuses(t *testing.T) {
	h := newHost(t)
	refused := errors.New("refused")
	h.Engine, h.Metadata = networked{h.Engine}, &service{err: refused}
	if _, err := h.Run(t.Context(), h.probes(t, "sleep"), Options{Network: sandbox.NetworkHost}, false, newCapture(t).io()); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	h.isClean(t)
}
