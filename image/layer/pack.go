//go:build unix

package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/xattr"
)

// PackOptions say how a tree is written.
type PackOptions struct {
	// Below is a clean name that is put before all names, "rootfs"; "" for nothing.
	Below string
	// Latest is written in place of all later modification times; zero for none
	// (SOURCE_DATE_EPOCH).
	Latest time.Time
}

// Pack writes what is in the directory dir to w, in the form in which an Applier
// makes the same of it: all that there is, the top directory included, or only
// names, which are clean ones. The order is that of a walk, whatever that of names:
// a directory, then what is in it, by name, byte by byte. The same tree gives the
// same bytes. It does not close w.
//
// Written are modes, numeric owners, modification times to the nanosecond, the
// extended attributes that belong to a file wherever it goes (isPortable), and the
// further names of a file among those written as hard links. Sockets are left out:
// there is nothing in them. What an Applier would refuse is the same error here:
// ErrName, ErrDevice, ErrWhiteout. Holes are written as zeros.
//
// Nobody may write to the tree meanwhile, but nothing is followed in any case: no
// symbolic link, also on the way to one of names (ErrThroughLink), and no mount (EXDEV).
func Pack(ctx context.Context, w *tar.Writer, dir string, names []string, o PackOptions) (err error) {
	top, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(int(top.Fd()), &st); err != nil {
		return fmt.Errorf("pack %q: %w", dir, err)
	}
	p := packer{ctx: ctx, w: w, o: o, device: st.Dev, links: map[inode]string{}, buf: make([]byte, chunkSize)}
	d := directory{int(top.Fd()), "."}
	if names != nil {
		err = p.some(d, names)
	} else if _, err = p.pack(d, "."); err == nil {
		err = p.all(d)
	}
	if err != nil {
		return fmt.Errorf("pack %q: %w", dir, err)
	}
	return nil
}

// packer packs one tree.
type packer struct {
	ctx    context.Context // of the one call of Pack
	w      *tar.Writer
	o      PackOptions
	device uint64           // of the top directory
	links  map[inode]string // the first name of each file that has several
	buf    []byte
}

type inode struct{ dev, ino uint64 }

// all packs what is in an open directory, and below.
func (p *packer) all(d directory) error {
	names, err := readNames(d.fd)
	if err != nil {
		return fmt.Errorf("%q: %w", d.name, err)
	}
	for _, base := range names {
		name := path.Join(d.name, base)
		if err := checkName(name); err != nil {
			return err
		}
		isDir, err := p.pack(d, name)
		if err == nil && isDir {
			err = p.below(d, name, p.all)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readNames lists an open directory, sorted.
func readNames(fd int) (_ []string, err error) {
	again, err := openat(fd, ".", dirFlags, 0) // reading moves a descriptor's position
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), "directory")
	defer func() { err = errors.Join(err, f.Close()) }()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// some packs names only.
func (p *packer) some(top directory, names []string) error {
	names = slices.Compact(slices.SortedFunc(slices.Values(names), compareNames))
	for _, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
		if err := p.named(top, name); err != nil {
			return err
		}
	}
	return nil
}

// checkName wants what CleanName gives.
func checkName(name string) error {
	clean, err := CleanName(name)
	if err == nil && clean != name {
		err = nameError(name)
	}
	return err
}

// compareNames orders clean names as a walk does.
func compareNames(a, b string) int {
	return slices.Compare(walkOrder(a), walkOrder(b))
}

func walkOrder(name string) []string {
	if name == "." {
		return nil
	}
	return strings.Split(name, "/")
}

// named packs what is under a name in or below an open directory.
func (p *packer) named(d directory, name string) error {
	next, _, deeper := strings.Cut(strings.TrimPrefix(name, d.name+"/"), "/")
	if !deeper {
		_, err := p.pack(d, name)
		return err
	}
	return p.below(d, path.Join(d.name, next), func(d directory) error { return p.named(d, name) })
}

// below opens the directory name, whose parent is d, for do.
func (p *packer) below(d directory, name string, do func(directory) error) error {
	fd, err := openat(d.fd, path.Base(name), dirFlags, 0)
	if isNoDirectory(err) {
		return fmt.Errorf("%w: %q", ErrThroughLink, name)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	defer closeDir(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	// Of directories only: overlayfs may give files another device number.
	if st.Dev != p.device {
		return fmt.Errorf("%q: a file system is mounted there: %w", name, unix.EXDEV)
	}
	return do(directory{fd, name})
}

// pack writes the entry of what is under a name, whose directory is d.
func (p *packer) pack(d directory, name string) (isDir bool, err error) {
	isDir, err = p.entry(d, name)
	if err != nil {
		return false, fmt.Errorf("entry %q: %w", name, err)
	}
	return isDir, nil
}

func (p *packer) entry(d directory, name string) (isDir bool, err error) {
	if err := p.ctx.Err(); err != nil {
		return false, err
	}
	base := path.Base(name)
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	if fileType(&st) == unix.S_IFSOCK {
		return false, nil
	}
	hdr, err := p.header(d.fd, base, name, &st)
	if err != nil {
		return false, err
	}
	if err := p.w.WriteHeader(hdr); err != nil {
		return false, err
	}
	if hdr.Typeflag == tar.TypeReg {
		return false, p.content(d.fd, base, hdr.Size)
	}
	return hdr.Typeflag == tar.TypeDir, nil
}

// types are those of entries for what a file system has.
var types = map[uint32]byte{
	unix.S_IFREG: tar.TypeReg, unix.S_IFDIR: tar.TypeDir, unix.S_IFLNK: tar.TypeSymlink,
	unix.S_IFIFO: tar.TypeFifo, unix.S_IFCHR: tar.TypeChar, unix.S_IFBLK: tar.TypeBlock,
}

// header describes base in dir, whose name in the tree is name.
func (p *packer) header(dir int, base, name string, st *unix.Stat_t) (*tar.Header, error) {
	hdr := &tar.Header{
		Format: tar.FormatPAX, Typeflag: types[fileType(st)], Name: path.Join(p.o.Below, name), Mode: int64(st.Mode & 0o7777),
		Uid: int(st.Uid), Gid: int(st.Gid), ModTime: p.modTime(st),
	}
	switch hdr.Typeflag {
	case tar.TypeReg:
		if first := p.firstName(hdr.Name, st); first != "" {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
			return hdr, nil
		}
		hdr.Size = st.Size
	case tar.TypeDir:
		hdr.Name += "/"
	case tar.TypeSymlink:
		target, err := xattr.Fill(func(buf []byte) (int, error) { return unix.Readlinkat(dir, base, buf) })
		if err != nil {
			return nil, err
		}
		hdr.Linkname, hdr.Mode = string(target), 0o777 // it means nothing, and FreeBSD has it
	case tar.TypeChar, tar.TypeBlock:
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	if err := checkType(hdr, name); err != nil {
		return nil, err
	}
	return hdr, readXattrs(hdr, dir, base)
}

// modTime is the time to be written for a file.
func (p *packer) modTime(st *unix.Stat_t) time.Time {
	t := time.Unix(st.Mtim.Unix())
	if !p.o.Latest.IsZero() && t.After(p.o.Latest) {
		return p.o.Latest
	}
	return t
}

// firstName gives the name under which a file was written before, or "".
func (p *packer) firstName(name string, st *unix.Stat_t) string {
	if st.Nlink < 2 {
		return ""
	}
	id := inode{st.Dev, st.Ino}
	first := p.links[id]
	if first == "" {
		p.links[id] = name
	}
	return first
}

// content writes what is in the regular file base of dir. O_NONBLOCK: a fifo that
// took its place must not hold us.
func (p *packer) content(dir int, base string, size int64) (err error) {
	fd, err := openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "content")
	defer func() { err = errors.Join(err, f.Close()) }()
	for size > 0 {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		chunk := p.buf[:min(size, int64(len(p.buf)))]
		if _, err := io.ReadFull(f, chunk); err != nil {
			return contentError(err)
		}
		if _, err := p.w.Write(chunk); err != nil {
			return err
		}
		size -= int64(len(chunk))
	}
	return nil
}

// xattrsOf are the extended attributes of one file.
type xattrsOf struct {
	names func() ([]string, error)
	value func(name string) ([]byte, error)
}

// addTo gives an entry the attributes that belong to a file wherever it goes.
func (x xattrsOf) addTo(hdr *tar.Header) error {
	names, err := x.names()
	if err != nil {
		return fmt.Errorf("extended attributes: %w", err)
	}
	for _, name := range names {
		if !isPortable(name) {
			continue
		}
		value, err := x.value(name)
		if err != nil {
			return fmt.Errorf("extended attribute %q: %w", name, err)
		}
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords[xattrPrefix+name] = string(value)
	}
	return checkXattrs(hdr)
}
