package ociengine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	library "github.com/opencontainers/cgroups"
	fs1 "github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
	"golang.org/x/sys/unix"
)

// cgroups are the host's cgroup hierarchies (cgroups(7)): the unified one, or one
// for every controller and perhaps the unified one beside them.
type cgroups struct {
	mounts      []string
	unified     bool              // there is only the unified one
	controllers map[string]string // mount points by names
}

func findCgroups() (cgroups, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return cgroups{}, fmt.Errorf("find cgroups: %w", err)
	}
	found := cgroups{unified: true, controllers: map[string]string{}}
	for _, m := range mounts {
		found.mounts = append(found.mounts, m.Mountpoint)
		found.unified = found.unified && m.FSType == "cgroup2"
		for _, option := range strings.Split(m.VFSOptions, ",") {
			found.controllers[option] = m.Mountpoint // and others, which nobody asks for
		}
	}
	for _, mount := range found.mounts {
		data, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
		if err != nil || !found.unified {
			continue // one for a controller has none
		}
		for _, name := range strings.Fields(string(data)) {
			found.controllers[name] = mount
		}
	}
	return found, nil
}

// lacks says what is missing for limits of a controller, or "".
func (c cgroups) lacks(controller string) string {
	mount, ok := c.controllers[controller]
	if !ok {
		return fmt.Sprintf("this host has no cgroup controller %q", controller)
	}
	// Kernels may be made without some of what a controller can.
	needs := map[string]string{"cpu": "cpu.cfs_quota_us", "blkio": "blkio.throttle.read_bps_device"}[controller]
	if c.unified || needs == "" {
		return ""
	}
	if _, err := os.Stat(filepath.Join(mount, needs)); err != nil {
		return "this kernel has no " + needs
	}
	return ""
}

// countsSwap tells whether swap can be bounded.
func (c cgroups) countsSwap() bool {
	if c.unified {
		return true
	}
	_, err := os.Stat(filepath.Join(c.controllers["memory"], "memory.memsw.limit_in_bytes"))
	return err == nil
}

// limit makes a cgroup with limits, for others below it.
func (c cgroups) limit(name string, l limits) error {
	cg := &library.Cgroup{Path: "/" + name, Resources: l.resources()}
	var manager interface {
		Apply(pid int) error
		Set(r *library.Resources) error
	}
	var err error
	if c.unified {
		manager, err = fs2.NewManager(cg, filepath.Join(fs2.UnifiedMountpoint, name))
	} else {
		manager, err = fs1.NewManager(cg, nil)
	}
	if err != nil {
		return fmt.Errorf("limit %s: %w", name, err)
	}
	if err := manager.Apply(-1); err != nil { // no process
		return fmt.Errorf("make cgroup %s: %w", name, err)
	}
	if err := manager.Set(cg.Resources); err != nil {
		return fmt.Errorf("limit %s: %w", name, err)
	}
	return nil
}

// resources are the limits as the library has them.
func (l limits) resources() *library.Resources {
	r := &library.Resources{
		Memory: l.memory.Limit, MemoryReservation: l.memory.Request,
		CpuShares: uint64(l.weight()), CpuWeight: library.ConvertCPUSharesToCgroupV2Value(uint64(l.weight())),
		SkipDevices: true,
	}
	if l.withSwap {
		r.MemorySwap = l.memory.Limit
	}
	if l.cpu.Limit > 0 {
		r.CpuQuota, r.CpuPeriod = l.quota()
	}
	throttle := func(rate int64) []*library.ThrottleDevice {
		if rate == 0 {
			return nil
		}
		return []*library.ThrottleDevice{library.NewThrottleDevice(l.device.major, l.device.minor, uint64(rate))}
	}
	r.BlkioThrottleReadBpsDevice, r.BlkioThrottleWriteBpsDevice = throttle(l.bandwidth), throttle(l.bandwidth)
	r.BlkioThrottleReadIOPSDevice, r.BlkioThrottleWriteIOPSDevice = throttle(l.iops), throttle(l.iops)
	return r
}

// remove removes a cgroup, and those below it, from all hierarchies. It is not done as
// long as there is a process in one of them.
func (c cgroups) remove(name string) (done bool, err error) {
	done = true
	for _, mount := range c.mounts {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(mount, name), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it is, or has just been, removed
			}
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return false, fmt.Errorf("find cgroups of %s: %w", name, err)
		}
		for _, dir := range slices.Backward(dirs) {
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
