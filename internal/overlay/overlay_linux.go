package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/storage/treedir"
)

// Driver is a storage.Driver.
type Driver struct {
	*treedir.Trees
}

var _ storage.Driver = (*Driver)(nil)

// Open makes dir, which must be absolute, a storage unless it is one. Whether
// mounting works there is not tried; see Supported.
func Open(dir string) (*Driver, error) {
	trees, err := treedir.Open(dir, treeMounted, treeMounted)
	if err != nil {
		return nil, err
	}
	return &Driver{trees}, nil
}

func merged(treeDir string) string { return filepath.Join(treeDir, "merged") }

func treeMounted(treeDir string) (bool, error) { return isMountpoint(merged(treeDir)) }

// Info is storage.Driver's.
func (d *Driver) Info() storage.Info {
	return storage.Info{Name: "overlay", SharedClones: true, EnforcesSeal: true, MountsTrees: true}
}

// Clone is storage.Driver's.
func (d *Driver) Clone(ctx context.Context, origin, name string, opts storage.Options) error {
	return d.Trees.Clone(ctx, origin, name, opts, copyTop)
}

// copyTop makes the top directory of an upper layer, of which the mounted tree
// shows the metadata and not those of the layers below.
func copyTop(origin, files string) error {
	info, err := os.Lstat(origin)
	if err != nil {
		return err
	}
	if err := os.Mkdir(files, 0o700); err != nil {
		return err
	}
	return treedir.CopyMetadata(files, origin, info)
}

// layers are the layers of a tree, its own first, and those of its origin.
func (d *Driver) layers(name string, rec treedir.Record) (own, below treedir.Layers) {
	for _, origin := range rec.Origins {
		below = append(below, d.Files(origin))
	}
	return append(treedir.Layers{d.Files(name)}, below...), below
}

// Mount is storage.Driver's.
func (d *Driver) Mount(ctx context.Context, name string) (dir string, err error) {
	if dir, err = d.mount(ctx, name); err != nil {
		return "", fmt.Errorf("mount tree %s: %w", name, err)
	}
	return dir, nil
}

func (d *Driver) mount(ctx context.Context, name string) (string, error) {
	unlock, err := d.Lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	rec, err := d.Load(name)
	if err != nil {
		return "", err
	}
	target, work := merged(d.Dir(name)), filepath.Join(d.Dir(name), "work")
	if mounted, err := isMountpoint(target); err != nil || mounted {
		return target, err
	}
	for _, dir := range []string{target, work} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	own, below := d.layers(name, rec)
	switch {
	case below == nil:
		err = bind(d.Files(name), target, rec.Sealed)
	case rec.Sealed:
		err = mountOverlay(name, target, own, "", "")
	default:
		err = mountOverlay(name, target, below, d.Files(name), work)
	}
	return target, err
}

// Unmount is storage.Driver's.
func (d *Driver) Unmount(ctx context.Context, name string) error {
	if err := storage.CheckName(name); err != nil {
		return fmt.Errorf("unmount tree: %w", err)
	}
	if err := unmount(ctx, merged(d.Dir(name))); err != nil {
		return fmt.Errorf("unmount tree %s: %w", name, err)
	}
	return nil
}

// unmount tries for a quarter of a second: a process that was killed may hold
// its files for a moment longer.
func unmount(ctx context.Context, target string) error {
	for wait := time.Millisecond; ; wait *= 2 {
		mounted, err := isMountpoint(target)
		if err != nil || !mounted {
			return err
		}
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if wait > 128*time.Millisecond {
			return fmt.Errorf("in use: %w", storage.ErrBusy)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// Usage is storage.Driver's.
func (d *Driver) Usage(ctx context.Context, name string) (storage.Usage, error) {
	rec, err := d.Load(name)
	if err != nil {
		return storage.Usage{}, fmt.Errorf("measure tree: %w", err)
	}
	own, errOwn := treedir.DiskUsage(ctx, treedir.Layers{d.Files(name)})
	all, _ := d.layers(name, rec)
	logical, errAll := treedir.DiskUsage(ctx, all)
	if err := errors.Join(errOwn, errAll); err != nil {
		return storage.Usage{}, fmt.Errorf("measure tree %s: %w", name, err)
	}
	return storage.Usage{Own: own, Logical: logical}, nil
}

// Diff is storage.Driver's. It reads the layers, so nothing need be mounted.
func (d *Driver) Diff(ctx context.Context, name string) ([]storage.Change, error) {
	rec, err := d.Load(name)
	if err != nil {
		return nil, fmt.Errorf("compare tree: %w", err)
	}
	now, base := d.layers(name, rec)
	changes, err := treedir.Diff(ctx, base, now)
	if err != nil {
		return nil, fmt.Errorf("compare tree %s: %w", name, err)
	}
	return changes, nil
}
