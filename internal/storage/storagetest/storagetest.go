// Package storagetest is the conformance suite of storage drivers: every rule in
// the comments of storage.Driver is a case here. A driver's bug that was found
// elsewhere becomes a case as well.
//
// Not for: what is peculiar to one driver; its own tests have that.
package storagetest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/jetpack-run/jetpack/internal/storage"
)

// A Driver given to Run may also have these methods. What a case needs and the
// driver lacks is named when the case is skipped.
type (
	// Reopener opens the place of the driver once more.
	Reopener interface {
		Reopen(t *testing.T) storage.Driver
	}
	// PartialMaker makes a partial tree, as a crash in Create or Clone would.
	PartialMaker interface {
		MakePartial(t *testing.T, name string)
	}
	// Damager makes what the driver itself keeps of a tree unreadable.
	Damager interface {
		Damage(t *testing.T, name string)
	}
	// Vanisher makes the place of the driver disappear while the test runs.
	Vanisher interface{ Vanish(t *testing.T) }
)

// Run checks a driver. Each case calls open for a driver with an empty place,
// which the case leaves empty and unmounted.
func Run(t *testing.T, open func(t *testing.T) storage.Driver) {
	for _, group := range []map[string]func(*suite){
		lifeCases, cloneCases, destroyCases, mountCases, listCases, sharedCases,
	} {
		for name, run := range group {
			t.Run(name, func(t *testing.T) { run(start(t, open)) })
		}
	}
	t.Run("diff", func(t *testing.T) { runDiff(t, open) })
}

// suite is one case: a test with a driver. Its methods end the test on errors.
type suite struct {
	*testing.T
	d    storage.Driver
	info storage.Info
}

func start(t *testing.T, open func(t *testing.T) storage.Driver) *suite {
	t.Helper()
	d := open(t)
	s := &suite{T: t, d: d, info: d.Info()}
	t.Cleanup(s.clear)
	return s
}

// clear unmounts and destroys all trees, clones first.
func (s *suite) clear() {
	ctx := context.Background() // the test's own is over
	for {
		trees, err := s.d.List(ctx, "")
		if err != nil {
			s.Errorf("clean up: %v", err)
			return
		}
		if len(trees) == 0 {
			return
		}
		progress := false
		var errs []error
		origins := make(map[string]bool)
		for _, tree := range trees {
			origins[tree.Origin] = true
		}
		for _, tree := range trees {
			if origins[tree.Name] {
				continue
			}
			err := errors.Join(s.d.Unmount(ctx, tree.Name), s.d.Destroy(ctx, tree.Name))
			progress = progress || err == nil
			errs = append(errs, err)
		}
		if !progress {
			s.Errorf("clean up: %v", errors.Join(errs...))
			return
		}
	}
}

func (s *suite) need(capability bool, name string) {
	s.Helper()
	if !capability {
		s.Skipf("driver %s lacks %s", s.info.Name, name)
	}
}

func (s *suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) fails(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("error is %v, want %v", err, want)
	}
}

func (s *suite) create(name string) {
	s.Helper()
	s.ok(s.d.Create(s.Context(), name, storage.Options{}))
}

func (s *suite) clone(origin, name string) {
	s.Helper()
	s.ok(s.d.Clone(s.Context(), origin, name, storage.Options{}))
}

func (s *suite) seal(name string) {
	s.Helper()
	s.ok(s.d.Seal(s.Context(), name))
}

func (s *suite) mount(name string) string {
	s.Helper()
	dir, err := s.d.Mount(s.Context(), name)
	s.ok(err)
	return dir
}

func (s *suite) unmount(name string) {
	s.Helper()
	s.ok(s.d.Unmount(s.Context(), name))
}

func (s *suite) destroy(name string) {
	s.Helper()
	s.ok(s.d.Destroy(s.Context(), name))
}

func (s *suite) stat(name string) storage.Tree {
	s.Helper()
	tree, err := s.d.Stat(s.Context(), name)
	s.ok(err)
	return tree
}

// in runs change in a mounted tree and unmounts it.
func (s *suite) in(name string, change func(dir string)) {
	s.Helper()
	change(s.mount(name))
	s.unmount(name)
}

// image makes a sealed tree with what fill writes.
func (s *suite) image(name string, fill func(dir string)) {
	s.Helper()
	s.create(name)
	s.in(name, fill)
	s.seal(name)
}

// names lists the trees of a kind, partial ones as "name (partial)".
func (s *suite) names(kind string) []string {
	s.Helper()
	trees, err := s.d.List(s.Context(), kind)
	s.ok(err)
	var names []string
	for _, tree := range trees {
		if tree.Partial {
			tree.Name += " (partial)"
		}
		names = append(names, tree.Name)
	}
	return names
}

func (s *suite) wantNames(kind string, want ...string) {
	s.Helper()
	if got := s.names(kind); !slices.Equal(got, want) {
		s.Fatalf("trees of kind %q are %q, want %q", kind, got, want)
	}
}
