package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/appc/spec/schema"
	"github.com/gofrs/flock"
	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/revert"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// Store is the images of one root. Several processes may use it at a time.
//
// On disk: index.db, and per image a directory <id>/ with the file as it came;
// the driver holds the tree "images/<id>". A draft is a directory .import-<uuid>
// with a lock held by the importing process, and a tree "imports/<uuid>". The
// index is written last: an image exists when the index says so.
type Store struct {
	dir    string
	driver storage.Driver
}

const (
	indexName   = "index.db"
	fileName    = "aci"
	draftPrefix = ".import-"
	treeKind    = "images"
	draftKind   = "imports"
)

var bucket = []byte("images")

// Init makes an empty store in dir, or leaves the one that is there.
func Init(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create image store: %w", err)
	}
	db, err := bbolt.Open(filepath.Join(dir, indexName), 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return fmt.Errorf("create image index: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("create image index: %w", err)
	}
	return nil
}

// Open opens the store that Init made in dir. Errors: ErrNotInitialized.
func Open(dir string, driver storage.Driver) (*Store, error) {
	if _, err := os.Stat(filepath.Join(dir, indexName)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", dir, ErrNotInitialized)
		}
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return &Store{dir: dir, driver: driver}, nil
}

// Tree is the name of the sealed storage tree that holds an image's root.
func Tree(id ID) string { return treeKind + "/" + string(id) }

// lockTimeout bounds the wait for another process's transaction, each of which
// takes milliseconds.
const lockTimeout = 30 * time.Second

// transact runs fn in one transaction and closes the database again: no handle
// outlives it, so that no process can keep the others out.
func (s *Store) transact(writable bool, fn func(b *bbolt.Bucket) error) (err error) {
	db, err := bbolt.Open(filepath.Join(s.dir, indexName), 0o600,
		&bbolt.Options{Timeout: lockTimeout, ReadOnly: !writable})
	if err != nil {
		return fmt.Errorf("open image index: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	run := db.View
	if writable {
		run = db.Update
	}
	return run(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if b == nil {
			return fmt.Errorf("%s: %w", s.dir, ErrNotInitialized)
		}
		return fn(b)
	})
}

// List gives all images, by name, then newest version first. Errors: ErrDamaged,
// for a single entry that cannot be read: nobody knows what it would have been.
func (s *Store) List(ctx context.Context) ([]*Image, error) {
	images, damaged, err := s.scan(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(damaged)) {
		return nil, damaged[id]
	}
	slices.SortFunc(images, compare)
	return images, nil
}

// scan reads the index; damaged says what is wrong with the entries, by key, that
// cannot be read.
func (s *Store) scan(ctx context.Context) (images []*Image, damaged map[ID]error, err error) {
	damaged = map[ID]error{}
	err = s.transact(false, func(b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if img, err := decode(k, v); err != nil {
				damaged[ID(k)] = err
			} else {
				images = append(images, img)
			}
			return ctx.Err()
		})
	})
	return images, damaged, err
}

// compare puts what a user means by a name first: the highest version, then the
// newest import; the ID makes the order total.
func compare(a, b *Image) int {
	if c := strings.Compare(a.Name(), b.Name()); c != 0 {
		return c
	}
	av, bv := a.Label("version"), b.Label("version")
	switch {
	case manifest.LessVersion(av, bv):
		return 1
	case manifest.LessVersion(bv, av):
		return -1
	}
	if c := b.Imported.Compare(a.Imported); c != 0 {
		return c
	}
	return strings.Compare(string(a.ID), string(b.ID))
}

func decode(key, value []byte) (*Image, error) {
	img := new(Image)
	if err := json.Unmarshal(value, img); err != nil {
		return nil, fmt.Errorf("index entry %.160q: %w: %w", key, ErrDamaged, err)
	}
	if _, err := ParseID(string(key)); err != nil || string(img.ID) != string(key) {
		return nil, fmt.Errorf("index entry %.160q: %w: it is of image %.160q", key, ErrDamaged, img.ID)
	}
	m, _, err := manifest.ParseImage(img.Manifest)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w: %w", img.ID.Short(), ErrDamaged, err)
	}
	img.parsed = m
	return img, nil
}

// minPrefix is how many hexadecimal digits make an ID prefix.
const minPrefix = 8

// Find gives the image that a user means: a whole ID, a unique prefix of one with
// at least 8 digits ("sha512-" may be left out when there is no such name), or
// name[:version][,label=value]…; of several with that name the highest version,
// then the newest import. Errors: ErrNotFound, ErrAmbiguous, or that of a
// malformed name.
func (s *Store) Find(ctx context.Context, name string) (*Image, error) {
	images, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	if digits, ok := strings.CutPrefix(name, "sha512-"); ok {
		return byPrefix(images, name, digits)
	}
	ref, err := manifest.ParseRef(name)
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		if ref.Matches(img.parsed) {
			return img, nil
		}
	}
	if img, err := byPrefix(images, name, name); err == nil || errors.Is(err, ErrAmbiguous) {
		return img, err
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
}

func byPrefix(images []*Image, name, digits string) (*Image, error) {
	if len(digits) < minPrefix {
		return nil, fmt.Errorf("%s: %w (an ID prefix needs at least %d digits)", name, ErrNotFound, minPrefix)
	}
	var found *Image
	for _, img := range images {
		if !strings.HasPrefix(string(img.ID), "sha512-"+digits) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s: %w: it could be %s or %s", name, ErrAmbiguous, found.ID, img.ID)
		}
		found = img
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return found, nil
}

// Get gives the image of an ID. Errors: ErrNotFound.
func (s *Store) Get(_ context.Context, id ID) (img *Image, err error) {
	err = s.transact(false, func(b *bbolt.Bucket) error {
		v := b.Get([]byte(id))
		if v == nil {
			return fmt.Errorf("%s: %w", id.Short(), ErrNotFound)
		}
		img, err = decode([]byte(id), v)
		return err
	})
	return img, err
}

// File opens the archive as it came in. Errors: ErrDamaged when it is gone.
func (s *Store) File(id ID) (*os.File, error) {
	f, err := os.Open(filepath.Join(s.imageDir(id), fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("image %s: %w: its file is gone", id.Short(), ErrDamaged)
	}
	return f, err
}

// Remove takes an image out of the store, all or nothing: what clones it keeps it.
// Errors: ErrNotFound, ErrInUse.
func (s *Store) Remove(ctx context.Context, id ID) error {
	return s.exclusively(ctx, func() error {
		if _, err := s.Get(ctx, id); err != nil {
			return err
		}
		return s.remove(ctx, id)
	})
}

// remove takes away all there is of an image, the store being locked. The tree
// goes first, because it alone can refuse; what a crash leaves after it is an
// entry without a tree, which Debris reports, then files without an entry.
func (s *Store) remove(ctx context.Context, id ID) error {
	err := storage.Remove(ctx, s.driver, Tree(id))
	if errors.Is(err, storage.ErrBusy) {
		return fmt.Errorf("%s: %w", id.Short(), ErrInUse)
	}
	if err == nil {
		err = s.forget(id)
	}
	if err == nil {
		err = os.RemoveAll(s.imageDir(id))
	}
	if err != nil {
		return fmt.Errorf("remove image %s: %w", id.Short(), err)
	}
	return nil
}

// forget takes an image out of the index.
func (s *Store) forget(id ID) error {
	return s.transact(true, func(b *bbolt.Bucket) error { return b.Delete([]byte(id)) })
}

func (s *Store) imageDir(id ID) string { return filepath.Join(s.dir, string(id)) }

// lock serializes what publishes and removes images, across processes.
func (s *Store) lock(ctx context.Context) (unlock func() error, err error) {
	l := flock.New(filepath.Join(s.dir, "lock"), flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock image store: %w", err)
	}
	return l.Close, nil
}

// exclusively runs do under the store's lock.
func (s *Store) exclusively(ctx context.Context, do func() error) (err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return do()
}

// Draft is an image on its way in: invisible until Commit, gone after Discard or
// a crash. Its owner calls Discard in any case.
type Draft struct {
	// File is where the archive is kept, open for reading and writing.
	File *os.File
	// Root is the directory for the image's root file system.
	Root string

	store     *Store
	id        string
	lock      *flock.Flock
	committed bool
}

func (d *Draft) dir() string  { return filepath.Join(d.store.dir, draftPrefix+d.id) }
func (d *Draft) tree() string { return draftKind + "/" + d.id }

// Begin starts a draft; quota bounds its tree in bytes where the driver can.
func (s *Store) Begin(ctx context.Context, quota int64) (_ *Draft, err error) {
	d := &Draft{store: s, id: uuid.NewString()}
	// Debris must not see a draft without its lock, nor a tree without its draft.
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
	if err := os.Mkdir(d.dir(), 0o700); err != nil {
		return nil, fmt.Errorf("begin import: %w", err)
	}
	d.lock = flock.New(filepath.Join(d.dir(), "lock"), flock.SetPermissions(0o600))
	if err := d.lock.Lock(); err != nil {
		return nil, fmt.Errorf("begin import: %w", err)
	}
	if d.File, err = os.OpenFile(filepath.Join(d.dir(), fileName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, fmt.Errorf("begin import: %w", err)
	}
	if !s.driver.Info().Quota {
		quota = 0
	}
	if err := s.driver.Create(ctx, d.tree(), storage.Options{Quota: quota}); err != nil {
		return nil, fmt.Errorf("begin import: %w", err)
	}
	if d.Root, err = s.driver.Mount(ctx, d.tree()); err != nil {
		return nil, fmt.Errorf("begin import: %w", err)
	}
	return d, nil
}

// Commit publishes the draft as img and returns the image as the store knows it.
// An image that is there already stays as it is: importing twice is importing once.
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
	if err := errors.Join(d.File.Sync(), d.File.Close()); err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}
	d.File = nil
	value, err := json.Marshal(img)
	if err != nil {
		return nil, fmt.Errorf("commit image: %w", err)
	}

	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	known, err := s.Get(ctx, img.ID)
	switch {
	case err == nil:
		if _, err := s.driver.Stat(ctx, Tree(img.ID)); err == nil {
			return known, nil
		} else if !errors.Is(err, storage.ErrNotFound) {
			return nil, fmt.Errorf("commit image: %w", err)
		}
	case !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged):
		return nil, err
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
	if err := moveFile(filepath.Join(d.dir(), fileName), s.imageDir(id)); err != nil {
		return err
	}
	undo.Add(func() error { return s.forget(id) })
	if err := s.transact(true, func(b *bbolt.Bucket) error { return b.Put([]byte(id), value) }); err != nil {
		return err
	}
	undo.Disarm()
	return nil
}

// moveFile puts file into the new directory dir, durably.
func moveFile(file, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Rename(file, filepath.Join(dir, filepath.Base(file))); err != nil {
		return err
	}
	return errors.Join(atomicfile.SyncDir(dir), atomicfile.SyncDir(filepath.Dir(dir)))
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
	errs = append(errs, os.RemoveAll(d.dir()))
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

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
	debris = slices.Concat(debris, files, trees, drafts)
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

// Name is the image's name.
func (i *Image) Name() string { return string(i.parsed.Name) }

// Label is the value of a label, or "".
func (i *Image) Label(name string) string {
	v, _ := i.parsed.GetLabel(name)
	return v
}

// Parsed is the manifest. It is shared: not to be changed.
func (i *Image) Parsed() *schema.ImageManifest { return i.parsed }
