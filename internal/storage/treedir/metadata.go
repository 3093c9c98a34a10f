package treedir

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/xattr"
)

// overlayAttr are the attributes in which overlayfs keeps its own state: they
// belong to a layer and not to a file.
const overlayAttr = "trusted.overlay."

// CopyMetadata gives the file at dst, which is not followed if it is a link,
// the owner, mode, extended attributes and times of the one at src, of which info
// is the Lstat. Without root's privilege, the owner and attributes other than
// "user.*" stay as they are.
func CopyMetadata(dst, src string, info fs.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	root := os.Geteuid() == 0
	if root {
		if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	// After chown(2), which clears the setuid and setgid bits.
	if info.Mode()&fs.ModeSymlink == 0 {
		if err := os.Chmod(dst, info.Mode()); err != nil {
			return err
		}
	}
	attrs, err := attributes(src)
	if err != nil {
		return err
	}
	for name, value := range attrs {
		if !root && !strings.HasPrefix(name, "user.") {
			continue
		}
		if err := unix.Lsetxattr(dst, name, []byte(value), 0); err != nil {
			return fmt.Errorf("set attribute %s of %s: %w", name, dst, err)
		}
	}
	mtime, err := unix.TimeToTimespec(info.ModTime())
	if err != nil {
		return fmt.Errorf("time of %s: %w", src, err)
	}
	times := []unix.Timespec{mtime, mtime} // nobody needs the time of the last reading
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dst, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: dst, Err: err}
	}
	return nil
}

// attributes reads the extended attributes of a file, or of a link itself; none
// if the file system has none.
func attributes(path string) (map[string]string, error) {
	names, err := xattr.Names(path)
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: path, Err: err}
	}
	attrs := make(map[string]string)
	for _, name := range names {
		if strings.HasPrefix(name, overlayAttr) {
			continue
		}
		value, err := xattr.Value(path, name)
		if err != nil {
			return nil, fmt.Errorf("get attribute %s of %s: %w", name, path, err)
		}
		attrs[name] = string(value)
	}
	return attrs, nil
}

// same tells whether two files are unchanged in the sense of storage.Driver.Diff.
func same(a, b entry) (bool, error) {
	sa, sb := a.info.Sys().(*syscall.Stat_t), b.info.Sys().(*syscall.Stat_t)
	if sa.Mode != sb.Mode || sa.Uid != sb.Uid || sa.Gid != sb.Gid {
		return false, nil
	}
	switch a.info.Mode().Type() {
	case fs.ModeDir:
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		// Of other files the number may be anything (UFS).
		if sa.Rdev != sb.Rdev || !a.info.ModTime().Equal(b.info.ModTime()) {
			return false, nil
		}
	case fs.ModeSymlink:
		ta, erra := os.Readlink(a.path())
		tb, errb := os.Readlink(b.path())
		if err := errors.Join(erra, errb); err != nil || ta != tb {
			return false, err
		}
		fallthrough
	default:
		if sa.Size != sb.Size || !a.info.ModTime().Equal(b.info.ModTime()) {
			return false, nil
		}
	}
	xa, erra := attributes(a.path())
	xb, errb := attributes(b.path())
	return maps.Equal(xa, xb), errors.Join(erra, errb)
}
