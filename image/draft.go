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

// Temp makes a file for work on the draft, which is gone with it. The caller closes it.
func (d *Draft) Temp() (*os.File, error) { return os.CreateTemp(d.dir(), "temp") }

// MakeRoot gives the draft its root: a clone of origin's, or an empty one for nil.
// quota bounds what it takes itself, in bytes, where the driver can. Errors:
// ErrNotFound when origin has just been removed, ErrDamaged when its tree is lost.
func (d *Draft) MakeRoot(ctx context.Context, origin *Image, quota int64) error {
	if origin == nil {
		return d.makeRoot(ctx, "", quota)
	}
	err := d.makeRoot(ctx, Tree(origin.ID), quota)
	if errors.Is(err, storage.ErrNotFound) {
		if _, err := d.store.Get(ctx, origin.ID); err != nil {
			return err
		}
		return d.store.Check(ctx, origin)
	}
	return err
}

// makeRoot makes the root as a clone of a tree, or an empty one for "".
func (d *Draft) makeRoot(ctx context.Context, origin string, quota int64) (err error) {
	driver := d.store.driver
	if !driver.Info().Quota {
		quota = 0
	}
	if origin == "" {
		err = driver.Create(ctx, d.tree(), storage.Options{Quota: quota})
	} else {
		err = driver.Clone(ctx, origin, d.tree(), storage.Options{Quota: quota})
	}
	if err == nil {
		d.Root, err = driver.Mount(ctx, d.tree())
	}
	if err != nil {
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
// gives way only to a signed one. An OCI image has no file: it is its layers, which the
// caller has pinned and committed.
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
	if err := d.finish(ctx); err != nil {
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
	for _, l := range img.Layers() {
		if there, err := s.hasTree(ctx, LayerTree(l.ChainID)); err != nil || !there {
			return nil, errors.Join(fmt.Errorf("commit image: %w: layer %s is gone; import it again", ErrDamaged, l.ChainID), err)
		}
	}
	// What lies there now is debris of a crash in this place, or of a damaged
	// image, which is mended so.
	if err := s.remove(ctx, img.ID); err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}
	if err := d.publish(ctx, img, value); err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}
	d.committed = true
	return &img, nil
}

// finish makes the draft's tree and file durable: the slow part, which comes before the
// lock.
func (d *Draft) finish(ctx context.Context) error {
	driver := d.store.driver
	if err := driver.Unmount(ctx, d.tree()); err != nil {
		return err
	}
	if err := driver.Seal(ctx, d.tree()); err != nil {
		return err
	}
	file := d.File
	d.File = nil
	return failpoint.Do(d.store.Points, "sync draft file", func() error { return errors.Join(file.Sync(), file.Close()) })
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
	if img.OCI != nil {
		return known, d.reoriginate(known, img)
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
		err = d.moveFile(s.imageDir(img.ID), fileName)
	}
	if err == nil {
		err = s.enter(img.ID, value)
	}
	if err != nil {
		return nil, fmt.Errorf("commit image: restore its file: %w", err)
	}
	return known, nil
}

// reoriginate records where an OCI image that is there came from this time, if it was
// admitted with less waived than before.
func (d *Draft) reoriginate(known *Image, img Image) error {
	if len(img.Insecure) >= len(known.Insecure) {
		return nil
	}
	known.Origin, known.Insecure, known.OCI.Digest = img.Origin, img.Insecure, img.OCI.Digest
	value, err := json.Marshal(known)
	if err == nil {
		err = d.store.enter(img.ID, value)
	}
	return err
}

// publish gives the draft's tree and file to an image, and enters it in the index.
func (d *Draft) publish(ctx context.Context, img Image, value []byte) (err error) {
	s, id := d.store, img.ID
	var undo revert.Stack
	defer undo.Run(&err)
	// Before the steps: one that fails may have been done all the same.
	undo.Add(func() error { return storage.Remove(context.WithoutCancel(ctx), s.driver, Tree(id)) })
	if err := s.driver.Rename(ctx, d.tree(), Tree(id)); err != nil {
		return err
	}
	undo.Add(func() error { return os.RemoveAll(s.imageDir(id)) })
	if img.OCI != nil {
		err = d.makeDir(s.imageDir(id))
	} else {
		err = d.moveFile(s.imageDir(id), fileName)
	}
	if err != nil {
		return err
	}
	undo.Add(func() error { return s.forget(id) })
	if err := s.enter(id, value); err != nil {
		return err
	}
	undo.Disarm()
	return nil
}

// moveFile gives the draft's file to an image or a layer, durably.
func (d *Draft) moveFile(dir, name string) error {
	if err := d.makeDir(dir); err != nil {
		return err
	}
	return failpoint.Do(d.store.Points, "move image file", func() error {
		if err := os.Rename(d.path, filepath.Join(dir, name)); err != nil {
			return err
		}
		return errors.Join(atomicfile.SyncDir(dir), atomicfile.SyncDir(filepath.Dir(dir)), atomicfile.SyncDir(d.store.dir))
	})
}

func (d *Draft) makeDir(dir string) error {
	return failpoint.Do(d.store.Points, "make image directory", func() error { return os.MkdirAll(dir, 0o700) })
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
