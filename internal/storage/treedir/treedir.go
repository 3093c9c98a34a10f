// Package treedir is what storage drivers share that keep every tree in a
// directory of its own: the record of a tree, the lock, and all of
// storage.Driver that has nothing to do with how a tree is cloned or mounted.
//
//	DIR/.lock                held by whoever changes anything below
//	DIR/KIND/ID/fs           the files of the tree, or of its upper layer
//	DIR/KIND/ID/tree.json    the record; without one that can be read the tree is partial
//
// All directories but the trees' own are 0700: a setuid program in an image must
// not be reachable by the users of the host (CVE-2024-25621).
//
// Not for: drivers whose trees are not directories (zfs), what a tree means.
package treedir

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
	"github.com/jetpack-run/jetpack/internal/storage"
)

const (
	lockFile   = ".lock"
	recordFile = "tree.json"
	filesDir   = "fs"
)

// Trees implements Create, Seal, Rename, Destroy, Stat and List of
// storage.Driver. A driver embeds it and adds the rest.
type Trees struct {
	dir     string
	mounted func(dir string) (bool, error)
	busy    func(dir string) (bool, error)
}

// Open makes dir, which must be absolute, a place for trees unless it is one.
// Of the directory of a tree (see Dir), mounted tells whether the driver has
// mounted the tree, and busy whether anything at all is mounted in it, so that
// it must be neither moved nor removed.
func Open(dir string, mounted, busy func(dir string) (bool, error)) (*Trees, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open storage: %s is not absolute", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	// The mount table names directories without symbolic links.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	return &Trees{dir: dir, mounted: mounted, busy: busy}, nil
}

// Record is what is kept of a tree beside its files.
type Record struct {
	// Origins is the chain of trees that this one was cloned from, nearest first.
	// It cannot change: a tree with clones is neither renamed nor destroyed.
	Origins []string          `json:"origins,omitempty"`
	Sealed  bool              `json:"sealed,omitempty"`
	Created time.Time         `json:"created"`
	Meta    map[string]string `json:"meta,omitempty"`
}

// Dir is the directory of a tree.
func (t *Trees) Dir(name string) string { return filepath.Join(t.dir, filepath.FromSlash(name)) }

// Files is the directory of a tree's files.
func (t *Trees) Files(name string) string { return filepath.Join(t.Dir(name), filesDir) }

// Lock excludes every other change of the storage, by this and other processes,
// until unlock is called.
func (t *Trees) Lock(ctx context.Context) (unlock func(), err error) {
	// Without O_CREATE: when the storage is gone (not mounted), the lock is too.
	l := flock.New(filepath.Join(t.dir, lockFile), flock.SetFlag(os.O_RDONLY))
	if _, err := l.TryLockContext(ctx, time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock storage: %w", err)
	}
	// Unlocking can fail only for a descriptor that is not open, and closing it
	// ends the lock anyway.
	return func() { _ = l.Close() }, nil
}

// Load reads the record of a tree. Errors: ErrBadName, ErrNotFound.
func (t *Trees) Load(name string) (Record, error) {
	if err := storage.CheckName(name); err != nil {
		return Record{}, err
	}
	data, err := os.ReadFile(filepath.Join(t.Dir(name), recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		if err := t.present(); err != nil {
			return Record{}, err
		}
		return Record{}, fmt.Errorf("%s: %w", name, storage.ErrNotFound)
	}
	if err != nil {
		return Record{}, fmt.Errorf("tree %s: %w", name, err)
	}
	// A new tree's record is not synced, for speed; what a loss of power makes of
	// it is an empty file. A damaged one must not stop what others are used for.
	var rec Record
	if err := json.Unmarshal(data, &rec); err != nil {
		return Record{}, fmt.Errorf("%s: %w: its record cannot be read: %w", name, storage.ErrNotFound, err)
	}
	return rec, nil
}

// present fails when the storage is gone, so that this is not taken for absence
// of what was in it.
func (t *Trees) present() error {
	if _, err := os.Lstat(filepath.Join(t.dir, lockFile)); err != nil {
		return fmt.Errorf("storage is gone: %w", err)
	}
	return nil
}

// Create is storage.Driver's.
func (t *Trees) Create(ctx context.Context, name string, opts storage.Options) error {
	if err := check(name, opts); err != nil {
		return fmt.Errorf("create tree: %w", err)
	}
	unlock, err := t.Lock(ctx)
	if err != nil {
		return fmt.Errorf("create tree %s: %w", name, err)
	}
	defer unlock()
	if err := t.add(name, Record{Meta: opts.Meta}, makeTop); err != nil {
		return fmt.Errorf("create tree %s: %w", name, err)
	}
	return nil
}

// Clone is storage.Driver's, but for what the driver must do itself: fill makes
// files, the clone's directory of files, with origin being the origin's.
func (t *Trees) Clone(ctx context.Context, origin, name string, opts storage.Options, fill func(origin, files string) error) error {
	if err := check(name, opts); err != nil {
		return fmt.Errorf("clone tree: %w", err)
	}
	unlock, err := t.Lock(ctx)
	if err != nil {
		return fmt.Errorf("clone tree %s: %w", origin, err)
	}
	defer unlock()
	from, err := t.Load(origin)
	if err != nil {
		return fmt.Errorf("clone tree: %w", err)
	}
	if !from.Sealed {
		return fmt.Errorf("clone tree %s: %w", origin, storage.ErrNotSealed)
	}
	rec := Record{Origins: append([]string{origin}, from.Origins...), Meta: opts.Meta}
	err = t.add(name, rec, func(files string) error { return fill(t.Files(origin), files) })
	if err != nil {
		return fmt.Errorf("clone tree %s to %s: %w", origin, name, err)
	}
	return nil
}

func check(name string, opts storage.Options) error {
	if err := storage.CheckName(name); err != nil {
		return err
	}
	if opts.Quota != 0 {
		return fmt.Errorf("quota: %w", storage.ErrUnsupported)
	}
	return storage.CheckMeta(opts.Meta)
}

// add makes the directory of a tree, has it filled, and commits it by writing
// the record.
func (t *Trees) add(name string, rec Record, fill func(files string) error) (err error) {
	if err := t.claim(name); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(t.Dir(name)))
		}
	}()
	if err := fill(t.Files(name)); err != nil {
		return err
	}
	rec.Created = time.Now().UTC()
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	path := filepath.Join(t.Dir(name), recordFile)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// claim makes the empty directory of a new tree in place of any debris.
func (t *Trees) claim(name string) error {
	dir := t.Dir(name)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) { // the first of its kind
		if err := mkdirExist(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		if err := t.vacate(name); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	return err
}

// vacate removes debris of that name. Errors: ErrExists for a tree, ErrBusy.
func (t *Trees) vacate(name string) error {
	_, err := t.Load(name)
	if err == nil {
		return fmt.Errorf("%s: %w", name, storage.ErrExists)
	}
	if !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if err := t.checkPartial(name); err != nil {
		return err
	}
	return os.RemoveAll(t.Dir(name))
}

// checkPartial fails while a partial tree must not be removed: it is mounted, or a
// mounted clone stands on it, made before it was damaged.
func (t *Trees) checkPartial(name string) error {
	if err := t.checkBusy(name); err != nil {
		return err
	}
	trees, err := t.list("")
	if err != nil {
		return err
	}
	for _, other := range trees {
		if other.mounted && slices.Contains(other.rec.Origins, name) {
			return fmt.Errorf("%s is its clone and mounted: %w", other.name, storage.ErrBusy)
		}
	}
	return nil
}

func (t *Trees) checkBusy(name string) error {
	busy, err := t.busy(t.Dir(name))
	if err != nil {
		return err
	}
	if busy {
		return fmt.Errorf("mounted: %w", storage.ErrBusy)
	}
	return nil
}

// makeTop makes the top directory of an empty tree, whatever the umask and the
// group that BSD file systems take from the parent.
func makeTop(files string) error {
	if err := os.Mkdir(files, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(files, 0o755); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(files, 0, 0)
}

// Seal is storage.Driver's.
func (t *Trees) Seal(ctx context.Context, name string) error {
	if err := t.seal(ctx, name); err != nil {
		return fmt.Errorf("seal tree %s: %w", name, err)
	}
	return nil
}

func (t *Trees) seal(ctx context.Context, name string) error {
	rec, err := t.Load(name)
	if err != nil || rec.Sealed {
		return err
	}
	// This may take long, so it is done before the lock is taken: nobody mounts
	// a tree while its owner seals it.
	if err := syncFiles(t.Dir(name)); err != nil {
		return err
	}
	unlock, err := t.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if rec, err = t.Load(name); err != nil || rec.Sealed {
		return err
	}
	if err := t.checkBusy(name); err != nil {
		return err
	}
	rec.Sealed = true
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(t.Dir(name), recordFile), data, 0o600)
}

// Rename is storage.Driver's.
func (t *Trees) Rename(ctx context.Context, from, to string) error {
	if err := t.rename(ctx, from, to); err != nil {
		return fmt.Errorf("rename tree %s to %s: %w", from, to, err)
	}
	return nil
}

func (t *Trees) rename(ctx context.Context, from, to string) error {
	if err := storage.CheckName(to); err != nil {
		return err
	}
	unlock, err := t.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	rec, err := t.removable(from)
	if err != nil {
		return err
	}
	if !rec.Sealed { // sealing has written it out
		if err := syncRecord(t.Dir(from)); err != nil {
			return err
		}
	}
	if err := t.vacate(to); err != nil {
		return err
	}
	if err := mkdirExist(filepath.Dir(t.Dir(to))); err != nil {
		return err
	}
	if err := os.Rename(t.Dir(from), t.Dir(to)); err != nil {
		return err
	}
	// Work is published by renaming it, so the new name must be durable: in the
	// kind's directory, and the kind itself.
	for _, dir := range []string{filepath.Dir(t.Dir(to)), filepath.Dir(t.Dir(from)), t.dir} {
		if err := atomicfile.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// syncRecord makes a tree's record durable: without it the tree would be partial
// after a power failure, whatever has been written to it since.
func syncRecord(dir string) (err error) {
	f, err := os.Open(filepath.Join(dir, recordFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return errors.Join(f.Sync(), atomicfile.SyncDir(dir))
}

// removable loads the record of a tree that is not mounted and has no clones.
func (t *Trees) removable(name string) (Record, error) {
	rec, err := t.Load(name)
	if err != nil {
		return rec, err
	}
	if err := t.checkBusy(name); err != nil {
		return rec, err
	}
	if !rec.Sealed { // only sealed trees have clones: spares reading all records
		return rec, nil
	}
	trees, err := t.list("")
	if err != nil {
		return rec, err
	}
	for _, other := range trees {
		if slices.Contains(other.rec.Origins, name) {
			return rec, fmt.Errorf("%s is its clone: %w", other.name, storage.ErrBusy)
		}
	}
	return rec, nil
}

// checkUnknown fails while a partial tree is mounted: it may be a clone of any. One
// that is not can never be mounted again, and so needs no origin.
func (t *Trees) checkUnknown(rec Record) error {
	if !rec.Sealed {
		return nil
	}
	trees, err := t.list("")
	if err != nil {
		return err
	}
	for _, other := range trees {
		if other.partial && other.mounted {
			return fmt.Errorf("the record of %s cannot be read, which is mounted and may be a clone: %w", other.name, storage.ErrBusy)
		}
	}
	return nil
}

// Destroy is storage.Driver's. The tree is gone at once; the lock is not held
// while its files are removed.
func (t *Trees) Destroy(ctx context.Context, name string) error {
	debris, err := t.retire(ctx, name)
	if err != nil {
		return fmt.Errorf("destroy tree %s: %w", name, err)
	}
	// RemoveAll follows no link, and retire made sure that nothing is mounted.
	if err := os.RemoveAll(debris); err != nil {
		return fmt.Errorf("destroy tree %s: %w", name, err)
	}
	return nil
}

// retire turns a tree into debris of another name, which is returned as a
// directory, so that the tree's name is free again.
func (t *Trees) retire(ctx context.Context, name string) (debris string, err error) {
	unlock, err := t.Lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	rec, err := t.removable(name)
	if err == nil {
		err = t.checkUnknown(rec)
	} else if errors.Is(err, storage.ErrNotFound) && exists(t.Dir(name)) {
		err = t.checkPartial(name)
	}
	if err != nil {
		return "", err
	}
	err = os.Remove(filepath.Join(t.Dir(name), recordFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if rec.Sealed {
		// After a loss of power there must not be a record of half an image.
		if err := atomicfile.SyncDir(t.Dir(name)); err != nil {
			return "", err
		}
	}
	debris = filepath.Join(filepath.Dir(t.Dir(name)), "removed-"+strings.ToLower(rand.Text()))
	err = os.Rename(t.Dir(name), debris)
	if errors.Is(err, fs.ErrNotExist) {
		return "", storage.ErrNotFound // whoever retired it has just removed it: that needs no lock
	}
	return debris, err
}

// kept is what there is of a tree.
type kept struct {
	name    string
	rec     Record
	mounted bool
	partial bool
}

func (k kept) tree() storage.Tree {
	if k.partial {
		return storage.Tree{Name: k.name, Partial: true}
	}
	tree := storage.Tree{Name: k.name, Sealed: k.rec.Sealed, Mounted: k.mounted, Created: k.rec.Created, Meta: k.rec.Meta}
	if len(k.rec.Origins) > 0 {
		tree.Origin = k.rec.Origins[0]
	}
	return tree
}

// Stat is storage.Driver's.
func (t *Trees) Stat(_ context.Context, name string) (storage.Tree, error) {
	rec, err := t.Load(name)
	if err != nil {
		return storage.Tree{}, fmt.Errorf("stat tree: %w", err)
	}
	mounted, err := t.mounted(t.Dir(name))
	if err != nil {
		return storage.Tree{}, fmt.Errorf("stat tree %s: %w", name, err)
	}
	return kept{name: name, rec: rec, mounted: mounted}.tree(), nil
}

// List is storage.Driver's.
func (t *Trees) List(_ context.Context, kind string) ([]storage.Tree, error) {
	entries, err := t.list(kind)
	if err != nil {
		return nil, fmt.Errorf("list trees: %w", err)
	}
	var trees []storage.Tree
	for _, e := range entries {
		trees = append(trees, e.tree())
	}
	return trees, nil
}

func (t *Trees) list(kind string) ([]kept, error) {
	if err := t.present(); err != nil {
		return nil, err
	}
	kinds := []string{kind}
	if kind == "" {
		var err error
		if kinds, err = subdirs(t.dir); err != nil {
			return nil, err
		}
	}
	var entries []kept
	for _, k := range kinds {
		ids, err := subdirs(filepath.Join(t.dir, k))
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			name := k + "/" + id
			if storage.CheckName(name) != nil {
				continue // not ours
			}
			e := kept{name: name}
			e.rec, err = t.Load(name)
			e.partial = errors.Is(err, storage.ErrNotFound)
			if err != nil && !e.partial {
				return nil, err
			}
			if e.partial && !exists(t.Dir(name)) {
				continue // it was destroyed meanwhile
			}
			if e.mounted, err = t.mounted(t.Dir(name)); err != nil {
				return nil, err
			}
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// subdirs lists the names of the directories in dir, sorted; none if dir does
// not exist.
func subdirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func mkdirExist(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// exists is meant for debris: what cannot be examined exists as well.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
