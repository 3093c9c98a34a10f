package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/fetch"
	"github.com/jetpack-run/jetpack/image/trust"
	"github.com/jetpack-run/jetpack/internal/httpclient"
)

func TestIsLocation(t *testing.T) {
	for s, want := range map[string]bool{
		"-": true, "/a": true, "./a": true, "../a": true, "a.aci": true, "https://a/b": true, "file:///a": true,
		"example.com/a": false, "example.com/a:1.0": false, "a": false, "": false, "sha512-0": false,
	} {
		if got := fetch.IsLocation(s); got != want {
			t.Errorf("%q: %t", s, got)
		}
	}
}

// write writes a file into a new directory.
func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// unread fails a test that reads it.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("standard input was read")
	return 0, io.EOF
}

func TestImport(t *testing.T) {
	s := newSite(t)
	file := s.publish(t, app, "1.0")
	good, err := os.ReadFile(s.file(appFile + ".asc"))
	if err != nil {
		t.Fatal(err)
	}
	const html = "<html>sign in</html>"
	for _, tt := range []struct {
		name     string
		location string
		beside   string // the signature beside the file
		sig      string // --sig; "SIG" is a file with a good one
		stdin    io.Reader
		want     error
		says     string
	}{
		{"file", "FILE", string(good), "", unread{t}, nil, ""},
		{"file URL", "file://FILE", string(good), "", unread{t}, nil, ""},
		{"file URL of this host", "file://localhost/FILE", string(good), "", unread{t}, nil, ""},
		{"file URL of another host", "file://example.com/FILE", string(good), "", unread{t}, errAny, "no other host"},
		{"file, --sig", "FILE", html, "SIG", unread{t}, nil, ""},
		{"file, --sig as URL", "FILE", "", s.url("/" + appFile + ".asc"), unread{t}, nil, ""},
		{"file, --sig from stdin", "FILE", "", "-", bytes.NewReader(good), nil, ""},
		{"file, no signature", "FILE", "", "", unread{t}, image.ErrUntrusted, "name one with --sig"},
		{"file, junk", "FILE", html, "", unread{t}, trust.ErrNoSignature, ".asc: "},
		{"file, signature of another", "FILE", string(sign(t, 0, []byte("x"))), "", unread{t}, trust.ErrBadSignature, ""},
		{"file, --sig missing", "FILE", string(good), "/nonexistent", unread{t}, os.ErrNotExist, "/nonexistent"},
		{"file, --sig too large", "FILE", "", "/dev/zero", unread{t}, errAny, "larger than"},
		{"no file", "/nonexistent.aci", "", "SIG", unread{t}, os.ErrNotExist, "/nonexistent.aci"},
		{"directory", "/", "", "SIG", unread{t}, errAny, "is a directory"},
		{"stdin, --sig", "-", "", "SIG", bytes.NewReader(file), nil, ""},
		{"stdin", "-", "", "", bytes.NewReader(file), image.ErrUntrusted, "--sig"},
		{"stdin for both", "-", "", "-", bytes.NewReader(file), errAny, "cannot both come"},
		{"stdin, cut", "-", "", "SIG", bytes.NewReader(file[:len(file)/2]), trust.ErrBadSignature, ""},
		{"URL", s.url("/" + appFile), "", "", unread{t}, nil, ""},
		{"URL, --sig", s.url("/" + appFile), "", "SIG", unread{t}, nil, ""},
		{"URL, not there", s.url("/x.aci"), "", "SIG", unread{t}, errAny, "404"},
		{"URL, not signed", s.url("/index.json"), "", "", unread{t}, image.ErrUntrusted, "no signature at " + s.url("/index.json.asc")},
		{"URL of something else", s.url("/index.json"), "", "SIG", unread{t}, errAny, s.url("/index.json")},
		{"http", "http://localhost/a.aci", "", "", unread{t}, httpclient.ErrInsecure, "--insecure=http"},
		{"ftp", "ftp://localhost/a.aci", "", "", unread{t}, errAny, "neither https, file nor a path"},
		{"bad URL", "https://local host/a.aci", "", "", unread{t}, errAny, "neither https"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, "image.aci", file)
			if tt.beside != "" {
				if err := os.WriteFile(path+".asc", []byte(tt.beside), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			location := strings.ReplaceAll(tt.location, "FILE", path)
			sig := tt.sig
			if sig == "SIG" {
				sig = write(t, "a.asc", good)
			}
			h := s.host(t).trusts(t, "localhost/demo")
			img, err := h.Import(t.Context(), location, sig, tt.stdin)
			if tt.want != nil {
				if err == nil || tt.want != errAny && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("got %v, want %v and %q", err, tt.want, tt.says)
				}
				oneLine(t, err)
				if len(h.images(t)) > 0 {
					t.Error("in the store:", h.images(t))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			origin := map[bool]string{true: "stdin", false: path}[tt.location == "-"]
			if strings.HasPrefix(tt.location, "https:") {
				origin = tt.location
			}
			if img.ID != idOf(file) || img.Signature == nil || img.Origin != origin {
				t.Errorf("got %s from %q", img.ID, img.Origin)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, file) {
				t.Error("the file is not what it was:", err)
			}
			if left := h.left(t); len(left) > 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

func TestImportInsecure(t *testing.T) {
	s := newSite(t)
	h := s.host(t)
	h.Insecure = []string{"signature"}
	img, err := h.Import(t.Context(), "-", "", bytes.NewReader(archive(t, app, "1.0")))
	if err != nil || img.Signature != nil || len(img.Insecure) != 1 {
		t.Errorf("got %+v, %v", img, err)
	}
}

// No key is trusted for what the manifest says: the name is the image's, not the file's.
func TestImportUntrusted(t *testing.T) {
	s := newSite(t)
	s.publish(t, app, "1.0")
	h := s.host(t).trusts(t, base)
	asked := 0
	h.Review = func(_ context.Context, name string, found fetch.Found) error {
		asked++
		if name != app {
			t.Error("asked about", name)
		}
		return h.Trust.Add(found.Prefix, found.Keys...)
	}
	location := s.url("/" + appFile)
	if _, err := h.Import(t.Context(), location, "", nil); err != nil || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	// It is here, and the server has it still.
	s.asked("/" + appFile)
	if _, err := h.Import(t.Context(), location, "", nil); err != nil {
		t.Error(err)
	}
	if _, sent := s.asked("/" + appFile); sent > 0 {
		t.Errorf("%d bytes once more", sent)
	}
}

// What came of a URL and is no good is fetched anew, not taken for what broke off.
func TestImportURLTampered(t *testing.T) {
	s := newSite(t)
	file := s.publish(t, app, "1.0")
	h := s.host(t).trusts(t, "localhost/demo")
	for name, bad := range map[string][]byte{
		"tampered": append(bytes.Clone(file), 1), "other format": []byte("<html>"), "other image": archive(t, app, "3.0"),
	} {
		t.Run(name, func(t *testing.T) {
			s.instead(".aci", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bad) })
			_, err := h.Import(t.Context(), s.url("/"+appFile), "", nil)
			h.refused(t, err, errAny, "")
			if left := h.left(t); len(left) > 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
	s.misbehave(nil)
	if _, err := h.Import(t.Context(), s.url("/"+appFile), "", nil); err != nil {
		t.Error(err)
	}
}

func TestImportDependencies(t *testing.T) {
	s := newSite(t)
	s.publish(t, base, "1.0")
	file := s.publish(t, app, "1.0", base)
	t.Run("of a URL", func(t *testing.T) {
		h := s.host(t).trusts(t, "localhost/demo")
		if img, err := h.Import(t.Context(), s.url("/"+appFile), "", nil); err != nil || len(img.Dependencies) != 1 {
			t.Error(img, err)
		}
	})
	path := write(t, "image.aci", file)
	if err := os.WriteFile(path+".asc", sign(t, 0, file), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("of a file", func(t *testing.T) {
		h := s.host(t).trusts(t, "localhost/demo")
		h.HTTP = near{h.HTTP}
		h.Discovery.HTTP = h.HTTP
		if img, err := h.Import(t.Context(), path, "", nil); err != nil || len(img.Dependencies) != 1 {
			t.Error(img, err)
		}
	})
	t.Run("of a file, on a private host", func(t *testing.T) {
		h := s.host(t).trusts(t, "localhost/demo")
		_, err := h.Import(t.Context(), path, "", nil)
		h.refused(t, err, httpclient.ErrPrivate, "'jetpack image fetch "+base+"' first")
		h.mustFetch(t, base)
		if _, err := h.Import(t.Context(), path, "", nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("offline", func(t *testing.T) {
		h := s.host(t).trusts(t, "localhost/demo")
		h.Offline = true
		_, err := h.Import(t.Context(), path, "", nil)
		h.refused(t, err, image.ErrNotFound, "fetch.discovery is off")
	})
	t.Run("cycle", func(t *testing.T) {
		s := newSite(t)
		s.publish(t, base, "1.0", app)
		s.publish(t, app, "1.0", base)
		h := s.host(t).trusts(t, "")
		_, err := h.Import(t.Context(), s.url("/"+appFile), "", nil)
		h.refused(t, err, image.ErrTooDeep, "depends on itself")
	})
}

// Waiting for standard input does not outlast the context.
func TestImportCancelled(t *testing.T) {
	s := newSite(t)
	h := s.host(t)
	h.Insecure = []string{"signature"}
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := h.Import(ctx, "-", "", r)
	h.refused(t, err, context.Canceled, "")
}

func TestImportTooLarge(t *testing.T) {
	s := newSite(t)
	h := s.host(t)
	h.Insecure = []string{"signature"}
	_, err := h.Import(t.Context(), "/dev/zero", "", nil)
	h.refused(t, err, errAny, "bytes")
}

// A password that is typed is sent, and not kept.
func TestImportPassword(t *testing.T) {
	s := newSite(t)
	s.publish(t, app, "1.0")
	s.misbehave(func(w http.ResponseWriter, req *http.Request) bool {
		if _, password, _ := req.BasicAuth(); password == "secret" {
			return false
		}
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	h := s.host(t).trusts(t, "localhost/demo")
	u, err := url.Parse(s.url("/" + appFile))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("me", "secret")
	img, err := h.Import(t.Context(), u.String(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(img.Origin, "secret") {
		t.Error("origin", img.Origin)
	}
}

func TestKeys(t *testing.T) {
	s := newSite(t)
	s.publish(t, app, "1.0")
	h := s.host(t)
	want := public(t, 0)[0].Fingerprint
	found, err := h.Keys(t.Context(), app)
	if err != nil || len(found) != 1 || found[0].Keys[0].Fingerprint != want || found[0].URL != s.url("/keys.asc") {
		t.Errorf("got %+v, %v", found, err)
	}
	armored := public(t, 0)[0].Armored
	for name, location := range map[string]string{
		"URL": s.url("/keys.asc"), "file": write(t, "key.asc", armored), "stdin": "-",
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := h.KeysAt(t.Context(), location, bytes.NewReader(armored))
			if err != nil || len(keys) != 1 || keys[0].Fingerprint != want {
				t.Errorf("got %+v, %v", keys, err)
			}
		})
	}
	for name, location := range map[string]string{
		"no key": s.url("/index.json"), "nothing": s.url("/x"), "endless": "/dev/zero", "missing": "/nonexistent",
	} {
		t.Run(name, func(t *testing.T) {
			if keys, err := h.KeysAt(t.Context(), location, nil); err == nil {
				t.Errorf("got %+v", keys)
			} else {
				oneLine(t, err)
			}
		})
	}
	if _, err := h.Keys(t.Context(), "localhost/else"); err == nil {
		t.Error("found keys for another name")
	}
}

// A location is something, or an error that says so.
func FuzzImport(f *testing.F) {
	for _, s := range []string{"-", "file:///x", "file:x", "https://", "http://a:b@c", "a:b.aci", "://", "file://%41/", "\x00", "/a\n"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, location, signature string) {
		if strings.Contains(location, "/") && !strings.Contains(location, "://") || strings.HasPrefix(location, ".") {
			return // there are files that never end
		}
		h := &fetch.Fetcher{
			HTTP: deaf{}, Trust: trust.Open(t.TempDir()), Downloads: t.TempDir(), Limits: limits,
			Notice: func(string) {}, Warn: func(string) {},
		}
		if _, err := h.Import(t.Context(), location, signature, strings.NewReader("")); err == nil {
			t.Errorf("%q was imported", location)
		}
	})
}

// deaf is no net.
type deaf struct{}

func (deaf) Get(_ context.Context, r httpclient.Request) (*httpclient.Response, error) {
	return nil, fmt.Errorf("%s: no net", r.URL.Redacted())
}
