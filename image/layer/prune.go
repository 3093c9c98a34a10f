//go:build unix

package layer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Prune removes all paths of the open directory dir that are not in keep, except directories
// above one that is and is there. A nil keep has everything. Nothing is followed,
// what is mounted in the tree is EXDEV, and directories that stay keep their times.
func Prune(dir *os.File, keep *Whitelist) error {
	if keep == nil {
		return nil
	}
	root, device, err := openRoot(dir)
	if err != nil {
		return fmt.Errorf("prune %q: %w", dir.Name(), err)
	}
	p := pruner{keep, device}
	if _, err := p.prune(root, "."); err != nil {
		return fmt.Errorf("prune %q: %w", dir.Name(), err)
	}
	return nil
}

type pruner struct {
	keep   *Whitelist
	device uint64
}

// prune prunes the directory that fd is open on, closes fd and tells whether
// anything is left in the directory.
func (p *pruner) prune(fd int, name string) (left bool, err error) {
	f := os.NewFile(uintptr(fd), "directory") // the name is hostile
	defer func() { err = errors.Join(err, f.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, fmt.Errorf("%q: %w", name, err)
	}
	if st.Dev != p.device {
		return false, fmt.Errorf("%q: a file system is mounted there: %w", name, unix.EXDEV)
	}
	left, err = p.entries(f, fd, name)
	if err != nil || (!left && !p.keep.Has(name)) {
		return left, err
	}
	return left, restoreDirTimes(fd, &st)
}

// restoreDirTimes leaves alone what did not change: overlayfs would copy it.
func restoreDirTimes(fd int, before *unix.Stat_t) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mtim == before.Mtim {
		return err
	}
	return unix.UtimesNanoAt(fd, ".", []unix.Timespec{before.Atim, before.Mtim}, 0)
}

// entries reads the directory once: readdir(3) gives every entry that is not
// removed meanwhile exactly once.
func (p *pruner) entries(f *os.File, fd int, name string) (left bool, err error) {
	for {
		names, err := f.Readdirnames(1000)
		if err == io.EOF {
			return left, nil
		}
		if err != nil {
			return false, err
		}
		for _, n := range names {
			kept, err := p.entry(fd, n, path.Join(name, n))
			if err != nil {
				return false, err
			}
			left = left || kept
		}
	}
}

// entry removes base in the open directory dir, or what is to be removed below it.
func (p *pruner) entry(dir int, base, name string) (kept bool, err error) {
	kept = p.keep.Has(name)
	fd, err := openat(dir, base, dirFlags, 0)
	if isNoDirectory(err) {
		if kept {
			return true, nil
		}
		return false, removed(name, unix.Unlinkat(dir, base, 0))
	}
	if err != nil {
		return false, fmt.Errorf("%q: %w", name, err)
	}
	left, err := p.prune(fd, name)
	if kept || left || err != nil {
		return true, err
	}
	return false, removed(name, unix.Unlinkat(dir, base, unix.AT_REMOVEDIR))
}

func removed(name string, err error) error {
	if err != nil {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	return nil
}
