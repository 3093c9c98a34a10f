package ociengine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// cgroups are the host's cgroup hierarchies (cgroups(7)): the unified one, or one
// for every controller and perhaps the unified one beside them.
type cgroups struct {
	mounts  []string
	unified bool // there is only the unified one
}

func findCgroups() (cgroups, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return cgroups{}, fmt.Errorf("find cgroups: %w", err)
	}
	found := cgroups{unified: true}
	for _, m := range mounts {
		found.mounts = append(found.mounts, m.Mountpoint)
		found.unified = found.unified && m.FSType == "cgroup2"
	}
	return found, nil
}

// remove removes the cgroups of a name, with the wildcards of filepath.Match, from
// all hierarchies. It is not done as long as there is a process in one of them.
func (c cgroups) remove(name string) (done bool, err error) {
	done = true
	for _, mount := range c.mounts {
		dirs, err := filepath.Glob(filepath.Join(mount, name))
		if err != nil {
			return false, fmt.Errorf("find cgroups %s: %w", name, err)
		}
		for _, dir := range dirs {
			err := unix.Rmdir(dir)
			switch {
			case errors.Is(err, unix.EBUSY):
				done = false
			case err != nil && !errors.Is(err, fs.ErrNotExist):
				return false, &os.PathError{Op: "rmdir", Path: dir, Err: err}
			}
		}
	}
	return done, nil
}
