// Package mds is the metadata service of the App Container specification (ace.md, "App
// Container Metadata Service"): it tells the apps of a pod who they are, and signs for
// them what others can verify.
//
// A request is answered for the pod that its token and its source address belong to, the
// both of them, and from memory: what can be answered is made when a pod is registered.
//
// Not for: making pods known (the runtime does), listening, giving up privileges (the
// mds commands do).
package mds

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/VictoriaMetrics/metrics"
	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/jetpack-run/jetpack/internal/manifest"
)

// tokenSize is that of a token, in bytes; it is written in hexadecimal digits.
const tokenSize = 32

// NewToken makes a pod's token.
func NewToken() string {
	token := make([]byte, tokenSize)
	_, _ = rand.Read(token) // it never fails
	return hex.EncodeToString(token)
}

// Path is where the service answers a pod with a token, to be put behind
// "http://ADDRESS:PORT" in AC_METADATA_URL.
func Path(token string) string { return "/~" + token }

// Pod is what the service is told of one.
type Pod struct {
	Token     string       // see NewToken
	Addresses []netip.Addr // that its requests come from
	UUID      string
	Manifest  json.RawMessage            // reified
	Images    map[string]json.RawMessage // the manifests of its apps' images, by the app's name
}

// pod is what the service keeps of one.
type pod struct {
	uuid    uuid.UUID
	token   [sha256.Size]byte // its digest
	answers map[string]answer // by path, from "/pod" or "/apps" on
}

// answer is what one GET is answered with.
type answer struct {
	contentType string
	body        []byte
}

// The specification's, to the letter: clients compare them.
const (
	contentJSON = "application/json"
	contentText = "text/plain; charset=us-ascii"
)

// What one address may ask for; pods without one of their own share the host's.
const (
	maxRate  = 500 // requests per second
	maxBurst = 1000
)

// Service answers pods.
type Service struct {
	keys    *KeyRing
	metrics *metrics.Set

	mu    sync.RWMutex
	known int
	at    map[netip.Addr]*client
}

// client is an address that has pods.
type client struct {
	pods  []*pod
	limit *rate.Limiter
}

// New makes a service without pods.
func New(keys *KeyRing) *Service {
	s := &Service{keys: keys, metrics: metrics.NewSet(), at: map[netip.Addr]*client{}}
	s.metrics.NewGauge("jetpack_mds_pods", func() float64 { return float64(s.Pods()) })
	return s
}

// Pods is the number of pods that are known.
func (s *Service) Pods() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.known
}

// Add makes a pod known until remove is called. Errors: of what is no pod, none of
// which is the user's.
func (s *Service) Add(p Pod) (remove func(), err error) {
	known, err := newPod(p)
	if err != nil {
		return nil, fmt.Errorf("register pod %.36s: %w", p.UUID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known++
	for _, a := range p.Addresses {
		c := s.at[a.Unmap()]
		if c == nil {
			c = &client{limit: rate.NewLimiter(maxRate, maxBurst)}
			s.at[a.Unmap()] = c
		}
		c.pods = append(c.pods, known)
	}
	return sync.OnceFunc(func() { s.remove(known, p.Addresses) }), nil
}

func (s *Service) remove(known *pod, addresses []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known--
	for _, a := range addresses {
		a = a.Unmap()
		c := s.at[a]
		if c == nil {
			continue // an address that was given twice
		}
		var rest []*pod // a new slice: requests look through the old one
		for _, p := range c.pods {
			if p != known {
				rest = append(rest, p)
			}
		}
		if c.pods = rest; rest == nil {
			delete(s.at, a)
		}
	}
}

// The ways in which a request is not answered.
var (
	errStranger = errors.New("no pod has this token and this address")
	errTooMany  = errors.New("too many requests")
)

// find gives the pod with an address and a token. Errors: errStranger, errTooMany.
func (s *Service) find(from netip.Addr, token string) (*pod, error) {
	s.mu.RLock()
	c := s.at[from.Unmap()]
	var pods []*pod
	if c != nil {
		pods = c.pods
	}
	s.mu.RUnlock()
	if c == nil {
		return nil, errStranger
	}
	if !c.limit.Allow() {
		return nil, errTooMany
	}
	digest := sha256.Sum256([]byte(token))
	for _, p := range pods {
		if hmac.Equal(p.token[:], digest[:]) {
			return p, nil
		}
	}
	return nil, errStranger
}

func newPod(p Pod) (*pod, error) {
	id, err := uuid.Parse(p.UUID)
	if err != nil || id.String() != p.UUID {
		return nil, errors.New("it has no UUID")
	}
	if raw, err := hex.DecodeString(p.Token); err != nil || len(raw) != tokenSize {
		return nil, fmt.Errorf("its token is not of %d bytes", tokenSize)
	}
	if len(p.Addresses) == 0 {
		return nil, errors.New("it has no address")
	}
	m, _, err := manifest.ParsePod(p.Manifest)
	if err != nil {
		return nil, err
	}
	known := &pod{uuid: id, token: sha256.Sum256([]byte(p.Token)), answers: map[string]answer{}}
	known.text("/pod/uuid", p.UUID)
	known.answers["/pod/manifest"] = answer{contentJSON, p.Manifest}
	if err := known.annotations("/pod/annotations", m.Annotations); err != nil {
		return nil, err
	}
	for _, app := range m.Apps {
		if err := known.app(app, p.Images[app.Name.String()]); err != nil {
			return nil, fmt.Errorf("app %s: %w", app.Name, err)
		}
	}
	return known, nil
}

func (p *pod) app(app schema.RuntimeApp, raw json.RawMessage) error {
	image, _, err := manifest.ParseImage(raw)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	at := "/apps/" + app.Name.String()
	p.answers[at+"/image/manifest"] = answer{contentJSON, raw}
	p.text(at+"/image/id", app.Image.ID.String())
	// The image's in their order, with the app's values; then the app's own.
	merged := append(types.Annotations{}, image.Annotations...)
	for _, a := range app.Annotations {
		merged.Set(a.Name, a.Value)
	}
	return p.annotations(at+"/annotations", merged)
}

func (p *pod) text(path, s string) { p.answers[path] = answer{contentText, []byte(s)} }

// annotations answers with the list, and, as rkt does, with each value by its name.
func (p *pod) annotations(path string, list types.Annotations) error {
	if list == nil {
		list = types.Annotations{} // [] as in the manifest, not null
	}
	raw, err := json.Marshal(list)
	if err != nil {
		return err
	}
	p.answers[path] = answer{contentJSON, raw}
	for _, a := range list {
		p.text(path+"/"+a.Name.String(), a.Value)
	}
	return nil
}
