package zfs

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const (
	loadCommand = "modprobe zfs"
	installHint = "install OpenZFS (Debian: zfsutils-linux)"
)

// systemProperties are those of a kind that only Linux has or needs: without acltype
// there are no POSIX ACLs, and without xattr=sa each attribute is a hidden directory.
// zfsprops(7).
var systemProperties = map[string]string{"xattr": "sa", "acltype": "posixacl"}

// attach mounts a dataset or a snapshot. The kernel goes by the properties of the
// dataset; mount(2) asks for less only, as nodev, which is there anyway.
func attach(source, target string, readOnly bool) error {
	flags := uintptr(unix.MS_NODEV)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(source, target, "zfs", flags, ""); err != nil {
		return &os.PathError{Op: "mount zfs on", Path: target, Err: err}
	}
	return nil
}

func detach(target string) error {
	if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil {
		return &os.PathError{Op: "unmount", Path: target, Err: err}
	}
	return nil
}

// isMountpoint tells whether something is mounted on path, in this mount namespace. A
// path that does not exist is none.
func isMountpoint(path string) (bool, error) {
	mounted, err := mountRoot(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return mounted, err
}

// isMounted tells whether dir, open at path, is what is mounted there.
func isMounted(dir *os.File, _ string) (bool, error) {
	return mountRoot(int(dir.Fd()), "", unix.AT_EMPTY_PATH)
}

func mountRoot(dir int, path string, flags int) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, path, flags, 0, &st); err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, errors.New("statx cannot tell mount points (needs Linux 5.8)")
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// isReadOnly tells how path is mounted.
func isReadOnly(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return st.Flags&unix.ST_RDONLY != 0, nil
}
