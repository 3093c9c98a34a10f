package storagetest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/jetpack-run/jetpack/internal/storage"
)

var sharedCases = map[string]func(*suite){
	"two drivers on one place":           caseTwoDrivers,
	"16 clones of one origin at once":    caseConcurrentClones,
	"16 trees of one name at once":       caseSameName,
	"clone and destroy race":             caseCloneDestroyRace,
	"a clone is seen whole or not":       caseInvisible,
	"mounting one tree 16 times":         caseConcurrentMounts,
	"destroying one tree 16 times":       caseConcurrentDestroys,
	"rename and create of one name":      caseRenameCreateRace,
	"listing while trees come and go":    caseListWhileChanging,
	"destroy of what is being destroyed": caseDestroyBesideDestroy,
	"clones live while others destroy":   caseChurn,
}

func randomBytes(size int) []byte {
	data := make([]byte, size)
	rand.Read(data) // never fails
	return data
}

// other is a second driver on the same place, or the same one if the driver
// cannot be opened again.
func (s *suite) other() storage.Driver {
	if r, ok := s.d.(Reopener); ok {
		return r.Reopen(s.T)
	}
	return s.d
}

func caseTwoDrivers(s *suite) {
	if _, ok := s.d.(Reopener); !ok {
		s.Skipf("driver %s cannot be opened again for the test", s.info.Name)
	}
	ctx, d2 := s.Context(), s.other()
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	tree, err := d2.Stat(ctx, "images/a")
	s.ok(err)
	if !tree.Sealed {
		s.Error("the other driver does not see the seal")
	}
	s.fails(d2.Create(ctx, "images/a", storage.Options{}), storage.ErrExists)
	s.ok(d2.Clone(ctx, "images/a", "pods/a", storage.Options{}))
	s.wantNames("", "images/a", "pods/a")
	s.fails(s.d.Destroy(ctx, "images/a"), storage.ErrBusy)

	dir := s.mount("pods/a")
	again, err := d2.Mount(ctx, "pods/a")
	s.ok(err)
	if again != dir {
		s.Errorf("mounted on %s and %s", dir, again)
	}
	if s.info.MountsTrees {
		s.fails(d2.Destroy(ctx, "pods/a"), storage.ErrBusy)
	}
	s.ok(d2.Unmount(ctx, "pods/a"))
	if s.stat("pods/a").Mounted {
		s.Error("unmounting once by the other driver is not enough")
	}
	s.ok(d2.Destroy(ctx, "pods/a"))
	_, err = s.d.Stat(ctx, "pods/a")
	s.fails(err, storage.ErrNotFound)
	s.destroy("images/a")
}

// parallel runs n functions at once, every second one with a second driver.
func (s *suite) parallel(n int, run func(i int, d storage.Driver) error) {
	s.Helper()
	var wg sync.WaitGroup
	drivers := []storage.Driver{s.d, s.other()}
	for i := range n {
		wg.Go(func() {
			if err := run(i, drivers[i%2]); err != nil {
				s.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func caseConcurrentClones(s *suite) {
	s.image("images/a", func(dir string) { s.write(dir+"/file", "origin") })
	ctx := s.Context()
	s.parallel(16, func(i int, d storage.Driver) error {
		name := fmt.Sprintf("pods/p%d", i)
		for range 3 {
			if err := d.Clone(ctx, "images/a", name, storage.Options{}); err != nil {
				return err
			}
			dir, err := d.Mount(ctx, name)
			if err != nil {
				return err
			}
			if data, err := os.ReadFile(dir + "/file"); err != nil || string(data) != "origin" {
				return fmt.Errorf("file is %q, %w", data, err)
			}
			if err := os.WriteFile(dir+"/file", []byte(name), 0o600); err != nil {
				return err
			}
			if err := errors.Join(d.Unmount(ctx, name), d.Destroy(ctx, name)); err != nil {
				return err
			}
		}
		return nil
	})
	s.in("images/a", func(dir string) { s.wantContent(dir+"/file", "origin") })
	s.wantNames("", "images/a")
}

// expect gives an error unless err is nil, which is counted, or is want.
func expect(err, want error, successes *atomic.Int32) error {
	if err == nil {
		successes.Add(1)
		return nil
	}
	if errors.Is(err, want) {
		return nil
	}
	return err
}

func caseSameName(s *suite) {
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	var made atomic.Int32
	s.parallel(16, func(_ int, d storage.Driver) error {
		return expect(d.Clone(s.Context(), "images/a", "pods/a", storage.Options{}), storage.ErrExists, &made)
	})
	if made.Load() != 1 {
		s.Errorf("%d calls succeeded", made.Load())
	}
	s.in("pods/a", func(dir string) { s.wantContent(dir+"/file", "x") })
	s.wantNames("", "images/a", "pods/a")
}

// Either the clone is made and the origin stays, or the origin is gone.
func caseCloneDestroyRace(s *suite) {
	for i := range 10 {
		origin, name := fmt.Sprintf("images/i%d", i), fmt.Sprintf("pods/p%d", i)
		s.image(origin, func(dir string) { s.write(dir+"/file", "x") })
		var cloned, destroyed atomic.Int32
		s.parallel(2, func(i int, d storage.Driver) error {
			if i == 0 {
				return expect(d.Clone(s.Context(), origin, name, storage.Options{}), storage.ErrNotFound, &cloned)
			}
			return expect(d.Destroy(s.Context(), origin), storage.ErrBusy, &destroyed)
		})
		if cloned.Load()+destroyed.Load() != 1 {
			s.Fatalf("cloned %d, destroyed %d", cloned.Load(), destroyed.Load())
		}
		if cloned.Load() == 1 {
			s.in(name, func(dir string) { s.wantContent(dir+"/file", "x") })
		}
	}
}

func caseInvisible(s *suite) {
	const files = 300
	s.image("images/a", func(dir string) {
		for i := range files {
			s.write(fmt.Sprintf("%s/file%d", dir, i), "x")
		}
	})
	ctx := s.Context()
	s.parallel(2, func(i int, d storage.Driver) error {
		if i == 0 {
			return d.Clone(ctx, "images/a", "pods/a", storage.Options{})
		}
		for {
			dir, err := d.Mount(ctx, "pods/a")
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			entries, err := os.ReadDir(dir)
			if err == nil && len(entries) != files {
				err = fmt.Errorf("the clone was seen with %d files", len(entries))
			}
			return err
		}
	})
}

func caseConcurrentMounts(s *suite) {
	s.kinds()
	s.parallel(16, func(i int, d storage.Driver) error {
		_, err := d.Mount(s.Context(), []string{"pods/a", "images/a"}[i/2%2])
		return err
	})
	for _, name := range []string{"pods/a", "images/a"} {
		s.unmount(name)
		if s.stat(name).Mounted {
			s.Errorf("%s was mounted more than once", name)
		}
	}
}

func caseConcurrentDestroys(s *suite) {
	s.create("pods/a")
	s.in("pods/a", func(dir string) {
		for i := range 100 {
			s.write(fmt.Sprintf("%s/file%d", dir, i), "x")
		}
	})
	var done atomic.Int32
	s.parallel(16, func(_ int, d storage.Driver) error {
		return expect(d.Destroy(s.Context(), "pods/a"), storage.ErrNotFound, &done)
	})
	if done.Load() != 1 {
		s.Errorf("%d calls succeeded", done.Load())
	}
	s.wantNames("")
}

func caseRenameCreateRace(s *suite) {
	var done atomic.Int32
	for i := range 15 {
		s.create(fmt.Sprintf("tmp/t%d", i))
	}
	s.parallel(16, func(i int, d storage.Driver) error {
		if i == 15 {
			return expect(d.Create(s.Context(), "images/a", storage.Options{}), storage.ErrExists, &done)
		}
		return expect(d.Rename(s.Context(), fmt.Sprintf("tmp/t%d", i), "images/a"), storage.ErrExists, &done)
	})
	if done.Load() != 1 {
		s.Errorf("%d calls succeeded", done.Load())
	}
}

func caseListWhileChanging(s *suite) {
	s.create("images/stays")
	ctx := s.Context()
	s.parallel(4, func(i int, d storage.Driver) error {
		name := fmt.Sprintf("images/t%d", i)
		for range 20 {
			if i > 1 {
				if err := errors.Join(d.Create(ctx, name, storage.Options{}), d.Destroy(ctx, name)); err != nil {
					return err
				}
				continue
			}
			trees, err := d.List(ctx, "images")
			if err != nil {
				return err
			}
			found := false
			for _, tree := range trees {
				found = found || tree.Name == "images/stays" && !tree.Partial
			}
			if !found {
				return fmt.Errorf("the list is %v", trees)
			}
		}
		return nil
	})
}

// caseDestroyBesideDestroy: who lists what another one is removing, and removes it,
// too, as a collector of debris does, is in nobody's way.
func caseDestroyBesideDestroy(s *suite) {
	ctx := s.Context()
	s.parallel(6, func(i int, d storage.Driver) error {
		for range 30 {
			if i > 1 {
				trees, err := d.List(ctx, "tmp")
				if err != nil {
					return err
				}
				for _, tree := range trees {
					if err := d.Destroy(ctx, tree.Name); err != nil && !errors.Is(err, storage.ErrNotFound) {
						return err
					}
				}
				continue
			}
			name := fmt.Sprintf("tmp/t%d", i)
			if err := d.Create(ctx, name, storage.Options{}); err != nil {
				return err
			}
			if err := d.Destroy(ctx, name); err != nil && !errors.Is(err, storage.ErrNotFound) {
				return err
			}
		}
		return nil
	})
}

func caseChurn(s *suite) {
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.clone("images/a", "pods/stays")
	stays := s.mount("pods/stays")
	ctx := s.Context()
	s.parallel(4, func(i int, d storage.Driver) error {
		for j := range 5 {
			name := fmt.Sprintf("pods/p%d.%d", i, j)
			if err := d.Clone(ctx, "images/a", name, storage.Options{}); err != nil {
				return err
			}
			if err := d.Destroy(ctx, name); err != nil {
				return err
			}
			if data, err := os.ReadFile(stays + "/file"); err != nil || string(data) != "x" {
				return fmt.Errorf("file is %q, %w", data, err)
			}
		}
		return nil
	})
}
