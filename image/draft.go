package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"github.com/google/uuid"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/revert"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// Draft is an image on its way in: invisible until Commit, gone after Discard or
// a crash. Its owner calls Discard in any case.
type Draft struct {
	// File is where the archive is kept, open for reading and writing.
	File *os.File
	// Root is the directory for the image's root file system, after MakeRoot.
	Root string

	store     *Store
	id        string
	path      string // of File
	lock      *flock.Flock
	committed bool
}

func (d *Draft) dir() string  { return filepath.Join(d.store.dir, draftPrefix+d.id) }
func (d *Draft) tree() string { return draftKind + "/" + d.id }

// Begin starts a draft, so far without a root.
func (s *Store) Begin(ctx context.Context) (_ *Draft, err error) {
	d := &Draft{store: s, id: uuid.NewString()}
	// Debris must not see a draft without its lock.
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Discard(ctx))
		}
	}()
	step := func(name string, do func() error) {
		if err == nil {
			err = failpoint.Do(s.Points, name, do)
		}
	}
	step("make draft", func() error { return os.Mkdir(d.dir(), 0o700) })
	d.lock = flock.New(filepath.Join(d.dir(), "lock"), flock.SetPermissions(0o600))
	step("lock draft", d.lock.Lock)
	d.path = filepath.Join(d.dir(), fileName)
	step("make draft file", func() (err error) {
		d.File, err = os.OpenFile(d.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("begin import: %w", err)
	}
	return d, nil
}

// Use makes file, which is on the store's file system and which nobody else writes, the
// draft's in place of the empty one. Commit moves it into the store; until then it
// stays where it is. The draft closes it.
func (d *Draft) Use(file *os.File) error {
	empty := d.File
	d.File, d.path = file, file.Name()
	return empty.Close()
}

// MakeRoot gives the draft its root: a clone of origin's, or an empty one for nil.
// quota bounds what it takes itself, in bytes, where the driver can. Errors:
// ErrNotFound when origin has just been removed, ErrDamaged when its tree is lost.
func (d *Draft) MakeRoot(ctx context.Context, origin *Image, quota int64) (err error) {
	driver := d.store.driver
	if !driver.Info().Quota {
		quota = 0
	}
	if origin == nil {
		err = driver.Create(ctx, d.tree(), storage.Options{Quota: quota})
	} else if err = driver.Clone(ctx, Tree(origin.ID), d.tree(), storage.Options{Quota: quota}); errors.Is(err, storage.ErrNotFound) {
		if _, err := d.store.Get(ctx, origin.ID); err != nil {
			return err
		}
		return d.store.Check(ctx, origin)
	}
	if err != nil {
		return fmt.Errorf("begin import: %w", err)
	}
	if d.Root, err = driver.Mount(ctx, d.tree()); err != nil {
		return fmt.Errorf("begin import: %w", err)
	}
	return nil
}

// WithRoot gives do a directory with an image's root: that of a clone, since nobody
// counts who else has the image's own tree mounted. Errors: those of MakeRoot.
func (s *Store) WithRoot(ctx context.Context, img *Image, do func(root string) error) (err error) {
	d, err := s.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Discard(ctx)) }()
	if err := d.MakeRoot(ctx, img, 0); err != nil {
		return err
	}
	return do(d.Root)
}

// Commit publishes the draft as img and returns the image as the store knows it.
// An image that is there already stays as it is, importing twice is importing once;
// but the file that came with it, of which nobody knows whether it still is what it
// was, is replaced by the draft's, and with it goes what vouches for it. A signed file
// gives way only to a signed one.
// Errors: ErrNotFound when a dependency was removed meanwhile.
func (d *Draft) Commit(ctx context.Context, img Image) (_ *Image, err error) {
	if _, err := ParseID(string(img.ID)); err != nil {
		return nil, err
	}
	s := d.store
	m, _, err := manifest.ParseImage(img.Manifest)
	if err != nil {
		return nil, err
	}
	img.parsed = m
	// The slow, durable part comes before the lock.
	if err := s.driver.Unmount(ctx, d.tree()); err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}
	if err := s.driver.Seal(ctx, d.tree()); err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}
	file := d.File
	d.File = nil
	err = failpoint.Do(s.Points, "sync draft file", func() error { return errors.Join(file.Sync(), file.Close()) })
	if err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}
	value, err := json.Marshal(img)
	if err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}

	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if known, err := d.known(ctx, img); known != nil || err != nil {
		return known, err
	}
	for _, id := range img.Dependencies {
		if _, err := s.Get(ctx, id); err != nil {
			return nil, fmt.Errorf("commit image: %w", err)
		}
	}
	// What lies there now is debris of a crash in this place, or of a damaged
	// image, which is mended so.
	if err := s.remove(ctx, img.ID); err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}
	if err := d.publish(ctx, img.ID, value); err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}
	d.committed = true
	return &img, nil
}

// known gives the image that is there already, with its file restored; nil if there
// is none, or one that is damaged in another way.
func (d *Draft) known(ctx context.Context, img Image) (*Image, error) {
	s := d.store
	known, err := s.Get(ctx, img.ID)
	if errors.Is(err, ErrNotFound) || errors.Is(err, errEntry) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = s.driver.Stat(ctx, Tree(img.ID))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}
	fi, err := os.Stat(filepath.Join(s.imageDir(img.ID), fileName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("commit image: %w", err)
	}
	there := err == nil && fi.Size() == known.FileSize
	switch {
	case there && known.Signature != nil && img.Signature == nil:
		return known, nil
	case there && known.Signature == nil && img.Signature == nil && img.FileSize != known.FileSize:
		return known, nil // the draft's is compressed in another way
	case img.Signature != nil || known.Signature != nil:
		known.Signature, known.Insecure, known.Origin, known.ETag = img.Signature, img.Insecure, img.Origin, img.ETag
	}
	known.FileSize, known.Compression = img.FileSize, img.Compression
	value, err := json.Marshal(known)
	if err == nil {
		err = d.moveFile(img.ID)
	}
	if err == nil {
		err = s.enter(img.ID, value)
	}
	if err != nil {
		return nil, fmt.Errorf("commit image: restore its file: %w", err)
	}
	return known, nil
}

// publish gives the draft's tree and file to an image, and enters it in the index.
func (d *Draft) publish(ctx context.Context, id ID, value []byte) (err error) {
	s := d.store
	var undo revert.Stack
	defer undo.Run(&err)
	// Before the steps: one that fails may have been done all the same.
	undo.Add(func() error { return storage.Remove(context.WithoutCancel(ctx), s.driver, Tree(id)) })
	if err := s.driver.Rename(ctx, d.tree(), Tree(id)); err != nil {
		return err
	}
	undo.Add(func() error { return os.RemoveAll(s.imageDir(id)) })
	if err := d.moveFile(id); err != nil {
		return err
	}
	undo.Add(func() error { return s.forget(id) })
	if err := s.enter(id, value); err != nil {
		return err
	}
	undo.Disarm()
	return nil
}

// moveFile gives the draft's file to an image, durably.
func (d *Draft) moveFile(id ID) error {
	dir := d.store.imageDir(id)
	err := failpoint.Do(d.store.Points, "make image directory", func() error { return os.MkdirAll(dir, 0o700) })
	if err != nil {
		return err
	}
	return failpoint.Do(d.store.Points, "move image file", func() error {
		if err := os.Rename(d.path, filepath.Join(dir, fileName)); err != nil {
			return err
		}
		return errors.Join(atomicfile.SyncDir(dir), atomicfile.SyncDir(d.store.dir))
	})
}

// Discard removes what the draft still holds. After Commit that is next to nothing.
func (d *Draft) Discard(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	if d.File != nil {
		errs = append(errs, d.File.Close())
		d.File = nil
	}
	if !d.committed {
		errs = append(errs, storage.Remove(ctx, d.store.driver, d.tree()))
	}
	errs = append(errs, failpoint.Do(d.store.Points, "remove draft", func() error { return os.RemoveAll(d.dir()) }))
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}
