package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// isMountpoint tells whether something is mounted on path, in this mount
// namespace. A path that does not exist is none.
func isMountpoint(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, errors.New("statx cannot tell mount points (needs Linux 5.8)")
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// bind makes source visible at target as well. The mount appears with all its
// flags at once: mount(2) would need a second call for them, and a crash in
// between would leave a sealed tree writable.
func bind(source, target string, readOnly bool) (err error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: source, Err: err}
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	attr := unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_NODEV,
		// Else what is mounted in target would appear in source too, where the
		// removal of the tree would meet it.
		Propagation: unix.MS_PRIVATE,
	}
	if readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return &os.PathError{Op: "mount_setattr", Path: source, Err: err}
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: target, Err: err}
	}
	return nil
}

// mountOverlay mounts the layers lower, the uppermost first, on target; writable
// if upper and work are given. The name is what the mount table shows as source.
func mountOverlay(name, target string, lower []string, upper, work string) (err error) {
	// Directories are named by descriptors: that needs no quoting of ':' and ','
	// and keeps the options of a long chain within the page that mount(2) takes.
	var fds []int
	defer func() {
		for _, fd := range fds {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	open := func(dir string) (string, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", &os.PathError{Op: "open", Path: dir, Err: err}
		}
		fds = append(fds, fd)
		return fmt.Sprintf("/proc/self/fd/%d", fd), nil
	}

	var stack []string
	for _, dir := range lower {
		path, err := open(dir)
		if err != nil {
			return err
		}
		stack = append(stack, path)
	}
	options := "redirect_dir=nofollow,metacopy=off,index=off,xino=off,lowerdir=" + strings.Join(stack, ":")
	flags := uintptr(unix.MS_NODEV)
	if upper == "" {
		flags |= unix.MS_RDONLY
	} else {
		upperPath, err := open(upper)
		if err != nil {
			return err
		}
		workPath, err := open(work)
		if err != nil {
			return err
		}
		options += ",upperdir=" + upperPath + ",workdir=" + workPath
	}
	// The kernel would cut the options off silently.
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("too many origins: %d", len(lower))
	}
	if err := unix.Mount(name, target, "overlay", flags, options); err != nil {
		return &os.PathError{Op: "mount overlay on", Path: target, Err: err}
	}
	return nil
}
