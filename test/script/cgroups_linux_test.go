package script

import (
	"errors"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCgroupViews runs a pod where only cgroups v2, and only those of v1, are
// mounted. A hybrid host can show itself as either, in a mount namespace.
func TestCgroupViews(t *testing.T) {
	if unix.Access("/sys/fs/cgroup/unified/cgroup.procs", unix.F_OK) != nil {
		t.Skip("the host's cgroups are not hybrid: there is one view of them")
	}
	h := newHost(t)
	for name, view := range map[string]string{
		"v2": "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup",
		"v1": "umount /sys/fs/cgroup/unified",
	} {
		t.Run(name, func(t *testing.T) {
			script := view + ` && "$0" --root "$1" pod run --rm example.com/probe -- exit 7`
			out, err := exec.Command("unshare", "-m", "sh", "-c", script, h.bin, h.root).CombinedOutput()
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 {
				t.Errorf("%v\n%s", err, out)
			}
			h.clean()
		})
	}
}
