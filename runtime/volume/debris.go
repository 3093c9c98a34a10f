package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jetpack-run/jetpack/internal/storage"
)

// Debris is something that a crash left in the store.
type Debris struct {
	What   string // what it is, for people
	remove func(ctx context.Context) error
}

// Remove takes it away, unless it has come into use meanwhile.
func (d Debris) Remove(ctx context.Context) error { return d.remove(ctx) }

// Debris lists what interrupted creations and removals left, and volumes that are
// mounted though nobody uses them: nothing that is in use.
func (s *Store) Debris(ctx context.Context) (debris []Debris, err error) {
	err = s.exclusively(ctx, func() error {
		drafts, err := s.strayDrafts(ctx)
		if err != nil {
			return err
		}
		trees, err := s.Driver.List(ctx, treeKind)
		if err != nil {
			return err
		}
		mounts, err := s.strayMounts(trees)
		if err != nil {
			return err
		}
		locks, err := s.strayLocks(trees)
		debris = append(append(drafts, mounts...), locks...)
		return err
	})
	return debris, err
}

// strayDrafts finds drafts. They are made and worked on under the store's lock, or
// under that of drafts.
func (s *Store) strayDrafts(ctx context.Context) (debris []Debris, err error) {
	if busy, err := locked(filepath.Join(s.Dir, draftsLock)); err != nil || busy {
		return nil, err
	}
	drafts, err := s.Driver.List(ctx, draftKind)
	if err != nil {
		return nil, err
	}
	for _, t := range drafts {
		debris = append(debris, Debris{
			What:   "tree " + t.Name + " of an interrupted creation or removal of a volume",
			remove: func(ctx context.Context) error { return storage.Remove(ctx, s.Driver, t.Name) },
		})
	}
	return debris, nil
}

// strayMounts finds volumes that are mounted without lease. What is not whole is a
// damaged volume, and no debris: a volume is made and taken away as a draft.
func (s *Store) strayMounts(trees []storage.Tree) (debris []Debris, err error) {
	for _, t := range trees {
		name := strings.TrimPrefix(t.Name, treeKind+"/")
		leased, err := s.leased(name)
		if err != nil {
			return nil, err
		}
		if t.Partial || !t.Mounted || leased {
			continue
		}
		debris = append(debris, Debris{
			What: "volume " + name + " is mounted, and no pod that runs uses it",
			remove: func(ctx context.Context) error {
				return s.exclusively(ctx, func() error { return s.unmountUnused(ctx, name) })
			},
		})
	}
	return debris, nil
}

// strayLocks finds lock files of volumes that are not there.
func (s *Store) strayLocks(trees []storage.Tree) (debris []Debris, err error) {
	known := map[string]bool{}
	for _, t := range trees {
		known[strings.TrimPrefix(t.Name, treeKind+"/")] = true
	}
	files, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("read volume store: %w", err)
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), lockSuffix)
		if !ok || known[name] || CheckName(name) != nil {
			continue // not the store's
		}
		debris = append(debris, Debris{
			What:   "lock file " + s.lockPath(name) + " of a volume that is gone",
			remove: func(ctx context.Context) error { return s.removeStrayLock(ctx, name) },
		})
	}
	return debris, nil
}

func (s *Store) removeStrayLock(ctx context.Context, name string) error {
	return s.exclusively(ctx, func() error {
		if _, err := s.stat(ctx, name); !errors.Is(err, ErrNotFound) {
			return err
		}
		return s.removeLock(name)
	})
}

// Damaged says which volumes are damaged, a line each.
func (s *Store) Damaged(ctx context.Context) (lines []string, err error) {
	err = s.exclusively(ctx, func() error {
		_, damaged, err := s.scan(ctx)
		for _, d := range damaged {
			lines = append(lines, d.Error())
		}
		return err
	})
	return lines, err
}

// damaged says what is wrong with a volume and where its files are.
func (s *Store) damaged(name, reason string) error {
	where := "the storage tree " + tree(name)
	if d, ok := s.Driver.(interface{ Dir(tree string) string }); ok {
		where = d.Dir(tree(name))
	}
	return fmt.Errorf("volume %s %w: %s; its files are in %s; 'jetpack volume rm %s' removes it", name, ErrDamaged, reason, where, name)
}
