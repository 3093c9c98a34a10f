package render_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// spec is an image as a test wants it.
type spec struct {
	name      string
	labels    map[string]string
	entries   []entry // the first is that of rootfs itself, "/"
	whitelist []string
	deps      []dependency
	app       string // the member "app" of the manifest, or ""
}

// entry is an entry of an archive. Paths are absolute inside the root.
type entry struct {
	path     string
	kind     byte // TypeReg, TypeDir, TypeSymlink, TypeLink or TypeFifo of archive/tar
	mode     int64
	uid, gid int
	mtime    time.Time
	body     string
	target   string // of a symbolic link; of a hard link an earlier entry's path
}

// dependency is a dependency on an image; how it is written is the manifest's business.
type dependency struct {
	on     *spec
	byID   bool
	labels map[string]string
}

// pass is one image at its place in the order of override.
type pass struct {
	image   *spec
	filters []whitelist // its files have to be in all of them
}

// passes gives the order of override: "The dependencies are resolved in the
// depth-first order", each image after its dependencies, as often as it is
// reached.
func passes(top *spec) []pass {
	var list []pass
	for _, d := range top.deps {
		list = append(list, passesBelow(d.on, nil)...)
	}
	return append(list, pass{image: top})
}

// passesBelow gives the passes of a dependency. filters are the whitelists of
// those that depend on it along this path, but for the top image's: "When
// extracting a file from an image, the file can be filtered by any of the
// pathWhitelist of the image itself and the images depending on the image".
func passesBelow(s *spec, filters []whitelist) []pass {
	if len(s.whitelist) > 0 { // an empty one "is equivalent to an absent value"
		filters = append(slices.Clone(filters), newWhitelist(s.whitelist))
	}
	var list []pass
	for _, d := range s.deps {
		list = append(list, passesBelow(d.on, filters)...)
	}
	return append(list, pass{s, filters})
}

func (p pass) lists(name string) bool {
	for _, f := range p.filters {
		if !f[name] {
			return false
		}
	}
	return true
}

// whitelist is a set of clean paths: the specification's example has
// "/etc/systemd/system/".
type whitelist map[string]bool

func newWhitelist(names []string) whitelist {
	list := whitelist{}
	for _, name := range names {
		list[path.Clean(name)] = true
	}
	return list
}

// render makes the root of an image in dir, an empty directory. The first
// dependency comes with its finished root, its whitelist included; files of the
// others are filtered as they are extracted, which the specification permits. The
// two differ only where a whitelist leaves out directories above what it lists, or
// lists what does not come to be.
func render(dir string, top *spec) error {
	all := passes(top)
	if len(top.deps) > 0 {
		first := top.deps[0].on
		if err := render(dir, first); err != nil {
			return err
		}
		all = all[len(passes(first)):]
	}
	for _, p := range all {
		if err := p.extract(dir); err != nil {
			return fmt.Errorf("%s: %w", p.image.name, err)
		}
	}
	if len(top.whitelist) == 0 {
		return nil
	}
	return prune(dir, newWhitelist(top.whitelist))
}

// extract unpacks one archive over what is in dir.
func (p pass) extract(dir string) error {
	own := map[string]entry{}
	for _, e := range p.image.entries {
		own[e.path] = e
	}
	extracted := map[string]string{} // the file of a hard link → its first name in dir
	for _, e := range p.image.entries {
		if e.path != "/" && !p.lists(e.path) {
			if err := p.makeListedParents(dir, e.path, own); err != nil {
				return err
			}
			continue
		}
		if err := makeParents(dir, e.path, own); err != nil {
			return err
		}
		at := filepath.Join(dir, e.path)
		var err error
		switch e.kind {
		case tar.TypeDir:
			err = putDirectory(at, e)
		case tar.TypeReg, tar.TypeLink:
			file := e
			if e.kind == tar.TypeLink {
				file = own[e.target]
			}
			if first, ok := extracted[file.path]; ok {
				err = errors.Join(os.RemoveAll(at), os.Link(first, at))
				break
			}
			extracted[file.path] = at
			err = putOther(at, file, func() error { return os.WriteFile(at, []byte(file.body), 0o600) })
		case tar.TypeSymlink:
			err = putOther(at, e, func() error { return os.Symlink(e.target, at) })
		case tar.TypeFifo:
			err = putOther(at, e, func() error { return unix.Mkfifo(at, 0o600) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeListedParents makes the listed directories above name: they may have no entry.
func (p pass) makeListedParents(dir, name string, own map[string]entry) error {
	for _, parent := range parents(name) {
		if _, ok := own[parent]; !ok && p.lists(parent) {
			if err := makeParents(dir, parent+"/x", own); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeParents makes all directories above name that are not there; those that the
// archive has an entry for get its owner and mode. Whatever else
// is in their place is replaced, symbolic links to directories too: "the link
// MUST NOT be followed and it MUST be removed and replaced with the new path".
func makeParents(dir, name string, own map[string]entry) error {
	for _, parent := range parents(name) {
		at := filepath.Join(dir, parent)
		e, ok := own[parent] // perhaps one that a whitelist has left out
		if fi, err := os.Lstat(at); err == nil && fi.IsDir() && !ok {
			continue
		}
		if !ok {
			e = entry{mode: 0o755}
		}
		if err := putDirectory(at, e); err != nil {
			return err
		}
	}
	return nil
}

// parents gives all directories above an absolute name, the highest first,
// without the top directory.
func parents(name string) []string {
	var list []string
	for p := path.Dir(name); p != "/" && p != "."; p = path.Dir(p) {
		list = append([]string{p}, list...)
	}
	return list
}

// putDirectory makes a directory. One that is there keeps its content.
func putDirectory(at string, e entry) error {
	if fi, err := os.Lstat(at); err != nil || !fi.IsDir() {
		if err := errors.Join(os.RemoveAll(at), os.Mkdir(at, 0o700)); err != nil {
			return err
		}
	}
	return errors.Join(os.Lchown(at, e.uid, e.gid), unix.Chmod(at, uint32(e.mode)))
}

// putOther makes something that is no directory in the place of whatever is there.
func putOther(at string, e entry, create func() error) error {
	if err := errors.Join(os.RemoveAll(at), create(), os.Lchown(at, e.uid, e.gid)); err != nil {
		return err
	}
	if e.kind != tar.TypeSymlink {
		if err := unix.Chmod(at, uint32(e.mode)); err != nil { // after chown, which clears setuid
			return err
		}
	}
	mtime, err := unix.TimeToTimespec(e.mtime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// prune is step 3 of "Filesystem Setup": "all paths not in the whitelist must be
// removed from the target directory". A path cannot be there without its
// parents, so these stay, as they are.
func prune(dir string, list whitelist) error {
	names, err := paths(dir)
	if err != nil {
		return err
	}
	keep := map[string]bool{"/": true}
	for _, name := range names {
		if list[name] {
			keep[name] = true
			for _, parent := range parents(name) {
				keep[parent] = true
			}
		}
	}
	for _, name := range slices.Backward(names) { // what is in a directory comes after it
		if !keep[name] {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// paths gives all paths in dir, in lexical order, "/" being dir.
func paths(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(at string, _ fs.DirEntry, err error) error {
		names = append(names, path.Clean("/"+strings.TrimPrefix(at, dir)))
		return err
	})
	return names, err
}
