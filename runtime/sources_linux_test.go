package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// hostPod reads a file through a host volume.
func hostPod(t *testing.T, h *host, source, command string) *schema.PodManifest {
	t.Helper()
	m := h.probes(t, command)
	m.Volumes = []types.Volume{{Name: "v", Kind: "host", Source: source}}
	m.Apps[0].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}}
	return m
}

// mounted tells what is mounted below a directory.
func mounted(t *testing.T, dir string) (found []string) {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[1], dir) {
			found = append(found, fields[1])
		}
	}
	return found
}

// Somebody swaps a directory in the source's path for a symbolic link while pods
// start: what is behind the link is never mounted.
func TestSourceSwapped(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"real/sub/marker": "volume", "canary/sub/marker": "canary"} {
		if err := fillRoot(dir, map[string]string{"/" + name: text}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("canary", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "real"), unix.AT_FDCWD, filepath.Join(dir, "link"), unix.RENAME_EXCHANGE)
				if err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	ran, refused := 0, 0
	for range 200 {
		m := hostPod(t, h, filepath.Join(dir, "real", "sub"), "read /v/marker")
		c := newCapture(t)
		run, err := h.Run(t.Context(), m, noNetwork, false, c.io())
		if err != nil {
			refused++
			continue
		}
		ended(t, run)
		ran++
		if got := c.text(); got != "volume" {
			t.Errorf("the app reads %q", got)
		}
		if err := h.Remove(t.Context(), run.UUID()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	swapper.Wait()
	t.Logf("%d pods ran, %d were refused", ran, refused)
	// The swapper itself must not go unnoticed: without the race there is no test.
	if refused == 0 {
		t.Error("the link was never met")
	}
	h.isClean(t)
}

// The race between the check and the opening, step by step.
func TestOpenSource(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	if err := fillRoot(dir, map[string]string{"/real/sub/f": "x", "/link": "-> real", "/real/l": "-> f"}); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(filepath.Join(dir, "fifo")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		source   string
		symlinks bool
		ok       bool
	}{
		{dir + "/real/sub", false, true},
		{dir + "/real/sub/f", false, true},
		{"/", false, true},
		{dir + "/link/sub", false, false},
		{dir + "/link", false, false},
		{dir + "/real/l", false, false},
		{dir + "/fifo", false, false},
		{dir + "/none", false, false},
		{dir + "/link/sub", true, true},
		{dir + "/link", true, true},
		{dir + "/fifo", true, false},
	}
	rt := new(Runtime)
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %v", strings.TrimPrefix(tt.source, dir), tt.symlinks), func(t *testing.T) {
			sources := filepath.Join(t.TempDir(), sourcesDir)
			path, err := rt.holdSource(sources, "0", tt.source, tt.symlinks, false)
			if (err == nil) != tt.ok {
				t.Errorf("got %s, %v", path, err)
			}
			if err := rt.releaseSources(sources); err != nil {
				t.Error(err)
			}
			if found := mounted(t, sources); len(found) > 0 {
				t.Errorf("still mounted: %v", found)
			}
			if _, err := os.Lstat(sources); !os.IsNotExist(err) {
				t.Errorf("still there: %v", err)
			}
		})
	}
}

// What is mounted below a source comes along, and is still mounted on the host when
// the pod is gone, also where mounts are shared, as systemd makes them.
func TestSubmountStays(t *testing.T) {
	for _, recursive := range []bool{false, true} {
		t.Run(fmt.Sprint("recursive ", recursive), func(t *testing.T) {
			h := newHost(t)
			source := t.TempDir()
			for _, dir := range []string{source, filepath.Join(source, "below")} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mount("test", dir, "tmpfs", 0, ""); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
				if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(source, "below", "marker"), []byte("below"), 0o644); err != nil {
				t.Fatal(err)
			}
			m := hostPod(t, h, source, "read /v/below/marker")
			m.Volumes[0].Recursive = &recursive
			c := newCapture(t)
			run, err := h.Run(t.Context(), m, noNetwork, false, c.io())
			if err != nil {
				t.Fatal(err)
			}
			ended(t, run)
			if got := c.text() == "below"; got != recursive {
				t.Errorf("the app reads %q", c.text())
			}
			if found := mounted(t, h.Dir); len(found) > 0 {
				t.Errorf("still mounted: %v", found)
			}
			if found := mounted(t, source); len(found) != 2 {
				t.Errorf("the host has %v mounted", found)
			}
			if err := h.Remove(t.Context(), run.UUID()); err != nil {
				t.Fatal(err)
			}
			h.isClean(t)
		})
	}
}

// A crash leaves the sources mounted: neither a removal nor gc reaches into them.
func TestSourcesAfterCrash(t *testing.T) {
	for _, how := range []string{"gc", "rm", "start"} {
		t.Run(how, func(t *testing.T) {
			h := newHost(t)
			source := t.TempDir()
			if err := os.WriteFile(filepath.Join(source, "marker"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			id := h.prepared(t, hostPod(t, h, source, "read /v/marker"), noNetwork)
			p, err := h.Lock(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.rt.holdSource(p.sourcesDir(), "0", source, false, true); err != nil {
				t.Fatal(err)
			}
			if err := p.setState(State{Phase: Running}); err != nil {
				t.Fatal(err)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if len(mounted(t, h.Dir)) != 2 {
				t.Fatal("nothing is mounted")
			}
			switch how {
			case "gc":
				_, err = h.GC(t.Context(), 0)
			case "rm":
				err = h.Remove(t.Context(), id)
			case "start":
				if info := h.restart(t, id); info.Status() != 0 {
					t.Errorf("%+v", info.State)
				}
				err = h.Remove(t.Context(), id)
			}
			if err != nil {
				t.Error(err)
			}
			if found := mounted(t, h.Dir); len(found) > 0 {
				t.Errorf("still mounted: %v", found)
			}
			if data, err := os.ReadFile(filepath.Join(source, "marker")); err != nil || string(data) != "x" {
				t.Errorf("the host's file: %q, %v", data, err)
			}
			h.isClean(t)
		})
	}
}

// What cannot be unmounted is not removed either: an error, and the host's files stay.
func TestSourcesStillMounted(t *testing.T) {
	h := newHost(t)
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "marker"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	id := h.prepared(t, h.probes(t, "args"), noNetwork)
	// Something that jetpack has not mounted there.
	target := filepath.Join(h.podDir(id), sourcesDir, "0")
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(t.Context(), id); err == nil {
		t.Error("removed")
	}
	if _, err := os.Lstat(filepath.Join(source, "marker")); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(target, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(target); err != nil {
		t.Fatal(err)
	}
	if _, err := h.GC(t.Context(), 0); err != nil {
		t.Error(err)
	}
	h.isClean(t)
}
