package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// Store is the images of one root. Several processes may use it at a time.
//
// On disk: index.db, and per image a directory <id>/ with the file as it came and a
// copy of the image's entry in the index, of which that can be made anew; the
// driver holds the tree "images/<id>". Of an OCI image there is no file: its tree is a
// clone of that of its last layer, each of which is a clone of the one below; a layer,
// known by its chain ID, has a directory layers/sha256-<digits>/ with the blob as it came
// and a record, and a tree of that name, and stays as long as an image has it. A draft is a directory .import-<uuid>
// with a lock held by the importing process, maybe a list of layers that it counts on, and
// a tree "imports/<uuid>". The
// index is written last: an image exists when the index says so.
type Store struct {
	// Points are the steps that tests make fail; nil for none.
	Points failpoint.Points

	dir    string
	driver storage.Driver
}

const (
	fileName    = "aci"
	recordName  = "record.json"
	draftPrefix = ".import-"
	treeKind    = "images"
	draftKind   = "imports"
)

// Open opens the store that Init made in dir. Errors: ErrNotInitialized.
func Open(dir string, driver storage.Driver) (*Store, error) {
	if _, err := os.Stat(filepath.Join(dir, indexName)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, notInitialized(dir)
		}
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return &Store{dir: dir, driver: driver}, nil
}

// Tree is the name of the sealed storage tree that holds an image's root.
func Tree(id ID) string { return treeKind + "/" + string(id) }

// List gives all images, by name, then newest version first; those that ListAll
// finds damaged are left out.
func (s *Store) List(ctx context.Context) ([]*Image, error) {
	images, _, err := s.ListAll(ctx)
	return images, err
}

// ListAll is List, and says what is wrong with each entry of the index that cannot be
// read.
func (s *Store) ListAll(ctx context.Context) (images []*Image, damaged []error, err error) {
	images, bad, err := s.scan(ctx)
	slices.SortFunc(images, compare)
	for _, id := range slices.Sorted(maps.Keys(bad)) {
		damaged = append(damaged, bad[id])
	}
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

// minPrefix is how many hexadecimal digits make an ID prefix.
const minPrefix = 8

// Find gives the image that a user means: a whole ID, a tag, a unique prefix of one
// with at least 8 digits ("sha512-" may be left out when there is no such name), or
// name[:version][,label=value]…; of several with that name the highest version,
// then the newest import. Errors: ErrNotFound, ErrAmbiguous, ErrDamaged for a whole
// ID, or that of a malformed name.
func (s *Store) Find(ctx context.Context, name string) (*Image, error) {
	if id, err := ParseID(name); err == nil {
		return s.Get(ctx, id)
	}
	images, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		if slices.Contains(img.Tags, name) {
			return img, nil
		}
	}
	if digits, ok := strings.CutPrefix(name, "sha512-"); ok {
		return byPrefix(images, name, digits)
	}
	ref, err := manifest.ParseRef(name)
	if err != nil {
		return nil, err
	}
	img, err := byRef(images, ref)
	if err == nil {
		return img, nil
	}
	if img, err := byPrefix(images, name, name); err == nil || errors.Is(err, ErrAmbiguous) {
		return img, err
	}
	return nil, err
}

// byRef gives the first image of a name. Errors: ErrNotFound.
func byRef(images []*Image, ref manifest.Ref) (*Image, error) {
	for _, img := range images {
		if ref.Matches(img.parsed) {
			return img, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", ref, ErrNotFound)
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

// File opens the archive of an image as it came in. Errors: ErrDamaged when it is
// gone or has another length; the content is not looked at. ErrNoArchive for an OCI
// image.
func (s *Store) File(img *Image) (*os.File, error) {
	if img.OCI != nil {
		return nil, fmt.Errorf("image %s: %w", img.ID.Short(), ErrNoArchive)
	}
	return openKept(filepath.Join(s.imageDir(img.ID), fileName), img.FileSize, "image "+img.ID.Short(), "archive")
}

// Remove takes an image out of the store, all or nothing: what clones it keeps it.
// Its entry may be damaged. Errors: ErrNotFound, ErrInUse.
func (s *Store) Remove(ctx context.Context, id ID) error {
	if _, err := ParseID(string(id)); err != nil {
		return err
	}
	return s.exclusively(ctx, func() error {
		if _, err := s.Get(ctx, id); err != nil && !errors.Is(err, errEntry) {
			return err
		}
		if err := s.checkUnused(ctx, id); err != nil {
			return err
		}
		return s.remove(ctx, id)
	})
}

// remove takes away all there is of an image, the store being locked. The tree
// goes first, because it alone can refuse; what a crash leaves after it is an
// entry without a tree, which Debris reports, then files without an entry, then
// layers that nothing has.
func (s *Store) remove(ctx context.Context, id ID) error {
	var layers []Layer
	if img, err := decode([]byte(id), s.record(id)); err == nil {
		layers = img.Layers()
	}
	err := storage.Remove(ctx, s.driver, Tree(id))
	if errors.Is(err, storage.ErrBusy) {
		return fmt.Errorf("%s: %w", id.Short(), ErrInUse)
	}
	if err == nil {
		err = s.forget(id)
	}
	if err == nil {
		err = failpoint.Do(s.Points, "remove image files", func() error { return os.RemoveAll(s.imageDir(id)) })
	}
	if err == nil {
		err = s.removeLayers(ctx, layers)
	}
	if err != nil {
		return fmt.Errorf("remove image %s: %w", id.Short(), err)
	}
	return nil
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
