package plaindir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage/treedir"
)

// copyTree copies a directory with all that is in it. It is own code because the
// libraries that copy directories lose the times of directories or sync every file.
func copyTree(ctx context.Context, dst, src string) error {
	info, err := os.Lstat(src)
	if err != nil {
		return err
	}
	c := copier{ctx: ctx, links: make(map[uint64]string)}
	return c.copy(dst, src, info)
}

type copier struct {
	ctx   context.Context   // of the one call of copyTree
	links map[uint64]string // inode of a file with several names → its copy
}

func (c *copier) copy(dst, src string, info fs.FileInfo) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() && st.Nlink > 1 {
		if first, ok := c.links[st.Ino]; ok {
			return os.Link(first, dst)
		}
		c.links[st.Ino] = dst
	}
	if err := c.content(dst, src, info); err != nil {
		return err
	}
	return treedir.CopyMetadata(dst, src, info)
}

func (c *copier) content(dst, src string, info fs.FileInfo) error {
	switch info.Mode().Type() {
	case 0:
		return copyFile(dst, src, info.Size())
	case fs.ModeDir:
		return c.dir(dst, src)
	case fs.ModeSymlink:
		target, err := os.Readlink(src)
		if err != nil {
			return err
		}
		return os.Symlink(target, dst)
	default:
		return mknod(unix.Mknod, dst, info.Sys().(*syscall.Stat_t))
	}
}

func (c *copier) dir(dst, src string) error {
	if err := os.Mkdir(dst, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if err := c.copy(filepath.Join(dst, e.Name()), filepath.Join(src, e.Name()), info); err != nil {
			return err
		}
	}
	return nil
}

// mknod makes a fifo, device or socket like the one described by st. The type of
// a device number depends on the system.
func mknod[D int | uint64](call func(path string, mode uint32, dev D) error, path string, st *syscall.Stat_t) error {
	var dev D
	if t := st.Mode & syscall.S_IFMT; t == syscall.S_IFCHR || t == syscall.S_IFBLK {
		dev = D(st.Rdev) // others have any on FreeBSD's tmpfs(5), and may have none in mknod(2)
	}
	if err := call(path, uint32(st.Mode), dev); err != nil {
		return &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	return nil
}

// copyFile copies the size bytes of a regular file, leaving holes as holes.
func copyFile(dst, src string, size int64) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := copyData(out, in); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	return out.Truncate(size) // a hole at the end
}

// copyData copies what lies between the holes.
func copyData(out, in *os.File) error {
	for end := int64(0); ; {
		start, err := in.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // no more data
		}
		if errors.Is(err, unix.EINVAL) {
			_, err = io.Copy(out, in) // the file system cannot tell
			return err
		}
		if err != nil {
			return err
		}
		if end, err = in.Seek(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		for _, f := range []*os.File{in, out} {
			if _, err := f.Seek(start, io.SeekStart); err != nil {
				return err
			}
		}
		if _, err := io.CopyN(out, in, end-start); err != nil {
			return err
		}
	}
}
