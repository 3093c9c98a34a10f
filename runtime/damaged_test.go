package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// damage writes something else into a file of a pod.
func (h *host) damage(t *testing.T, id, file, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.podDir(id), file), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A pod with one damaged file is removed by whatever finds it, with all it has.
func TestRemoveDamaged(t *testing.T) {
	for _, file := range []string{stateFile, manifestFile, optionsFile} {
		t.Run(file, func(t *testing.T) {
			h := newHost(t)
			h.addVolume(t, "db")
			other := h.prepared(t, h.probes(t, "exit 0"), noNetwork)
			id := h.prepared(t, bound(t, h, "db", "args"), Options{Name: "web"})
			h.restart(t, id)
			h.damage(t, id, file, `{"phase":7,"apps":7,"name":7}`)
			names := []string{id, id[:8], "web"}
			if file == optionsFile {
				names = names[:2]
			}
			for _, name := range names {
				if found, err := h.Find(t.Context(), name); err != nil || found != id {
					t.Errorf("find %s: %s, %v", name, found, err)
				}
			}
			_, err := h.Lock(t.Context(), id)
			want := "pod " + id + ": its file " + file + " is damaged: "
			if !errors.Is(err, ErrDamaged) || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "; 'jetpack pod rm "+id+"' removes the pod") {
				t.Errorf("lock: got error %v", err)
			}
			if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "Go ") {
				t.Errorf("the error is not for people: %v", err)
			}
			if err := h.Remove(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if err := h.Remove(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			h.isClean(t)
		})
	}
}

// What is damaged hides nothing else.
func TestDamagedStateLeavesTheRest(t *testing.T) {
	h := newHost(t)
	id := h.prepared(t, h.probes(t, "exit 0"), Options{Name: "web"})
	h.damage(t, id, stateFile, "")
	info, err := h.Inspect(t.Context(), id)
	if !errors.Is(err, ErrDamaged) || info.State.Phase != Damaged || info.Manifest == nil || info.Options.Name != "web" {
		t.Errorf("got %+v, %v", info, err)
	}
}

// A pod runs whatever becomes of its files.
func TestDamagedWhileRunning(t *testing.T) {
	for _, file := range []string{stateFile, manifestFile} {
		t.Run(file, func(t *testing.T) {
			h := newHost(t)
			run, c := h.up(t, h.probes(t, "trap 2"), Options{Name: "web"})
			c.wait(1, "ready")
			h.damage(t, run.UUID(), file, "")
			pods, err := h.List(t.Context())
			if err != nil || len(pods) != 1 || pods[0].State.Phase != Running || pods[0].Options.Name != "web" {
				t.Errorf("list: %+v, %v", pods, err)
			}
			if err := h.Remove(t.Context(), run.UUID()); !errors.Is(err, ErrBusy) {
				t.Errorf("remove: %v", err)
			}
			if removed, err := h.GC(t.Context(), 0); err != nil || len(removed) > 0 {
				t.Errorf("gc removed %q, %v", removed, err)
			}
			id, err := h.Find(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			stopped := make(chan error, 1)
			go func() { stopped <- h.Stop(t.Context(), id, patience) }()
			ended(t, run)
			if err := <-stopped; err != nil {
				t.Errorf("stop: %v", err)
			}
			if err := h.Remove(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			h.isClean(t)
		})
	}
}

// gc tells what it takes away beside pods.
func TestGCTellsWhatItMends(t *testing.T) {
	h := newHost(t)
	if err := os.WriteFile(filepath.Join(h.named.Dir, "gone.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.GC(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	want := []string{"mended: lock file " + filepath.Join(h.named.Dir, "gone.lock") + " of a volume that is gone"}
	if got := h.noted(); !slices.Equal(got, want) {
		t.Errorf("notices %q, want %q", got, want)
	}
}

// gc leaves a damaged volume, and check tells of it.
func TestDamagedVolume(t *testing.T) {
	h := newHost(t)
	h.addVolume(t, "db")
	if err := os.Remove(filepath.Join(filepath.Dir(h.Dir), "storage/named/db/tree.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.GC(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if found, err := h.Check(t.Context()); err != nil || len(found) != 1 || !strings.HasPrefix(found[0], "volume db is damaged: ") {
		t.Errorf("check: %q, %v", found, err)
	}
	if err := h.named.Remove(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	h.isClean(t)
}
