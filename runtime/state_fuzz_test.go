package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// The files of a pod may hold anything after a disk's fault. Whatever it is, the
// pod can be looked at and its end be told, without panic, and a pod that was read
// can be shown.
func FuzzPodFiles(f *testing.F) {
	const (
		manifest = `{"acVersion":"0.8.11","acKind":"PodManifest","apps":[{"name":"a","image":{"id":"sha512-` +
			`00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"}}]}`
		options = `{"name":"x","network":"none","created":"2020-01-01T00:00:00Z"}`
		state   = `{"phase":"exited","ended":"2020-01-01T00:00:00Z","apps":{"a":{"status":3,"signal":9}}}`
	)
	f.Add([]byte(manifest), []byte(options), []byte(state))
	f.Add([]byte(manifest), []byte(options), []byte(`{"phase":"running"}`))
	f.Add([]byte(manifest), []byte(options), []byte(`{"phase":"nonsense"}`))
	f.Add([]byte(manifest), []byte(`{"name":1}`), []byte(`{"phase":7}`))
	f.Add([]byte(`{"acVersion":"0.8.11","acKind":"PodManifest","apps":7}`), []byte(options), []byte(state))
	f.Add([]byte(`{}`), []byte(`null`), []byte(`null`))
	f.Add([]byte(manifest[:40]), []byte(options), []byte(state))
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, manifest, options, state []byte) {
		r := &Runtime{Dir: t.TempDir(), Notice: func(string) {}}
		id := uuid.NewString()
		if err := os.Mkdir(r.podDir(id), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{manifestFile: manifest, optionsFile: options, stateFile: state} {
			if err := os.WriteFile(filepath.Join(r.podDir(id), name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		info, err := r.Inspect(t.Context(), id)
		if errors.Is(err, ErrNotFound) {
			t.Errorf("a pod that is there is not found: %v", err)
		}
		if info.State.Phase == "" {
			t.Error("it has no status")
		}
		if err != nil && strings.Contains(err.Error(), "Go ") {
			t.Errorf("the error speaks of code: %v", err)
		}
		if err == nil && info.State.Phase != Embryo && info.Manifest == nil {
			t.Error("read without a manifest")
		}
		_ = info.Status()
		if _, err := isOver(info, err, time.Hour); err != nil {
			t.Errorf("its end cannot be told: %v", err)
		}
		if pods, err := r.List(t.Context()); err != nil || len(pods) != 1 {
			t.Errorf("listed as %v, %v", pods, err)
		}
		if found, err := r.Find(t.Context(), id[:8]); err != nil || found != id {
			t.Errorf("found as %q, %v", found, err)
		}
	})
}
