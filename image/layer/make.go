//go:build unix

package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// applyTop gives the top directory the owner, mode and times of its entry.
func (a *Applier) applyTop(hdr *tar.Header) error {
	d, err := a.openTop()
	if err != nil {
		return err
	}
	defer closeDir(d.fd)
	return a.describeDir(d, hdr)
}

// makeDir makes a directory, or keeps the one that is there with its content.
func (a *Applier) makeDir(parent directory, name string, hdr *tar.Header) error {
	fd, _, err := openOrMakeDir(parent, name)
	if err != nil {
		return err
	}
	defer closeDir(fd)
	return a.describeDir(directory{fd, path.Join(parent.name, name)}, hdr)
}

// describeDir gives a directory what its entry says of it. Its times are also
// kept, to be restored when something was made in it.
func (a *Applier) describeDir(d directory, hdr *tar.Header) error {
	if err := a.describe(d.fd, hdr); err != nil {
		return err
	}
	t := modTime(hdr)
	a.times[keyOf(d.name)] = unixTime{t.Unix(), int32(t.Nanosecond())}
	return a.restoreTimes(d)
}

// describe gives an open file or directory everything but its times. Attributes
// come after the owner, since chown(2) removes capabilities.
func (a *Applier) describe(fd int, hdr *tar.Header) error {
	if err := setOwnerAndMode(fd, hdr.Uid, hdr.Gid, permissions(hdr)); err != nil {
		return err
	}
	return a.setXattrs(hdr, func(name string, value []byte) error {
		return unix.Fsetxattr(fd, name, value, 0)
	})
}

func (a *Applier) makeFile(parent directory, name string, hdr *tar.Header, r io.Reader) (err error) {
	if err := a.removeExisting(parent, name); err != nil {
		return err
	}
	fd, err := openat(parent.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "content") // the name is hostile
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := writeSparse(f, r, hdr.Size, a.buf); err != nil {
		return err
	}
	if err := a.describe(fd, hdr); err != nil {
		return err
	}
	return setTimes(parent.fd, name, modTime(hdr))
}

// makeHardLink links to a file that was made before.
func (a *Applier) makeHardLink(parent directory, name, target string) error {
	dir, err := a.openExisting(path.Dir(target))
	if err != nil {
		return hardLinkError(target, err)
	}
	defer closeDir(dir)
	if err := a.checkTarget(dir, target); err != nil {
		return err
	}
	if err := a.removeExisting(parent, name); err != nil {
		return err
	}
	// Without AT_SYMLINK_FOLLOW, a link that took the target's place is not followed.
	return hardLinkError(target, unix.Linkat(dir, path.Base(target), parent.fd, name, 0))
}

// checkTarget refuses a target of a lower layer that is a directory.
func (a *Applier) checkTarget(dir int, target string) error {
	if !a.checker.oci {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, path.Base(target), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return hardLinkError(target, err)
	}
	if fileType(&st) == unix.S_IFDIR {
		return fmt.Errorf("%w: %q is a directory", ErrHardLink, target)
	}
	return nil
}

// hardLinkError tells a target that somebody took away meanwhile from failures.
func hardLinkError(target string, err error) error {
	if errors.Is(err, unix.ENOENT) || isNoDirectory(err) {
		return fmt.Errorf("%w: %q: %w", ErrHardLink, target, err)
	}
	return err
}

// openExisting opens a directory below the top one without making anything.
func (a *Applier) openExisting(name string) (int, error) {
	if fd, err := openBeneath(a.root, name); err == nil {
		return fd, nil
	}
	fd, err := openat(a.root, ".", dirFlags, 0)
	if err != nil {
		return -1, err
	}
	for end := range components(name) {
		next, err := openat(fd, path.Base(name[:end]), dirFlags, 0)
		closeDir(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

func (a *Applier) makeSymlink(parent directory, name string, hdr *tar.Header) error {
	if err := a.removeExisting(parent, name); err != nil {
		return err
	}
	if err := unix.Symlinkat(hdr.Linkname, parent.fd, name); err != nil {
		return err
	}
	return a.describeAt(parent, name, hdr)
}

// makeFifo makes a named pipe; it is not opened.
func (a *Applier) makeFifo(parent directory, name string, hdr *tar.Header) error {
	if err := a.removeExisting(parent, name); err != nil {
		return err
	}
	if err := unix.Mknodat(parent.fd, name, unix.S_IFIFO|0o600, 0); err != nil {
		return err
	}
	if err := a.describeAt(parent, name, hdr); err != nil {
		return err
	}
	return chmodFifo(parent.fd, name, permissions(hdr))
}

// describeAt gives what cannot be opened its owner, attributes and times.
func (a *Applier) describeAt(parent directory, name string, hdr *tar.Header) error {
	if err := unix.Fchownat(parent.fd, name, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if hasXattrs(hdr) {
		err := setXattrsAt(parent.fd, name, func(set setXattr) error { return a.setXattrs(hdr, set) })
		if err != nil {
			return err
		}
	}
	return setTimes(parent.fd, name, modTime(hdr))
}

// removeExisting removes what a lower layer has under a name.
func (a *Applier) removeExisting(parent directory, name string) error {
	err := a.removeAll(parent.fd, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// removeAll removes name and what is below it, following neither links nor mounts.
func (a *Applier) removeAll(dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if fileType(&st) != unix.S_IFDIR {
		return unix.Unlinkat(dir, name, 0)
	}
	if err := a.emptyDir(dir, name); err != nil {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

func (a *Applier) emptyDir(dir int, name string) (err error) {
	fd, err := openat(dir, name, dirFlags, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer func() { err = errors.Join(err, f.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	// Of directories only: overlayfs may give files another device number.
	if st.Dev != a.device {
		return fmt.Errorf("a file system is mounted there: %w", unix.EXDEV)
	}
	for {
		names, err := f.Readdirnames(1000)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := a.removeAll(fd, n); err != nil {
				return err
			}
		}
		// From the start: what was removed may have moved the rest.
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

const (
	blockSize = 4096 // what a hole is made of
	chunkSize = 32 * blockSize
)

// writeSparse copies size bytes from r to f, which is empty, by way of buf; blocks of
// zeros become holes. Fewer bytes are io.ErrUnexpectedEOF.
func writeSparse(f *os.File, r io.Reader, size int64, buf []byte) error {
	end := int64(0) // of the file so far
	for off := int64(0); off < size; {
		chunk := buf[:min(size-off, int64(len(buf)))]
		if _, err := io.ReadFull(r, chunk); err != nil {
			return contentError(err)
		}
		written, err := writeData(f, chunk, off)
		if err != nil {
			return err
		}
		off += int64(len(chunk))
		if written {
			end = off
		}
	}
	if end == size {
		return nil // a journal would write it down all the same
	}
	return f.Truncate(size)
}

// writeData writes the runs of blocks in chunk that are not zero, and tells whether the
// last block was one.
func writeData(f *os.File, chunk []byte, off int64) (bool, error) {
	start := 0 // of the run that is to be written
	for pos := 0; pos < len(chunk); {
		end := min(pos+blockSize, len(chunk))
		if bytes.Equal(chunk[pos:end], zeros[:end-pos]) {
			if err := writeAt(f, chunk[start:pos], off+int64(start)); err != nil {
				return false, err
			}
			start = end
		}
		pos = end
	}
	return start < len(chunk), writeAt(f, chunk[start:], off+int64(start))
}

var zeros [blockSize]byte

func writeAt(f *os.File, data []byte, off int64) error {
	if len(data) == 0 {
		return nil
	}
	_, err := f.WriteAt(data, off)
	return err
}

// modTime is an entry's time; archive formats without one leave it zero, which is
// the year 1 to Go and 1970 to tar.
func modTime(hdr *tar.Header) time.Time {
	if hdr.ModTime.IsZero() {
		return time.Unix(0, 0)
	}
	return hdr.ModTime
}

func permissions(hdr *tar.Header) uint32 { return uint32(hdr.Mode & 0o7777) }
