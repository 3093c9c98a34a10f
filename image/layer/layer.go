//go:build unix

// Package layer applies the entries of a hostile tar stream to a directory,
// exactly (owners, modes, times, extended attributes, links, holes) and without
// ever touching anything outside of it.
//
// It works entry by entry, so that each image format decides which entries make
// up the tree and under which names. What stood in the directory before is
// replaced, as in an upper layer over a lower one; what the same archive made is
// never replaced: an archive that contradicts itself is refused. No symbolic link
// is ever followed, wherever it points and whoever made it.
//
// It must run as root. FreeBSD file flags and access control lists in an archive
// (SCHILY.fflags, SCHILY.acl.*) are not restored, which gives a warning.
//
// Not for: reading tar or compressed streams, choosing what is extracted
// (image/aci), or looking things up in a finished tree (internal/inroot).
package layer

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
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
	// ErrHardLink: the target of a hard link is missing, is not a regular file or
	// is reached through a symbolic link.
	ErrHardLink = errors.New("invalid hard link target")
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
	// ErrXattr: an extended attribute without a proper name, or one by which
	// overlayfs would be deceived.
	ErrXattr = errors.New("forbidden extended attribute")
	// ErrOwner: a user or group id outside 0 to 2^32-2.
	ErrOwner = errors.New("owner id out of range")
)

// Limits bound what an archive may make. Both must be positive.
type Limits struct {
	// MaxBytes is the sum of the sizes of all files, holes included.
	MaxBytes int64
	// MaxEntries counts entries, and directories of which the archive has none but
	// that are parents of entries. Memory is at most about 100 bytes for each.
	MaxEntries int64
}

// Applier applies the entries of one archive to one directory. It is not safe
// for concurrent use. After an error the directory is to be thrown away.
type Applier struct {
	limits   Limits
	bytes    int64
	root     int
	device   uint64              // of the top directory
	made     map[key]kind        // by this archive, or used as a parent by it
	times    map[key]unixTime    // of directories that have an entry
	parent   directory           // of the last entry
	warned   map[string]struct{} // what there is a warning for
	warnings []string
}

// key is a hash of a clean name: names themselves would let an archive of a
// million long names take a gigabyte.
type key [16]byte

func keyOf(name string) key {
	sum := sha256.Sum256([]byte(name))
	return key(sum[:16])
}

// kind is what is known of a name.
type kind uint8

const (
	implicitDir kind = iota + 1 // a parent without an entry so far
	explicitDir                 // a directory with an entry
	leaf                        // anything else with an entry, skipped devices included
)

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

// NewApplier prepares to apply one archive to dir, a directory and not a symbolic
// link. The caller closes the Applier, also after a failed Apply.
func NewApplier(dir string, l Limits) (*Applier, error) {
	if l.MaxBytes <= 0 || l.MaxEntries <= 0 {
		return nil, fmt.Errorf("apply layer to %q: limits must be positive, not %+v", dir, l)
	}
	// Clean, since O_NOFOLLOW does not hold for "link/".
	root, err := openat(unix.AT_FDCWD, filepath.Clean(dir), dirFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("apply layer to %q: %w", dir, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		closeDir(root)
		return nil, fmt.Errorf("apply layer to %q: %w", dir, err)
	}
	return &Applier{
		limits: l,
		root:   root,
		device: st.Dev,
		made:   map[key]kind{},
		times:  map[key]unixTime{},
		parent: directory{fd: -1},
		warned: map[string]struct{}{},
	}, nil
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
func (a *Applier) Warnings() []string {
	return slices.Clone(a.warnings)
}

// maxWarnings bounds what an archive can make us print and remember.
const maxWarnings = 50

// warn adds a warning, once for each subject.
func (a *Applier) warn(subject, format string, args ...any) {
	_, done := a.warned[subject]
	if done || len(a.warned) > maxWarnings {
		return
	}
	a.warned[subject] = struct{}{}
	if len(a.warned) > maxWarnings {
		a.warnings = append(a.warnings, "further warnings are left out")
		return
	}
	a.warnings = append(a.warnings, fmt.Sprintf(format, args...))
}

func (a *Applier) apply(hdr *tar.Header, name string, r io.Reader) error {
	if err := a.check(hdr, name); err != nil {
		return err
	}
	if name == "." {
		return a.applyTop(hdr)
	}
	if isDevice(hdr) {
		a.warn("device", "device nodes in dev/ are skipped (%q is the first)", name)
		return a.mark(name, leaf)
	}
	parent, err := a.openParent(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	if hdr.Typeflag == tar.TypeDir {
		if err := a.mark(name, explicitDir); err != nil {
			return err
		}
		return a.makeDir(parent, base, hdr)
	}
	if err := a.mark(name, leaf); err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return a.makeFile(parent, base, hdr, r)
	case tar.TypeLink:
		return a.makeHardLink(parent, base, hdr.Linkname)
	case tar.TypeSymlink:
		return a.makeSymlink(parent, base, hdr)
	case tar.TypeFifo:
		return a.makeFifo(parent, base, hdr)
	}
	return ErrType
}

// check refuses an entry for what can be told before the file system is touched.
func (a *Applier) check(hdr *tar.Header, name string) error {
	if err := checkType(hdr, name); err != nil {
		return err
	}
	if name != "." {
		if clean, err := CleanName(name); err != nil || clean != name {
			return ErrName
		}
	}
	isDir := hdr.Typeflag == tar.TypeDir
	if known := a.made[keyOf(name)]; known != 0 && (known != implicitDir || !isDir) {
		return ErrDuplicate
	}
	for _, id := range []int{hdr.Uid, hdr.Gid} {
		if id < 0 || int64(id) > maxID {
			return fmt.Errorf("%w: %d", ErrOwner, id)
		}
	}
	if hasContent(hdr) {
		if left := a.limits.MaxBytes - a.bytes; hdr.Size < 0 || hdr.Size > left {
			return fmt.Errorf("%w: %d bytes, %d left of %d", ErrTooLarge, hdr.Size, left, a.limits.MaxBytes)
		}
	}
	return checkXattrs(hdr)
}

// maxID is the highest user or group id: 2^32-1 means "unchanged" to chown(2).
const maxID = 1<<32 - 2

func hasContent(hdr *tar.Header) bool {
	return hdr.Typeflag == tar.TypeReg || hdr.Typeflag == tar.TypeGNUSparse
}

func isDevice(hdr *tar.Header) bool {
	return hdr.Typeflag == tar.TypeChar || hdr.Typeflag == tar.TypeBlock
}

func checkType(hdr *tar.Header, name string) error {
	switch hdr.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeLink, tar.TypeSymlink, tar.TypeFifo:
		if name == "." {
			return fmt.Errorf("%w: the top directory must be a directory", ErrType)
		}
		return nil
	case tar.TypeChar, tar.TypeBlock:
		if hdr.Typeflag == tar.TypeChar && hdr.Devmajor == 0 && hdr.Devminor == 0 {
			return ErrWhiteout
		}
		if !strings.HasPrefix(name, "dev/") {
			return ErrDevice
		}
		return nil
	}
	return fmt.Errorf("%w %q", ErrType, hdr.Typeflag)
}

// mark remembers what is made under a name.
func (a *Applier) mark(name string, k kind) error {
	id := keyOf(name)
	if _, known := a.made[id]; !known && int64(len(a.made)) >= a.limits.MaxEntries {
		return fmt.Errorf("%w: at most %d", ErrTooManyEntries, a.limits.MaxEntries)
	}
	a.made[id] = k
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
	d, err := a.openTop()
	if err != nil || name == "." {
		a.parent = d
		return d, err
	}
	for component := range strings.SplitSeq(name, "/") {
		next, err := a.descend(d, component)
		closeDir(d.fd)
		if err != nil {
			return directory{}, err
		}
		d = next
	}
	a.parent = d
	return d, nil
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

// descend opens the directory name in d on the way to an entry. A directory that
// was not there is made; what was there before the archive and is none is
// replaced by one.
func (a *Applier) descend(d directory, name string) (directory, error) {
	full := path.Join(d.name, name)
	switch a.made[keyOf(full)] {
	case leaf:
		return directory{}, fmt.Errorf("%w: %q", ErrThroughLink, full)
	case implicitDir, explicitDir:
		fd, err := openat(d.fd, name, dirFlags, 0)
		if isNoDirectory(err) {
			err = fmt.Errorf("%w: %q: %w", ErrThroughLink, full, err)
		}
		return directory{fd, full}, err
	}
	if err := a.mark(full, implicitDir); err != nil {
		return directory{}, err
	}
	fd, created, err := a.openOrMakeDir(d, name)
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
	return directory{fd, full}, nil
}

// openOrMakeDir opens the directory name in d, after replacing what is no
// directory there.
func (a *Applier) openOrMakeDir(d directory, name string) (fd int, created bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		created = true
	case err != nil:
		return -1, false, err
	case fileType(&st) != unix.S_IFDIR:
		if err := unix.Unlinkat(d.fd, name, 0); err != nil {
			return -1, false, err
		}
		created = true
	}
	if created {
		if err := unix.Mkdirat(d.fd, name, 0o700); err != nil {
			return -1, false, err
		}
	}
	fd, err = openat(d.fd, name, dirFlags, 0)
	return fd, created, err
}

// restoreTimes undoes what changes to a directory did to its times.
func (a *Applier) restoreTimes(d directory) error {
	t, ok := a.times[keyOf(d.name)]
	if !ok {
		return nil
	}
	return setTimes(d.fd, ".", time.Unix(t.sec, int64(t.nsec)))
}

// CleanName turns an entry's name into the form that Apply wants: it strips
// leading "./" and trailing slashes and drops "." and empty components; the top
// directory is ".". Refused as ErrName are the empty name, absolute ones, those
// with a ".." component or a NUL, more than 1023 bytes, or a component of more
// than 255. Other control characters are legal: quote names on output.
func CleanName(name string) (string, error) {
	if name == "" || strings.HasPrefix(name, "/") || strings.IndexByte(name, 0) >= 0 {
		return "", nameError(name)
	}
	for component := range strings.SplitSeq(name, "/") {
		if component == ".." || len(component) > 255 {
			return "", nameError(name)
		}
	}
	clean := path.Clean(name)
	if len(clean) > 1023 {
		return "", nameError(name)
	}
	return clean, nil
}

// nameError quotes no more of a name than is fit for a message: PAX permits a
// megabyte.
func nameError(name string) error {
	if len(name) > 1023 {
		return fmt.Errorf("%w: %d bytes that begin with %q", ErrName, len(name), name[:64])
	}
	return fmt.Errorf("%w: %q", ErrName, name)
}

// Below gives what follows the directory dir (a clean name) in an entry's name or
// the target of a hard link, in the form that Apply wants: Below("rootfs",
// "./rootfs/bin/") is "bin", Below("rootfs", "rootfs") is ".". Names that are not
// dir or below it, "rootfsX/bin" for one, are refused as ErrName.
func Below(dir, name string) (string, error) {
	clean, err := CleanName(name)
	if err != nil {
		return "", err
	}
	if clean == dir {
		return ".", nil
	}
	rel, ok := strings.CutPrefix(clean, dir+"/")
	if !ok {
		return "", fmt.Errorf("%w: %q is not below %q", ErrName, clean, dir)
	}
	return rel, nil
}
