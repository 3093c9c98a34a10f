//go:build unix

package layer

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

func fileType(st *unix.Stat_t) uint32 { return uint32(st.Mode) & unix.S_IFMT }

// isNoDirectory says whether opening with dirFlags failed because of what is
// there: for a symbolic link Linux says ENOTDIR or ELOOP, FreeBSD EMLINK.
func isNoDirectory(err error) bool {
	return errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK)
}

func openat(dir int, name string, flags int, perm uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, perm)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// setOwnerAndMode sets the mode last, since chown(2) clears setuid and setgid.
func setOwnerAndMode(fd, uid, gid int, mode uint32) error {
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, mode)
}

// setTimes sets the times of name in dir, not following it.
func setTimes(dir int, name string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// closeDir closes a directory: open for reading, it has nothing to lose.
func closeDir(fd int) { _ = unix.Close(fd) }
