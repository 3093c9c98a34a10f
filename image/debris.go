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
	tree   string // the name of its tree, if it may have one
	remove func(ctx context.Context) error
}

// Remove takes it away.
func (d Debris) Remove(ctx context.Context) error { return d.remove(ctx) }

// Debris lists what interrupted imports and removals left, and images that are
// damaged: nothing that is in use. What depends on others comes before them. Remove
// mends an index entry that can be mended, refuses to remove what an image depends on
// (ErrInUse), and fails where only an import can mend (ErrDamaged). By its time, an
// image may have been imported again: then it stays.
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
	debris, err := s.lostEntries(ctx, indexed)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(damaged)) {
		if !indexed[string(id)] {
			indexed[string(id)] = true
			debris = append(debris, Debris{What: damaged[id].Error(), remove: func(ctx context.Context) error {
				return s.removeDamaged(ctx, id)
			}})
		}
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
	strays := slices.Concat(files, trees)
	all, err := s.driver.List(ctx, treeKind)
	if err != nil {
		return nil, err
	}
	clonesFirst(all, strays)
	incomplete, err := s.incomplete(ctx, images)
	if err != nil {
		return nil, err
	}
	layers, err := s.strayLayers(ctx)
	// Drafts first: they may be clones of what is not indexed; layers last: images are
	// clones of them.
	return slices.Concat(debris, drafts, strays, incomplete, layers), err
}

// lostEntries finds the images that are there, though not in the index, or damaged
// there, and takes them for indexed.
func (s *Store) lostEntries(ctx context.Context, indexed map[string]bool) (debris []Debris, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read image store: %w", err)
	}
	for _, e := range entries {
		id, err := ParseID(e.Name())
		if err != nil || indexed[e.Name()] {
			continue
		}
		if there, err := s.restorable(ctx, id); err != nil {
			return nil, err
		} else if there {
			indexed[e.Name()] = true
			debris = append(debris, Debris{
				What:   "image " + id.Short() + " is there, but not in the index or damaged there: enter it again",
				remove: func(ctx context.Context) error { return s.restore(ctx, id) },
			})
		}
	}
	return debris, nil
}

func (s *Store) restorable(ctx context.Context, id ID) (bool, error) {
	if s.record(id) == nil {
		return false, nil
	}
	_, err := s.driver.Stat(ctx, Tree(id))
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// restore enters an image again whose entry is lost or damaged.
func (s *Store) restore(ctx context.Context, id ID) error {
	return s.exclusively(ctx, func() error {
		if _, err := s.Get(ctx, id); !errors.Is(err, errEntry) && !errors.Is(err, ErrNotFound) {
			return err
		}
		value := s.record(id)
		if value == nil {
			return fmt.Errorf("restore image %s: %w: its record is gone", id.Short(), ErrDamaged)
		}
		return s.enter(id, value)
	})
}

// incomplete finds images without tree, and images that lack a dependency; what
// depends on others comes first.
func (s *Store) incomplete(ctx context.Context, images []*Image) (debris []Debris, err error) {
	users := usersOf(images)
	for _, img := range higherFirst(images) {
		err := s.Check(ctx, img)
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		what := err.Error()
		if u := users[img.ID]; len(u) > 0 {
			what += fmt.Sprintf(" (image %s, %s, depends on it)", u[0].ID.Short(), u[0].Name())
		}
		debris = append(debris, Debris{What: what, remove: func(ctx context.Context) error {
			return s.removeIncomplete(ctx, img.ID)
		}})
	}
	return debris, nil
}

// higherFirst sorts images so that each comes before those that it depends on.
func higherFirst(images []*Image) []*Image {
	byID, heights := map[ID]*Image{}, map[ID]int{}
	for _, img := range images {
		byID[img.ID] = img
	}
	var height func(id ID) int
	height = func(id ID) int {
		if _, known := heights[id]; !known && byID[id] != nil {
			heights[id] = 0 // ends circles, which only a damaged index has
			for _, dep := range byID[id].Dependencies {
				heights[id] = max(heights[id], height(dep)+1)
			}
		}
		return heights[id]
	}
	return slices.SortedStableFunc(slices.Values(images), func(a, b *Image) int { return height(b.ID) - height(a.ID) })
}

// clonesFirst sorts strays so that what is cloned comes after its clones.
func clonesFirst(trees []storage.Tree, strays []Debris) {
	origins := map[string]string{}
	for _, t := range trees {
		origins[t.Name] = t.Origin
	}
	depth := func(tree string) (n int) {
		for ; origins[tree] != "" && n < len(trees); tree = origins[tree] {
			n++
		}
		return n
	}
	slices.SortStableFunc(strays, func(a, b Debris) int { return depth(b.tree) - depth(a.tree) })
}

func (s *Store) removeDamaged(ctx context.Context, id ID) error {
	return s.exclusively(ctx, func() error {
		if _, err := s.Get(ctx, id); !errors.Is(err, errEntry) {
			return err // nil when it was imported again
		}
		if _, err := ParseID(string(id)); err != nil {
			return s.forget(id) // it never named a tree nor a directory
		}
		return s.removeUnused(ctx, id)
	})
}

func (s *Store) removeIncomplete(ctx context.Context, id ID) error {
	return s.exclusively(ctx, func() error {
		img, err := s.Get(ctx, id)
		if err != nil {
			return err
		}
		damage := s.Check(ctx, img)
		if damage == nil {
			return nil
		}
		if _, err := s.driver.Stat(ctx, Tree(id)); !errors.Is(err, storage.ErrNotFound) {
			return damage // an import mends it, of what it depends on
		}
		return s.removeUnused(ctx, id)
	})
}

// removeStray removes what there is of an image without an index entry.
func (s *Store) removeStray(ctx context.Context, id ID) error {
	return s.exclusively(ctx, func() error {
		if _, err := s.Get(ctx, id); !errors.Is(err, ErrNotFound) {
			return err
		}
		return s.removeUnused(ctx, id)
	})
}

// removeUnused removes what there is of an image, unless another depends on it.
func (s *Store) removeUnused(ctx context.Context, id ID) error {
	if err := s.checkUnused(ctx, id); err != nil {
		return fmt.Errorf("%w; import it again", err)
	}
	return s.remove(ctx, id)
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
		tree, remove := "", func(context.Context) error { return os.RemoveAll(dir) }
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
			tree, remove = Tree(id), func(ctx context.Context) error { return s.removeStray(ctx, id) }
		}
		debris = append(debris, Debris{What: "directory " + dir + " of an interrupted import or removal", tree: tree, remove: remove})
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
		debris = append(debris, Debris{What: "tree " + t.Name + " of an interrupted import or removal", tree: t.Name, remove: remove})
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
