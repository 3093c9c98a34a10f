package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"github.com/jetpack-run/jetpack/internal/failpoint"
)

// Lease is a volume in use: it stays, and stays mounted, until Release or the end
// of the process.
type Lease struct {
	// Dir is where the volume is mounted.
	Dir string

	store *Store
	name  string
	lock  *flock.Flock
}

// Acquire takes a lease of a volume, beside those of others. Errors: ErrNotFound,
// ErrDamaged, ErrInvalid.
func (s *Store) Acquire(ctx context.Context, name string) (l *Lease, err error) {
	err = s.exclusively(ctx, func() error {
		l, err = s.acquire(ctx, name)
		return err
	})
	return l, err
}

func (s *Store) acquire(ctx context.Context, name string) (*Lease, error) {
	t, err := s.stat(ctx, name)
	if err != nil {
		return nil, err
	}
	l := &Lease{store: s, name: name}
	if l.lock, err = s.share(name + lockSuffix); err != nil {
		return nil, fmt.Errorf("volume %s: %w", name, err)
	}
	if l.Dir, err = s.Driver.Mount(ctx, t.Name); err != nil {
		return nil, errors.Join(notFound(name, err), l.release(context.WithoutCancel(ctx)))
	}
	return l, nil
}

// Release gives the lease back, in any case, and unmounts the volume if nobody
// else has one. An error means that it is still mounted, as when a process of the
// host uses it: then it is debris.
func (l *Lease) Release(ctx context.Context) error {
	err := l.store.exclusively(ctx, func() error { return l.release(ctx) })
	return errors.Join(err, l.lock.Close()) // when the store could not be locked
}

func (l *Lease) release(ctx context.Context) error {
	if err := l.lock.Close(); err != nil {
		return fmt.Errorf("release volume %s: %w", l.name, err)
	}
	return l.store.unmountUnused(ctx, l.name)
}

// unmountUnused unmounts a volume unless it is leased, the store being locked.
func (s *Store) unmountUnused(ctx context.Context, name string) error {
	if leased, err := s.leased(name); err != nil || leased {
		return err
	}
	if err := s.Driver.Unmount(ctx, tree(name)); err != nil {
		return fmt.Errorf("unmount volume %s: %w", name, err)
	}
	return nil
}

// share takes a shared lock on a file of the store, the store being locked.
func (s *Store) share(file string) (*flock.Flock, error) {
	l := flock.New(filepath.Join(s.Dir, file))
	err := failpoint.Do(s.Points, "lock "+file, func() error {
		ok, err := l.TryRLock()
		if err == nil && !ok {
			err = fmt.Errorf("lock %s: another program holds it", filepath.Join(s.Dir, file))
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// leased tells whether anybody has a lease, the store being locked.
func (s *Store) leased(name string) (bool, error) { return locked(s.lockPath(name)) }

// locked tells whether anybody holds the lock file.
func locked(path string) (bool, error) {
	l := flock.New(path, flock.SetFlag(os.O_RDONLY))
	ok, err := l.TryLock()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return !ok, errors.Join(err, l.Close())
}
