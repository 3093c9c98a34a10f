package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/google/uuid"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
)

func TestNames(t *testing.T) {
	tests := []struct {
		name string
		ok   bool
	}{
		{"a", true},
		{"web-1", true},
		{"deadbeef", true},
		{strings.Repeat("a", 63), true},
		{strings.Repeat("a", 64), false},
		{"1web", false},
		{"Web", false},
		{"web--1", false},
		{"-web", false},
		{"web-", false},
		{"a.b", false},
		{"a b", false},
		{"a\n", false},
		{"../x", false},
		{"e7b6a6c4-0000-4000-8000-000000000000", false},
		{"urn:uuid:e7b6a6c4-0000-4000-8000-000000000000", false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%.70q", tt.name), func(t *testing.T) {
			if got := validName(tt.name); got != tt.ok {
				t.Errorf("valid: %v", got)
			}
		})
	}
}

// A name is one pod's, however many ask for it at a time.
func TestNamesAreUnique(t *testing.T) {
	h := newHost(t)
	m := h.probes(t, "exit 0")
	var made, refused atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		copied := *m
		copied.Apps = slices.Clone(m.Apps)
		wg.Go(func() {
			p, err := h.Prepare(t.Context(), &copied, Options{Name: "web", Network: sandbox.NetworkNone}, false)
			switch {
			case err == nil:
				made.Add(1)
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			case errors.Is(err, ErrNameTaken):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 || refused.Load() != 15 {
		t.Errorf("%d pods made, %d refused", made.Load(), refused.Load())
	}
	id, err := h.Find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	h.prepared(t, m, Options{Name: "web"}) // it is free again
}

// bare makes a pod's directory by hand.
func (h *host) bare(t *testing.T, id string, files map[string]string) {
	t.Helper()
	if err := os.Mkdir(h.podDir(id), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(h.podDir(id), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFind(t *testing.T) {
	h := newHost(t)
	const (
		a = "aaaaaaaa-0000-4000-8000-000000000000"
		b = "aaaaaaab-0000-4000-8000-000000000000"
		c = "cccccccc-0000-4000-8000-000000000000"
	)
	manifest := `{"acVersion":"0.8.11","acKind":"PodManifest","apps":[{"name":"a","image":{"id":"sha512-` + strings.Repeat("0", 128) + `"}}]}`
	for id, name := range map[string]string{a: "web", b: "cc", c: ""} {
		h.bare(t, id, map[string]string{
			stateFile: `{"phase":"prepared"}`, lockFile: "", manifestFile: manifest,
			optionsFile: `{"name":"` + name + `","network":"none","created":"2026-01-01T00:00:00Z"}`,
		})
	}
	if err := os.Mkdir(filepath.Join(h.Dir, "foreign"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.Dir, "dddddddd-0000-4000-8000-000000000000"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, want string
		err        error
	}{
		{a, a, nil},
		{"web", a, nil},
		{"cc", b, nil}, // a name goes before a prefix
		{"ccc", c, nil},
		{"c", c, nil},
		{"aaaaaaab", b, nil},
		{"aaaaaaa", "", ErrAmbiguous},
		{"a", "", ErrAmbiguous},
		{"", "", ErrNotFound},
		{"CC", "", ErrNotFound},
		{"none", "", ErrNotFound},
		{"foreign", "", ErrNotFound},
		{"d", "", ErrNotFound},
		{"..", "", ErrNotFound},
		{"lock", "", ErrNotFound},
		{uuid.NewString(), "", ErrNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := h.Find(t.Context(), tt.name)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestListOldestFirst(t *testing.T) {
	h := newHost(t)
	var want, got []string
	for range 4 {
		want = append(want, h.prepared(t, h.probes(t, "exit 0"), noNetwork))
		time.Sleep(time.Millisecond)
	}
	pods, err := h.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		got = append(got, p.UUID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLock(t *testing.T) {
	h := newHost(t)
	t.Run("no such pod", func(t *testing.T) {
		if _, err := h.Lock(t.Context(), uuid.NewString()); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
	t.Run("running", func(t *testing.T) {
		run, c := h.up(t, h.probes(t, "sleep"), noNetwork)
		c.wait(1, "ready")
		begin := time.Now()
		if _, err := h.Lock(t.Context(), run.UUID()); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		if err := h.Remove(t.Context(), run.UUID()); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		if took := time.Since(begin); took > lockPatience {
			t.Errorf("it took %v to see that it runs", took)
		}
		if gone, err := h.GC(t.Context(), 0); err != nil || len(gone) > 0 {
			t.Errorf("gc removed %v, %v", gone, err)
		}
		if found, err := h.Check(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("check: %q, %v", found, err)
		}
		run.Kill()
		ended(t, run)
	})
	t.Run("glanced at", func(t *testing.T) {
		id := h.prepared(t, h.probes(t, "exit 0"), noNetwork)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if _, err := h.held(id); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 50 {
			p, err := h.Lock(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		wg.Wait()
	})
	t.Run("held, until ctx ends", func(t *testing.T) {
		p, err := h.Prepare(t.Context(), h.probes(t, "exit 0"), noNetwork, false)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := h.Lock(ctx, p.UUID); !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("its lock is gone, and its directory not yet", func(t *testing.T) {
		p, err := h.Prepare(t.Context(), h.probes(t, "exit 0"), noNetwork, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(h.podDir(p.UUID), lockFile)); err != nil {
			t.Fatal(err)
		}
		var removal sync.WaitGroup
		removal.Go(func() {
			time.Sleep(5 * lockPoll)
			if err := p.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		})
		if _, err := h.Lock(t.Context(), p.UUID); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		removal.Wait()
	})
	t.Run("removed while waited for", func(t *testing.T) {
		p, err := h.Prepare(t.Context(), h.probes(t, "exit 0"), noNetwork, false)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error)
		go func() {
			_, err := h.Lock(t.Context(), p.UUID)
			got <- err
		}()
		time.Sleep(5 * lockPoll)
		if err := p.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-got; !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

// What is over and what is not, and what to do about it.
func TestPhases(t *testing.T) {
	t.Parallel()
	const id = "e7b6a6c4-0000-4000-8000-000000000000"
	manifest := func(h *host) string {
		m := h.probes(t, "exit 0")
		return fmt.Sprintf(`{"acVersion":"0.8.11","acKind":"PodManifest","apps":[{"name":"a","image":{"id":%q},"mounts":[{"volume":"v","path":"/v"}]}],`+
			`"volumes":[{"name":"v","kind":"empty"}]}`, m.Apps[0].Image.ID.String())
	}
	options := `{"network":"none","created":"2026-01-01T00:00:00Z"}`
	all := func(h *host, state string) map[string]string {
		return map[string]string{lockFile: "", stateFile: state, manifestFile: manifest(h), optionsFile: options}
	}
	without := func(files map[string]string, names ...string) map[string]string {
		for _, n := range names {
			delete(files, n)
		}
		return files
	}
	with := func(files map[string]string, name, content string) map[string]string {
		files[name] = content
		return files
	}
	now := time.Now().UTC().Format(time.RFC3339)
	tests := []struct {
		name  string
		files func(h *host) map[string]string
		phase Phase // "" when it is damaged
		gone  bool  // after gc with a grace of one hour
		check string
		start error // of its start
	}{
		{"embryo", func(h *host) map[string]string { return without(all(h, ""), stateFile) }, Embryo, true, "is embryo", ErrBusy},
		{"embryo without lock", func(*host) map[string]string { return nil }, Embryo, true, "is embryo", ErrBusy},
		{"prepared", func(h *host) map[string]string { return all(h, `{"phase":"prepared"}`) }, Prepared, false, "", nil},
		{"exited just now", func(h *host) map[string]string { return all(h, `{"phase":"exited","ended":"`+now+`"}`) }, Exited, false, "", nil},
		{"exited long ago", func(h *host) map[string]string { return all(h, `{"phase":"exited","ended":"2026-01-01T00:00:00Z"}`) }, Exited, true, "", nil},
		{"crashed", func(h *host) map[string]string { return all(h, `{"phase":"running","started":"`+now+`"}`) }, Crashed, true, "is crashed", nil},
		{"garbage", func(h *host) map[string]string { return all(h, `{"phase":"garbage"}`) }, Garbage, true, "is garbage", ErrInvalid},
		{"half removed", func(h *host) map[string]string {
			return without(all(h, `{"phase":"garbage"}`), manifestFile, optionsFile)
		}, "", true, "file pod.json is damaged", os.ErrNotExist},
		{"removed but for its directory", func(h *host) map[string]string {
			return without(all(h, ""), stateFile, lockFile, manifestFile)
		}, Embryo, true, "is embryo", ErrBusy},
		{"bad state", func(h *host) map[string]string { return all(h, `{`) }, "", true, "file state is damaged", ErrDamaged},
		{"unknown phase", func(h *host) map[string]string { return all(h, `{"phase":"other"}`) }, "", true, "file state is damaged", ErrDamaged},
		{"empty state", func(h *host) map[string]string { return all(h, ``) }, "", true, "file state is damaged", ErrDamaged},
		{"prepared, bad manifest", func(h *host) map[string]string {
			return with(all(h, `{"phase":"prepared"}`), manifestFile, `{"apps":[]}`)
		}, "", false, "file manifest is damaged", ErrDamaged},
		{"prepared, bad options", func(h *host) map[string]string {
			return with(all(h, `{"phase":"prepared"}`), optionsFile, ``)
		}, "", false, "file pod.json is damaged", ErrDamaged},
		{"prepared, no options", func(h *host) map[string]string {
			return with(all(h, `{"phase":"prepared"}`), optionsFile, `null`)
		}, "", false, "file pod.json is damaged", ErrDamaged},
		{"exited just now, bad manifest", func(h *host) map[string]string {
			return with(all(h, `{"phase":"exited","ended":"`+now+`"}`), manifestFile, ``)
		}, "", false, "file manifest is damaged", ErrDamaged},
		{"exited long ago, bad manifest", func(h *host) map[string]string {
			return with(all(h, `{"phase":"exited","ended":"2026-01-01T00:00:00Z"}`), manifestFile, ``)
		}, "", true, "file manifest is damaged", ErrDamaged},
		{"crashed, bad manifest", func(h *host) map[string]string {
			return with(all(h, `{"phase":"running","started":"`+now+`"}`), manifestFile, ``)
		}, "", true, "file manifest is damaged", ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.bare(t, id, tt.files(h))
			if tt.phase != Embryo {
				for _, tree := range []string{rootTree(id, "a"), volumeTree(id, "", EmptyVolume("v"))} {
					if err := h.Storage.Create(t.Context(), tree, storage.Options{}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if tt.phase == Crashed || tt.phase == Garbage {
				if err := h.Engine.Create(t.Context(), sandbox.Pod{ID: id, Network: sandbox.NetworkNone}); err != nil {
					t.Fatal(err)
				}
			}
			info, err := h.Inspect(t.Context(), id)
			if tt.phase == "" && (!errors.Is(err, ErrDamaged) || info.State.Phase != Damaged || info.Options.Created.IsZero() || strings.Contains(err.Error(), "\n")) {
				t.Errorf("it is %s, made %s, %v", info.State.Phase, info.Options.Created, err)
			}
			if (err == nil) != (tt.phase != "") || err == nil && info.State.Phase != tt.phase {
				t.Errorf("it is %s, %v; want %s", info.State.Phase, err, tt.phase)
			}
			if pods, err := h.List(t.Context()); err != nil || len(pods) != 1 || pods[0].UUID != id {
				t.Errorf("list %v, %v", pods, err)
			}
			if got := len(h.noted()) == 1; got != (tt.phase == "") {
				t.Errorf("the list says why it cannot be read: %v", got)
			}
			found, err := h.Check(t.Context())
			if err != nil || (len(found) == 1) != (tt.check != "") || !strings.Contains(strings.Join(found, " "), tt.check) {
				t.Errorf("check: %q, %v; want %q", found, err, tt.check)
			}
			h.tryStart(t, id, tt.start)

			removed, err := h.GC(t.Context(), time.Hour)
			if err != nil {
				t.Errorf("gc: %v", err)
			}
			if tt.start == nil { // it was started, and ended just now
				tt.gone = false
			}
			if slices.Equal(removed, []string{id}) != tt.gone {
				t.Errorf("gc removed %v", removed)
			}
			if !tt.gone {
				if err := h.Remove(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			h.isClean(t)
		})
	}
	for _, tt := range tests {
		t.Run("gc of "+tt.name, func(t *testing.T) { // that was not started before
			h := newHost(t)
			h.bare(t, id, tt.files(h))
			removed, err := h.GC(t.Context(), time.Hour)
			if err != nil || slices.Equal(removed, []string{id}) != tt.gone {
				t.Errorf("gc removed %v, %v", removed, err)
			}
			if len(h.left(t)) == 0 != tt.gone {
				t.Errorf("left: %q", h.left(t))
			}
		})
	}
}

// tryStart starts a pod if it can be started.
func (h *host) tryStart(t *testing.T, id string, want error) {
	t.Helper()
	p, err := h.Lock(t.Context(), id)
	if err == nil {
		var run *Run
		if run, err = p.Start(t.Context(), newCapture(t).io()); err == nil {
			ended(t, run)
		} else if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if !errors.Is(err, want) {
		t.Errorf("start: error %v, want %v", err, want)
	}
}

// What cannot be read for the time being is not removed.
func TestUnreadableIsNotOver(t *testing.T) {
	h := newHost(t)
	id := h.prepared(t, h.probes(t, "exit 0"), noNetwork)
	path := filepath.Join(h.podDir(id), manifestFile)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil { // EISDIR stands for EIO
		t.Fatal(err)
	}
	removed, err := h.GC(t.Context(), 0)
	if err == nil || len(removed) > 0 {
		t.Errorf("gc removed %v, %v", removed, err)
	}
	if _, err := os.Stat(h.podDir(id)); err != nil {
		t.Error(err)
	}
}

func TestForeignDirectory(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(h.Dir, "lost+found")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := h.GC(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if found, err := h.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("check: %q, %v", found, err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

// A host whose pods are not there (not mounted) is not a host without pods.
func TestPodsAreGone(t *testing.T) {
	h := newHost(t)
	h.prepared(t, h.probes(t, "exit 0"), noNetwork)
	if err := os.Rename(h.Dir, h.Dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := h.Engine.Create(t.Context(), sandbox.Pod{ID: uuid.NewString(), Network: sandbox.NetworkNone}); err != nil {
		t.Fatal(err)
	}
	if pods, err := h.List(t.Context()); err == nil {
		t.Errorf("list: %v", pods)
	}
	if debris, err := h.Debris(t.Context()); err == nil {
		t.Errorf("debris: %v", debris)
	}
	if removed, err := h.GC(t.Context(), 0); err == nil {
		t.Errorf("gc removed %v", removed)
	}
}

func TestDebris(t *testing.T) {
	h := newHost(t)
	kept := h.prepared(t, h.probes(t, "exit 0"), noNetwork)
	h.restart(t, kept)
	gone := uuid.NewString()
	if err := h.Engine.Create(t.Context(), sandbox.Pod{ID: gone, Network: sandbox.NetworkNone}); err != nil {
		t.Fatal(err)
	}
	for _, tree := range []string{rootTree(gone, "a"), volumeTree(gone, "", EmptyVolume("v")), volumeTree(gone, "a", EmptyVolume("v"))} {
		if err := h.Storage.Create(t.Context(), tree, storage.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := h.Check(t.Context()); err != nil || len(found) != 4 {
		t.Errorf("check: %q, %v", found, err)
	}
	debris, err := h.Debris(t.Context())
	if err != nil || len(debris) != 4 {
		t.Errorf("debris: %v, %v", debris, err)
	}
	for _, d := range debris {
		if !strings.Contains(d.What, gone) {
			t.Errorf("debris: %s", d.What)
		}
		if err := d.Remove(t.Context()); err != nil {
			t.Errorf("%s: %v", d.What, err)
		}
	}
	if debris, err := h.Debris(t.Context()); err != nil || len(debris) > 0 {
		t.Errorf("left: %v, %v", debris, err)
	}
	if err := h.Remove(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	h.isClean(t)
}

// An image that a pod was made from is in use as long as the pod has its clone.
func TestImageInUse(t *testing.T) {
	h := newHost(t)
	run, _ := h.up(t, h.probes(t, "exit 0"), noNetwork)
	ended(t, run)
	img, err := h.images.Find(t.Context(), "example.com/probe")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.images.Remove(t.Context(), img.ID); err == nil {
		t.Error("removed")
	}
	if err := h.Remove(t.Context(), run.UUID()); err != nil {
		t.Fatal(err)
	}
	if err := h.images.Remove(t.Context(), img.ID); err != nil {
		t.Error(err)
	}
}

// Many hands at the same pods: whatever happens, nothing is left in the end, and
// nothing fails but for a reason that is named.
func TestStress(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := h.probes(t, "exit 0", "exit 0")
	m.Volumes = []types.Volume{EmptyVolume("v")}
	for i := range m.Apps {
		m.Apps[i].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}}
	}
	expected := func(err error) {
		switch {
		case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrBusy), errors.Is(err, ErrNotRunning):
		default:
			t.Error(err)
		}
	}
	const rounds = 100
	var wg sync.WaitGroup
	var finished atomic.Bool
	others := func(do func(ctx context.Context, id string) error) {
		wg.Go(func() {
			for !finished.Load() {
				ids, err := h.ids()
				expected(err)
				for _, id := range ids {
					expected(do(t.Context(), id))
				}
			}
		})
	}
	others(func(ctx context.Context, _ string) error { _, err := h.GC(ctx, 0); return err })
	others(func(ctx context.Context, id string) error { return h.Remove(ctx, id) })
	others(func(ctx context.Context, id string) error { return h.Stop(ctx, id, 0) })
	others(func(ctx context.Context, _ string) error { _, err := h.List(ctx); return err })
	var runs sync.WaitGroup
	for range 2 {
		runs.Go(func() {
			for range rounds / 2 {
				copied := *m
				copied.Apps = slices.Clone(m.Apps)
				run, err := h.Run(t.Context(), &copied, noNetwork, false, IO{})
				if err != nil {
					// Only Stop may have come in between.
					t.Errorf("run: %v", err)
					continue
				}
				if _, err := run.Wait(); err != nil {
					t.Errorf("wait: %v", err)
				}
				if err := run.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		})
	}
	runs.Wait()
	finished.Store(true)
	wg.Wait()
	if _, err := h.GC(t.Context(), 0); err != nil {
		t.Error(err)
	}
	h.isClean(t)
}
