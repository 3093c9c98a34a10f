// Package fetch brings images into a store, from where their names say, or from a file
// or a URL: it discovers, downloads, has signatures verified before anything is parsed,
// and has taken in what an image depends on before the image itself.
//
// Not for: what a name means (discovery), who is trusted (image/trust), reading what
// comes (image/aci), keeping it (image).
package fetch

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"golang.org/x/sync/errgroup"

	"github.com/jetpack-run/jetpack/discovery"
	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/image/trust"
	"github.com/jetpack-run/jetpack/internal/httpclient"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// Fetcher brings images into a store.
type Fetcher struct {
	Store     *image.Store // nil for Check
	HTTP      Getter
	Discovery *discovery.Client
	Trust     *trust.Store
	Policy    trust.Policy
	Downloads string // the directory for files on their way, on the store's file system
	Limits    layer.Limits
	// Labels are asked for where a name says nothing of them: os and arch.
	Labels map[string]string
	// Insecure are the checks that are waived: "signature", "http", "tls".
	Insecure []string
	Strict   bool // refuse manifests that there are warnings about
	// Offline: dependencies are not looked for elsewhere.
	Offline bool
	Meter   Meter
	// Notice tells the user what goes on, Warn what is odd, a line each.
	Notice, Warn func(string)
	// Review asks the user whether a key that was discovered is to be trusted for images
	// of that name, and if so has it added to Trust. Nil, or an error, is a no.
	Review func(ctx context.Context, name string, found Found) error
}

// Found is a key that was discovered.
type Found struct {
	Prefix string // of the names that it is offered for
	URL    string
	Keys   []trust.Key
}

const (
	maxSignature = 64 << 10 // bytes
	maxKeys      = 1 << 20
	smallTimeout = 30 * time.Second // for signatures and keys
	parallel     = 4                // downloads at a time
	maxImages    = 256              // fetched for one
)

// Fetch brings the image of a name, and what it depends on, unless the server has the
// version only that is here already. Errors: discovery.ErrNotFound and
// discovery.ErrBadName, trust.ErrUntrusted, image.ErrMismatch, those of
// httpclient and of aci.Import.
func (f *Fetcher) Fetch(ctx context.Context, ref manifest.Ref) (*image.Image, error) {
	return f.session(ctx, func(s *session) (*image.Image, error) {
		s.typed = host(ref.Name)
		root, _, err := s.node(wanted{ref: ref})
		if err == nil {
			err = s.fetch(ctx, root)
		}
		if err != nil {
			return nil, fmt.Errorf("fetch %s: %w", ref, err)
		}
		if root.known != nil {
			f.Notice(fmt.Sprintf("%s: the server has nothing newer", ref))
			return root.known, nil
		}
		return s.take(ctx, root)
	})
}

func (f *Fetcher) warn(what string, warnings []string) {
	for _, w := range warnings {
		f.Warn(what + ": " + w)
	}
}

func (f *Fetcher) waivesSignature() bool { return slices.Contains(f.Insecure, "signature") }

// session is one fetch of an image with all that it depends on. First everything
// comes, in parallel and verified; then it is taken in, what others depend on first.
type session struct {
	*Fetcher
	began     time.Time
	downloads *Downloads
	typed     string // the host that the user named, or ""

	coming chan struct{} // has room for as many downloads as there may be at a time

	mu    sync.Mutex
	nodes map[string]*node // by what is wanted

	question sync.Mutex      // one at a time
	asked    map[string]bool // about a key for that name
	no       error           // an answer that ends the fetch
}

func (f *Fetcher) session(ctx context.Context, do func(*session) (*image.Image, error)) (_ *image.Image, err error) {
	d, err := OpenDownloads(ctx, f.Downloads)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return do(&session{
		Fetcher: f, began: time.Now().UTC(), downloads: d,
		coming: make(chan struct{}, parallel), nodes: map[string]*node{}, asked: map[string]bool{},
	})
}

// wanted says which image is wanted.
type wanted struct {
	ref manifest.Ref
	id  string // the image ID, if that is said
}

func (w wanted) String() string {
	if w.id != "" {
		return w.ref.String() + "@" + w.id
	}
	return w.ref.String()
}

// dependency says which image another one depends on.
func dependency(d types.Dependency) wanted {
	w := wanted{ref: manifest.Ref{Name: d.ImageName.String(), Labels: map[string]string{}}}
	for _, l := range d.Labels {
		w.ref.Labels[l.Name.String()] = l.Value
	}
	if d.ImageID != nil {
		w.id = d.ImageID.String()
	}
	return w
}

// node is an image that is here, or has come as a file.
type node struct {
	wanted
	endpoint discovery.Endpoint
	known    *image.Image // it is here
	download *Download
	vouched  *image.Signature
	manifest *schema.ImageManifest
	needs    []*node
}

// node gives the one for what is wanted; made says that nobody fetches it yet.
func (s *session) node(w wanted) (n *node, made bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[w.String()]; n != nil {
		return n, false, nil
	}
	if len(s.nodes) == maxImages {
		return nil, false, fmt.Errorf("%w: more than %d", image.ErrTooDeep, maxImages)
	}
	n = &node{wanted: w}
	s.nodes[w.String()] = n
	return n, true, nil
}

// fetch has an image come, and what it depends on.
func (s *session) fetch(ctx context.Context, n *node) error {
	if err := s.come(ctx, n); err != nil || n.known != nil {
		return err
	}
	return s.need(ctx, n)
}

// need has come what n depends on and is not here. What another one needs, too, may
// be on its way still when it returns, but not when the root's does.
func (s *session) need(ctx context.Context, n *node) error {
	var mine []*node
	for _, d := range n.manifest.Dependencies {
		_, _, err := s.Store.Depend(ctx, types.Dependencies{d})
		switch {
		case err == nil:
			continue
		case !errors.Is(err, image.ErrNotFound):
			return err
		case s.Offline:
			return fmt.Errorf("%w, and fetch.discovery is off: 'jetpack image import' brings it from elsewhere", err)
		}
		dep, made, err := s.node(dependency(d))
		if err != nil {
			return err
		}
		n.needs = append(n.needs, dep)
		if made {
			mine = append(mine, dep)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, dep := range mine {
		group.Go(func() error {
			err := s.fetch(ctx, dep)
			if errors.Is(err, httpclient.ErrPrivate) {
				err = fmt.Errorf("%w; if it is meant, 'jetpack image fetch %s' first", err, dep.ref)
			}
			if err != nil {
				return fmt.Errorf("dependency %s: %w", dep.ref, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// bring brings what an image depends on, whose manifest is at hand.
func (s *session) bring(ctx context.Context, m *schema.ImageManifest) error {
	n := &node{manifest: m}
	if err := s.need(ctx, n); err != nil {
		return err
	}
	for _, dep := range n.needs {
		if _, err := s.take(ctx, dep); err != nil {
			return err
		}
	}
	return nil
}

// come has the file of an image come and verifies it, from the first of its endpoints
// that has it. A file that is there and not to be trusted ends the search.
func (s *session) come(ctx context.Context, n *node) error {
	select {
	case s.coming <- struct{}{}:
		defer func() { <-s.coming }()
	case <-ctx.Done():
		return ctx.Err()
	}
	endpoints, _, failed := s.discovery(n.ref.Name).Endpoints(ctx, s.labelled(n.ref))
	var tried []error
	for _, e := range endpoints {
		n.endpoint = e
		err := s.comeFrom(ctx, n)
		var away awayError
		if !errors.As(err, &away) || errors.Is(err, trust.ErrUntrusted) || ctx.Err() != nil {
			return err
		}
		tried = append(tried, err)
	}
	return nowhere(tried, failed)
}

// nowhere says why an image was found at none of its endpoints: that it is absent only
// when that is what everything says. found is how discovery ended, or nil.
func nowhere(tried []error, found error) error {
	absent := found == nil || errors.Is(found, discovery.ErrNotFound)
	var all error
	for _, err := range tried {
		var status *httpclient.StatusError
		absent = absent && errors.As(err, &status) && (status.Status == http.StatusNotFound || status.Status == http.StatusGone)
		all = both(all, err)
	}
	switch {
	case absent && found == nil:
		return fmt.Errorf("%w: %w", discovery.ErrNotFound, all)
	case absent || !errors.Is(found, discovery.ErrNotFound):
		return both(all, found)
	}
	return all // without saying that it is not there
}

// both is two errors in one line, either of which may be nil.
func both(a, b error) error {
	if a == nil || b == nil {
		return errors.Join(a, b)
	}
	return fmt.Errorf("%w; %w", a, b)
}

// discovery is that for a name, which may be none that was typed: who made an image
// names what it depends on.
func (s *session) discovery(name string) *discovery.Client {
	d := *s.Discovery
	d.Foreign = host(name) != s.typed
	return &d
}

// labelled is a reference with all labels that a URL may be made of.
func (s *session) labelled(ref manifest.Ref) manifest.Ref {
	all := manifest.Ref{Name: ref.Name, Labels: map[string]string{}}
	maps.Copy(all.Labels, s.Labels)
	maps.Copy(all.Labels, ref.Labels)
	return all
}

func host(name string) string {
	host, _, _ := strings.Cut(name, "/")
	return host
}

func (s *session) comeFrom(ctx context.Context, n *node) (err error) {
	var signature []byte
	if !s.waivesSignature() {
		// Before the file: without it that is not worth its way.
		if signature, err = s.small(ctx, n.endpoint.Signature, n.endpoint.Foreign, maxSignature); err != nil {
			return s.unsigned(ctx, n.endpoint, err)
		}
		if err := trust.ParseSignature(signature); err != nil {
			return fmt.Errorf("%s: %w", n.endpoint.Signature.Redacted(), err)
		}
		if err := s.review(ctx, n.ref.Name, func() error { return s.anyKey(n.ref.Name) }); err != nil {
			return err // before the file, too
		}
	}
	if err := s.download(ctx, n, n.ref.String()); err != nil || n.known != nil {
		return err
	}
	n.vouched, err = s.verify(ctx, n.ref.Name, n.download.File, signature)
	if errors.Is(err, trust.ErrBadSignature) {
		// What came is not what was signed: the next fetch begins anew.
		err = errors.Join(err, n.download.Drop())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n.endpoint.Image.Redacted(), err)
	}
	return s.look(ctx, n)
}

// download has the file of n come, or finds the image here that the file would be: the
// server has no other, or another process has just taken it in.
func (s *session) download(ctx context.Context, n *node, what string) error {
	here, err := s.from(ctx, n)
	if err != nil {
		return err
	}
	r := request{url: n.endpoint.Image, foreign: n.endpoint.Foreign, max: extract.MaxFile(s.Limits)}
	if here != nil {
		r.known = here.ETag
	}
	n.download, err = s.downloads.get(ctx, s.HTTP, r, s.Meter,
		func() { s.Notice(what + ": waiting for another jetpack that fetches it") },
		func() (bool, error) {
			now, err := s.from(ctx, n)
			if now == nil || now.Imported.Before(s.began) {
				return false, err
			}
			here = now
			return true, err
		})
	if errors.Is(err, errNotModified) || errors.Is(err, errCome) {
		n.known = here
		return nil
	}
	return err
}

// Check has the image of a name come as Fetch does, and compares the file's digest,
// "sha512-" and hexadecimal digits. Nothing is kept. Errors: as Fetch, ErrMismatch.
func (f *Fetcher) Check(ctx context.Context, ref manifest.Ref, digest string) error {
	_, err := f.session(ctx, func(s *session) (_ *image.Image, err error) {
		s.typed = host(ref.Name)
		n := &node{wanted: wanted{ref: ref}}
		if err := s.come(ctx, n); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, n.download.Drop()) }()
		if _, err := n.download.File.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		hash := sha512.New()
		if _, err := io.Copy(hash, n.download.File); err != nil {
			return nil, err
		}
		if got := "sha512-" + hex.EncodeToString(hash.Sum(nil)); got != digest {
			return nil, fmt.Errorf("%s: %w: its digest is %.19s…, not %.19s…", n.endpoint.Image.Redacted(), image.ErrMismatch, got, digest)
		}
		return nil, nil
	})
	return err
}

// from gives the newest image that came from the endpoint of n, is undamaged and would
// be admitted again; nil if there is none.
func (s *session) from(ctx context.Context, n *node) (found *image.Image, err error) {
	if s.Store == nil {
		return nil, nil
	}
	images, err := s.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		if img.Origin != n.endpoint.Image.Redacted() || found != nil && img.Imported.Before(found.Imported) ||
			n.ref.Name != "" && s.matches(n.ref, img.Parsed()) != nil {
			continue
		}
		if ok, err := s.vouched(img); err != nil {
			return nil, err
		} else if ok && s.whole(ctx, img) {
			found = img
		}
	}
	return found, nil
}

// vouched tells whether an image that is here was signed by a key that is still trusted
// for its name, unless that is waived.
func (s *session) vouched(img *image.Image) (bool, error) {
	if s.waivesSignature() {
		return true, nil
	}
	keys, err := s.Trust.For(img.Name())
	if err != nil || img.Signature == nil {
		return false, err
	}
	return slices.ContainsFunc(keys, func(k trust.Key) bool {
		return k.Fingerprint == img.Signature.Fingerprint && !k.Revoked // if it is, Verify decides
	}), nil
}

// whole tells whether nothing of an image has been lost: fetching it anew mends that.
func (s *session) whole(ctx context.Context, img *image.Image) bool {
	if s.Store.Check(ctx, img) != nil {
		return false
	}
	f, err := s.Store.File(img)
	return err == nil && f.Close() == nil
}

// unsigned explains why there is no signature: none for a file that is there is a
// refusal.
func (s *session) unsigned(ctx context.Context, e discovery.Endpoint, err error) error {
	if !isStatus4xx(err) {
		return err
	}
	resp, getErr := s.HTTP.Get(ctx, httpclient.Request{URL: e.Image, Foreign: e.Foreign, MaxBytes: extract.MaxFile(s.Limits)})
	if getErr != nil {
		return awayError{getErr} // there is no image either
	}
	return errors.Join(fmt.Errorf("%w: %s has no signature at %s; --insecure=signature admits the image all the same",
		image.ErrUntrusted, e.Image.Redacted(), e.Signature.Redacted()), resp.Body.Close())
}

func isStatus4xx(err error) bool {
	var status *httpclient.StatusError
	return errors.As(err, &status) && status.Status/100 == 4
}

// small gets a file that fits into memory.
func (s *session) small(ctx context.Context, u *url.URL, foreign bool, limit int64) (_ []byte, err error) {
	resp, err := s.HTTP.Get(ctx, httpclient.Request{URL: u, Foreign: foreign, MaxBytes: limit, Timeout: smallTimeout})
	if err != nil {
		return nil, awayError{err}
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	return io.ReadAll(awayReader{resp.Body})
}

// verify has a signature vouch for a file, asking once for the key if it is unknown.
func (s *session) verify(ctx context.Context, name string, file io.ReadSeeker, signature []byte) (*image.Signature, error) {
	if s.waivesSignature() {
		return nil, nil
	}
	var sig trust.Signature
	check := func() (err error) {
		sig, err = s.Trust.Verify(ctx, name, file, signature, s.Policy)
		return err
	}
	if err := s.review(ctx, name, check); err != nil {
		return nil, err
	}
	s.Notice(fmt.Sprintf("%s: good signature by %s (%s)", name, sig.Identity, trust.FormatFingerprint(sig.Fingerprint)))
	return &image.Signature{Armored: string(signature), Fingerprint: sig.Fingerprint, Created: sig.Created}, nil
}

// anyKey looks for a key that is trusted for a name. Errors: trust.ErrNoKey.
func (s *session) anyKey(name string) error {
	keys, err := s.Trust.For(name)
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("%w for %s", trust.ErrNoKey, name)
	}
	return err
}

// review does what check says; while it lacks a key, the user is shown, once, those that
// are discovered for the name.
func (s *session) review(ctx context.Context, name string, check func() error) error {
	if err := check(); !errors.Is(err, trust.ErrNoKey) {
		return err
	}
	s.question.Lock()
	defer s.question.Unlock()
	err := check() // who had the question before may have been given the key
	if !errors.Is(err, trust.ErrNoKey) || s.asked[name] {
		return err
	}
	if s.no != nil {
		return s.no
	}
	s.asked[name] = true
	if s.Review == nil || s.Offline {
		return fmt.Errorf("%w; 'jetpack trust add --prefix %s' discovers and adds one", err, name)
	}
	found, keysErr := s.keys(ctx, s.discovery(name), name)
	if keysErr != nil {
		return fmt.Errorf("%w, and none was discovered: %w; 'jetpack trust add --prefix %s FILE' adds one", err, keysErr, name)
	}
	for _, f := range found {
		if s.no = s.Review(ctx, name, f); s.no != nil {
			return s.no
		}
	}
	return check()
}

// Keys discovers the keys that are offered for a name. Nobody has looked at them.
// Errors: those of discovery.Client.Keys, of httpclient and of trust.ReadKeys.
func (f *Fetcher) Keys(ctx context.Context, name string) ([]Found, error) {
	s := session{Fetcher: f}
	return s.keys(ctx, f.Discovery, name)
}

func (s *session) keys(ctx context.Context, d *discovery.Client, name string) (found []Found, err error) {
	offers, _, err := d.Keys(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, offer := range offers {
		raw, err := s.small(ctx, offer.URL, offer.Foreign, maxKeys)
		if err != nil {
			return nil, err
		}
		keys, err := trust.ReadKeys(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", offer.URL.Redacted(), err)
		}
		found = append(found, Found{Prefix: offer.Prefix, URL: offer.URL.Redacted(), Keys: keys})
	}
	return found, nil
}

// KeysAt reads the keys of a location, as Import takes it. Nobody has looked at them.
// Errors: those of httpclient, of the file system and of trust.ReadKeys.
func (f *Fetcher) KeysAt(ctx context.Context, location string, stdin io.Reader) ([]trust.Key, error) {
	in, err := f.source(location)
	if err != nil {
		return nil, err
	}
	s := session{Fetcher: f}
	raw, err := s.read(ctx, in, stdin, maxKeys)
	if err != nil {
		return nil, err
	}
	keys, err := trust.ReadKeys(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.origin(), err)
	}
	return keys, nil
}

// Search lists where an image is looked for, and what is there, and fetches nothing.
// Errors: as Fetch, except for what only the files tell.
func (f *Fetcher) Search(ctx context.Context, ref manifest.Ref) ([]discovery.Step, error) {
	s := session{Fetcher: f}
	endpoints, steps, failed := f.Discovery.Endpoints(ctx, s.labelled(ref))
	var tried []error
	for _, e := range endpoints {
		files := []*url.URL{e.Signature, e.Image}
		if s.waivesSignature() {
			files = files[1:]
		}
		var missing error
		for _, u := range files {
			step, err := s.probe(ctx, u, e.Foreign)
			steps = append(steps, step)
			if err != nil && missing == nil {
				missing = err
			}
		}
		if missing == nil {
			return steps, nil
		}
		tried = append(tried, missing)
	}
	return steps, nowhere(tried, failed)
}

// probe asks for a file and reads none of it.
func (s *session) probe(ctx context.Context, u *url.URL, foreign bool) (discovery.Step, error) {
	resp, err := s.HTTP.Get(ctx, httpclient.Request{URL: u, Foreign: foreign, MaxBytes: extract.MaxFile(s.Limits)})
	var status *httpclient.StatusError
	switch {
	case errors.As(err, &status):
		return discovery.Step{URL: u.Redacted(), Status: strconv.Itoa(status.Status), Note: "it is not there"}, err
	case err != nil:
		return discovery.Step{URL: u.Redacted(), Status: "error", Note: err.Error()}, err
	}
	return discovery.Step{URL: u.Redacted(), Status: strconv.Itoa(resp.Status), Note: "it is there"}, resp.Body.Close()
}

// look reads the manifest of a file that has come and compares it with what was asked.
func (s *session) look(ctx context.Context, n *node) error {
	if _, err := n.download.File.Seek(0, io.SeekStart); err != nil {
		return err
	}
	m, err := aci.ReadManifest(ctx, n.download.File, s.Limits)
	if err != nil {
		// It is not worth being kept.
		return errors.Join(fmt.Errorf("%s: %w", n.endpoint.Image.Redacted(), err), n.download.Drop())
	}
	n.manifest = m.Image
	if err := s.matches(n.ref, m.Image); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", n.endpoint.Image.Redacted(), err), n.download.Drop())
	}
	return s.rollback(ctx, n)
}

// matches compares a manifest with what was asked: the labels of the name as they are,
// except for a version that was to be the latest; what this host is only if the image
// says so.
func (s *session) matches(ref manifest.Ref, m *schema.ImageManifest) error {
	asked := manifest.Ref{Name: ref.Name, Labels: maps.Clone(ref.Labels)}
	if asked.Labels["version"] == latest {
		delete(asked.Labels, "version")
	}
	if !asked.Matches(m) {
		return fmt.Errorf("%w: it is %s, not %s", image.ErrMismatch, refOf(m), ref)
	}
	for name, want := range s.Labels {
		if _, asked := ref.Labels[name]; asked {
			continue
		}
		if got, ok := m.GetLabel(name); ok && got != want {
			return fmt.Errorf("%w: it is for %s %s, not %s", image.ErrMismatch, name, got, want)
		}
	}
	return nil
}

const latest = "latest"

func refOf(m *schema.ImageManifest) manifest.Ref {
	ref := manifest.Ref{Name: m.Name.String(), Labels: map[string]string{}}
	for _, l := range m.Labels {
		ref.Labels[l.Name.String()] = l.Value
	}
	return ref
}

// rollback warns of a latest version that is older than one that is here: it may have
// been withdrawn, or somebody plays back what was signed long ago.
func (s *session) rollback(ctx context.Context, n *node) error {
	if v := n.ref.Labels["version"]; v != "" && v != latest || s.Store == nil {
		return nil
	}
	version, _ := n.manifest.GetLabel("version")
	images, err := s.Store.List(ctx)
	if err != nil {
		return err
	}
	for _, here := range images { // the highest version first
		if s.matches(n.ref, here.Parsed()) != nil {
			continue
		}
		if manifest.LessVersion(version, here.Label("version")) {
			s.Warn(fmt.Sprintf("%s: the latest version is %q now, older than %q that is here already; ask its publisher why", n.ref.Name, version, here.Label("version")))
		}
		break
	}
	return nil
}

// take takes an image that has come into the store, after what it depends on.
func (s *session) take(ctx context.Context, n *node) (*image.Image, error) {
	order, err := inOrder(n)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", n.ref, err)
	}
	for _, n := range order {
		if n.known == nil {
			if err := s.takeIn(ctx, n); err != nil {
				return nil, fmt.Errorf("fetch %s: %w", n.ref, err)
			}
		}
		if n.id != "" && n.id != string(n.known.ID) {
			return nil, fmt.Errorf("fetch %s: %w: %s is %s, not %.19s", n.ref, image.ErrMismatch, n.endpoint.Image.Redacted(), n.known.ID.Short(), n.id)
		}
	}
	return n.known, nil
}

func (s *session) takeIn(ctx context.Context, n *node) error {
	img, warnings, err := aci.ImportFile(ctx, s.Store, n.download.File, aci.ImportOptions{
		Origin: n.endpoint.Image.Redacted(), ETag: n.download.ETag, Insecure: s.Insecure, Strict: s.Strict, Limits: s.Limits,
		Admit: func(context.Context, *schema.ImageManifest, io.ReadSeeker) (*image.Signature, error) {
			return n.vouched, nil
		},
	})
	if err != nil {
		return err
	}
	s.warn(n.ref.String(), warnings)
	if err := n.download.Drop(); err != nil {
		s.Warn(err.Error())
	}
	n.known = img
	return nil
}

// inOrder lists what an image needs before what needs it, each once, itself last.
// Errors: ErrTooDeep when something needs itself.
func inOrder(n *node) (order []*node, err error) {
	done := map[*node]bool{}
	var visit func(n *node, path []*node) error
	visit = func(n *node, path []*node) error {
		if i := slices.Index(path, n); i >= 0 {
			var names []string
			for _, p := range append(path[i:], n) {
				names = append(names, p.ref.String())
			}
			return fmt.Errorf("%w: %s depends on itself (%s); only its publisher can mend that", image.ErrTooDeep, n.ref, strings.Join(names, " → "))
		}
		if done[n] {
			return nil
		}
		for _, dep := range n.needs {
			if err := visit(dep, append(path, n)); err != nil {
				return err
			}
		}
		done[n] = true
		order = append(order, n)
		return nil
	}
	return order, visit(n, nil)
}
