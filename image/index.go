package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

const indexName = "index.db"

// The buckets of the index: image ID → Image as JSON, tag → image ID.
var (
	imageBucket = []byte("images")
	tagBucket   = []byte("tags")
)

// lockTimeout bounds the wait for another process's transaction, each of which
// takes milliseconds.
const lockTimeout = 30 * time.Second

// index is the database within one transaction.
type index struct{ images, tags *bbolt.Bucket }

// read and write run fn in one transaction and close the database again: no handle
// outlives it, so that no process can keep the others out.
func (s *Store) read(fn func(ix index) error) error { return s.transact(false, fn) }

func (s *Store) write(step string, fn func(ix index) error) error {
	return failpoint.Do(s.Points, step, func() error { return s.transact(true, fn) })
}

func (s *Store) transact(writable bool, fn func(ix index) error) (err error) {
	path := filepath.Join(s.dir, indexName)
	// bbolt would make one, or fill it.
	if fi, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return notInitialized(s.dir)
	} else if err != nil {
		return fmt.Errorf("open image index: %w", err)
	} else if fi.Size() == 0 {
		return damagedIndex(path, "it is empty")
	}
	// bbolt panics on pages that make no sense; those that the file has lost are
	// faults of its memory map.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var file *os.File // with bbolt's lock, which opening forgets when it panics
	defer func() {
		if r := recover(); r != nil {
			// The map, which stays, would keep the lock. Of a file that is closed
			// already, both fail.
			_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
			_ = file.Close()
			err = damagedIndex(path, r)
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockTimeout, ReadOnly: !writable,
		OpenFile: func(name string, flag int, perm os.FileMode) (f *os.File, err error) {
			f, err = os.OpenFile(name, flag, perm)
			file = f
			return f, err
		},
	})
	if err != nil {
		if _, ok := errors.AsType[syscall.Errno](err); ok || errors.Is(err, bolterrors.ErrTimeout) {
			return fmt.Errorf("open image index: %w", err)
		}
		return damagedIndex(path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	run := db.View
	if writable {
		run = db.Update
	}
	return run(func(tx *bbolt.Tx) error {
		ix := index{tx.Bucket(imageBucket), tx.Bucket(tagBucket)}
		if ix.images == nil || ix.tags == nil {
			return notInitialized(s.dir)
		}
		return fn(ix)
	})
}

func notInitialized(dir string) error {
	return fmt.Errorf("%s: %w; run 'jetpack init'", dir, ErrNotInitialized)
}

func damagedIndex(path string, why any) error {
	return fmt.Errorf("image index %s: %w: %v; 'jetpack init' makes it anew", path, ErrDamaged, why)
}

// scan reads the index; damaged says what is wrong with the entries, by key, that
// cannot be read.
func (s *Store) scan(ctx context.Context) (images []*Image, damaged map[ID]error, err error) {
	damaged = map[ID]error{}
	err = s.read(func(ix index) error {
		tags := map[ID][]string{}
		err := ix.tags.ForEach(func(tag, id []byte) error {
			tags[ID(id)] = append(tags[ID(id)], string(tag))
			return nil
		})
		if err != nil {
			return err
		}
		return ix.images.ForEach(func(k, v []byte) error {
			if img, err := decode(k, v); err != nil {
				damaged[ID(k)] = err
			} else {
				img.Tags = tags[img.ID]
				images = append(images, img)
			}
			return ctx.Err()
		})
	})
	return images, damaged, err
}

// errEntry is the ErrDamaged of a single entry.
var errEntry = fmt.Errorf("%w ('jetpack system prune' mends or removes it)", ErrDamaged)

func decode(key, value []byte) (*Image, error) {
	img := new(Image)
	if err := json.Unmarshal(value, img); err != nil {
		return nil, fmt.Errorf("index entry %.160q: %w: %w", key, errEntry, err)
	}
	if _, err := ParseID(string(key)); err != nil || string(img.ID) != string(key) {
		return nil, fmt.Errorf("index entry %.160q: %w: it is of image %.160q", key, errEntry, img.ID)
	}
	m, _, err := manifest.ParseImage(img.Manifest)
	if err != nil {
		return nil, fmt.Errorf("index entry %.160q: %w: %w", key, errEntry, err)
	}
	if len(img.Dependencies) != len(m.Dependencies) {
		return nil, fmt.Errorf("index entry %.160q: %w: %d dependencies, where its manifest has %d", key, errEntry, len(img.Dependencies), len(m.Dependencies))
	}
	img.parsed = m
	return img, nil
}

// Get gives the image of an ID. Errors: ErrNotFound, ErrDamaged.
func (s *Store) Get(_ context.Context, id ID) (img *Image, err error) {
	err = s.read(func(ix index) error {
		img, err = ix.get(id)
		return err
	})
	return img, err
}

func (ix index) get(id ID) (*Image, error) {
	v := ix.images.Get([]byte(id))
	if v == nil {
		return nil, fmt.Errorf("%s: %w", id.Short(), ErrNotFound)
	}
	img, err := decode([]byte(id), v)
	if err != nil {
		return nil, err
	}
	img.Tags, err = ix.tagsOf(id)
	return img, err
}

// tagsOf lists the tags of an image, sorted.
func (ix index) tagsOf(id ID) (tags []string, err error) {
	err = ix.tags.ForEach(func(tag, of []byte) error {
		if string(of) == string(id) {
			tags = append(tags, string(tag))
		}
		return nil
	})
	return tags, err
}

// enter puts an image into the index, after the record of which that can be mended.
func (s *Store) enter(id ID, value []byte) error {
	err := failpoint.Do(s.Points, "write image record", func() error {
		return atomicfile.Write(filepath.Join(s.imageDir(id), recordName), value, 0o600)
	})
	if err != nil {
		return err
	}
	return s.write("enter image", func(ix index) error { return ix.images.Put([]byte(id), value) })
}

// record reads what was entered of an image; nil if there is nothing of use to mend
// its entry with.
func (s *Store) record(id ID) []byte {
	value, err := os.ReadFile(filepath.Join(s.imageDir(id), recordName))
	if err == nil {
		_, err = decode([]byte(id), value)
	}
	if err != nil {
		return nil
	}
	return value
}

// Init makes a store in dir, or the index of the one that is there if that is lost
// or damaged: of the images' records, without tags. It tells what it mended.
func Init(ctx context.Context, dir string) (did []string, err error) {
	_, err = os.Stat(dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create image store: %w", err)
	}
	s := &Store{dir: dir}
	err = s.exclusively(ctx, func() error {
		_, _, err := s.scan(ctx)
		if err == nil { // writing reads the list of free pages as well
			err = s.transact(true, func(index) error { return nil })
		}
		if err == nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotInitialized) {
			return err
		}
		n, rerr := s.rebuild()
		if rerr != nil {
			return fmt.Errorf("create image index: %w", rerr)
		}
		if !fresh {
			did = append(did, fmt.Sprintf("%v: made a new image index with the %d images that are there; tags are lost", err, n))
		}
		return nil
	})
	return did, err
}

// rebuild makes a new index with n images, the store being locked. An old one is
// kept beside it.
func (s *Store) rebuild() (n int, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, err
	}
	path := filepath.Join(s.dir, indexName)
	if err := os.RemoveAll(path + ".new"); err != nil {
		return 0, err
	}
	db, err := bbolt.Open(path+".new", 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return 0, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(tagBucket)
		if err != nil {
			return err
		}
		images, err := tx.CreateBucket(imageBucket)
		if err != nil {
			return err
		}
		for _, e := range entries {
			id, err := ParseID(e.Name())
			if err != nil {
				continue
			}
			value := s.record(id)
			if value == nil {
				continue // debris, as before
			}
			n++
			if err := images.Put([]byte(id), value); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return 0, err
	}
	if err := os.Rename(path, path+".damaged"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return n, errors.Join(os.Rename(path+".new", path), atomicfile.SyncDir(s.dir))
}

// forget takes an image and its tags out of the index.
func (s *Store) forget(id ID) error {
	return s.write("forget image", func(ix index) error {
		tags, err := ix.tagsOf(id)
		if err != nil {
			return err
		}
		for _, tag := range tags {
			if err := ix.tags.Delete([]byte(tag)); err != nil {
				return err
			}
		}
		return ix.images.Delete([]byte(id))
	})
}

// Tag gives an image one more name: NAME[:VERSION]. before is the image that had it,
// or "". Errors: ErrNotFound (the image), ErrBadTag.
func (s *Store) Tag(ctx context.Context, id ID, tag string) (before ID, err error) {
	if err := checkTag(tag); err != nil {
		return "", err
	}
	err = s.exclusively(ctx, func() error {
		return s.write("tag image", func(ix index) error {
			if _, err := ix.get(id); err != nil {
				return err
			}
			before = ID(ix.tags.Get([]byte(tag)))
			return ix.tags.Put([]byte(tag), []byte(id))
		})
	})
	return before, err
}

// Untag takes a tag away; the image stays. Errors: ErrNoTag.
func (s *Store) Untag(_ context.Context, tag string) error {
	return s.write("untag image", func(ix index) error {
		if ix.tags.Get([]byte(tag)) == nil {
			return fmt.Errorf("tag %s: %w", tag, ErrNoTag)
		}
		return ix.tags.Delete([]byte(tag))
	})
}

// checkTag accepts what can be typed as a name, and is no image ID nor a part of one.
func checkTag(tag string) error {
	ref, err := manifest.ParseRef(tag)
	delete(ref.Labels, "version")
	if err != nil || len(ref.Labels) > 0 {
		return fmt.Errorf("%w %.160q: want NAME[:VERSION], the name such as images have", ErrBadTag, tag)
	}
	if strings.HasPrefix(tag, "sha512-") {
		return fmt.Errorf("%w %.160q: that is how image IDs begin", ErrBadTag, tag)
	}
	return nil
}
