package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/runtime/volume"
)

// bound is a pod that writes to a volume which is the named one.
func bound(t *testing.T, h *host, name, command string) *schema.PodManifest {
	t.Helper()
	m := h.probes(t, command)
	m.Volumes = []types.Volume{EmptyVolume("data")}
	m.Apps[0].Mounts = []schema.Mount{{Volume: "data", Path: "/data"}}
	m.Annotations.Set(volume.AnnotationPrefix+"data", name)
	return m
}

// inNamed gives a file of a named volume.
func (h *host) inNamed(t *testing.T, name, file string) string {
	t.Helper()
	l, err := h.named.Acquire(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(l.Dir, file))
	if err := errors.Join(err, l.Release(t.Context())); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestNamedVolume(t *testing.T) {
	h := newHost(t)
	made, err := h.named.Create(t.Context(), "db", volume.Options{Mode: 0o700, UID: 1234, GID: 1235})
	if err != nil {
		t.Fatal(err)
	}
	first := h.prepared(t, bound(t, h, "db", "write /data/x x"), noNetwork)
	second := h.prepared(t, bound(t, h, "db", "write /data/x y"), noNetwork)
	for _, id := range []string{first, second, first} {
		if info := h.restart(t, id); info.Status() != 0 {
			t.Fatalf("%+v", info.State)
		}
	}
	h.holdsNothing(t)
	if got := h.inNamed(t, "db", "x"); got != "xyx" {
		t.Errorf("it has %q", got)
	}
	h.noted()
	if err := h.Remove(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(h.noted(), "|"); got != "volume db is kept" {
		t.Errorf("notices %q", got)
	}
	if err := h.Remove(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if got := h.inNamed(t, "db", "x"); got != "xyx" {
		t.Errorf("after the pods it has %q", got)
	}
	l, err := h.named.Acquire(t.Context(), "db")
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(l.Dir)
	if err != nil || fi.Mode().Perm() != os.FileMode(made.Mode) {
		t.Errorf("its mode is %v, %v", fi.Mode(), err)
	}
	if err := errors.Join(l.Release(t.Context()), h.named.Remove(t.Context(), "db")); err != nil {
		t.Fatal(err)
	}
	h.isClean(t)
}

// While a pod runs it has a lease, and none when its start has failed.
func TestNamedVolumeInUse(t *testing.T) {
	h := newHost(t)
	h.addVolume(t, "db")
	inUse := func() bool {
		v, err := h.named.Get(t.Context(), "db")
		if err != nil {
			t.Fatal(err)
		}
		return v.InUse
	}
	run, c := h.up(t, bound(t, h, "db", "trap 15"), noNetwork)
	c.wait(1, "ready")
	if !inUse() {
		t.Error("nobody uses it while the pod runs")
	}
	run.Kill()
	ended(t, run)
	if inUse() {
		t.Error("it is in use after the pod's end")
	}
	m := bound(t, h, "db", "args")
	m.Apps[0].App.Exec[0] = "/bin/none"
	if _, err := h.Run(t.Context(), m, noNetwork, false, newCapture(t).io()); err == nil {
		t.Fatal("it runs")
	}
	if inUse() {
		t.Error("it is in use after a failed start")
	}
	h.holdsNothing(t)
}

func TestNamedVolumeRefused(t *testing.T) {
	h := newHost(t)
	h.addVolume(t, "db")
	tests := []struct {
		name   string
		change func(m *schema.PodManifest)
		want   error
		says   string
	}{
		{"there", func(*schema.PodManifest) {}, nil, ""},
		{"not there", func(m *schema.PodManifest) { m.Annotations.Set(volume.AnnotationPrefix+"data", "other") },
			volume.ErrNotFound, "jetpack volume create other"},
		{"no name", func(m *schema.PodManifest) { m.Annotations.Set(volume.AnnotationPrefix+"data", "../x") }, volume.ErrInvalid, ""},
		{"empty name", func(m *schema.PodManifest) { m.Annotations.Set(volume.AnnotationPrefix+"data", "") }, volume.ErrInvalid, ""},
		{"no volume of the pod", func(m *schema.PodManifest) { m.Annotations.Set(volume.AnnotationPrefix+"none", "db") },
			ErrInvalid, "the pod has no volume none"},
		{"host volume", func(m *schema.PodManifest) {
			m.Volumes[0] = types.Volume{Name: "data", Kind: "host", Source: "/usr"}
		}, ErrInvalid, "of kind host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := bound(t, h, "db", "args")
			tt.change(m)
			err := h.Reify(t.Context(), m, noNetwork, true)
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.says)
			}
		})
	}
	t.Run("gone before the start", func(t *testing.T) {
		id := h.prepared(t, bound(t, h, "db", "args"), noNetwork)
		if err := h.named.Remove(t.Context(), "db"); err != nil {
			t.Fatal(err)
		}
		h.tryStart(t, id, volume.ErrNotFound)
		if err := h.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		h.isClean(t)
	})
}
