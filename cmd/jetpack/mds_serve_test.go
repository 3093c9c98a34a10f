package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/jetpack-run/jetpack/mds"
)

// One that a pod has started ends when it has no pods, or its root is gone.
func TestEndUnused(t *testing.T) {
	for name, tt := range map[string]struct {
		idle      time.Duration
		pod, gone bool
		ends      bool
	}{
		"no pods":          {0, false, false, true},
		"a pod":            {time.Second, true, false, false},
		"waiting for pods": {time.Hour, false, false, false},
		"root gone":        {time.Hour, true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, err := mds.OpenKeys(filepath.Join(t.TempDir(), "keys"))
			if err != nil {
				t.Fatal(err)
			}
			s := mds.New(keys)
			if tt.pod {
				_, err := s.Add(mds.Pod{
					Token: mds.NewToken(), Addresses: []netip.Addr{netip.IPv6Loopback()}, UUID: "6733c0a7-3b9d-4b5c-8d2f-3b1f2f9d2d10",
					Manifest: json.RawMessage(`{"acVersion":"0.8.11","acKind":"PodManifest","apps":[{"name":"a","image":{"id":"sha512-` + strings.Repeat("0", 128) + `"}}],"volumes":[],"isolators":[],"annotations":[],"ports":[]}`),
					Images:   map[string]json.RawMessage{"a": json.RawMessage(`{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a"}`)},
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			lock := flock.New(filepath.Join(t.TempDir(), "lock"))
			if err := lock.Lock(); err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			if tt.gone {
				if err := os.Remove(lock.Path()); err != nil {
					t.Fatal(err)
				}
			}
			ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
			defer stop()
			ended := false
			if err := endUnused(ctx, func() { ended = true }, s, lock, tt.idle); err != nil || ended != tt.ends {
				t.Errorf("ended: %t, %v", ended, err)
			}
		})
	}
}

// Who asks the service to end gets an answer before it has.
func TestServeControlAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	served, answered := make(chan error, 1), make(chan struct{})
	go func() {
		err := serveControl(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			end()
			time.Sleep(100 * time.Millisecond) // a slow machine
			close(answered)
		}))
		select {
		case <-answered:
		default:
			t.Error("it has ended without an answer")
		}
		served <- err
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
