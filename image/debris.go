package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"

	"github.com/jetpack-run/jetpack/internal/storage"
)

// Debris is something that a crash left in the store.
type Debris struct {
	What   string // what it is, for people
	remove func(ctx context.Context) error
}

// Remove takes it away.
func (d Debris) Remove(ctx context.Context) error { return d.remove(ctx) }

// Debris lists what interrupted imports and removals left, and images that are
// damaged: nothing that is in use. By the time of its Remove, an image may have
// been imported again: then it stays.
func (s *Store) Debris(ctx context.Context) (debris []Debris, err error) {
	err = s.exclusively(ctx, func() error {
		debris, err = s.debris(ctx)
		return err
	})
	return debris, err
}

func (s *Store) debris(ctx context.Context) ([]Debris, error) {
	images, damaged, err := s.scan(ctx)
	if err != nil {
		return nil, err
	}
	indexed := map[string]bool{}
	for _, img := range images {
		indexed[string(img.ID)] = true
	}
	var debris []Debris
	for _, id := range slices.Sorted(maps.Keys(damaged)) {
		indexed[string(id)] = true
		debris = append(debris, Debris{What: damaged[id].Error(), remove: func(ctx context.Context) error {
			return s.removeDamaged(ctx, id)
		}})
	}
	files, live, err := s.strayFiles(indexed)
	if err != nil {
		return nil, err
	}
	trees, err := s.strayTrees(ctx, treeKind, indexed)
	if err != nil {
		return nil, err
	}
	drafts, err := s.strayTrees(ctx, draftKind, live)
	if err != nil {
		return nil, err
	}
	// Drafts first: they may be clones of what is not indexed.
	debris = slices.Concat(debris, drafts, files, trees)
	for _, img := range images {
		if _, err := s.driver.Stat(ctx, Tree(img.ID)); errors.Is(err, storage.ErrNotFound) {
			debris = append(debris, Debris{
				What:   "image " + img.ID.Short() + " has lost its tree",
				remove: func(ctx context.Context) error { return s.removeTreeless(ctx, img.ID) },
			})
		} else if err != nil {
			return nil, err
		}
	}
	return debris, nil
}

func (s *Store) removeDamaged(ctx context.Context, id ID) error {
	return s.exclusively(ctx, func() error {
		if _, err := s.Get(ctx, id); !errors.Is(err, ErrDamaged) {
			return err // nil when it was imported again
		}
		if _, err := ParseID(string(id)); err != nil {
			return s.forget(id) // it never named a tree nor a directory
		}
		return s.remove(ctx, id)
	})
}

func (s *Store) removeTreeless(ctx context.Context, id ID) error {
	return s.exclusively(ctx, func() error {
		if _, err := s.driver.Stat(ctx, Tree(id)); !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		return s.remove(ctx, id)
	})
}

// removeStray removes what there is of an image without an index entry.
func (s *Store) removeStray(ctx context.Context, id ID) error {
	return s.exclusively(ctx, func() error {
		if _, err := s.Get(ctx, id); !errors.Is(err, ErrNotFound) {
			return err
		}
		return s.remove(ctx, id)
	})
}

// strayFiles finds directories without index entry, and the ids of drafts that
// are being worked on. What it does not know by its name is not the store's.
func (s *Store) strayFiles(indexed map[string]bool) (debris []Debris, live map[string]bool, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read image store: %w", err)
	}
	live = map[string]bool{}
	for _, e := range entries {
		dir := filepath.Join(s.dir, e.Name())
		remove := func(context.Context) error { return os.RemoveAll(dir) }
		if draft, ok := strings.CutPrefix(e.Name(), draftPrefix); ok {
			busy, err := locked(filepath.Join(dir, "lock"))
			if err != nil {
				return nil, nil, err
			}
			if busy {
				live[draft] = true
				continue
			}
		} else if id, err := ParseID(e.Name()); err != nil || indexed[e.Name()] {
			continue
		} else {
			remove = func(ctx context.Context) error { return s.removeStray(ctx, id) }
		}
		debris = append(debris, Debris{What: "directory " + dir + " of an interrupted import or removal", remove: remove})
	}
	return debris, live, nil
}

// strayTrees finds the trees of a kind whose id is not known.
func (s *Store) strayTrees(ctx context.Context, kind string, known map[string]bool) (debris []Debris, err error) {
	trees, err := s.driver.List(ctx, kind)
	if err != nil {
		return nil, err
	}
	for _, t := range trees {
		name := strings.TrimPrefix(t.Name, kind+"/")
		if known[name] {
			continue
		}
		remove := func(ctx context.Context) error { return storage.Remove(ctx, s.driver, t.Name) }
		if id, err := ParseID(name); err == nil && kind == treeKind {
			remove = func(ctx context.Context) error { return s.removeStray(ctx, id) }
		}
		debris = append(debris, Debris{What: "tree " + t.Name + " of an interrupted import or removal", remove: remove})
	}
	return debris, nil
}

// locked tells whether some process holds the lock file. Without a lock file a
// draft is not being made, since that needs the store's lock: it was cut short.
func locked(path string) (bool, error) {
	l := flock.New(path, flock.SetFlag(os.O_RDONLY))
	ok, err := l.TryLock()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return !ok, errors.Join(err, l.Close())
}
