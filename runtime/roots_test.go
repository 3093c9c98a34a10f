package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// keeping is a pod that writes a letter to its root and to an empty volume.
func keeping(t *testing.T, h *host) *schema.PodManifest {
	t.Helper()
	m := h.probes(t, "write /tmp/x x", "write /v/y y")
	m.Volumes = []types.Volume{EmptyVolume("v")}
	m.Apps[1].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}}
	return m
}

// written gives what is in the pod's root and in its volume.
func (h *host) written(t *testing.T, id string) string {
	t.Helper()
	var all []string
	for _, f := range [][2]string{{rootTree(id, "probe"), "tmp/x"}, {volumeTree(id, "", EmptyVolume("v")), "y"}} {
		dir, err := h.Storage.Mount(t.Context(), f[0])
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, f[1]))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(data))
		if err := h.Storage.Unmount(t.Context(), f[0]); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(all, " ")
}

// startKeeping starts a pod once, keeping its roots or not.
func (h *host) startKeeping(t *testing.T, id string, keep bool) {
	t.Helper()
	p, err := h.Lock(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	p.Options.KeepRootfs = keep
	run, err := p.Start(t.Context(), newCapture(t).io())
	if err != nil {
		t.Fatal(err)
	}
	if info := ended(t, run); info.Status() != 0 {
		t.Fatalf("%+v", info.State)
	}
}

func TestKeepRootfs(t *testing.T) {
	h := newHost(t)
	t.Run("for one start", func(t *testing.T) {
		id := h.prepared(t, keeping(t, h), noNetwork)
		for i, step := range []struct {
			keep bool
			want string
		}{{true, "x y"}, {true, "xx yy"}, {true, "xxx yyy"}, {false, "x y"}, {true, "xx yy"}} {
			h.startKeeping(t, id, step.keep)
			if got := h.written(t, id); got != step.want {
				t.Errorf("start %d, keep %v: %q, want %q", i, step.keep, got, step.want)
			}
		}
		if err := h.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("always", func(t *testing.T) {
		id := h.prepared(t, keeping(t, h), Options{KeepRootfs: true})
		h.restart(t, id)
		h.restart(t, id)
		if got := h.written(t, id); got != "xx yy" {
			t.Errorf("got %q", got)
		}
		if err := h.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	})
	// What a start that did not get that far has made is not complete.
	t.Run("after an interrupted start", func(t *testing.T) {
		id := h.prepared(t, keeping(t, h), noNetwork)
		h.startKeeping(t, id, false)
		if err := os.Remove(filepath.Join(h.podDir(id), rootsFile)); err != nil {
			t.Fatal(err)
		}
		h.startKeeping(t, id, true)
		if got := h.written(t, id); got != "x y" {
			t.Errorf("got %q", got)
		}
		if err := h.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("after a crash", func(t *testing.T) {
		id := h.prepared(t, keeping(t, h), noNetwork)
		h.startKeeping(t, id, false)
		p, err := h.Lock(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.setState(State{Phase: Running}), p.Close()); err != nil {
			t.Fatal(err)
		}
		if got := h.phase(t, id); got != Crashed {
			t.Fatalf("it is %s", got)
		}
		h.startKeeping(t, id, true)
		if got := h.written(t, id); got != "xx yy" {
			t.Errorf("got %q", got)
		}
		if err := h.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	})
	// The owner and mode of a kept volume are the pod's by now.
	t.Run("volume's mode", func(t *testing.T) {
		id := h.prepared(t, keeping(t, h), noNetwork)
		h.startKeeping(t, id, false)
		tree := volumeTree(id, "", EmptyVolume("v"))
		dir, err := h.Storage.Mount(t.Context(), tree)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		h.startKeeping(t, id, true)
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
		if err := h.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	})
	h.isClean(t)
}

func (h *host) diff(t *testing.T, id, app string) string {
	t.Helper()
	changes, err := h.Diff(t.Context(), id, app)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range changes {
		lines = append(lines, fmt.Sprintf("%s %s %s", c.App, c.Kind, c.Path))
	}
	return strings.Join(lines, "\n")
}

func TestDiff(t *testing.T) {
	tests := []struct {
		name   string
		files  map[string]string // of the image, beside /bin/probe, /etc and /tmp
		mounts []string
		run    string
		want   string
	}{
		{"nothing", nil, nil, "args", ""},
		{"added", nil, nil, "write /tmp/x x", "added /tmp/x"},
		{"modified", map[string]string{"/f": "x"}, nil, "write /f x", "modified /f"},
		{"in a volume", nil, []string{"/a/b/c"}, "write /a/b/c/x x", ""},
		{"beside a volume", nil, []string{"/a/b/c"}, "write /a/b/x x", "added /a/b/x"},
		{"behind a link", map[string]string{"/var/": "", "/l": "-> var"}, []string{"/l/deep/er"}, "write /var/x x", "added /var/x"},
		{"a file replaced by a volume", map[string]string{"/data": "x"}, []string{"/data"}, "write /data/x x", ""},
		{"jetpack's hosts, changed", nil, nil, "write /etc/hosts x", "added /etc/hosts"},
		{"the image's hosts, changed", map[string]string{"/etc/hosts": "h"}, nil, "write /etc/hosts x", "modified /etc/hosts"},
	}
	h := newHost(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			image := "example.com/diff-" + strings.NewReplacer(" ", "-", "'", "-", ",", "").Replace(tt.name)
			h.addWith(t, image, func(root string) error { return fillRoot(root, tt.files) }, probeApp)
			m, err := h.Template(t.Context(), []AppRequest{{Image: image, Name: "a", Args: strings.Fields(tt.run)}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, target := range tt.mounts {
				v := EmptyVolume(types.ACName(fmt.Sprintf("v%d", i)))
				m.Volumes = append(m.Volumes, v)
				m.Apps[0].Mounts = append(m.Apps[0].Mounts, schema.Mount{Volume: v.Name, Path: target})
			}
			id := h.prepared(t, m, noNetwork)
			want := tt.want
			if want != "" {
				want = "a " + want
			}
			for _, keep := range []bool{false, true} { // what jetpack made before is remembered
				h.startKeeping(t, id, keep)
				if got := h.diff(t, id, ""); got != want {
					t.Errorf("keep %v: got %q, want %q", keep, got, want)
				}
			}
			h.holdsNothing(t)
			if err := h.Remove(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		})
	}
	h.isClean(t)
}

func TestDiffOfApps(t *testing.T) {
	h := newHost(t)
	id := h.prepared(t, h.probes(t, "write /tmp/x x", "write /tmp/y y"), noNetwork)
	if _, err := h.Diff(t.Context(), id, ""); !errors.Is(err, ErrNotStarted) {
		t.Errorf("before it was started: %v", err)
	}
	h.restart(t, id)
	if got, want := h.diff(t, id, ""), "probe added /tmp/x\nprobe-2 added /tmp/y"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := h.diff(t, id, "probe-2"), "probe-2 added /tmp/y"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := h.Diff(t.Context(), id, "none"); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("of no app: %v", err)
	}
	if _, err := h.Diff(t.Context(), "00000000-0000-4000-8000-000000000000", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("of no pod: %v", err)
	}
	if err := h.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// The system's mount points, which engines make, are nobody's change.
func TestDiffWhileRunning(t *testing.T) {
	h := newHost(t)
	run, c := h.up(t, h.probes(t, "trap 15"), noNetwork)
	c.wait(1, "ready")
	root, err := h.Storage.Mount(t.Context(), rootTree(run.UUID(), "probe"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dev", "proc", "sys", "tmp/dev"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := h.diff(t, run.UUID(), ""), "probe added /tmp/dev"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	run.Kill()
	ended(t, run)
	h.holdsNothing(t)
}
