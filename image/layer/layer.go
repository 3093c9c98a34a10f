//go:build unix

// Package layer applies the entries of a hostile tar stream to a directory,
// exactly (owners, modes, times, extended attributes, links, holes) and without
// ever touching anything outside of it.
//
// It works entry by entry, so that each image format decides which entries make
// up the tree and under which names. What stood in the directory before is
// replaced, as in an upper layer over a lower one; what the same archive made is
// never replaced: an archive that contradicts itself is refused. No symbolic link
// is ever followed, wherever it points and whoever made it; only the names in an OCI layer are
// first rid of the links of lower layers (NewOCIApplier).
//
// A Checker tells what an Applier would refuse without touching a file system. A
// Filter restricts an Applier to a Whitelist, and Prune a finished tree. OCI layers,
// which can also delete and have rules of their own, have an Applier and a Checker of
// their own: see NewOCIApplier. Pack is the inverse: it writes the entries of which an
// Applier makes the same tree.
//
// It must run as root. FreeBSD file flags and access control lists in an archive
// (SCHILY.fflags, SCHILY.acl.*) are not restored, which gives a warning.
//
// Not for: compressed streams and the archives around the entries, choosing what is
// extracted (image/aci), or looking things up in a finished tree (internal/inroot).
package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// Why an entry is refused; each is wrapped with the entry's name. Other errors
// come from the file system or from reading the stream.
var (
	// ErrName: the name is not what CleanName accepts.
	ErrName = errors.New("invalid name")
	// ErrDuplicate: the archive has the name already, or, for what is no directory,
	// has entries below the name.
	ErrDuplicate = errors.New("duplicate entry")
	// ErrThroughLink: a parent is no directory but a symbolic link or file of the
	// same archive.
	ErrThroughLink = errors.New("parent is not a directory")
	// ErrHardLink: the target of a hard link is not a regular file that the same
	// archive made before.
	ErrHardLink = errors.New("invalid hard link target")
	// ErrSymlink: the target of a symbolic link is empty, has a NUL or more than
	// 1023 bytes.
	ErrSymlink = errors.New("invalid symbolic link target")
	// ErrDevice: a device node outside dev/.
	ErrDevice = errors.New("device node")
	// ErrWhiteout: a character device 0/0, by which overlayfs marks deletions.
	ErrWhiteout = errors.New("overlayfs whiteout")
	// ErrType: an entry of a type that is not supported, such as a socket, or a
	// top directory that is none.
	ErrType = errors.New("unsupported entry type")
	// ErrTooLarge: the files add up to more than Limits.MaxBytes.
	ErrTooLarge = errors.New("archive content too large")
	// ErrTooManyEntries: more than Limits.MaxEntries.
	ErrTooManyEntries = errors.New("too many archive entries")
	// ErrXattr: an extended attribute without a proper name, of more than 64 KiB, one
	// by which overlayfs would be deceived, or one that the kernel calls malformed.
	ErrXattr = errors.New("forbidden extended attribute")
	// ErrOwner: a user or group id outside 0 to 2^32-2.
	ErrOwner = errors.New("owner id out of range")
	// ErrTooManyLinks: a Filter has to remember too many hard links.
	ErrTooManyLinks = errors.New("too many hard links to filter")
)

// ApplyFunc does with an entry what Applier.Apply does.
type ApplyFunc func(hdr *tar.Header, name string, r io.Reader) error

// Applier applies the entries of one archive to one directory. It is not safe
// for concurrent use. After an error the directory is to be thrown away.
type Applier struct {
	checker  *Checker
	filter   *Filter // nil lets everything pass
	root     int
	device   uint64           // of the top directory
	times    map[key]unixTime // of directories that have an entry
	parent   directory        // of the last entry
	resolved resolved         // of OCI layers, the last one
	buf      []byte           // for the contents of files
}

// directory is an open directory below the top one, which is ".".
type directory struct {
	fd   int
	name string
}

// unixTime is a time.Time without pointers, in 12 bytes.
type unixTime struct {
	sec  int64
	nsec int32
}

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// NewApplier prepares to apply one archive to dir, an open directory that stays the
// caller's. With a filter, which has seen the same archive, only what is in its
// whitelist is made: see Filter. The caller closes the Applier, also after a
// failed Apply.
func NewApplier(dir *os.File, l Limits, filter *Filter) (*Applier, error) {
	checker, err := NewChecker(l)
	if err != nil {
		return nil, fmt.Errorf("apply layer to %q: %w", dir.Name(), err)
	}
	root, device, err := openRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("apply layer to %q: %w", dir.Name(), err)
	}
	return &Applier{
		checker: checker,
		filter:  filter,
		root:    root,
		device:  device,
		times:   map[key]unixTime{},
		parent:  directory{fd: -1},
		buf:     make([]byte, chunkSize),
	}, nil
}

// openRoot opens a directory once more, without a path, for processes that may use
// none (capsicum(4)), and tells its file system.
func openRoot(dir *os.File) (fd int, device uint64, err error) {
	fd, err = openat(int(dir.Fd()), ".", dirFlags, 0)
	if err != nil {
		return -1, 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closeDir(fd)
		return -1, 0, err
	}
	return fd, st.Dev, nil
}

// Close restores the times of the directory written to last and releases the
// directory. Closing again does nothing.
func (a *Applier) Close() error {
	if a.root < 0 {
		return nil
	}
	err := a.leaveParent()
	closeDir(a.root)
	a.root = -1
	if err != nil {
		return fmt.Errorf("finish layer: %w", err)
	}
	return nil
}

// Apply makes what one tar entry describes.
//
// name is where to make it: a result of CleanName or Below; hdr.Name is not
// looked at. "." or "" is the top directory itself. The hdr.Linkname of a hard
// link is likewise a name relative to the top directory: a caller that strips a
// prefix from names gives a copy of the header with the prefix stripped from
// Linkname too, with Below. The Linkname of a symbolic link is kept as it is.
//
// r gives the content of a regular file, hdr.Size bytes; fewer are an error
// (io.ErrUnexpectedEOF). Missing parents are made, 0:0 and 0755. Device nodes
// below dev/ are skipped with a warning. A PAX global header is no entry: it is
// up to the caller to pass over it.
func (a *Applier) Apply(hdr *tar.Header, name string, r io.Reader) error {
	if name == "" {
		name = "."
	}
	if err := a.apply(hdr, name, r); err != nil {
		return fmt.Errorf("entry %q: %w", name, err)
	}
	return nil
}

// Warnings are what was left out without being an error, in lines fit for
// printing.
func (a *Applier) Warnings() []string { return a.checker.Warnings() }

func (a *Applier) apply(hdr *tar.Header, name string, r io.Reader) error {
	if a.checker.oci {
		var err error
		if hdr, name, err = a.resolve(hdr, name); err != nil {
			return err
		}
	}
	if err := a.checker.admit(hdr, name); err != nil {
		return err
	}
	if m, hidden, err := a.checker.markOf(name); err != nil || m != noMark {
		return errors.Join(err, a.applyMark(hdr, m, hidden, r))
	}
	if name == "." {
		return a.applyTop(hdr)
	}
	if isDevice(hdr) {
		return nil
	}
	place := a.filter.place(hdr, name)
	if place != name {
		if err := a.makeListedParent(name); err != nil {
			return err
		}
	}
	if place == "" {
		return skipContent(hdr, r)
	}
	parent, err := a.openParent(path.Dir(place))
	if err != nil {
		return err
	}
	base := path.Base(place)
	switch hdr.Typeflag {
	case tar.TypeDir:
		return a.makeDir(parent, base, hdr)
	case tar.TypeReg, tar.TypeGNUSparse:
		return a.makeFile(parent, base, hdr, r)
	case tar.TypeLink:
		return a.makeHardLink(parent, base, a.filter.target(name, hdr.Linkname))
	case tar.TypeSymlink:
		return a.makeSymlink(parent, base, hdr)
	case tar.TypeFifo:
		return a.makeFifo(parent, base, hdr)
	}
	return ErrType
}

// makeListedParent makes the lowest directory above a name, of an entry that is not
// made itself, that is in the whitelist: the archive may have no entry for it.
func (a *Applier) makeListedParent(name string) error {
	for p := path.Dir(name); p != "." && a.filter != nil; p = path.Dir(p) {
		if a.filter.keep.Has(p) {
			_, err := a.openParent(p)
			return err
		}
	}
	return nil
}

// openParent opens the directory of a name, making what is missing of it. It
// stays open for the entries to come.
func (a *Applier) openParent(name string) (directory, error) {
	if a.parent.fd >= 0 && a.parent.name == name {
		return a.parent, nil
	}
	if err := a.leaveParent(); err != nil {
		return directory{}, err
	}
	if fd, err := openBeneath(a.root, name); err == nil {
		a.parent = directory{fd, name}
		return a.parent, nil
	}
	d, err := a.openTop()
	if err != nil {
		return directory{}, err
	}
	for end := range components(name) {
		next, err := a.descend(d, name[:end])
		closeDir(d.fd)
		if err != nil {
			return directory{}, err
		}
		d = next
	}
	a.parent = d
	return d, nil
}

// components gives where each component of a clean name ends, none for the top
// directory: taking names apart and together again would take time that grows with
// the square of their length.
func components(name string) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range len(name) + 1 {
			if (i == len(name) || name[i] == '/') && name != "." && !yield(i) {
				return
			}
		}
	}
}

// leaveParent closes the directory that openParent keeps open.
func (a *Applier) leaveParent() error {
	d := a.parent
	a.parent = directory{fd: -1}
	if d.fd < 0 {
		return nil
	}
	defer closeDir(d.fd)
	return a.restoreTimes(d)
}

func (a *Applier) openTop() (directory, error) {
	fd, err := openat(a.root, ".", dirFlags, 0)
	return directory{fd, "."}, err
}

// descend opens the directory name, whose parent is d, on the way to an entry. A
// directory that was not there is made; what is none is replaced by one.
func (a *Applier) descend(d directory, name string) (directory, error) {
	if a.checker.oci {
		fd, err := openat(d.fd, path.Base(name), dirFlags, 0)
		if err == nil {
			return directory{fd, name}, nil
		}
		if isNoDirectory(err) {
			return directory{}, fmt.Errorf("%w: %q, of a lower layer", ErrThroughLink, name)
		}
	}
	fd, created, err := openOrMakeDir(d, path.Base(name))
	if err != nil {
		return directory{}, err
	}
	if created {
		err = setOwnerAndMode(fd, 0, 0, 0o755)
		if err == nil {
			err = a.restoreTimes(d)
		}
		if err != nil {
			closeDir(fd)
			return directory{}, err
		}
	}
	return directory{fd, name}, nil
}

// openOrMakeDir opens the directory name in d, after replacing what is no
// directory there: the checker has seen to it that this is not of the same archive.
func openOrMakeDir(d directory, name string) (fd int, created bool, err error) {
	fd, err = openat(d.fd, name, dirFlags, 0)
	if isNoDirectory(err) {
		err = unix.Unlinkat(d.fd, name, 0)
		created = err == nil
	} else if errors.Is(err, unix.ENOENT) {
		created = true
	}
	if !created {
		return fd, false, err
	}
	if err := unix.Mkdirat(d.fd, name, 0o700); err != nil {
		return -1, false, err
	}
	fd, err = openat(d.fd, name, dirFlags, 0)
	return fd, true, err
}

// restoreTimes undoes what changes to a directory did to its times.
func (a *Applier) restoreTimes(d directory) error {
	t, ok := a.times[keyOf(d.name)]
	if !ok {
		return nil
	}
	return setTimes(d.fd, ".", time.Unix(t.sec, int64(t.nsec)))
}
