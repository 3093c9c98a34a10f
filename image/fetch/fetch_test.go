package fetch_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/discovery"
	"github.com/jetpack-run/jetpack/discovery/repository"
	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/fetch"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/image/trust"
	"github.com/jetpack-run/jetpack/internal/httpclient"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

var limits = layer.Limits{MaxBytes: 8 << 20, MaxEntries: 100}

const (
	app     = "localhost/demo/app"
	base    = "localhost/demo/base"
	appFile = app + "-1.0-linux-amd64.aci"
)

// site is a repository with a server.
type site struct {
	*repository.Repository
	dir    string // the directory that is served
	ca     string
	server *httptest.Server

	mu    sync.Mutex
	gets  []string         // paths
	sent  map[string]int64 // bytes of bodies, by path
	fault func(w http.ResponseWriter, req *http.Request) bool
}

// pair is what certificates for localhost are made of, once.
var pair = sync.OnceValues(func() (tls.Certificate, error) {
	dir, err := os.MkdirTemp("", "fetch-test-")
	if err != nil {
		return tls.Certificate{}, err
	}
	defer os.RemoveAll(dir)
	certificate, ca, err := repository.LocalCA(dir, []string{"localhost"})
	if err != nil {
		return certificate, err
	}
	caPEM, err = os.ReadFile(ca)
	return certificate, err
})

var caPEM []byte

func newSite(t testing.TB) *site {
	t.Helper()
	testenv.Root(t)
	certificate, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: t.TempDir(), ca: filepath.Join(t.TempDir(), "ca.pem"), sent: map[string]int64{}}
	if err := os.WriteFile(s.ca, caPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	handler := repository.Handler(s.dir, nil)
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		s.gets = append(s.gets, req.URL.Path)
		fault := s.fault
		s.mu.Unlock()
		w = &counter{ResponseWriter: w, count: func(n int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sent[req.URL.Path] += int64(n)
		}}
		if fault == nil || !fault(w, req) {
			handler.ServeHTTP(w, req)
		}
	}))
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	s.Repository, err = repository.Init(s.dir, repository.Options{Prefix: "localhost/demo", URL: s.url("")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type counter struct {
	http.ResponseWriter
	count  func(int)
	failed bool
}

func (c *counter) WriteHeader(status int) {
	c.failed = status >= 400
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(p []byte) (int, error) {
	if !c.failed {
		c.count(len(p)) // before a client can ask for the sum
	}
	return c.ResponseWriter.Write(p)
}

func (c *counter) Flush() { c.ResponseWriter.(http.Flusher).Flush() }

func (s *site) port() int { return s.server.Listener.Addr().(*net.TCPAddr).Port }

func (s *site) url(path string) string { return fmt.Sprintf("https://localhost:%d%s", s.port(), path) }

// file is where the site has the file of an image.
func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

// misbehave has a function answer requests; false leaves them to the repository.
func (s *site) misbehave(fault func(w http.ResponseWriter, req *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// instead answers requests for paths that end so.
func (s *site) instead(suffix string, h http.HandlerFunc) {
	s.misbehave(func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, suffix) {
			return false
		}
		h(w, req)
		return true
	})
}

// asked counts the requests for a path, and what they gave; and forgets them.
func (s *site) asked(path string) (requests int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.gets {
		if p == path {
			requests++
		}
	}
	bytes = s.sent[path]
	s.gets = slices.DeleteFunc(s.gets, func(p string) bool { return p == path })
	delete(s.sent, path)
	return requests, bytes
}

// signers are two keys.
var signers = sync.OnceValues(func() ([2]repository.Signer, error) {
	var all [2]repository.Signer
	for i := range all {
		secret, _, err := repository.Keygen(fmt.Sprintf("Signer %d", i), "signer@example.com", nil)
		if err != nil {
			return all, err
		}
		f, err := os.CreateTemp("", "fetch-test-")
		if err != nil {
			return all, err
		}
		_, err = f.Write(secret)
		if err := errors.Join(err, f.Close()); err != nil {
			return all, err
		}
		all[i], err = repository.KeyFile(f.Name(), nil)
		if err := errors.Join(err, os.Remove(f.Name())); err != nil {
			return all, err
		}
	}
	return all, nil
})

func signer(t testing.TB, i int) repository.Signer {
	t.Helper()
	all, err := signers()
	if err != nil {
		t.Fatal(err)
	}
	return all[i]
}

// public gives the public key of a signer.
func public(t testing.TB, i int) []trust.Key {
	t.Helper()
	armored, err := signer(t, i).PublicKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := trust.ReadKeys(bytes.NewReader(armored))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func sign(t testing.TB, i int, file []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := signer(t, i).Sign(t.Context(), &b, bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// archive is an image for linux on amd64 that needs others: NAME, NAME:VERSION or
// NAME@ID. Its file is a few ten KB of noise.
func archive(t testing.TB, name, version string, needs ...string) []byte {
	t.Helper()
	var deps []string
	for _, n := range needs {
		n, id, _ := strings.Cut(n, "@")
		n, version, ok := strings.Cut(n, ":")
		dep := fmt.Sprintf(`{"imageName":%q`, n)
		if id != "" {
			dep += fmt.Sprintf(`,"imageID":%q`, id)
		}
		if ok {
			dep += fmt.Sprintf(`,"labels":[{"name":"version","value":%q}]`, version)
		}
		deps = append(deps, dep+"}")
	}
	noise := make([]byte, 50_000)
	r := rand.New(rand.NewPCG(uint64(len(name)), uint64(len(version))))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	return acitest.Image(t, name,
		acitest.WithField(fmt.Sprintf(`"labels":[{"name":"version","value":%q},{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]`, version)),
		acitest.WithField(`"dependencies":[`+strings.Join(deps, ",")+`]`),
		acitest.WithFile("/"+filepath.Base(name)+version, string(noise)))
}

func idOf(archive []byte) image.ID {
	sum := sha512.Sum512(archive)
	return image.ID("sha512-" + hex.EncodeToString(sum[:]))
}

// publish publishes an image, signed by the first signer.
func (s *site) publish(t testing.TB, name, version string, needs ...string) []byte {
	t.Helper()
	a := archive(t, name, version, needs...)
	_, err := s.Add(t.Context(), bytes.NewReader(a), signer(t, 0), repository.AddOptions{Limits: limits, Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// host is one that fetches.
type host struct {
	*fetch.Fetcher
	mu             sync.Mutex
	notices, warns []string
}

func (s *site) host(t testing.TB) *host { return s.hostIn(t, t.TempDir()) }

// hostIn is a host with what an earlier one kept in a directory.
func (s *site) hostIn(t testing.TB, dir string) *host {
	t.Helper()
	driver, err := plaindir.Open(filepath.Join(dir, "storage"))
	if err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(dir, "images")
	if _, err := image.Init(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	store, err := image.Open(images, driver)
	if err != nil {
		t.Fatal(err)
	}
	client, err := httpclient.New(httpclient.Options{CAFile: s.ca})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{}
	add := func(to *[]string) func(string) {
		return func(line string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			*to = append(*to, line)
		}
	}
	h.Fetcher = &fetch.Fetcher{
		Store: store, HTTP: client, Discovery: &discovery.Client{HTTP: client, Port: s.port()},
		Trust: trust.Open(filepath.Join(dir, "keys")), Downloads: filepath.Join(dir, "downloads"), Limits: limits,
		Labels: map[string]string{"os": "linux", "arch": "amd64"},
		Meter:  func(_ string, _, _ int64, r io.Reader) io.ReadCloser { return io.NopCloser(r) },
		Notice: add(&h.notices), Warn: add(&h.warns),
	}
	return h
}

// trusts has a host trust the first signer.
func (h *host) trusts(t testing.TB, prefix string) *host {
	t.Helper()
	if err := h.Trust.Add(prefix, public(t, 0)...); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) fetch(t testing.TB, name string) (*image.Image, error) {
	t.Helper()
	ref, err := manifest.ParseRef(name)
	if err != nil {
		t.Fatal(err)
	}
	img, err := h.Fetch(t.Context(), ref)
	if err != nil {
		oneLine(t, err)
	}
	return img, err
}

func (h *host) mustFetch(t testing.TB, name string) *image.Image {
	t.Helper()
	img, err := h.fetch(t, name)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func oneLine(t testing.TB, err error) {
	t.Helper()
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a line: %q", err)
	}
}

// refuses fetches in vain: the error is want and says says, and the store stays empty.
func (h *host) refuses(t testing.TB, name string, want error, says string) {
	t.Helper()
	_, err := h.fetch(t, name)
	h.refused(t, err, want, says)
}

func (h *host) refused(t testing.TB, err, want error, says string) {
	t.Helper()
	if err == nil || want != errAny && !errors.Is(err, want) || !strings.Contains(err.Error(), says) {
		t.Fatalf("got %v, want %v and %q", err, want, says)
	}
	oneLine(t, err)
	if images := h.images(t); len(images) > 0 {
		t.Errorf("in the store: %s", images)
	}
}

func (h *host) images(t testing.TB) (names []string) {
	t.Helper()
	images, err := h.Store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		names = append(names, img.Name()+":"+img.Label("version"))
	}
	return names
}

func (h *host) left(t testing.TB) []fetch.Kept {
	t.Helper()
	left, err := fetch.Left(h.Downloads)
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func (h *host) said(what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(slices.Concat(h.notices, h.warns), func(s string) bool { return strings.Contains(s, what) })
}

func TestFetch(t *testing.T) {
	s := newSite(t)
	file := s.publish(t, app, "1.0")
	h := s.host(t).trusts(t, "localhost/demo")
	img := h.mustFetch(t, app+":1.0")
	if img.ID != idOf(file) || img.Origin != s.url("/"+appFile) || img.ETag == "" || len(img.Insecure) > 0 {
		t.Errorf("got %+v", img)
	}
	if key := public(t, 0)[0]; img.Signature == nil || img.Signature.Fingerprint != key.Fingerprint || !strings.Contains(img.Signature.Armored, "PGP SIGNATURE") {
		t.Errorf("signature %+v", img.Signature)
	}
	f, err := h.Store.File(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if kept, err := io.ReadAll(f); err != nil || !bytes.Equal(kept, file) {
		t.Errorf("the file is another one, or %v", err)
	}
	if left := h.left(t); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	if n, _ := s.asked("/" + appFile); n != 1 {
		t.Errorf("asked %d times", n)
	}
	// Once more: nothing has changed there.
	again := h.mustFetch(t, app+":1.0")
	if again.ID != img.ID || !again.Imported.Equal(img.Imported) || !h.said("nothing newer") {
		t.Errorf("got %+v", again)
	}
	if _, sent := s.asked("/" + appFile); sent > 0 {
		t.Errorf("%d bytes for nothing newer", sent)
	}
}

func TestLatest(t *testing.T) {
	s := newSite(t)
	first := s.publish(t, app, "1.0")
	h := s.host(t).trusts(t, "localhost")
	if img := h.mustFetch(t, app); img.ID != idOf(first) {
		t.Error("got", img.Label("version"))
	}
	second := s.publish(t, app, "2.0")
	for _, name := range []string{app, app + ":latest"} {
		if img := h.mustFetch(t, name); img.ID != idOf(second) {
			t.Errorf("%s is %s", name, img.Label("version"))
		}
	}
	if len(h.warns) > 0 {
		t.Error("warned of", h.warns)
	}
	if _, err := s.Remove(t.Context(), manifest.Ref{Name: app, Labels: map[string]string{"version": "2.0"}}); err != nil {
		t.Fatal(err)
	}
	if img := h.mustFetch(t, app); img.ID != idOf(first) {
		t.Error("got", img.Label("version"))
	}
	if !h.said(`the latest version is "1.0" now, older than "2.0"`) {
		t.Error("no warning of a rollback:", h.warns)
	}
	h.warns = nil
	h.mustFetch(t, app+":1.0")
	if len(h.warns) > 0 {
		t.Error("warned of what was asked for:", h.warns)
	}
}

// A diamond: each image comes once, what is needed comes side by side, and goes in
// first.
func TestDependencies(t *testing.T) {
	const left, right = "localhost/demo/left", "localhost/demo/right"
	s := newSite(t)
	bottom := s.publish(t, base, "1.0")
	s.publish(t, left, "1.0", base)
	s.publish(t, right, "1.0", base+"@"+string(idOf(bottom)))
	s.publish(t, app, "1.0", left, right+":1.0", left)
	both := make(chan struct{}, 2)
	s.misbehave(func(_ http.ResponseWriter, req *http.Request) bool {
		if strings.HasSuffix(req.URL.Path, ".aci") && (strings.Contains(req.URL.Path, "localhost/demo/left-") || strings.Contains(req.URL.Path, "localhost/demo/right-")) {
			both <- struct{}{}
			for end := time.Now().Add(10 * time.Second); len(both) < 2; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Error("one after the other")
					break
				}
			}
		}
		return false
	})
	h := s.host(t).trusts(t, "localhost/demo")
	img := h.mustFetch(t, app)
	if len(img.Dependencies) != 3 || len(h.images(t)) != 4 {
		t.Errorf("needs %d, in the store: %s", len(img.Dependencies), h.images(t))
	}
	for name, want := range map[string]int{app: 1, left: 1, right: 1} {
		version := "latest"
		if name == right {
			version = "1.0"
		}
		if n, _ := s.asked("/" + name + "-" + version + "-linux-amd64.aci"); n != want {
			t.Errorf("%s was asked for %d times", name, n)
		}
	}
	// It is wanted as such and by its ID, which nobody knows to be one before it is here.
	if _, sent := s.asked("/" + base + "-latest-linux-amd64.aci"); sent != int64(len(bottom)) {
		t.Errorf("base: %d bytes of %d", sent, len(bottom))
	}
	if left := h.left(t); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	if err := h.Store.Check(t.Context(), img); err != nil {
		t.Error(err)
	}
}

// Not more come at a time than a server can be asked to bear.
func TestParallel(t *testing.T) {
	s := newSite(t)
	var needs []string
	for i := range 8 {
		needs = append(needs, fmt.Sprintf("localhost/demo/n%d", i))
		s.publish(t, needs[i], "1.0")
	}
	s.publish(t, app, "1.0", needs...)
	var mu sync.Mutex
	now, most := 0, 0
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		now += n
		most = max(most, now)
	}
	s.instead("-linux-amd64.aci", func(w http.ResponseWriter, req *http.Request) {
		count(1)
		defer count(-1)
		time.Sleep(30 * time.Millisecond)
		repository.Handler(s.dir, nil).ServeHTTP(w, req)
	})
	s.host(t).trusts(t, "").mustFetch(t, app)
	mu.Lock() // an answer may come before the end of who gives it
	defer mu.Unlock()
	if most < 2 || most > 4 {
		t.Errorf("%d at a time", most)
	}
}

func TestDependencyFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, s *site, h *host)
		want  error
		says  string
	}{
		{"cycle", func(t *testing.T, s *site, _ *host) {
			s.publish(t, base, "1.0", app)
			s.publish(t, app, "1.0", base)
		}, image.ErrTooDeep, app + " → " + base + " → " + app + "); only its publisher"},
		{"of itself", func(t *testing.T, s *site, _ *host) { s.publish(t, app, "1.0", app) }, image.ErrTooDeep, "depends on itself"},
		{"missing", func(t *testing.T, s *site, _ *host) { s.publish(t, app, "1.0", base) }, errAny, "dependency " + base},
		{"another ID", func(t *testing.T, s *site, h *host) {
			s.publish(t, app, "1.0", base+"@"+string(idOf([]byte("x"))))
			s.publish(t, base, "1.0")
		}, image.ErrMismatch, "not " + idOf([]byte("x")).Short()},
		{"unknown host", func(t *testing.T, s *site, _ *host) { s.publish(t, app, "1.0", "demo/base") }, discovery.ErrBadName, "demo/base"},
		{"private host", func(t *testing.T, s *site, _ *host) { s.publish(t, app, "1.0", "127.0.0.1/base") }, httpclient.ErrPrivate, "'jetpack image fetch 127.0.0.1/base' first"},
		{"offline", func(t *testing.T, s *site, h *host) {
			s.publish(t, app, "1.0", base)
			s.publish(t, base, "1.0")
			h.Offline = true
		}, image.ErrNotFound, "fetch.discovery is off"},
		{"not trusted", func(t *testing.T, s *site, h *host) {
			s.publish(t, app, "1.0", base)
			s.publish(t, base, "1.0")
			if _, err := h.Trust.Remove(public(t, 0)[0].Fingerprint); err != nil {
				t.Fatal(err)
			}
			h.trusts(t, app)
		}, trust.ErrNoKey, "'jetpack trust add --prefix " + base + "'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			h := s.host(t).trusts(t, "")
			tt.setup(t, s, h)
			_, err := h.fetch(t, app)
			if tt.name != "another ID" {
				h.refused(t, err, tt.want, tt.says)
			} else if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Error(err)
			}
		})
	}
}

// What is here already is not fetched, nor asked for.
func TestDependencyHere(t *testing.T) {
	s := newSite(t)
	s.publish(t, base, "1.0")
	s.publish(t, app, "1.0", base)
	h := s.host(t).trusts(t, "localhost/demo")
	h.mustFetch(t, base+":1.0")
	s.asked("/" + base + "-latest-linux-amd64.aci")
	h.Offline = true
	h.mustFetch(t, app)
	if n, _ := s.asked("/" + base + "-latest-linux-amd64.aci"); n > 0 {
		t.Error("it was fetched anew")
	}
}

func TestTrust(t *testing.T) {
	accept := func(h *host, prefix string, asked *int) func(context.Context, string, fetch.Found) error {
		return func(_ context.Context, _ string, found fetch.Found) error {
			*asked++
			return h.Trust.Add(prefix, found.Keys...)
		}
	}
	t.Run("no key, nobody to ask", func(t *testing.T) {
		s := newSite(t)
		s.publish(t, app, "1.0")
		s.host(t).refuses(t, app, trust.ErrNoKey, "'jetpack trust add --prefix "+app+"'")
		if _, sent := s.asked("/" + app + "-latest-linux-amd64.aci"); sent > 0 {
			t.Error("it was fetched all the same")
		}
	})
	t.Run("a key for another prefix", func(t *testing.T) {
		s := newSite(t)
		s.publish(t, app, "1.0")
		s.host(t).trusts(t, "localhost/dem").refuses(t, app, trust.ErrNoKey, "trust add")
	})
	t.Run("somebody else's key", func(t *testing.T) {
		s := newSite(t)
		s.publish(t, app, "1.0")
		h := s.host(t)
		if err := h.Trust.Add("", public(t, 1)...); err != nil {
			t.Fatal(err)
		}
		h.refuses(t, app, trust.ErrNoKey, "trust add")
		// The file has come, and is good once the key is trusted.
		s.asked("/" + app + "-latest-linux-amd64.aci")
		h.trusts(t, "localhost/demo").mustFetch(t, app)
		if _, sent := s.asked("/" + app + "-latest-linux-amd64.aci"); sent > 0 {
			t.Errorf("%d bytes once more", sent)
		}
	})
	t.Run("yes", func(t *testing.T) {
		s := newSite(t)
		s.publish(t, base, "1.0")
		s.publish(t, "localhost/demo/more", "1.0")
		s.publish(t, app, "1.0", base, "localhost/demo/more")
		h := s.host(t)
		asked := 0
		h.Review = func(ctx context.Context, name string, found fetch.Found) error {
			if name != app || found.Prefix != app || len(found.Keys) != 1 || found.Keys[0].Fingerprint != public(t, 0)[0].Fingerprint {
				t.Errorf("asked about %s: %+v", name, found)
			}
			return accept(h, "localhost/demo", &asked)(ctx, name, found)
		}
		h.mustFetch(t, app)
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("yes, to many at once", func(t *testing.T) {
		s := newSite(t)
		var needs []string
		for i := range 6 {
			needs = append(needs, fmt.Sprintf("localhost/demo/n%d", i))
			s.publish(t, needs[i], "1.0")
		}
		s.publish(t, app, "1.0", needs...)
		h := s.host(t).trusts(t, app)
		asked := 0
		h.Review = accept(h, "localhost/demo", &asked)
		h.mustFetch(t, app)
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("no", func(t *testing.T) {
		s := newSite(t)
		s.publish(t, app, "1.0")
		h := s.host(t)
		no := errors.New("no")
		h.Review = func(context.Context, string, fetch.Found) error { return no }
		h.refuses(t, app, no, app)
		if _, sent := s.asked("/" + app + "-latest-linux-amd64.aci"); sent > 0 {
			t.Error("it was fetched all the same")
		}
	})
	t.Run("no, with others waiting for the answer", func(t *testing.T) {
		s := newSite(t)
		s.publish(t, base, "1.0")
		s.publish(t, "localhost/demo/more", "1.0")
		s.publish(t, app, "1.0", base, "localhost/demo/more")
		h := s.host(t).trusts(t, app)
		asked, no := 0, errors.New("no")
		h.Review = func(ctx context.Context, _ string, _ fetch.Found) error {
			asked++
			time.Sleep(50 * time.Millisecond) // the other comes to wait
			return no
		}
		h.refuses(t, app, no, "dependency")
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("the wrong key was accepted", func(t *testing.T) {
		s := newSite(t)
		s.publish(t, app, "1.0")
		h := s.host(t)
		asked := 0
		h.Review = func(context.Context, string, fetch.Found) error {
			asked++
			return h.Trust.Add("localhost", public(t, 1)...)
		}
		h.refuses(t, app, trust.ErrNoKey, app)
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("no keys are offered", func(t *testing.T) {
		s := newSite(t)
		s.publish(t, app, "1.0")
		s.instead("keys.asc", http.NotFound)
		h := s.host(t)
		h.Review = func(context.Context, string, fetch.Found) error { return nil }
		h.refuses(t, app, trust.ErrNoKey, "FILE' adds one")
	})
	t.Run("no signature", func(t *testing.T) {
		s := newSite(t)
		s.publish(t, app, "1.0")
		s.instead(".asc", http.NotFound)
		h := s.host(t).trusts(t, "")
		h.refuses(t, app, image.ErrUntrusted, "--insecure=signature")
		s.instead(".asc", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>not found") })
		h.refuses(t, app, trust.ErrNoSignature, ".aci.asc")
	})
	t.Run("tampered", func(t *testing.T) {
		s := newSite(t)
		file := s.publish(t, app, "1.0")
		bad := bytes.Clone(file)
		bad[len(bad)/2] ^= 1
		s.instead(".aci", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bad) })
		h := s.host(t).trusts(t, "localhost/demo")
		h.refuses(t, app, trust.ErrBadSignature, ".aci")
		if left := h.left(t); len(left) > 0 {
			t.Errorf("left: %+v", left)
		}
		s.misbehave(nil)
		s.asked("/" + app + "-latest-linux-amd64.aci")
		h.mustFetch(t, app)
		if _, sent := s.asked("/" + app + "-latest-linux-amd64.aci"); sent != int64(len(file)) {
			t.Errorf("%d bytes of %d", sent, len(file))
		}
	})
}

// A waived signature is remembered, and not for good.
func TestInsecure(t *testing.T) {
	s := newSite(t)
	file := s.publish(t, app, "1.0")
	h := s.host(t)
	h.Insecure = []string{"signature"}
	img := h.mustFetch(t, app)
	if img.Signature != nil || !slices.Equal(img.Insecure, h.Insecure) {
		t.Errorf("got %+v", img)
	}
	s.asked("/" + app + "-latest-linux-amd64.aci")
	h.mustFetch(t, app)
	if _, sent := s.asked("/" + app + "-latest-linux-amd64.aci"); sent > 0 {
		t.Error("it was sent again")
	}
	h.Insecure = nil
	if _, err := h.fetch(t, app); !errors.Is(err, trust.ErrNoKey) {
		t.Error("got", err)
	}
	h.trusts(t, "localhost/demo")
	img = h.mustFetch(t, app)
	if img.ID != idOf(file) || img.Signature == nil || len(img.Insecure) > 0 {
		t.Errorf("got %+v", img)
	}
	stored, err := h.Store.Get(t.Context(), img.ID)
	if err != nil || stored.Signature == nil || len(stored.Insecure) > 0 {
		t.Errorf("stored %+v, %v", stored, err)
	}
	// And it stays so, whatever comes later.
	h.Insecure = []string{"signature"}
	s.instead(".aci", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(file) })
	if img = h.mustFetch(t, app); img.Signature == nil || len(img.Insecure) > 0 {
		t.Errorf("got %+v", img)
	}
	// A key that is not trusted any more vouches for nothing.
	h.Insecure = nil
	if _, err := h.Trust.Remove(public(t, 0)[0].Fingerprint); err != nil {
		t.Fatal(err)
	}
	if _, err := h.fetch(t, app); !errors.Is(err, trust.ErrNoKey) {
		t.Error("got", err)
	}
}

// A signed image comes that is not the one asked for.
func TestMismatch(t *testing.T) {
	s := newSite(t)
	s.publish(t, app, "1.0")
	h := s.host(t).trusts(t, "")
	for name, bad := range map[string][]byte{
		"name":    archive(t, base, "1.0"),
		"version": archive(t, app, "1.1"),
		"arch":    bytes.Replace(archive(t, app, "1.0"), []byte(`"amd64"`), []byte(`"ppc64"`), 1),
	} {
		t.Run(name, func(t *testing.T) {
			serve := func(w http.ResponseWriter, req *http.Request) {
				if strings.HasSuffix(req.URL.Path, ".asc") {
					_, _ = w.Write(sign(t, 0, bad))
				} else {
					_, _ = w.Write(bad)
				}
			}
			s.misbehave(func(w http.ResponseWriter, req *http.Request) bool {
				if strings.Contains(req.URL.Path, "-1.0-") {
					serve(w, req)
					return true
				}
				return false
			})
			h.refuses(t, app+":1.0", image.ErrMismatch, "not ")
			if left := h.left(t); len(left) > 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

// What another name's image left in the store says nothing about this name, even if it
// came from the same place.
func TestMismatchHere(t *testing.T) {
	s := newSite(t)
	s.publish(t, app, "1.0")
	h := s.host(t).trusts(t, "localhost/other")
	bad := archive(t, "localhost/other/image", "1.0")
	s.misbehave(func(w http.ResponseWriter, req *http.Request) bool {
		body := bad
		switch {
		case strings.HasSuffix(req.URL.Path, "-1.0-linux-amd64.aci.asc"):
			body = sign(t, 0, bad)
		case !strings.HasSuffix(req.URL.Path, "-1.0-linux-amd64.aci"):
			return false
		}
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(body))
		return true
	})
	if _, err := h.Import(t.Context(), s.url("/demo/app-1.0-linux-amd64.aci"), "", nil); err != nil {
		t.Fatal(err)
	}
	h.trusts(t, "localhost")
	if img, err := h.fetch(t, app+":1.0"); !errors.Is(err, image.ErrMismatch) {
		t.Errorf("got %v, %v", img, err)
	}
}

// The first bytes came in an earlier process.
func TestResume(t *testing.T) {
	s := newSite(t)
	file := s.publish(t, app, "1.0")
	cut := len(file) * 6 / 10
	s.instead(".aci", func(w http.ResponseWriter, _ *http.Request) {
		etag, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/"+appFile, nil)
		if err != nil {
			t.Error(err)
		}
		rec := httptest.NewRecorder()
		repository.Handler(s.dir, nil).ServeHTTP(rec, etag)
		w.Header().Set("ETag", rec.Header().Get("ETag"))
		w.Header().Set("Content-Length", fmt.Sprint(len(file)))
		_, _ = w.Write(file[:cut])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	dir := t.TempDir()
	h := s.hostIn(t, dir).trusts(t, "localhost/demo")
	h.refuses(t, app, httpclient.ErrTruncated, "goes on from there")
	if left := h.left(t); len(left) != 1 || left[0].Size != int64(cut) {
		t.Errorf("left: %+v", left)
	}
	s.misbehave(nil)
	s.asked("/" + app + "-latest-linux-amd64.aci")
	h = s.hostIn(t, dir)
	have := int64(0)
	h.Meter = func(_ string, there, _ int64, r io.Reader) io.ReadCloser {
		have = there
		return io.NopCloser(r)
	}
	h.mustFetch(t, app)
	if _, sent := s.asked("/" + app + "-latest-linux-amd64.aci"); sent != int64(len(file)-cut) || have != int64(cut) {
		t.Errorf("%d bytes after %d of %d", sent, have, len(file))
	}
}

// Eight processes want the same at once.
func TestAtOnce(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %t", plain), func(t *testing.T) {
			s := newSite(t)
			s.publish(t, base, "1.0")
			file := s.publish(t, app, "1.0", base)
			dir := t.TempDir()
			hosts := make([]*host, 8)
			for i := range hosts {
				hosts[i] = s.hostIn(t, dir).trusts(t, "localhost/demo")
			}
			s.misbehave(func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, "/app-latest-linux-amd64.aci") || !strings.HasPrefix(req.URL.Path, "/localhost") {
					return false
				}
				for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
					waiting := 0
					for _, h := range hosts {
						if h.said("waiting for another jetpack") {
							waiting++
						}
					}
					if waiting == len(hosts)-1 {
						break
					}
				}
				if plain {
					_, _ = w.Write(file[:10])
					w.(http.Flusher).Flush()
					_, _ = w.Write(file[10:])
				}
				return plain
			})
			var group sync.WaitGroup
			for _, h := range hosts {
				group.Go(func() {
					img, err := h.fetch(t, app)
					if err != nil {
						t.Error(err)
					} else if img.ID != idOf(file) {
						t.Error("got", img.ID)
					}
				})
			}
			group.Wait()
			if _, sent := s.asked("/" + app + "-latest-linux-amd64.aci"); sent != int64(len(file)) {
				t.Errorf("%d bytes of %d", sent, len(file))
			}
			h := hosts[0]
			if left := h.left(t); len(left) > 0 {
				t.Errorf("left: %+v", left)
			}
			if debris, err := h.Store.Debris(t.Context()); err != nil || len(debris) > 0 {
				t.Errorf("debris: %v, %v", debris, err)
			}
		})
	}
}

// near makes addresses public, for servers of other ports.
type near struct{ fetch.Getter }

func (n near) Get(ctx context.Context, r httpclient.Request) (*httpclient.Response, error) {
	r.Foreign = false
	return n.Getter.Get(ctx, r)
}

func TestEndpoints(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := "https://localhost" + strings.TrimPrefix(closed.Addr().String(), "127.0.0.1")
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, first string
		second      bool
		answer      http.HandlerFunc // for what the first template leads to
		want        error            // nil: the second is taken
	}{
		{"down", down, true, nil, nil},
		{"all down", down, false, nil, errAny},
		{"server error", "", true, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, nil},
		{"image missing", "", true, func(w http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, ".asc") {
				fmt.Fprint(w, string(sign(t, 0, []byte("x"))))
				return
			}
			w.WriteHeader(http.StatusNotFound)
		}, nil},
		{"hangs up", "", true, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil},
		{"encoded", "", true, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "gzip") }, nil},
		{"cut", "", true, func(w http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, ".asc") {
				fmt.Fprint(w, string(sign(t, 0, []byte("x"))))
				return
			}
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(make([]byte, 500))
		}, nil},
		{"unsigned", "", true, func(w http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, ".asc") {
				w.WriteHeader(http.StatusNotFound)
			}
		}, image.ErrUntrusted},
		{"signature of another", "", true, func(w http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, ".asc") {
				fmt.Fprint(w, string(sign(t, 0, []byte("x"))))
				return
			}
			_, _ = w.Write(archive(t, app, "1.0"))
		}, trust.ErrBadSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			s.publish(t, app, "1.0")
			if tt.first == "" {
				tt.first = s.url("/first")
			}
			page := fmt.Sprintf(`<meta name="ac-discovery" content="localhost/demo %s/{name}-{version}.{ext}">`, tt.first)
			if tt.second {
				page += fmt.Sprintf(`<meta name="ac-discovery" content="localhost/demo %s">`, s.url("/{name}-{version}-{os}-{arch}.{ext}"))
			}
			s.misbehave(func(w http.ResponseWriter, req *http.Request) bool {
				switch {
				case req.URL.Path == "/demo/app":
					fmt.Fprint(w, page)
				case strings.HasPrefix(req.URL.Path, "/first/"):
					tt.answer(w, req)
				default:
					return false
				}
				return true
			})
			h := s.host(t).trusts(t, "")
			h.HTTP = near{h.HTTP}
			if tt.want != nil {
				if _, err := h.fetch(t, app); err == nil || tt.want != errAny && !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if n, _ := s.asked("/" + app + "-latest-linux-amd64.aci"); n > 0 {
					t.Error("the second was asked all the same")
				}
				return
			}
			if img := h.mustFetch(t, app); img.Origin != s.url("/"+app+"-latest-linux-amd64.aci") {
				t.Error("it came from", img.Origin)
			}
		})
	}
}

var errAny = errors.New("any")

// An image that lost its file, or its tree, is fetched anew though the server has
// nothing newer.
func TestMend(t *testing.T) {
	s := newSite(t)
	s.publish(t, app, "1.0")
	for _, lost := range []string{"images/*/aci", "storage/images/*"} {
		t.Run(lost, func(t *testing.T) {
			dir := t.TempDir()
			h := s.hostIn(t, dir).trusts(t, "localhost/demo")
			h.mustFetch(t, app)
			paths, err := filepath.Glob(filepath.Join(dir, lost))
			if err != nil || len(paths) != 1 {
				t.Fatal(paths, err)
			}
			if err := os.RemoveAll(paths[0]); err != nil {
				t.Fatal(err)
			}
			img := h.mustFetch(t, app)
			if err := h.Store.Check(t.Context(), img); err != nil {
				t.Error(err)
			}
			f, err := h.Store.File(img)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		})
	}
}

func TestTooLarge(t *testing.T) {
	s := newSite(t)
	s.publish(t, app, "1.0")
	s.instead(".aci", func(w http.ResponseWriter, _ *http.Request) {
		for range 20 {
			_, _ = w.Write(make([]byte, 1<<20))
			w.(http.Flusher).Flush()
		}
	})
	h := s.host(t).trusts(t, "")
	h.refuses(t, app, httpclient.ErrTooLarge, "bytes")
	if left := h.left(t); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

func TestCancel(t *testing.T) {
	s := newSite(t)
	s.publish(t, app, "1.0")
	ctx, cancel := context.WithCancel(t.Context())
	s.instead(".aci", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write(make([]byte, 1000))
		w.(http.Flusher).Flush()
		cancel()
		<-req.Context().Done()
	})
	h := s.host(t).trusts(t, "")
	_, err := h.Fetch(ctx, manifest.Ref{Name: app})
	h.refused(t, err, context.Canceled, app)
}

func TestCheck(t *testing.T) {
	s := newSite(t)
	s.publish(t, base, "1.0")
	file := s.publish(t, app, "1.0", base)
	h := s.host(t).trusts(t, "")
	h.Store = nil
	ref := manifest.Ref{Name: app, Labels: map[string]string{"version": "1.0"}}
	if err := h.Check(t.Context(), ref, string(idOf(file))); err != nil { // it is not compressed
		t.Error(err)
	}
	if err := h.Check(t.Context(), ref, string(idOf([]byte("x")))); !errors.Is(err, image.ErrMismatch) {
		t.Error("got", err)
	}
	if n, _ := s.asked("/" + base + "-latest-linux-amd64.aci"); n > 0 {
		t.Error("it fetched what the image needs")
	}
	if left := h.left(t); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

func TestSearch(t *testing.T) {
	s := newSite(t)
	s.publish(t, app, "1.0")
	for _, tt := range []struct {
		name, ref string
		insecure  []string
		fault     string
		want      error
		last      string // the URL of the last step, and its status
	}{
		{"there", app + ":1.0", nil, "", nil, s.url("/"+appFile) + " 200"},
		{"latest", app, nil, "", nil, s.url("/"+app+"-latest-linux-amd64.aci") + " 200"},
		{"no such version", app + ":3.0", nil, "", errAny, s.url("/"+app+"-3.0-linux-amd64.aci") + " 404"},
		{"no such name", "localhost/else/app", nil, "", discovery.ErrNotFound, ""},
		{"unsigned", app, nil, ".asc", errAny, s.url("/"+app+"-latest-linux-amd64.aci") + " 200"},
		{"unsigned, waived", app, []string{"signature"}, ".asc", nil, s.url("/"+app+"-latest-linux-amd64.aci") + " 200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.misbehave(nil)
			if tt.fault != "" {
				s.instead(tt.fault, http.NotFound)
			}
			h := s.host(t)
			h.Insecure = tt.insecure
			ref, err := manifest.ParseRef(tt.ref)
			if err != nil {
				t.Fatal(err)
			}
			steps, err := h.Search(t.Context(), ref)
			if (err == nil) != (tt.want == nil) || tt.want != errAny && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err != nil {
				oneLine(t, err)
			}
			if len(steps) == 0 {
				t.Fatal("no steps")
			}
			if last := steps[len(steps)-1]; tt.last != "" && last.URL+" "+last.Status != tt.last {
				t.Errorf("ends with %+v", last)
			}
			if left := h.left(t); len(left) > 0 || len(h.images(t)) > 0 {
				t.Error("something was fetched")
			}
		})
	}
}
