// Package plaindir keeps trees as plain directories: the storage of last resort,
// for file systems that offer nothing better, and the storage of other
// packages' tests.
//
// A clone is a copy. Its data is shared with the origin only where the file
// system can do so in copy_file_range(2) (btrfs, xfs, ZFS with block cloning).
// While a copy is made, the storage is locked against other changes. Nothing is
// mounted, so a seal is a promise and not enforced, and nodev is not either. Run
// without root's privilege, it keeps neither owners nor attributes other than
// "user.*", and fails on what its user may not read or remove.
//
// Not for: hosts where internal/overlay or zfs works.
package plaindir

import (
	"context"
	"fmt"

	"github.com/moby/sys/mountinfo"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/storage/treedir"
)

// Driver is a storage.Driver.
type Driver struct {
	*treedir.Trees
}

var _ storage.Driver = (*Driver)(nil)

// Open makes dir, which must be absolute, a storage unless it is one.
func Open(dir string) (*Driver, error) {
	trees, err := treedir.Open(dir, neverMounted, hasMounts)
	if err != nil {
		return nil, err
	}
	return &Driver{trees}, nil
}

func neverMounted(string) (bool, error) { return false, nil }

// hasMounts tells whether anything, such as a volume of a pod, is mounted in a
// tree: removing the tree would go on in there.
func hasMounts(treeDir string) (bool, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(treeDir))
	if err != nil {
		return false, fmt.Errorf("read mount table: %w", err)
	}
	return len(mounts) > 0, nil
}

// Info is storage.Driver's.
func (d *Driver) Info() storage.Info { return storage.Info{Name: "plaindir"} }

// Clone is storage.Driver's.
func (d *Driver) Clone(ctx context.Context, origin, name string, opts storage.Options) error {
	return d.Trees.Clone(ctx, origin, name, opts, func(from, files string) error {
		return copyTree(ctx, files, from)
	})
}

// Mount is storage.Driver's.
func (d *Driver) Mount(_ context.Context, name string) (dir string, err error) {
	if _, err := d.Load(name); err != nil {
		return "", fmt.Errorf("mount tree: %w", err)
	}
	return d.Files(name), nil
}

// Unmount is storage.Driver's.
func (d *Driver) Unmount(_ context.Context, name string) error {
	if err := storage.CheckName(name); err != nil {
		return fmt.Errorf("unmount tree: %w", err)
	}
	return nil
}

// Usage is storage.Driver's. What a clone shares with its origin counts for both.
func (d *Driver) Usage(ctx context.Context, name string) (storage.Usage, error) {
	if _, err := d.Load(name); err != nil {
		return storage.Usage{}, fmt.Errorf("measure tree: %w", err)
	}
	size, err := treedir.DiskUsage(ctx, treedir.Layers{d.Files(name)})
	if err != nil {
		return storage.Usage{}, fmt.Errorf("measure tree %s: %w", name, err)
	}
	return storage.Usage{Own: size, Logical: size}, nil
}

// Diff is storage.Driver's. It walks both trees.
func (d *Driver) Diff(ctx context.Context, name string) ([]storage.Change, error) {
	rec, err := d.Load(name)
	if err != nil {
		return nil, fmt.Errorf("compare tree: %w", err)
	}
	var base treedir.Layers
	if len(rec.Origins) > 0 {
		base = treedir.Layers{d.Files(rec.Origins[0])}
	}
	changes, err := treedir.Diff(ctx, base, treedir.Layers{d.Files(name)})
	if err != nil {
		return nil, fmt.Errorf("compare tree %s: %w", name, err)
	}
	return changes, nil
}
