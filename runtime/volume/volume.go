// Package volume keeps named volumes: directories that outlive the pods that use
// them, and that several pods may share.
//
// Not for: volumes that come and go with a pod, and which pods refer to a volume
// (runtime); host directories.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/appc/spec/schema/types"
	"github.com/gofrs/flock"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// Sentinels of this package, wrapped with the object.
var (
	// ErrNotFound: there is no such volume.
	ErrNotFound = errors.New("no such volume")
	// ErrExists: a volume of that name exists.
	ErrExists = errors.New("volume exists")
	// ErrInUse: a pod refers to the volume, or a process uses it.
	ErrInUse = errors.New("volume is in use")
	// ErrDamaged: the storage has files of the volume, and not what it is.
	ErrDamaged = errors.New("is damaged")
	// ErrInvalid: that cannot be a volume.
	ErrInvalid = errors.New("invalid volume")
)

// Store is the volumes of one root. Several processes may use it at a time.
//
// The volume NAME is the storage tree "named/NAME", and exists when that does; it
// is made, and taken away, as a tree "drafts/<uuid>", so that one that is partial is
// not what a crash left, but damaged. In Dir are "lock", held for every change and
// look; NAME.lock, which leases share and which is held exclusively only under "lock";
// and "drafts", shared by whoever destroys a draft without holding "lock".
type Store struct {
	Dir    string // the lock files', absolute
	Driver storage.Driver
	// Referrer, unless nil, says which pod refers to a volume and what to do about it,
	// as "by pod P; ...", or "" when there is none. It is asked before a removal, with
	// the store locked: a pod whose directory is written before it looks for the volume
	// (Get) is seen, or does not find the volume.
	Referrer func(ctx context.Context, name string) (who string, err error)
	// Points are the steps that tests make fail; nil for none.
	Points failpoint.Points
}

const (
	treeKind   = "named"
	draftKind  = "drafts"
	storeLock  = "lock"
	draftsLock = "drafts"
	lockSuffix = ".lock"
)

// Volume is what is known of a volume.
type Volume struct {
	Name    string
	Created time.Time
	// Mode, UID and GID of the directory as it was made; pods may have changed them.
	Mode     uint32 // permissions, set-id and sticky bits, as for chmod(2)
	UID, GID int
	// InUse: somebody holds a lease.
	InUse bool
}

// Details is a volume and what takes longer to find out.
type Details struct {
	Volume
	Size int64  // bytes of storage
	Dir  string // where it is now, "" unless it is mounted
}

// Options are given when a volume is made.
type Options struct {
	Mode     uint32 // as in Volume; 0 is 0755
	UID, GID int
	Quota    int64 // bytes, where the driver can; 0 is unbounded
}

// Init makes the directory of a store, or leaves the one that is there.
func Init(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create volume store: %w", err)
	}
	return nil
}

// AnnotationPrefix and the name of a volume of the pod are the name of a pod's
// annotation; its value is the volume here that is meant.
const AnnotationPrefix = "jetpack/volume/"

// maxName is as for the names of apps and of pods' volumes.
const maxName = 63

// CheckName accepts an AC Name (appc spec, types.md) of at most 63 characters.
// Errors: ErrInvalid.
func CheckName(name string) error {
	if len(name) > maxName || !types.ValidACName.MatchString(name) {
		return fmt.Errorf("%w: name %q: want at most %d lower-case letters, digits and single hyphens", ErrInvalid, name, maxName)
	}
	return nil
}

func tree(name string) string { return treeKind + "/" + name }

// Create makes a volume, all or nothing. Errors: ErrExists, ErrDamaged,
// ErrInvalid, storage.ErrUnsupported for a quota that the driver lacks.
func (s *Store) Create(ctx context.Context, name string, o Options) (v Volume, err error) {
	if o.Mode == 0 {
		o.Mode = 0o755
	}
	if err := s.check(name, o); err != nil {
		return Volume{}, err
	}
	err = s.exclusively(ctx, func() error {
		if _, err := s.stat(ctx, name); err == nil {
			return fmt.Errorf("%s: %w", name, ErrExists)
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		if v, err = s.create(ctx, name, o); err != nil {
			return fmt.Errorf("create volume %s: %w", name, err)
		}
		return nil
	})
	return v, err
}

func (s *Store) check(name string, o Options) error {
	if err := CheckName(name); err != nil {
		return err
	}
	switch {
	case o.Mode > 0o7777:
		return fmt.Errorf("%w: %s: mode %#o", ErrInvalid, name, o.Mode)
	case !validID(o.UID) || !validID(o.GID):
		return fmt.Errorf("%w: %s: owner %d:%d", ErrInvalid, name, o.UID, o.GID)
	case o.Quota < 0:
		return fmt.Errorf("%w: %s: size %d", ErrInvalid, name, o.Quota)
	case o.Quota > 0 && !s.Driver.Info().Quota:
		return fmt.Errorf("volume %s: a bound on its size is %w (%s)", name, storage.ErrUnsupported, s.Driver.Info().Name)
	}
	return nil
}

// validID: the greatest number means "leave it" in chown(2).
func validID(id int) bool { return id >= 0 && int64(id) < math.MaxUint32 }

func (s *Store) create(ctx context.Context, name string, o Options) (_ Volume, err error) {
	draft := draftKind + "/" + uuid.NewString()
	defer func() {
		if err != nil {
			// The step that failed may have been done all the same.
			ctx := context.WithoutCancel(ctx)
			back := s.Driver.Rename(ctx, tree(name), draft)
			if errors.Is(back, storage.ErrNotFound) {
				back = nil
			}
			err = errors.Join(err, back, storage.Remove(ctx, s.Driver, draft))
		}
	}()
	if err := s.Driver.Create(ctx, draft, storage.Options{Quota: o.Quota, Meta: o.meta()}); err != nil {
		return Volume{}, err
	}
	dir, err := s.Driver.Mount(ctx, draft)
	if err != nil {
		return Volume{}, err
	}
	err = failpoint.Do(s.Points, "set owner and mode", func() error {
		return errors.Join(os.Chown(dir, o.UID, o.GID), unix.Chmod(dir, o.Mode))
	})
	if err != nil {
		return Volume{}, err
	}
	if err := s.Driver.Unmount(ctx, draft); err != nil {
		return Volume{}, err
	}
	if err := s.Driver.Rename(ctx, draft, tree(name)); err != nil {
		return Volume{}, err
	}
	return s.get(ctx, name)
}

// List gives all volumes, by name. Those that are damaged are not among them, but
// named in the error. Errors: ErrDamaged.
func (s *Store) List(ctx context.Context) (volumes []Volume, err error) {
	err = s.exclusively(ctx, func() error {
		var damaged []error
		volumes, damaged, err = s.scan(ctx)
		return errors.Join(append(damaged, err)...)
	})
	return volumes, err
}

// scan gives all volumes and, of those that are damaged, the errors, the store being
// locked.
func (s *Store) scan(ctx context.Context) (volumes []Volume, damaged []error, err error) {
	trees, err := s.Driver.List(ctx, treeKind)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range trees {
		v, err := s.describe(t)
		switch {
		case errors.Is(err, ErrDamaged):
			damaged = append(damaged, err)
		case err != nil:
			return nil, nil, err
		default:
			volumes = append(volumes, v)
		}
	}
	return volumes, damaged, nil
}

// Get gives one volume. Errors: ErrNotFound, ErrDamaged, ErrInvalid.
func (s *Store) Get(ctx context.Context, name string) (v Volume, err error) {
	err = s.exclusively(ctx, func() error {
		v, err = s.get(ctx, name)
		return err
	})
	return v, err
}

func (s *Store) get(ctx context.Context, name string) (Volume, error) {
	t, err := s.stat(ctx, name)
	if err != nil {
		return Volume{}, err
	}
	return s.describe(t)
}

// Inspect gives one volume with all there is to know; measuring it may take long.
// Errors: ErrNotFound, ErrDamaged, ErrInvalid.
func (s *Store) Inspect(ctx context.Context, name string) (d Details, err error) {
	err = s.exclusively(ctx, func() error {
		t, err := s.stat(ctx, name)
		if err != nil {
			return err
		}
		if d.Volume, err = s.describe(t); err != nil {
			return err
		}
		if t.Mounted || !s.Driver.Info().MountsTrees {
			d.Dir, err = s.Driver.Mount(ctx, t.Name) // which only tells where
		}
		return err
	})
	if err != nil {
		return Details{}, err
	}
	usage, err := s.Driver.Usage(ctx, tree(name))
	if err != nil {
		return Details{}, notFound(name, err)
	}
	d.Size = usage.Own
	return d, nil
}

// stat finds the tree of a volume. Errors: ErrNotFound, ErrDamaged, ErrInvalid.
func (s *Store) stat(ctx context.Context, name string) (storage.Tree, error) {
	if err := CheckName(name); err != nil {
		return storage.Tree{}, err
	}
	t, err := s.Driver.Stat(ctx, tree(name))
	if !errors.Is(err, storage.ErrNotFound) {
		return t, err
	}
	// To a driver a partial tree is not found, either.
	trees, listErr := s.Driver.List(ctx, treeKind)
	if listErr != nil {
		return t, listErr
	}
	for _, t := range trees {
		if t.Name == tree(name) && t.Partial {
			return t, s.damaged(name, lostRecord)
		}
	}
	return t, notFound(name, err)
}

// notFound says in this package's words that a tree is not there.
func notFound(name string, err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return err
}

const lostRecord = "the storage has lost its record"

// describe reads what a tree says of its volume, the store being locked. Errors:
// ErrDamaged.
func (s *Store) describe(t storage.Tree) (Volume, error) {
	v := Volume{Name: strings.TrimPrefix(t.Name, treeKind+"/"), Created: t.Created}
	if t.Partial {
		return v, s.damaged(v.Name, lostRecord)
	}
	if !v.setMeta(t.Meta) {
		return v, s.damaged(v.Name, "mode and owner that it was made with are not known")
	}
	var err error
	v.InUse, err = s.leased(v.Name)
	return v, err
}

// meta keeps with the tree what the volume was made as.
func (o Options) meta() map[string]string {
	return map[string]string{
		"mode": fmt.Sprintf("%04o", o.Mode), "uid": strconv.Itoa(o.UID), "gid": strconv.Itoa(o.GID),
	}
}

// setMeta tells whether meta is as it was written.
func (v *Volume) setMeta(meta map[string]string) bool {
	mode, errMode := strconv.ParseUint(meta["mode"], 8, 12)
	uid, errUID := strconv.Atoi(meta["uid"])
	gid, errGID := strconv.Atoi(meta["gid"])
	v.Mode, v.UID, v.GID = uint32(mode), uid, gid
	return errors.Join(errMode, errUID, errGID) == nil
}

// Remove takes a volume away, damaged or not, with all that is in it. Errors:
// ErrNotFound, ErrInvalid, ErrInUse.
func (s *Store) Remove(ctx context.Context, name string) (err error) {
	draft := draftKind + "/" + uuid.NewString()
	var working *flock.Flock
	err = s.exclusively(ctx, func() (err error) {
		if err := s.checkUnused(ctx, name); err != nil {
			return err
		}
		if working, err = s.share(draftsLock); err != nil {
			return err
		}
		return s.retire(ctx, name, draft)
	})
	if working != nil {
		defer func() { err = errors.Join(err, working.Close()) }()
	}
	if err != nil {
		return err
	}
	// Others need not wait for this.
	if err := storage.Remove(ctx, s.Driver, draft); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// checkUnused refuses what is not there, what a pod refers to, and what is leased.
func (s *Store) checkUnused(ctx context.Context, name string) error {
	if _, err := s.stat(ctx, name); err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	if s.Referrer != nil {
		who, err := s.Referrer(ctx, name)
		if err != nil {
			return err
		}
		if who != "" {
			return fmt.Errorf("%s: %w %s", name, ErrInUse, who)
		}
	}
	leased, err := s.leased(name)
	if err != nil {
		return err
	}
	if leased {
		return fmt.Errorf("%s: %w", name, ErrInUse)
	}
	return nil
}

// retire makes a draft of a volume: from then on it does not exist.
func (s *Store) retire(ctx context.Context, name, draft string) error {
	err := s.Driver.Unmount(ctx, tree(name))
	if err == nil {
		err = s.makeWhole(ctx, name)
	}
	if err == nil {
		err = s.Driver.Rename(ctx, tree(name), draft)
	}
	if errors.Is(err, storage.ErrBusy) {
		return fmt.Errorf("%s: %w: %w", name, ErrInUse, err)
	}
	if err == nil {
		err = s.removeLock(name)
	}
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// makeWhole puts an empty tree in the place of a partial one, which cannot be renamed.
func (s *Store) makeWhole(ctx context.Context, name string) error {
	_, err := s.stat(ctx, name)
	if errors.Is(err, ErrDamaged) {
		return s.Driver.Create(ctx, tree(name), storage.Options{})
	}
	return err
}

func (s *Store) removeLock(name string) error {
	return failpoint.Do(s.Points, "remove lock file", func() error {
		if err := os.Remove(s.lockPath(name)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

func (s *Store) lockPath(name string) string { return filepath.Join(s.Dir, name+lockSuffix) }

// exclusively runs do under the store's lock.
func (s *Store) exclusively(ctx context.Context, do func() error) (err error) {
	l := flock.New(filepath.Join(s.Dir, storeLock))
	if _, err := l.TryLockContext(ctx, 5*time.Millisecond); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("lock volume store: %w; 'jetpack init' makes what is missing", err)
		}
		return fmt.Errorf("lock volume store: %w", err)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return do()
}
