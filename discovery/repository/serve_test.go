package repository_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jetpack-run/jetpack/discovery/repository"
)

func TestHandler(t *testing.T) {
	r, dir := create(t, repository.Options{Prefix: "example.com"})
	data := string(image(t, "example.com/apps/web", "1.0"))
	add(t, r, []byte(data))
	outside := filepath.Join(t.TempDir(), "outside")
	for path, content := range map[string]string{outside: "x", filepath.Join(dir, ".hidden"): "x"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link.txt")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	h := repository.Handler(dir, &log)
	const aci = "/apps/web-1.0-linux-amd64.aci"
	first := request(t, h, "GET", aci, nil)
	etag := first.Header().Get("ETag")
	for _, tt := range []struct {
		name, method, path string
		header             map[string]string
		status             int
		kind               string // Content-Type
		body               string // "" is not looked at
	}{
		{"image", "GET", aci, nil, 200, "application/octet-stream", data},
		{"whoever can do gzip", "GET", aci, map[string]string{"Accept-Encoding": "gzip"}, 200, "application/octet-stream", data},
		{"range", "GET", aci, map[string]string{"Range": "bytes=10-19"}, 206, "application/octet-stream", data[10:20]},
		{"rest", "GET", aci, map[string]string{"Range": "bytes=100-", "If-Range": etag}, 206, "", data[100:]},
		{"rest of another", "GET", aci, map[string]string{"Range": "bytes=100-", "If-Range": `"x"`}, 200, "", data},
		{"range beyond the end", "GET", aci, map[string]string{"Range": "bytes=10000000-"}, 416, "", ""},
		{"known already", "GET", aci, map[string]string{"If-None-Match": etag}, 304, "", ""},
		{"head", "HEAD", aci, nil, 200, "application/octet-stream", ""},
		{"signature", "GET", aci + ".asc", nil, 200, "text/plain; charset=utf-8", ""},
		{"keys", "GET", "/keys.asc", nil, 200, "text/plain; charset=utf-8", ""},
		{"index", "GET", "/index.json", nil, 200, "application/json", ""},
		{"page of the host", "GET", "/?ac-discovery=1", nil, 200, "text/html; charset=utf-8", ""},
		{"page of an image", "GET", "/apps/web?ac-discovery=1", nil, 200, "text/html; charset=utf-8", ""},
		{"page with slash", "GET", "/apps/web/", nil, 200, "text/html; charset=utf-8", ""},
		{"post", "POST", aci, nil, 405, "", ""},
		{"nothing", "GET", "/apps/nothing", nil, 404, "", ""},
		{"lock", "GET", "/.lock", nil, 404, "", ""},
		{"hidden", "GET", "/apps/../.hidden", nil, 404, "", ""},
		{"no listing", "GET", "/empty/", nil, 404, "", ""},
		{"outside", "GET", "/../../etc/passwd", nil, 404, "", ""},
		{"outside, encoded", "GET", "/%2e%2e/%2e%2e/etc/passwd", nil, 404, "", ""},
		{"link to outside", "GET", "/link.txt", nil, 404, "", ""},
		{"fifo", "GET", "/fifo", nil, 404, "", ""},
		{"NUL", "GET", "/a%00b", nil, 404, "", ""},
		{"below a file", "GET", "/keys.asc/x", nil, 404, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log.Reset()
			got := request(t, h, tt.method, tt.path, tt.header)
			if got.Code != tt.status || tt.kind != "" && got.Header().Get("Content-Type") != tt.kind {
				t.Errorf("%d, %v", got.Code, got.Header())
			}
			if tt.body != "" && got.Body.String() != tt.body {
				t.Errorf("%d other bytes", got.Body.Len())
			}
			if e := got.Header().Get("Content-Encoding"); e != "" {
				t.Errorf("encoded: %s", e)
			}
			if tt.status < 400 && !strings.HasPrefix(got.Header().Get("ETag"), `"`) {
				t.Errorf("ETag %s is not strong", got.Header().Get("ETag"))
			}
			if line := log.String(); strings.Count(line, "\n") != 1 || !strings.Contains(line, `"`+tt.method+` /`) {
				t.Errorf("log %q", line)
			}
		})
	}
	t.Run("changed", func(t *testing.T) {
		before := request(t, h, "GET", "/apps/web-latest-linux-amd64.aci", nil).Header().Get("ETag")
		if before != etag {
			t.Errorf("the alias has ETag %s, not %s", before, etag)
		}
		add(t, r, image(t, "example.com/apps/web", "2.0"))
		after := request(t, h, "GET", "/apps/web-latest-linux-amd64.aci", nil).Header().Get("ETag")
		if after == before {
			t.Error("the ETag did not change")
		}
	})
	t.Run("no directory", func(t *testing.T) {
		if got := request(t, repository.Handler(filepath.Join(dir, "none"), nil), "GET", "/", nil); got.Code != 500 {
			t.Error(got.Code)
		}
	})
}

func request(t *testing.T, h http.Handler, method, path string, header map[string]string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(method, path, nil)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestServedOverTLS(t *testing.T) {
	r, dir := create(t, repository.Options{Prefix: "localhost/apps", URL: "https://localhost:8443"})
	data := image(t, "localhost/apps/web", "1.0")
	add(t, r, data)
	keys := filepath.Join(t.TempDir(), "tls")
	certificate, caFile, err := repository.LocalCA(keys, []string{"localhost", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(repository.Handler(dir, nil))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, keys, filepath.Base(caFile))))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/localhost/apps/web-1.0-linux-amd64.aci", "/localhost/apps/web-latest-linux-amd64.aci"} {
		resp, err := client.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, data) || resp.ContentLength != int64(len(data)) {
			t.Errorf("%s: %d bytes, length %d, %v", path, len(got), resp.ContentLength, err)
		}
	}
}

func TestLocalCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	make := func(hosts ...string) string {
		t.Helper()
		if _, _, err := repository.LocalCA(dir, hosts); err != nil {
			t.Fatal(err)
		}
		return read(t, dir, "ca.pem") + read(t, dir, "server.pem")
	}
	first := make("localhost", "::1")
	if make("::1") != first {
		t.Error("made anew for a host that it has")
	}
	second := make("localhost", "example.com")
	if second == first {
		t.Error("not made anew for another host")
	}
	if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	if make("localhost") == second {
		t.Error("not made anew without the authority")
	}
	for file, mode := range map[string]os.FileMode{"": 0o700 | os.ModeDir, "server.pem": 0o600, "ca.pem": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode() != mode {
			t.Errorf("%q: %v, %v", file, info.Mode(), err)
		}
	}
	if _, _, err := repository.LocalCA(dir, nil); err == nil {
		t.Error("a certificate for nobody")
	}
}
