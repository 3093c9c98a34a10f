package treedir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/jetpack-run/jetpack/internal/storage"
)

// Layers is a directory seen through layers, the uppermost first, as overlayfs
// does: a character device 0/0 hides the name in the layers below, and so does
// a directory with the attribute trusted.overlay.opaque hide all that is in it
// below. See Documentation/filesystems/overlayfs.rst in Linux. A plain directory
// is a single layer, in which nothing is hidden.
type Layers []string

// entry is a file in Layers: in one layer, and for a directory also in layers below.
type entry struct {
	info   fs.FileInfo
	layers Layers
}

func (e entry) path() string { return e.layers[0] }

// entries lists the directory. Files that vanish meanwhile are left out.
func (l Layers) entries() (map[string]entry, error) {
	merged := make(map[string]entry)
	complete := make(map[string]bool) // names of which the layers below add nothing
	for _, dir := range l {
		files, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, f := range files {
			name := f.Name()
			if complete[name] {
				continue
			}
			info, err := f.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if len(l) > 1 && isWhiteout(info) {
				complete[name] = true
				continue
			}
			e, above := merged[name]
			if above && !info.IsDir() {
				complete[name] = true
				continue
			}
			if !above {
				e.info = info
			}
			e.layers = append(e.layers, filepath.Join(dir, name))
			merged[name] = e
			complete[name] = !info.IsDir()
			if len(l) > 1 && info.IsDir() {
				if complete[name], err = isOpaque(filepath.Join(dir, name)); err != nil {
					return nil, err
				}
			}
		}
	}
	return merged, nil
}

func isWhiteout(info fs.FileInfo) bool {
	return info.Mode().Type() == fs.ModeDevice|fs.ModeCharDevice && info.Sys().(*syscall.Stat_t).Rdev == 0
}

// Diff compares a directory with what it was, in the sense of storage.Driver.Diff.
// With a nil base everything is added. Subtrees that both have in common as
// layers are not walked.
func Diff(ctx context.Context, base, now Layers) ([]storage.Change, error) {
	d := differ{ctx: ctx}
	if base != nil {
		if err := d.top(base, now); err != nil {
			return nil, err
		}
	}
	if err := d.dir("/", base, now); err != nil {
		return nil, err
	}
	slices.SortFunc(d.changes, func(a, b storage.Change) int { return strings.Compare(a.Path, b.Path) })
	return d.changes, nil
}

type differ struct {
	ctx     context.Context // of the one call of Diff
	changes []storage.Change
}

func (d *differ) add(p string, kind storage.ChangeKind) {
	d.changes = append(d.changes, storage.Change{Path: p, Kind: kind})
}

func (d *differ) top(base, now Layers) error {
	old, err := os.Lstat(base[0])
	if err != nil {
		return err
	}
	cur, err := os.Lstat(now[0])
	if err != nil {
		return err
	}
	unchanged, err := same(entry{old, base}, entry{cur, now})
	if err == nil && !unchanged {
		d.add("/", storage.Modified)
	}
	return err
}

func (d *differ) dir(p string, base, now Layers) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	old, err := base.entries()
	if err != nil {
		return err
	}
	cur, err := now.entries()
	if err != nil {
		return err
	}
	for name := range old {
		if _, ok := cur[name]; !ok {
			d.add(path.Join(p, name), storage.Deleted)
		}
	}
	for name, c := range cur {
		o, existed := old[name]
		if slices.Equal(o.layers, c.layers) {
			continue
		}
		if err := d.entry(path.Join(p, name), o, c, existed); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) entry(p string, old, cur entry, existed bool) error {
	if !existed {
		d.add(p, storage.Added)
	} else {
		unchanged, err := same(old, cur)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // vanished meanwhile
		}
		if err != nil {
			return err
		}
		if !unchanged {
			d.add(p, storage.Modified)
		}
	}
	if !cur.info.IsDir() {
		return nil
	}
	if existed && old.info.IsDir() {
		return d.dir(p, old.layers, cur.layers)
	}
	return d.dir(p, nil, cur.layers)
}

// DiskUsage adds up the storage of all that is seen in a directory, itself
// included, in bytes: a file with several names once, what is on another file
// system not at all.
func DiskUsage(ctx context.Context, l Layers) (int64, error) {
	info, err := os.Lstat(l[0])
	if err != nil {
		return 0, err
	}
	dev := info.Sys().(*syscall.Stat_t).Dev
	seen := make(map[uint64]bool)
	var total int64
	var add func(e entry) error
	add = func(e entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		st := e.info.Sys().(*syscall.Stat_t)
		if st.Dev != dev {
			return nil
		}
		if !e.info.IsDir() && st.Nlink > 1 {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		total += st.Blocks * 512
		if !e.info.IsDir() {
			return nil
		}
		entries, err := e.layers.entries()
		if err != nil {
			return err
		}
		for _, child := range entries {
			if err := add(child); err != nil {
				return err
			}
		}
		return nil
	}
	err = add(entry{info, l})
	return total, err
}
