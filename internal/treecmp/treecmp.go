//go:build unix

// Package treecmp compares two directory trees exactly: what one look at the
// metadata cannot tell, such as a flipped bit under an unchanged time, is read.
//
// The trees may be hostile. Nothing is looked up by more than one name at a time,
// links are not followed, only directories and regular files are opened, and a
// mount inside a tree is an error. Two directories are held open per level. At any
// time the names of the directories on the way to one place are in memory, and the
// changes. Whether hard links are the same ones is not compared.
//
// Not for: telling quickly what a clone changed (storage.Driver.Diff).
package treecmp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/xattr"
)

// Option changes what counts as a difference.
type Option int

// IgnoreTimes leaves modification times out of the comparison.
const IgnoreTimes Option = 1

// Compare lists how the directory b differs from the directory a, sorted by path
// (byte by byte). A path is Modified when type, mode, owner, extended attributes
// (but those of overlayfs itself, "trusted.overlay."), device number or link target
// differ, or, except for a directory, size, contents or modification time. What is
// below a directory that only a has is not listed; all that is below one that only b
// has is. The tops are "/". Neither tree may change meanwhile.
//
// On FreeBSD, extended attributes of links, fifos and devices are not compared:
// extattr(2) gives no way to them that would not follow links.
func Compare(ctx context.Context, a, b string, options ...Option) (_ []storage.Change, err error) {
	c := comparer{ctx: ctx, ignoreTimes: slices.Contains(options, IgnoreTimes)}
	old, err := os.Open(a)
	if err != nil {
		return nil, fmt.Errorf("compare trees: %w", err)
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	cur, err := os.Open(b)
	if err != nil {
		return nil, fmt.Errorf("compare trees: %w", err)
	}
	defer func() { err = errors.Join(err, cur.Close()) }()
	if err := c.tops(old, cur); err != nil {
		return nil, fmt.Errorf("compare %s with %s: %w", b, a, err)
	}
	slices.SortFunc(c.changes, func(a, b storage.Change) int { return strings.Compare(a.Path, b.Path) })
	return c.changes, nil
}

// chunk is how much of each file is read at a time, in bytes.
const chunk = 128 << 10

type comparer struct {
	ctx         context.Context // of the one call of Compare
	ignoreTimes bool
	changes     []storage.Change
	bufs        [2][chunk]byte
}

// node is an entry of an open directory.
type node struct {
	dir  *os.File
	name string
	stat unix.Stat_t
}

func stat(dir *os.File, name string) (node, error) {
	n := node{dir: dir, name: name}
	err := retry(func() error { return unix.Fstatat(int(dir.Fd()), name, &n.stat, unix.AT_SYMLINK_NOFOLLOW) })
	return n, err
}

func (n *node) kind() uint32 { return uint32(n.stat.Mode) & unix.S_IFMT }
func (n *node) isDir() bool  { return n.kind() == unix.S_IFDIR }

// open opens a directory or a regular file, and nothing that took its place.
func (n *node) open() (*os.File, error) {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	if n.isDir() {
		flags |= unix.O_DIRECTORY
	}
	var fd int
	err := retry(func() (err error) {
		fd, err = openIn(int(n.dir.Fd()), n.name, flags)
		return err
	})
	if errors.Is(err, unix.EXDEV) {
		return nil, errors.New("something is mounted there")
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Ino != n.stat.Ino || st.Mode != n.stat.Mode) {
		err = errors.New("it changed meanwhile")
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), n.name), nil
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (c *comparer) add(p string, kind storage.ChangeKind) {
	c.changes = append(c.changes, storage.Change{Path: p, Kind: kind})
}

func (c *comparer) tops(a, b *os.File) error {
	old, err := stat(a, ".")
	if err != nil {
		return err
	}
	cur, err := stat(b, ".")
	if err != nil {
		return err
	}
	same, err := c.same(&old, &cur)
	if err != nil {
		return err
	}
	if !same {
		c.add("/", storage.Modified)
	}
	return c.dirs("/", a, b)
}

// dirs compares what is in two directories; with a nil a all is added.
func (c *comparer) dirs(p string, a, b *os.File) error {
	old, err := names(a)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	cur, err := names(b)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	for len(old) > 0 || len(cur) > 0 {
		if len(cur) == 0 || len(old) > 0 && old[0] < cur[0] {
			c.add(path.Join(p, old[0]), storage.Deleted)
			old = old[1:]
			continue
		}
		from := a
		if len(old) == 0 || cur[0] < old[0] {
			from = nil
		} else {
			old = old[1:]
		}
		if err := c.entry(path.Join(p, cur[0]), from, b, cur[0]); err != nil {
			return err
		}
		cur = cur[1:]
	}
	return nil
}

// names lists a directory, sorted.
func names(dir *os.File) ([]string, error) {
	if dir == nil {
		return nil, nil
	}
	list, err := dir.Readdirnames(-1)
	slices.Sort(list)
	return list, err
}

// entry compares what is called name in two directories; a nil a has none.
func (c *comparer) entry(p string, a, b *os.File, name string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	cur, err := stat(b, name)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if a == nil {
		c.add(p, storage.Added)
		return c.below(p, nil, &cur)
	}
	old, err := stat(a, name)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	same, err := c.same(&old, &cur)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if !same {
		c.add(p, storage.Modified)
	}
	if !old.isDir() {
		return c.below(p, nil, &cur)
	}
	return c.below(p, &old, &cur)
}

// below goes on in b if that is a directory; a is nil or one.
func (c *comparer) below(p string, a, b *node) (err error) {
	if !b.isDir() {
		return nil
	}
	var old *os.File
	if a != nil {
		if old, err = a.open(); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		defer func() { err = errors.Join(err, old.Close()) }()
	}
	cur, err := b.open()
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	defer func() { err = errors.Join(err, cur.Close()) }()
	return c.dirs(p, old, cur)
}

// same compares two entries, the costly last.
func (c *comparer) same(a, b *node) (bool, error) {
	if a.stat.Mode != b.stat.Mode || a.stat.Uid != b.stat.Uid || a.stat.Gid != b.stat.Gid {
		return false, nil
	}
	if !a.isDir() {
		if a.stat.Size != b.stat.Size || !c.ignoreTimes && a.stat.Mtim != b.stat.Mtim {
			return false, nil
		}
	}
	if same, err := sameAttributes(a, b); err != nil || !same {
		return false, err
	}
	switch a.kind() {
	case unix.S_IFLNK:
		return sameTarget(a, b)
	case unix.S_IFCHR, unix.S_IFBLK:
		return a.stat.Rdev == b.stat.Rdev, nil
	case unix.S_IFREG:
		return c.sameContents(a, b)
	}
	return true, nil
}

func sameTarget(a, b *node) (bool, error) {
	ta, err := a.target()
	if err != nil {
		return false, err
	}
	tb, err := b.target()
	return bytes.Equal(ta, tb), err
}

func (n *node) target() ([]byte, error) {
	return xattr.Fill(func(buf []byte) (int, error) { return unix.Readlinkat(int(n.dir.Fd()), n.name, buf) })
}

func (c *comparer) sameContents(a, b *node) (same bool, err error) {
	fa, err := a.open()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, fa.Close()) }()
	fb, err := b.open()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, fb.Close()) }()
	for {
		if err := c.ctx.Err(); err != nil {
			return false, err
		}
		na, erra := io.ReadFull(fa, c.bufs[0][:])
		nb, errb := io.ReadFull(fb, c.bufs[1][:])
		if err := errors.Join(readError(erra), readError(errb)); err != nil {
			return false, err
		}
		if !bytes.Equal(c.bufs[0][:na], c.bufs[1][:nb]) {
			return false, nil
		}
		if na < chunk {
			return true, nil
		}
	}
}

// readError is nil at the end of a file.
func readError(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // io.ReadFull gives just these
		return nil
	}
	return err
}

// sameAttributes holds one value of each at a time.
func sameAttributes(a, b *node) (same bool, err error) {
	xa, err := openAttributes(a)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, xa.close()) }()
	xb, err := openAttributes(b)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, xb.close()) }()
	names, err := xa.names()
	if err != nil {
		return false, err
	}
	other, err := xb.names()
	if err != nil || !slices.Equal(names, other) {
		return false, err
	}
	for _, name := range names {
		va, err := xa.value(name)
		if err != nil {
			return false, fmt.Errorf("attribute %q: %w", name, err)
		}
		vb, err := xb.value(name)
		if err != nil {
			return false, fmt.Errorf("attribute %q: %w", name, err)
		}
		if !bytes.Equal(va, vb) {
			return false, nil
		}
	}
	return true, nil
}
