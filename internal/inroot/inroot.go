//go:build unix

// Package inroot resolves and changes paths inside a root directory whose
// content is hostile, without ever leaving it: symbolic links mean what they
// mean to a process that was chrooted there.
//
// os.Root is not enough, because it refuses absolute symbolic links, of which
// images are full. Here every component is opened on its own, relative to its
// parent's descriptor and with O_NOFOLLOW, and links are followed by hand.
//
// Not for: extracting archives (image/layer), which must follow no link at all,
// nor for jetpack's own state directories (os.Root).
package inroot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Sentinels, wrapped with the operation and the path. All other errors wrap a
// syscall.Errno and so answer to fs.ErrNotExist and its like.
var (
	// ErrLoop: more symbolic links were met than the kernel follows.
	ErrLoop = errors.New("too many levels of symbolic links")
	// ErrNotRegular: the path does not name a regular file.
	ErrNotRegular = errors.New("not a regular file")
	// ErrTooLarge: the file has more bytes than the caller permits.
	ErrTooLarge = errors.New("file too large")
)

const (
	maxPath = 4096 // bytes, of a path asked for, of a link's target and of a resolved path
)

// Root is an open root directory. Paths given to its methods start at the root,
// with or without a leading slash; ".." at the root stays at the root. Paths in
// results are absolute in the root. It is not safe for concurrent use.
type Root struct {
	fd    int
	binds map[string]bind // by clean absolute in-root path
	made  []string
}

// bind is what lies over a path of the root: name in the directory fd, "." for
// that directory itself.
type bind struct {
	fd   int
	name string
}

// Open opens dir, which must be a directory and not a symbolic link, as a root.
func Open(dir string) (*Root, error) {
	// Clean, since O_NOFOLLOW does not hold for "link/".
	fd, err := openat(unix.AT_FDCWD, filepath.Clean(dir), dirFlags)
	if err != nil {
		return nil, fmt.Errorf("open root %q: %w", dir, err)
	}
	return &Root{fd: fd, binds: map[string]bind{}}, nil
}

// Close closes the root; the other methods must not be called after it.
func (r *Root) Close() error {
	errs := []error{unix.Close(r.fd)}
	for _, b := range r.binds {
		errs = append(errs, unix.Close(b.fd))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close root: %w", err)
	}
	return nil
}

// Bind makes target, from now on, look as if source, a directory or file of the
// host, were mounted on it, so that lookups see through volumes before these are
// mounted. Like a mount it hides what was bound at or below target before.
//
// The target is clean, absolute, not "/", and free of symbolic links (EINVAL
// otherwise); it need not exist in the root, nor its parents: these then look
// like directories, root's and 0755. The source is opened now and must not be a
// symbolic link itself (ELOOP).
func (r *Root) Bind(target, source string) error {
	if err := r.checkTarget(target); err != nil {
		return fmt.Errorf("bind on %q: %w", target, err)
	}
	b, err := openBind(source)
	if err != nil {
		return fmt.Errorf("bind source %q: %w", source, err)
	}
	for p, old := range r.binds {
		if isAtOrBelow(p, target) {
			delete(r.binds, p)
			if err := unix.Close(old.fd); err != nil {
				return errors.Join(fmt.Errorf("close bind on %q: %w", p, err), unix.Close(b.fd))
			}
		}
	}
	r.binds[target] = b
	return nil
}

// checkTarget reports EINVAL for a bind target that lookups would never reach.
func (r *Root) checkTarget(target string) error {
	if target == "/" || !path.IsAbs(target) || path.Clean(target) != target {
		return unix.EINVAL
	}
	for i := 1; i <= len(target); i++ {
		if i < len(target) && target[i] != '/' {
			continue
		}
		st, err := r.Lstat(target[:i])
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		if fileType(&st) == unix.S_IFLNK {
			return fmt.Errorf("%q is a symbolic link: %w", target[:i], unix.EINVAL)
		}
	}
	return nil
}

// openBind opens a directory itself, but a file's directory only: the file may
// be a device or a fifo, which must not be opened.
func openBind(source string) (bind, error) {
	source = filepath.Clean(source)
	var st unix.Stat_t
	if err := unix.Fstatat(unix.AT_FDCWD, source, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return bind{}, err
	}
	switch fileType(&st) {
	case unix.S_IFLNK:
		return bind{}, unix.ELOOP
	case unix.S_IFDIR:
		fd, err := openat(unix.AT_FDCWD, source, dirFlags)
		return bind{fd, "."}, err
	}
	// The parent is the operator's and may be a symbolic link.
	fd, err := openat(unix.AT_FDCWD, filepath.Dir(source), dirFlags&^unix.O_NOFOLLOW)
	return bind{fd, filepath.Base(source)}, err
}

// Resolve gives the clean absolute in-root path that path leads to, free of
// symbolic links. Every component must exist.
func (r *Root) Resolve(path string) (string, error) {
	w, at, err := r.lookup(path, followFinal)
	if err != nil {
		return "", fmt.Errorf("resolve %q: %w", path, err)
	}
	w.close()
	return at.path, nil
}

// Made gives the paths of what MkdirAll and WriteFile have made since Open, in that
// order and free of symbolic links.
func (r *Root) Made() []string { return r.made }

// IsEmpty tells whether path leads to an empty directory; symbolic links are followed
// inside the root. Errors: ENOTDIR.
func (r *Root) IsEmpty(path string) (_ bool, err error) {
	w, at, err := r.lookup(path, followFinal)
	if err != nil {
		return false, fmt.Errorf("read directory %q: %w", path, err)
	}
	defer w.close()
	if fileType(&at.stat) != unix.S_IFDIR {
		return false, fmt.Errorf("read directory %q: %w", path, unix.ENOTDIR)
	}
	if w.top().fd == virtual {
		return false, nil // something is bound below
	}
	fd, err := openat(w.top().fd, ".", dirFlags)
	if err != nil {
		return false, fmt.Errorf("read directory %q: %w", path, err)
	}
	dir := os.NewFile(uintptr(fd), at.path)
	defer func() { err = errors.Join(err, dir.Close()) }()
	_, err = dir.ReadDir(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// Stat describes what path leads to; symbolic links are followed inside the root.
func (r *Root) Stat(path string) (unix.Stat_t, error) {
	w, at, err := r.lookup(path, followFinal)
	if err != nil {
		return unix.Stat_t{}, fmt.Errorf("stat %q: %w", path, err)
	}
	w.close()
	return at.stat, nil
}

// Lstat is Stat, but a symbolic link as the final component is described itself.
func (r *Root) Lstat(path string) (unix.Stat_t, error) {
	w, at, err := r.lookup(path, 0)
	if err != nil {
		return unix.Stat_t{}, fmt.Errorf("lstat %q: %w", path, err)
	}
	w.close()
	return at.stat, nil
}

// ReadFile reads a regular file of at most max bytes; symbolic links are followed
// inside the root. Fifos and devices are not opened. Errors: ErrNotRegular,
// ErrTooLarge.
func (r *Root) ReadFile(path string, max int64) ([]byte, error) {
	w, at, err := r.lookup(path, followFinal)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	defer w.close()
	data, err := readRegular(at, max)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return data, nil
}

func readRegular(at place, max int64) (_ []byte, err error) {
	if fileType(&at.stat) != unix.S_IFREG {
		return nil, ErrNotRegular
	}
	// O_NONBLOCK, should a fifo have taken the file's place since.
	fd, err := openat(at.dir, at.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), at.path)
	defer func() { err = errors.Join(err, f.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if fileType(&st) != unix.S_IFREG {
		return nil, ErrNotRegular
	}
	if st.Size > max {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, st.Size, max)
	}
	data, err := io.ReadAll(io.LimitReader(f, max))
	if err != nil {
		return nil, err
	}
	// The size may be a lie (procfs) or have changed: ask for one byte more.
	switch n, err := f.Read(make([]byte, 1)); {
	case n > 0:
		return nil, fmt.Errorf("%w: at most %d bytes", ErrTooLarge, max)
	case err != nil && err != io.EOF:
		return nil, err
	}
	return data, nil
}

// MkdirAll makes the directory path and its missing parents: owned by 0:0, with
// exactly perm (permission bits, whatever the umask). Symbolic links on the way
// are followed inside the root, and what is missing behind them is made. An
// existing directory is left as it is; anything else, also a symbolic link to a
// directory, as the final component is ENOTDIR.
func (r *Root) MkdirAll(path string, perm uint32) error {
	w, at, err := r.lookupWith(strings.TrimRight(path, "/"), makeMissing, perm)
	if err != nil {
		return fmt.Errorf("make directory %q: %w", path, err)
	}
	w.close()
	if fileType(&at.stat) != unix.S_IFDIR {
		return fmt.Errorf("make directory %q: %w", path, unix.ENOTDIR)
	}
	return nil
}

// WriteFile makes a new file at path, owned by 0:0, with exactly perm, in place
// of any non-directory that is there; a final symbolic link is replaced and never
// followed. The parent must exist. Errors: EISDIR, EBUSY (path is bound).
func (r *Root) WriteFile(path string, data []byte, perm uint32) error {
	err := r.inParent(path, func(dir int, name, at string) error {
		var st unix.Stat_t
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err == nil && fileType(&st) == unix.S_IFDIR:
			return unix.EISDIR
		case err == nil:
			err = unix.Unlinkat(dir, name, 0)
		}
		if err != nil && err != unix.ENOENT {
			return err
		}
		r.made = append(r.made, at)
		return createFile(dir, name, data, perm)
	})
	if err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return nil
}

func createFile(dir int, name string, data []byte, perm uint32) (err error) {
	fd, err := openatPerm(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, unix.Unlinkat(dir, name, 0))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return own(fd, perm)
}

// Remove unlinks the non-directory, or removes the empty directory, at path; a
// final symbolic link is itself removed. Errors: ENOTEMPTY, EBUSY (something is
// bound at or below path).
func (r *Root) Remove(path string) error {
	err := r.inParent(path, func(dir int, name, _ string) error {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if fileType(&st) == unix.S_IFDIR {
			return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		}
		return unix.Unlinkat(dir, name, 0)
	})
	if err != nil {
		return fmt.Errorf("remove %q: %w", path, err)
	}
	return nil
}

// inParent calls do with the directory that holds path's final component, that
// component, and both as a path free of symbolic links, unless something is bound there or below (EBUSY).
func (r *Root) inParent(p string, do func(dir int, name, at string) error) error {
	parent, name := path.Split(strings.TrimRight(p, "/"))
	if name == "" || name == "." || name == ".." {
		return unix.EINVAL
	}
	if err := checkPath(p); err != nil {
		return err
	}
	w, at, err := r.lookup(parent, followFinal)
	if err != nil {
		return err
	}
	defer w.close()
	dir := w.top()
	switch {
	case fileType(&at.stat) != unix.S_IFDIR:
		return unix.ENOTDIR
	case r.coversBind(path.Join(dir.path, name)):
		return unix.EBUSY
	case dir.fd == virtual:
		return unix.ENOENT
	}
	return do(dir.fd, name, path.Join(dir.path, name))
}

// coversBind says whether something is bound at p or below it.
func (r *Root) coversBind(p string) bool {
	for target := range r.binds {
		if isAtOrBelow(target, p) {
			return true
		}
	}
	return false
}

func isAtOrBelow(p, top string) bool {
	return p == top || strings.HasPrefix(p, strings.TrimSuffix(top, "/")+"/")
}
