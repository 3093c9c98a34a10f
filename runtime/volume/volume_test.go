package volume_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

func openPlain(t *testing.T, root string) storage.Driver {
	t.Helper()
	d, err := plaindir.Open(filepath.Join(root, "storage"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// newStore makes a store below root.
func newStore(t *testing.T, root string, d storage.Driver) *volume.Store {
	t.Helper()
	s := &volume.Store{Dir: filepath.Join(root, "volumes"), Driver: d}
	if err := volume.Init(s.Dir); err != nil {
		t.Fatal(err)
	}
	return s
}

// eachDriver runs a test on every driver there is here.
func eachDriver(t *testing.T, test func(t *testing.T, s *volume.Store)) {
	testenv.Root(t) // volumes have owners
	for name, open := range drivers {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			test(t, newStore(t, root, open(t, root)))
		})
	}
}

func create(t *testing.T, s *volume.Store, name string) {
	t.Helper()
	if _, err := s.Create(t.Context(), name, volume.Options{}); err != nil {
		t.Fatal(err)
	}
}

func acquire(t *testing.T, s *volume.Store, name string) *volume.Lease {
	t.Helper()
	l, err := s.Acquire(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func release(t *testing.T, l *volume.Lease) {
	t.Helper()
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// found lists the debris.
func found(t *testing.T, s *volume.Store) (what []string) {
	t.Helper()
	debris, err := s.Debris(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range debris {
		what = append(what, d.What)
	}
	return what
}

// clean removes the debris and checks that then there is none: only volumes, each
// unmounted, and their lock files.
func clean(t *testing.T, s *volume.Store) {
	t.Helper()
	debris, err := s.Debris(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range debris {
		if err := d.Remove(t.Context()); err != nil {
			t.Errorf("remove %s: %v", d.What, err)
		}
	}
	if left := found(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	trees, err := s.Driver.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"lock", "drafts"}
	for _, tree := range trees {
		name, ok := strings.CutPrefix(tree.Name, "named/")
		if !ok || tree.Partial || tree.Mounted {
			t.Errorf("left: %+v", tree)
		}
		files = append(files, name+".lock")
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(files, e.Name()) {
			t.Errorf("left: %s", e.Name())
		}
	}
}

func TestLife(t *testing.T) {
	eachDriver(t, func(t *testing.T, s *volume.Store) {
		ctx := t.Context()
		before := time.Now().Add(-time.Second)
		v, err := s.Create(ctx, "data", volume.Options{Mode: 0o2770, UID: 5, GID: 6})
		if err != nil {
			t.Fatal(err)
		}
		if v.Created.Before(before) || v.Created.After(time.Now()) {
			t.Errorf("created %v", v.Created)
		}
		if want := (volume.Volume{Name: "data", Created: v.Created, Mode: 0o2770, UID: 5, GID: 6}); v != want {
			t.Errorf("made %+v", v)
		}
		l := acquire(t, s, "data")
		var st unix.Stat_t
		if err := unix.Stat(l.Dir, &st); err != nil || st.Mode != unix.S_IFDIR|0o2770 || st.Uid != 5 || st.Gid != 6 {
			t.Errorf("directory %o %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
		}
		if err := os.WriteFile(filepath.Join(l.Dir, "file"), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if d, err := s.Inspect(ctx, "data"); err != nil || !d.InUse || d.Dir != l.Dir || d.Size < 1<<20 {
			t.Errorf("inspected %+v, %v", d, err)
		}
		if err := s.Remove(ctx, "data"); !errors.Is(err, volume.ErrInUse) {
			t.Errorf("removed while leased: %v", err)
		}
		if left := found(t, s); left != nil {
			t.Errorf("debris %q", left)
		}
		release(t, l)
		clean(t, s)

		create(t, s, "b")
		create(t, s, "a")
		volumes, err := s.List(ctx)
		if err != nil || len(volumes) != 3 || volumes[0].Name != "a" || volumes[1].Name != "b" || volumes[2] != v {
			t.Errorf("list %+v, %v", volumes, err)
		}
		l = acquire(t, s, "data")
		if _, err := os.Stat(filepath.Join(l.Dir, "file")); err != nil {
			t.Error(err)
		}
		release(t, l)
		for _, name := range []string{"a", "b", "data"} {
			if err := s.Remove(ctx, name); err != nil {
				t.Error(err)
			}
		}
		if volumes, err := s.List(ctx); err != nil || volumes != nil {
			t.Errorf("list %+v, %v", volumes, err)
		}
		clean(t, s)
	})
}

func TestErrors(t *testing.T) {
	eachDriver(t, func(t *testing.T, s *volume.Store) {
		ctx := t.Context()
		create(t, s, "there")
		make := func(name string, o volume.Options) error { _, err := s.Create(ctx, name, o); return err }
		get := func(name string) error { _, err := s.Get(ctx, name); return err }
		inspect := func(name string) error { _, err := s.Inspect(ctx, name); return err }
		acquire := func(name string) error { _, err := s.Acquire(ctx, name); return err }
		tests := []struct {
			name string
			err  error
			want error
		}{
			{"create again", make("there", volume.Options{}), volume.ErrExists},
			{"mode", make("a", volume.Options{Mode: 0o10000}), volume.ErrInvalid},
			{"uid", make("a", volume.Options{UID: -1}), volume.ErrInvalid},
			{"no uid", make("a", volume.Options{UID: 1<<32 - 1}), volume.ErrInvalid},
			{"gid", make("a", volume.Options{GID: -1}), volume.ErrInvalid},
			{"negative quota", make("a", volume.Options{Quota: -1}), volume.ErrInvalid},
			{"quota", make("a", volume.Options{Quota: 1}), storage.ErrUnsupported},
			{"get", get("none"), volume.ErrNotFound},
			{"inspect", inspect("none"), volume.ErrNotFound},
			{"acquire", acquire("none"), volume.ErrNotFound},
			{"remove", s.Remove(ctx, "none"), volume.ErrNotFound},
			{"create bad name", make("Bad", volume.Options{}), volume.ErrInvalid},
			{"get bad name", get("../there"), volume.ErrInvalid},
			{"inspect bad name", inspect(""), volume.ErrInvalid},
			{"acquire bad name", acquire("a.b"), volume.ErrInvalid},
			{"remove bad name", s.Remove(ctx, "a/b"), volume.ErrInvalid},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if !errors.Is(tt.err, tt.want) {
					t.Errorf("got %v, want %v", tt.err, tt.want)
				}
			})
		}
		clean(t, s)
	})
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "0": true, "a-b": true, "lock": true, "drafts": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "a--b": false, "A": false, "a.lock": false, "a/b": false, "..": false,
		"ä": false, "a\n": false, strings.Repeat("a", 64): false,
	} {
		if err := volume.CheckName(name); (err == nil) != ok || err != nil && !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Volumes may be called as the store's own files are.
func TestNamesOfFiles(t *testing.T) {
	eachDriver(t, func(t *testing.T, s *volume.Store) {
		for _, name := range []string{"lock", "drafts", "removed"} {
			create(t, s, name)
			release(t, acquire(t, s, name))
			if err := s.Remove(t.Context(), name); err != nil {
				t.Error(err)
			}
		}
		clean(t, s)
	})
}

func TestSharedLeases(t *testing.T) {
	eachDriver(t, func(t *testing.T, s *volume.Store) {
		create(t, s, "data")
		one, two := acquire(t, s, "data"), acquire(t, s, "data")
		if err := os.WriteFile(filepath.Join(one.Dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		release(t, one)
		if _, err := os.Stat(filepath.Join(two.Dir, "file")); err != nil {
			t.Error(err)
		}
		if err := s.Remove(t.Context(), "data"); !errors.Is(err, volume.ErrInUse) {
			t.Errorf("removed while leased: %v", err)
		}
		release(t, two)
		clean(t, s)
	})
}

// A lease whose store cannot be locked any more is given back all the same; what
// stays mounted is debris.
func TestReleaseCancelled(t *testing.T) {
	eachDriver(t, func(t *testing.T, s *volume.Store) {
		create(t, s, "data")
		l := acquire(t, s, "data")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Release(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v", err)
		}
		if n := len(found(t, s)); s.Driver.Info().MountsTrees != (n == 1) {
			t.Errorf("%d pieces of debris", n)
		}
		clean(t, s)
		if err := s.Remove(t.Context(), "data"); err != nil {
			t.Error(err)
		}
	})
}

func TestReferrer(t *testing.T) {
	testenv.Root(t)
	s := newStore(t, t.TempDir(), openPlain(t, t.TempDir()))
	create(t, s, "data")
	who, fault := "by pod p; remove that", error(nil)
	s.Referrer = func(_ context.Context, name string) (string, error) {
		if name != "data" {
			t.Errorf("asked for %s", name)
		}
		return who, fault
	}
	if err := s.Remove(t.Context(), "data"); !errors.Is(err, volume.ErrInUse) || !strings.HasSuffix(err.Error(), "is in use by pod p; remove that") {
		t.Errorf("got error %v", err)
	}
	who, fault = "", errors.New("cannot tell")
	if err := s.Remove(t.Context(), "data"); !errors.Is(err, fault) {
		t.Errorf("got error %v", err)
	}
	fault = nil
	if err := s.Remove(t.Context(), "data"); err != nil {
		t.Error(err)
	}
}

// Ways in which a fault of the disk or a hand may damage a volume; both drivers keep
// trees in internal/storage/treedir.
var damages = map[string]string{
	"no record":    "",
	"empty record": `{}`,
	"bad mode":     `{"created":"2026-01-01T00:00:00Z","meta":{"mode":"x","uid":"0","gid":"0"}}`,
}

// A volume is only published when it is whole: one that is not is damaged, and may
// hold data. It is reported, and removed only by its name.
func TestDamaged(t *testing.T) {
	for name, record := range damages {
		t.Run(name, func(t *testing.T) {
			eachDriver(t, func(t *testing.T, s *volume.Store) {
				ctx := t.Context()
				create(t, s, "whole")
				create(t, s, "data")
				l := acquire(t, s, "data")
				if err := os.WriteFile(filepath.Join(l.Dir, "file"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				release(t, l)
				dir := filepath.Join(filepath.Dir(s.Dir), "storage/named/data")
				if err := os.WriteFile(filepath.Join(dir, "tree.json"), []byte(record), 0o600); err != nil {
					t.Fatal(err)
				}
				says := func(what string, err error) {
					t.Helper()
					if !errors.Is(err, volume.ErrDamaged) || !strings.HasPrefix(err.Error(), "volume data is damaged: ") ||
						!strings.Contains(err.Error(), "its files are in "+dir+";") {
						t.Errorf("%s: got error %v", what, err)
					}
				}
				if debris := found(t, s); len(debris) > 0 {
					t.Errorf("debris: %q", debris)
				}
				if lines, err := s.Damaged(ctx); err != nil || len(lines) != 1 || !strings.HasPrefix(lines[0], "volume data is damaged: ") {
					t.Errorf("damaged: %q, %v", lines, err)
				}
				volumes, err := s.List(ctx)
				says("list", err)
				if len(volumes) != 1 || volumes[0].Name != "whole" {
					t.Errorf("list: %+v", volumes)
				}
				_, err = s.Get(ctx, "data")
				says("get", err)
				if _, err = s.Create(ctx, "data", volume.Options{}); !errors.Is(err, volume.ErrDamaged) && !errors.Is(err, volume.ErrExists) {
					t.Errorf("create: %v", err)
				}
				if _, err := os.Stat(filepath.Join(dir, "fs/file")); err != nil {
					t.Fatal("its data:", err)
				}
				s.Referrer = func(context.Context, string) (string, error) { return "by pod p", nil }
				if err := s.Remove(ctx, "data"); !errors.Is(err, volume.ErrInUse) {
					t.Errorf("remove while it is referred to: %v", err)
				}
				s.Referrer = nil
				if err := s.Remove(ctx, "data"); err != nil {
					t.Errorf("remove: %v", err)
				}
				if _, err := s.Get(ctx, "data"); !errors.Is(err, volume.ErrNotFound) {
					t.Errorf("after its removal: %v", err)
				}
				if volumes, err := s.List(ctx); err != nil || len(volumes) != 1 {
					t.Errorf("after its removal: %+v, %v", volumes, err)
				}
				clean(t, s)
			})
		})
	}
}

func TestDebris(t *testing.T) {
	eachDriver(t, func(t *testing.T, s *volume.Store) {
		ctx := t.Context()
		create(t, s, "data")
		if err := s.Driver.Create(ctx, "drafts/x", storage.Options{}); err != nil {
			t.Fatal(err)
		}
		want := 2
		for _, tree := range []string{"drafts/x", "named/data"} {
			if _, err := s.Driver.Mount(ctx, tree); err != nil {
				t.Fatal(err)
			}
		}
		if s.Driver.Info().MountsTrees {
			want++
		}
		for _, file := range []string{"gone.lock", "foreign", "Foreign.lock"} {
			if err := os.WriteFile(filepath.Join(s.Dir, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if what := found(t, s); len(what) != want {
			t.Errorf("found %q", what)
		}
		for _, file := range []string{"foreign", "Foreign.lock"} { // what is not the store's
			if err := os.Remove(filepath.Join(s.Dir, file)); err != nil {
				t.Error(err)
			}
		}
		if volumes, err := s.List(ctx); err != nil || len(volumes) != 1 {
			t.Errorf("list %+v, %v", volumes, err)
		}
		clean(t, s)
		release(t, acquire(t, s, "data"))
	})
}

// What was debris when it was listed may not be by the time of its Remove.
func TestDebrisComesToLife(t *testing.T) {
	eachDriver(t, func(t *testing.T, s *volume.Store) {
		ctx := t.Context()
		create(t, s, "mounted")
		if _, err := s.Driver.Mount(ctx, "named/mounted"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir, "again.lock"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		debris, err := s.Debris(ctx)
		if err != nil {
			t.Fatal(err)
		}
		create(t, s, "again")
		leases := []*volume.Lease{acquire(t, s, "again"), acquire(t, s, "mounted")}
		for _, d := range debris {
			if err := d.Remove(ctx); err != nil {
				t.Error(err)
			}
		}
		for _, l := range leases {
			if err := os.WriteFile(filepath.Join(l.Dir, "file"), nil, 0o600); err != nil {
				t.Error(err)
			}
		}
		for _, name := range []string{"again", "mounted"} {
			if err := s.Remove(ctx, name); !errors.Is(err, volume.ErrInUse) {
				t.Errorf("%s: got error %v", name, err)
			}
		}
		for _, l := range leases {
			release(t, l)
		}
		for _, name := range []string{"again", "mounted"} {
			l := acquire(t, s, name)
			if _, err := os.Stat(filepath.Join(l.Dir, "file")); err != nil {
				t.Error("it was not written where it stays:", err)
			}
			release(t, l)
		}
		clean(t, s)
	})
}

// hooked is a driver that does something before it destroys a tree.
type hooked struct {
	storage.Driver
	hook func()
}

func (h *hooked) Destroy(ctx context.Context, name string) error {
	h.hook()
	return h.Driver.Destroy(ctx, name)
}

// While the files of a volume are removed, others go on, and see no debris.
func TestRemovalHoldsNobodyUp(t *testing.T) {
	eachDriver(t, func(t *testing.T, s *volume.Store) {
		create(t, s, "data")
		create(t, s, "other")
		calls := 0
		s.Driver = &hooked{s.Driver, func() {
			calls++
			if left := found(t, s); left != nil {
				t.Errorf("debris %q", left)
			}
			release(t, acquire(t, s, "other"))
			if _, err := s.Get(t.Context(), "data"); !errors.Is(err, volume.ErrNotFound) {
				t.Errorf("what is being removed: %v", err)
			}
			create(t, s, "data")
		}}
		if err := s.Remove(t.Context(), "data"); err != nil || calls != 1 {
			t.Errorf("error %v after %d calls", err, calls)
		}
		if _, err := s.Get(t.Context(), "data"); err != nil {
			t.Errorf("what was made meanwhile: %v", err)
		}
		clean(t, s)
	})
}

// The directory of a root that an older jetpack made.
func TestMissingStore(t *testing.T) {
	s := &volume.Store{Dir: filepath.Join(t.TempDir(), "none"), Driver: openPlain(t, t.TempDir())}
	if _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), "jetpack init") {
		t.Errorf("got error %v", err)
	}
}
