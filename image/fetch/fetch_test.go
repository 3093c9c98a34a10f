package fetch

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "plain")
	}))
	defer plain.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if e := r.Header.Get("Accept-Encoding"); e != "identity" {
			t.Errorf("Accept-Encoding %q", e)
		}
		fmt.Fprint(w, "secret bytes")
	})
	mux.HandleFunc("/gone", http.NotFound)
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/hop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/down", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain.URL, http.StatusFound) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "file:///etc/passwd")
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("/encoded", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		fmt.Fprint(w, "x")
	})
	secure := httptest.NewTLSServer(mux)
	defer secure.Close()
	secure.Config.ErrorLog = nil
	dir := t.TempDir()
	file := filepath.Join(dir, "a.aci")
	if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name, location string
		o              Options
		want           string
		is             error
		message        string
	}{
		{name: "stdin", location: "-", o: Options{Stdin: strings.NewReader("piped")}, want: "piped"},
		{name: "path", location: file, want: "from a file"},
		{name: "file URL", location: "file://" + file, want: "from a file"},
		{name: "file URL of another host", location: "file://elsewhere" + file, message: "no other host"},
		{name: "missing file", location: filepath.Join(dir, "none.aci"), is: os.ErrNotExist},
		{name: "directory", location: dir, message: "is a directory"},
		{name: "https", location: secure.URL + "/ok", o: Options{TLS: true}, want: "secret bytes"},
		{name: "unknown certificate", location: secure.URL + "/ok", message: "certificate"},
		{name: "http refused", location: plain.URL, is: ErrInsecureURL},
		{name: "http permitted", location: plain.URL, o: Options{HTTP: true}, want: "plain"},
		{name: "redirect", location: secure.URL + "/hop", o: Options{TLS: true}, want: "secret bytes"},
		{name: "redirect to http", location: secure.URL + "/down", o: Options{TLS: true}, is: ErrInsecureURL},
		{name: "redirect to a file", location: secure.URL + "/file", o: Options{TLS: true, HTTP: true}, is: ErrInsecureURL},
		{name: "redirect loop", location: secure.URL + "/loop", o: Options{TLS: true}, is: ErrHTTP},
		{name: "not found", location: secure.URL + "/gone", o: Options{TLS: true}, is: ErrHTTP, message: "404"},
		{name: "encoded", location: secure.URL + "/encoded", o: Options{TLS: true}, is: ErrHTTP},
		{name: "unknown scheme is a path", location: "ftp://example.com/x", is: os.ErrNotExist},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body, _, err := Open(t.Context(), tt.location, tt.o)
			if tt.is != nil || tt.message != "" {
				if err == nil {
					t.Fatal("no error")
				}
				if tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.message) {
					t.Fatalf("error %q", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(body)
			if err := errors.Join(err, body.Close()); err != nil {
				t.Fatal(err)
			}
			if string(data) != tt.want {
				t.Errorf("got %q", data)
			}
		})
	}
}

func TestOriginHasNoPassword(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	body, origin, err := Open(t.Context(), strings.Replace(srv.URL, "://", "://user:hunter2@", 1), Options{HTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(origin, "hunter2") {
		t.Errorf("origin %q shows the password", origin)
	}
}

func TestIsLocation(t *testing.T) {
	for s, want := range map[string]bool{
		"-": true, "/a": true, "./a": true, "a.aci": true, "https://x/y": true,
		"example.com/app": false, "example.com/app:1.0": false, "sha512-0123456789": false,
	} {
		if got := IsLocation(s); got != want {
			t.Errorf("IsLocation(%q) = %v", s, got)
		}
	}
}
