package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

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

func initIndex(dir string) error {
	db, err := bbolt.Open(filepath.Join(dir, indexName), 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return fmt.Errorf("create image index: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{imageBucket, tagBucket} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("create image index: %w", err)
	}
	return nil
}

// read and write run fn in one transaction and close the database again: no handle
// outlives it, so that no process can keep the others out.
func (s *Store) read(fn func(ix index) error) error { return s.transact(false, fn) }

func (s *Store) write(step string, fn func(ix index) error) error {
	return failpoint.Do(s.Points, step, func() error { return s.transact(true, fn) })
}

func (s *Store) transact(writable bool, fn func(ix index) error) (err error) {
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
		ix := index{tx.Bucket(imageBucket), tx.Bucket(tagBucket)}
		if ix.images == nil || ix.tags == nil {
			return fmt.Errorf("%s: %w", s.dir, ErrNotInitialized)
		}
		return fn(ix)
	})
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
	if len(img.Dependencies) != len(m.Dependencies) {
		return nil, fmt.Errorf("image %s: %w: %d dependencies, where its manifest has %d", img.ID.Short(), ErrDamaged, len(img.Dependencies), len(m.Dependencies))
	}
	img.parsed = m
	return img, nil
}

// Get gives the image of an ID. Errors: ErrNotFound.
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
// or "". Errors: ErrNotFound (the image), that of a malformed tag.
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

// Untag takes a tag away; the image stays. Errors: ErrNotFound.
func (s *Store) Untag(_ context.Context, tag string) error {
	return s.write("untag image", func(ix index) error {
		if ix.tags.Get([]byte(tag)) == nil {
			return fmt.Errorf("tag %s: %w", tag, ErrNotFound)
		}
		return ix.tags.Delete([]byte(tag))
	})
}

func checkTag(tag string) error {
	ref, err := manifest.ParseRef(tag)
	if err != nil {
		return err
	}
	delete(ref.Labels, "version")
	if len(ref.Labels) > 0 {
		return fmt.Errorf("tag %s: %w: want NAME[:VERSION]", tag, manifest.ErrInvalid)
	}
	return nil
}

// firstOf gives the error of the first damaged entry, if there is one.
func firstOf(damaged map[ID]error) error {
	for _, id := range slices.Sorted(maps.Keys(damaged)) {
		return damaged[id]
	}
	return nil
}
