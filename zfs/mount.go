package zfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/storage/treedir"
)

// Mount is storage.Driver's.
func (d *Driver) Mount(ctx context.Context, name string) (dir string, err error) {
	if err := storage.CheckName(name); err != nil {
		return "", fmt.Errorf("mount tree: %w", err)
	}
	if err := d.mount(ctx, name); err != nil {
		return "", fmt.Errorf("mount tree %s: %w", name, err)
	}
	return d.target(name), nil
}

var errReadOnly = errors.New("it is mounted read-only; is the pool imported so?")

func (d *Driver) mount(ctx context.Context, name string) (err error) {
	for range 3 {
		err = d.mountLocked(ctx, name)
		switch {
		case errors.Is(err, unix.ENODEV):
			return explain("mount", "modules are not loaded", err)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errReadOnly):
			return err
		}
		// The kernel does not tell why: there is no such tree, or it is not whole, or the
		// pool is gone. If there is one, it may have been made meanwhile.
		if _, err := d.whole(ctx, name); err != nil {
			return err
		}
	}
	return err
}

func (d *Driver) mountLocked(ctx context.Context, name string) error {
	// Else another one could take for mounted what turns out not to be whole here.
	unlock, err := d.lock(ctx, mountLock, false)
	if err != nil {
		return err
	}
	defer unlock()
	target := d.target(name)
	if mounted, err := isMountpoint(target); err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	err = patiently(ctx, aMoment, func() error {
		err := d.mountTree(name, target)
		if errors.Is(err, unix.EBUSY) {
			_ = detach(d.view(name)) // FreeBSD mounts a dataset once; a crash may have left that
		}
		return err
	})
	if err != nil {
		d.forget(name)
	}
	return err
}

// mountTree mounts a tree: read-only if it is sealed. Errors: ErrNotExist, errReadOnly
// (the tree is not whole), EBUSY.
func (d *Driver) mountTree(name, target string) error {
	if _, known := d.unsealed.Load(name); !known {
		err := attach(d.fs(name)+sealSuffix, target, true)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := attach(d.fs(name), target, false); err != nil {
		return err
	}
	readOnly, err := isReadOnly(target)
	if err == nil && readOnly {
		err = errReadOnly
	}
	if err != nil {
		return errors.Join(err, detach(target))
	}
	return nil
}

// Unmount is storage.Driver's.
func (d *Driver) Unmount(ctx context.Context, name string) error {
	if err := storage.CheckName(name); err != nil {
		return fmt.Errorf("unmount tree: %w", err)
	}
	target := d.target(name)
	err := patiently(ctx, aMoment, func() error {
		mounted, err := isMountpoint(target)
		if err != nil || !mounted {
			return err
		}
		return detach(target)
	})
	if err != nil {
		return fmt.Errorf("unmount tree %s: %w", name, err)
	}
	return nil
}

// aMoment is how long a process that was killed may still hold its files.
const aMoment = 256 * time.Millisecond

// patiently repeats what fails with EBUSY for that long. Errors: ErrBusy after that.
func patiently(ctx context.Context, long time.Duration, do func() error) error {
	end := time.Now().Add(long)
	for wait := time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := do()
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("in use: %w", storage.ErrBusy)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// Diff is storage.Driver's.
func (d *Driver) Diff(ctx context.Context, name string) ([]storage.Change, error) {
	changes, err := d.diff(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("compare tree %s: %w", name, err)
	}
	return changes, nil
}

func (d *Driver) diff(ctx context.Context, name string) (_ []storage.Change, err error) {
	k, err := d.whole(ctx, name)
	if err != nil {
		return nil, err
	}
	now, release, err := d.show(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	var base treedir.Layers
	if k.Origin != "" {
		dir, release, err := d.show(ctx, k.Origin)
		if err != nil {
			return nil, fmt.Errorf("origin %s: %w", k.Origin, err)
		}
		defer func() { err = errors.Join(err, release()) }()
		base = treedir.Layers{dir}
	}
	return treedir.Diff(ctx, base, treedir.Layers{now})
}

// show gives a directory with a tree's files, until release is called: where it is
// mounted, or else a mount of its own, which nobody else takes for the tree's. The
// directory is held open, so that it cannot be unmounted; whoever of several users is
// the last unmounts it.
func (d *Driver) show(ctx context.Context, name string) (dir string, release func() error, err error) {
	view := d.view(name)
	var held *os.File
	err = patiently(ctx, aMoment, func() error {
		for _, dir := range []string{d.target(name), view} {
			if held, err = hold(dir); err != nil || held != nil {
				return err
			}
		}
		if err := os.MkdirAll(view, 0o700); err != nil {
			return err
		}
		// EBUSY: somebody was faster; then that is what to look at.
		if err := d.mountTree(name, view); err != nil {
			return err
		}
		held, err = hold(view)
		if err == nil && held == nil {
			err = unix.EBUSY // somebody has just unmounted it
		}
		return err
	})
	if err != nil {
		return "", nil, err
	}
	return held.Name(), func() error {
		err := held.Close()
		if held.Name() == view {
			_ = detach(view) // EBUSY: somebody else still looks at it
			_ = os.Remove(view)
			_ = os.Remove(filepath.Dir(view))
		}
		return err
	}, nil
}

// hold opens dir if something is mounted there, else it gives nil.
func hold(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	mounted, err := isMounted(f, dir)
	if err == nil && mounted {
		return f, nil
	}
	return nil, errors.Join(err, f.Close())
}
