//go:build unix

package inroot

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW

// virtual is the descriptor of a directory that exists only because something
// is bound below it.
const virtual = -1

// How a lookup goes about the final component and missing ones.
type mode int

const (
	followFinal mode = 1 << iota // follow a symbolic link also as the final component
	makeMissing                  // make missing directories
)

// place is where a lookup ended: name in the open directory dir.
type place struct {
	dir  int
	name string
	path string // clean, absolute in the root
	stat unix.Stat_t
}

// directory is an open directory on the way from the root to a place.
type directory struct {
	fd   int
	path string // clean, absolute in the root
}

// walker walks one path. The directories it went through stay open, so that ".."
// goes back the way it came and not where ".." leads on disk meanwhile.
type walker struct {
	root  *Root
	dirs  []directory // dirs[0] is the root
	links int
	mode  mode
	perm  uint32 // of directories made
}

func (r *Root) lookup(p string, m mode) (*walker, place, error) {
	return r.lookupWith(p, m, 0)
}

// lookupWith walks p. Without an error the caller closes the walker, whose
// descriptors the place refers to.
func (r *Root) lookupWith(p string, m mode, perm uint32) (_ *walker, _ place, err error) {
	if err := checkPath(p); err != nil {
		return nil, place{}, err
	}
	fd, err := openat(r.fd, ".", dirFlags)
	if err != nil {
		return nil, place{}, err
	}
	w := &walker{root: r, dirs: []directory{{fd, "/"}}, mode: m, perm: perm}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	at, err := w.walk(strings.Split(p, "/"))
	return w, at, err
}

// walk goes through names, in which "" stands for "." as in "a//b" and "a/".
func (w *walker) walk(names []string) (place, error) {
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			w.up()
			continue
		}
		at, err := w.find(name)
		if err != nil {
			return place{}, err
		}
		final := len(names) == 0
		switch {
		case fileType(&at.stat) == unix.S_IFDIR:
			err = w.enter(at)
		case fileType(&at.stat) == unix.S_IFLNK && (!final || w.mode&followFinal != 0):
			names, err = w.follow(at, names)
		case final:
			return at, nil
		default:
			err = unix.ENOTDIR
		}
		if err != nil {
			return place{}, err
		}
	}
	return w.here()
}

// find looks name up in the directory reached, making it if that is asked for.
func (w *walker) find(name string) (place, error) {
	top := w.top()
	at := place{dir: top.fd, name: name, path: path.Join(top.path, name)}
	if len(at.path) > maxPath {
		return place{}, unix.ENAMETOOLONG
	}
	b, bound := w.root.binds[at.path]
	if bound {
		at.dir, at.name = b.fd, b.name
	}
	err := statat(at.dir, at.name, &at.stat)
	switch {
	case bound && err == nil && fileType(&at.stat) == unix.S_IFLNK:
		// The host's file became a link after Bind: it does not count inside the root.
		return place{}, unix.ELOOP
	case bound || !errors.Is(err, unix.ENOENT):
		return at, err
	case w.mode&makeMissing != 0:
		if err := mkdirat(at.dir, at.name, w.perm); err != nil {
			return place{}, err
		}
		w.root.made = append(w.root.made, at.path)
		return at, statat(at.dir, at.name, &at.stat)
	case w.root.coversBind(at.path):
		at.dir, at.stat = virtual, virtualStat()
		return at, nil
	}
	return place{}, err
}

// enter makes the directory at the one reached.
func (w *walker) enter(at place) error {
	fd := virtual
	if at.dir != virtual {
		var err error
		if fd, err = openat(at.dir, at.name, dirFlags); err != nil {
			return err
		}
	}
	w.dirs = append(w.dirs, directory{fd, at.path})
	return nil
}

// follow gives the names to walk after the symbolic link at.
func (w *walker) follow(at place, names []string) ([]string, error) {
	if w.links++; w.links > maxLinks {
		return nil, ErrLoop
	}
	buf := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(at.dir, at.name, buf)
	if err != nil {
		return nil, err
	}
	target := string(buf[:n])
	switch {
	case target == "":
		return nil, unix.ENOENT
	case n > maxPath:
		return nil, unix.ENAMETOOLONG
	case path.IsAbs(target):
		for len(w.dirs) > 1 {
			w.up()
		}
	}
	return append(strings.Split(target, "/"), names...), nil
}

// here is the directory reached, as a place.
func (w *walker) here() (place, error) {
	top := w.top()
	at := place{dir: top.fd, name: ".", path: top.path}
	if top.fd == virtual {
		at.stat = virtualStat()
		return at, nil
	}
	return at, unix.Fstat(top.fd, &at.stat)
}

func (w *walker) top() directory { return w.dirs[len(w.dirs)-1] }

func (w *walker) up() {
	if len(w.dirs) > 1 {
		w.pop()
	}
}

func (w *walker) close() {
	for len(w.dirs) > 0 {
		w.pop()
	}
}

func (w *walker) pop() {
	if fd := w.top().fd; fd != virtual {
		_ = unix.Close(fd) // a directory open for reading has nothing to lose
	}
	w.dirs = w.dirs[:len(w.dirs)-1]
}

func virtualStat() (st unix.Stat_t) {
	st.Mode = unix.S_IFDIR | 0o755
	st.Nlink = 2
	return st
}

// checkPath reports what can never be a path: EINVAL, ENAMETOOLONG.
func checkPath(p string) error {
	if strings.IndexByte(p, 0) >= 0 {
		return unix.EINVAL
	}
	if len(p) > maxPath {
		return unix.ENAMETOOLONG
	}
	return nil
}

func fileType(st *unix.Stat_t) uint32 { return uint32(st.Mode) & unix.S_IFMT }

// statat describes name in dir without following it.
func statat(dir int, name string, st *unix.Stat_t) error {
	if dir == virtual {
		return unix.ENOENT
	}
	return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

// mkdirat makes a directory, 0:0 and with exactly perm.
func mkdirat(dir int, name string, perm uint32) error {
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		return err
	}
	fd, err := openat(dir, name, dirFlags)
	if err != nil {
		return err
	}
	return errors.Join(own(fd, perm), unix.Close(fd))
}

// own gives an open file to root, then its mode: chown would clear setuid.
func own(fd int, perm uint32) error {
	if err := unix.Fchown(fd, 0, 0); err != nil {
		return err
	}
	return unix.Fchmod(fd, perm)
}

func openat(dir int, name string, flags int) (int, error) {
	return openatPerm(dir, name, flags, 0)
}

func openatPerm(dir int, name string, flags int, perm uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, perm)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
