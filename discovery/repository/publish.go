package repository

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
	"github.com/jetpack-run/jetpack/internal/failpoint"
)

// signatureExt is what a signature's name has after that of its file.
const signatureExt = ".asc"

// put moves an image, which is on stable storage, to its place, the signature first.
// What it replaces stays good until then: the signature file holds both.
func (r *Repository) put(image string, signature []byte, file string) error {
	first := signature
	old, err := os.ReadFile(r.path(file + signatureExt))
	if err == nil && !bytes.Equal(old, signature) {
		if both, err := joinSignatures(old, signature); err == nil {
			first = both
		}
	}
	if err := r.replace("write signature", file+signatureExt, first); err != nil {
		return err
	}
	err = failpoint.Do(r.points, "publish image", func() error {
		if err := os.Rename(image, r.path(file)); err != nil {
			return err
		}
		return atomicfile.SyncDir(filepath.Dir(r.path(file)))
	})
	if err != nil {
		return err
	}
	return r.replace("write signature", file+signatureExt, signature)
}

// drop removes an image and its signature, which may be gone already.
func (r *Repository) drop(file string) error {
	for _, name := range []string{file, file + signatureExt} {
		if err := r.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a file, if it is there, and the directories that are empty then.
func (r *Repository) remove(file string) error {
	return failpoint.Do(r.points, "remove", func() error {
		if err := os.Remove(r.path(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		dir := filepath.Dir(r.path(file))
		for dir != filepath.Clean(r.dir) && os.Remove(dir) == nil {
			dir = filepath.Dir(dir)
		}
		if err := atomicfile.SyncDir(dir); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// settle makes what follows from the index next, and removes what followed from old
// and does not from next.
func (r *Repository) settle(old, next index, pages map[string][]byte) error {
	aliases := r.aliases(next)
	for _, alias := range slices.Sorted(maps.Keys(aliases)) {
		if err := r.alias(aliases[alias].File, alias); err != nil {
			return fmt.Errorf("%s: %w", aliases[alias].title(), err)
		}
	}
	for alias := range r.aliases(old) {
		if _, ok := aliases[alias]; !ok {
			if err := r.drop(alias); err != nil {
				return err
			}
		}
	}
	if err := r.publishKeys(next.Keys); err != nil {
		return err
	}
	for _, file := range slices.Sorted(maps.Keys(pages)) {
		if err := r.replace("write page", file, pages[file]); err != nil {
			return err
		}
	}
	for dir := range pageDirs(old) {
		if _, ok := pages[pageFile(dir)]; !ok {
			if err := r.remove(pageFile(dir)); err != nil {
				return err
			}
		}
	}
	return nil
}

// publishKeys writes the keys' file; without keys there is none.
func (r *Repository) publishKeys(keys []Key) error {
	if len(keys) == 0 {
		return r.remove(keysName)
	}
	armored, err := joinKeys(keys)
	if err != nil {
		return err
	}
	return r.replace("write keys", keysName, armored)
}

// aliases gives the file names of all aliases, and what they stand for.
func (r *Repository) aliases(idx index) map[string]Entry {
	all := map[string]Entry{}
	for _, e := range idx.Images {
		if e.Latest {
			all[r.file(e, latest)] = e
		}
	}
	return all
}

// alias makes file and its signature available under another name, too.
func (r *Repository) alias(file, alias string) error {
	signature, err := os.ReadFile(r.path(file + signatureExt))
	if err != nil {
		return err
	}
	done, err := r.isAlias(file, alias, signature)
	if done || err != nil {
		return err
	}
	draft := r.path(draftPrefix + "alias")
	err = failpoint.Do(r.points, "link alias", func() error { return linkOrCopy(r.path(file), draft) })
	if err == nil {
		err = r.put(draft, signature, alias)
	}
	// It is still there when it was a link to what it should replace (rename(2)).
	if e := os.Remove(draft); !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// isAlias tells whether alias is a link to file, or its copy, with its signature.
func (r *Repository) isAlias(file, alias string, signature []byte) (bool, error) {
	a, err := os.Stat(r.path(file))
	if err != nil {
		return false, err
	}
	b, err := os.Stat(r.path(alias))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	copied := a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	aliasSignature, err := os.ReadFile(r.path(alias + signatureExt))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return (os.SameFile(a, b) || copied) && bytes.Equal(aliasSignature, signature), err
}

// linkOrCopy makes dst a hard link to src, or where there are none a copy with its time.
func linkOrCopy(src, dst string) (err error) {
	if os.Link(src, dst) == nil {
		return nil
	}
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	return os.Chtimes(dst, info.ModTime(), info.ModTime())
}

// pageDirs gives the path of every page, as a prefix of names: all parts of all names
// and of the repository's prefix, down from the host.
func pageDirs(idx index) map[string]bool {
	dirs := map[string]bool{}
	names := []string{idx.Prefix}
	for _, e := range idx.Images {
		names = append(names, e.Name)
	}
	for _, name := range names {
		for ; !dirs[name]; name = name[:strings.LastIndex(name, "/")] {
			dirs[name] = true
			if !strings.Contains(name, "/") {
				break
			}
		}
	}
	return dirs
}

// pageFile is the file of a prefix's page.
func pageFile(prefix string) string {
	_, rest, _ := strings.Cut(prefix, "/")
	if rest == "" {
		return pageName
	}
	return rest + "/" + pageName
}
