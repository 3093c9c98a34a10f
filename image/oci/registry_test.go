package oci_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/internal/httpclient"
)

// tokens is a registry with TLS as most are: it sends for a token, which is given to who has a
// password for what the token is for, and to another place for blobs.
type tokens struct {
	*httptest.Server
	host  string
	mu    sync.Mutex
	blobs string   // where to
	asked []string // scopes
}

// sends has it send to another place for blobs.
func (s *tokens) sends(to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs = to
}

func newTokens(t *testing.T, user, password string) *tokens {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	blobs := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a token is sent to where blobs are")
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(blobs.Close)
	s := &tokens{blobs: blobs.URL}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		scope := r.URL.Query().Get("scope")
		switch u, p, _ := r.BasicAuth(); {
		case r.URL.Path == "/token" && u == user && p == password:
			s.asked = append(s.asked, scope)
			_, _ = fmt.Fprintf(w, `{"token": "token for %s"}`, scope)
		case !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer token for repository:app:"):
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, s.URL))
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/"):
			http.Redirect(w, r, s.blobs+r.URL.Path, http.StatusTemporaryRedirect)
		default:
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	s.host = strings.TrimPrefix(s.URL, "https://")
	return s
}

// helper makes a credential helper that knows a password, and docker's configuration with it.
func helper(t *testing.T, host, user, password string) {
	t.Helper()
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\n[ $1 = get ] && [ $(cat) = %s ] && echo '{\"Username\":%q,\"Secret\":%q}'\n", host, user, password)
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"credHelpers": {%q: "test"}}`, host)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TLS by an authority of its own, a token for each kind of access, a credential helper: an
// image is pushed there, and comes back.
func TestTokens(t *testing.T) {
	s := newTokens(t, "me", "a secret")
	helper(t, s.host, "me", "a secret")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	strict, err := httpclient.New(httpclient.Options{CAFile: ca})
	if err != nil {
		t.Fatal(err)
	}
	l, err := oci.ParseLocation("docker://"+s.host+"/app:1", false)
	if err != nil {
		t.Fatal(err)
	}
	p := newPlace(t)
	_, top := chain(t, p)

	unknown, err := httpclient.New(httpclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Push(t.Context(), unknown, p.open(t, top), l, nil); !errors.Is(err, httpclient.ErrTLS) {
		t.Errorf("an authority that is not known: %v", err)
	}
	if _, err := oci.Push(t.Context(), strict, p.open(t, top), l, func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	o := options()
	o.Web, o.Platforms = strict, []v1.Platform{{OS: "linux", Architecture: "arm64"}} // as chain makes them
	fresh := newPlace(t)
	img := fresh.mustLoad(t, "docker://"+s.host+"/app:1", o)
	if got, want := fresh.content(t, img), p.content(t, top); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("what comes back is %v, was %v", got, want)
	}
	if scopes := strings.Join(s.asked, " "); !strings.Contains(scopes, "repository:app:push,pull") || !strings.Contains(scopes, "repository:app:pull") {
		t.Errorf("tokens for %q", scopes)
	}

	// Further than to another port it sends nobody to what is not public.
	there := s.blobs
	s.sends(strings.Replace(there, "127.0.0.1", "localhost", 1))
	if _, err := newPlace(t).load(t, "docker://"+s.host+"/app:1", o); !errors.Is(err, httpclient.ErrPrivate) {
		t.Errorf("sent to %s: %v", s.blobs, err)
	}
	s.sends("http" + strings.TrimPrefix(there, "https"))
	if _, err := newPlace(t).load(t, "docker://"+s.host+"/app:1", o); !errors.Is(err, httpclient.ErrInsecure) {
		t.Errorf("sent to %s: %v", s.blobs, err)
	}

	helper(t, s.host, "me", "another")
	if _, err := newPlace(t).load(t, "docker://"+s.host+"/app:1", o); err == nil || !strings.Contains(err.Error(), "docker login "+s.host) {
		t.Errorf("a wrong password: %v", err)
	}
}
