package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// holdSource opens the source of a host volume, mounts what it has opened at a path
// in dir, which nobody but root can reach, and gives that path. Every process of the
// pod binds it from there: whoever turns a directory of the source's path into a
// symbolic link afterwards, or at any time when they are not allowed, turns nothing
// of the pod's.
func (r *Runtime) holdSource(dir, name, source string, symlinks, recursive bool) (_ string, err error) {
	f, err := openSource(source, symlinks)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := r.mountSourcesDir(dir); err != nil {
		return "", err
	}
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	target := filepath.Join(dir, name)
	err = r.step("make place of source", func() error {
		switch {
		case fi.IsDir():
			return os.Mkdir(target, 0o700)
		case fi.Mode().IsRegular():
			return os.WriteFile(target, nil, 0o600)
		}
		return fmt.Errorf("%w: source %s is neither a directory nor a file", ErrInvalid, source)
	})
	if err != nil {
		return "", err
	}
	flags := uintptr(unix.MS_BIND)
	if recursive {
		flags |= unix.MS_REC
	}
	if err := r.mount("bind source", fmt.Sprintf("/proc/self/fd/%d", f.Fd()), target, "", flags, ""); err != nil {
		return "", fmt.Errorf("bind source %s: %w", source, err)
	}
	// What the host mounts later is not for pods that run, and what the pod's end
	// unmounts is not the host's.
	if err := r.mount("unshare source", "", target, "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind source %s: %w", source, err)
	}
	return target, nil
}

// openSource opens a clean path, one component after the other, so that none may be
// a symbolic link. Only its place is opened (O_PATH): a fifo does not block.
func openSource(source string, symlinks bool) (*os.File, error) {
	if symlinks {
		return os.OpenFile(source, unix.O_PATH, 0)
	}
	f, err := os.OpenFile("/", unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(source[1:], "/") {
		if name == "" {
			return f, nil // the source is "/"
		}
		fd, err := unix.Openat(int(f.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("open source %s: %s: %w", source, name, err)
		}
		f = os.NewFile(uintptr(fd), source)
	}
	return f, nil
}

// mountSourcesDir makes the place for sources, unless it is there: a file system of
// its own, so that removing the pod's directory can never reach into a source, and
// private, so that the sources are mounted here and in no other mount namespace.
func (r *Runtime) mountSourcesDir(dir string) error {
	err := r.step("make directory of sources", func() error { return os.Mkdir(dir, 0o700) })
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.mount("mount directory of sources", "jetpack", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700,size=1m"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	if err := r.mount("unshare directory of sources", "", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", dir, err)
	}
	return nil
}

func (r *Runtime) mount(step, source, target, fstype string, flags uintptr, data string) error {
	return r.step(step, func() error { return unix.Mount(source, target, fstype, flags, data) })
}

// releaseSources undoes holdSource, whatever is left of it.
func (r *Runtime) releaseSources(dir string) error {
	// First private, because a crash may have come before: unmounting what is mounted
	// below a source would unmount it on the host as well (mount_namespaces(7)).
	err := r.mount("unshare sources", "", dir, "", unix.MS_PRIVATE|unix.MS_REC, "")
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EINVAL): // it is not mounted
	case err != nil:
		return fmt.Errorf("make %s private: %w", dir, err)
	default:
		err := r.step("unmount sources", func() error { return unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	// Not all that is in it: there is nothing, or it is still mounted.
	return r.step("remove directory of sources", func() error { return unix.Rmdir(dir) })
}
