package ociengine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// profile is what an app has where no isolator says otherwise.
type profile struct {
	// Capabilities are root's; those of other users are bounded by them. Seccomp is moby's
	// default profile for them.
	Capabilities    []string
	NoNewPrivileges bool
}

// profiles: strict is what the restricted Pod Security Standard of Kubernetes permits,
// default podman's default, relaxed docker's.
var profiles = map[sandbox.Profile]profile{
	sandbox.ProfileStrict:  {Capabilities: []string{"CAP_NET_BIND_SERVICE"}, NoNewPrivileges: true},
	sandbox.ProfileDefault: {Capabilities: podman},
	sandbox.ProfileRelaxed: {Capabilities: slices.Concat(podman, []string{"CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW"})},
}

// info is for sandbox.Info.
func (p profile) info() string {
	text := "capabilities " + strings.ReplaceAll(strings.Join(p.Capabilities, ", "), "CAP_", "")
	if p.NoNewPrivileges {
		text += "; no new privileges"
	}
	return text + "; moby's default seccomp profile for these"
}

// effects is for sandbox.Info.
var effects = map[string]string{
	sandbox.CPU:                "the cgroups' CPU quota; a request is their weight",
	sandbox.Memory:             "the cgroups' limit of memory, with swap where that is counted: the kernel ends a process that goes beyond it; a request is protected from reclaim",
	sandbox.BlockBandwidth:     "the cgroups' limit for the disk that the root is on; with version 1, of each process, and not of writes that the kernel caches",
	sandbox.BlockIOPS:          "the same, of operations",
	sandbox.CapabilitiesRetain: "the bounding set, and root's other sets; of an image's, those that the profile has; never CAP_SYS_PTRACE",
	sandbox.CapabilitiesRemove: "the same, the profile's less these",
	sandbox.SeccompRetain:      "a filter in place of the profile's, with what it takes to start and end a program; an image's narrows the profile's. `@appc.io/all` is no filter. Groups: `@docker/default-whitelist`, `@rkt/default-whitelist`",
	sandbox.SeccompRemove:      "the profile's filter less these. `@appc.io/empty` is the profile's. Groups: `@docker/default-blacklist`, `@rkt/default-blacklist`",
	sandbox.NoNewPrivileges:    "the process's no_new_privs",
	sandbox.OOMScoreAdj:        "the process's oom_score_adj; an image's only upwards",
	sandbox.CPUShares:          "the weight of the app's cgroup, among the apps of the pod",
	sandbox.Sysctl:             "those of the pod's own namespaces: net (but with `--net host`), fs.mqueue and System V IPC",
}

// podman are the capabilities that podman gives by default.
var podman = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// plan is what the isolators and the profile of a pod come to here.
type plan struct {
	limits  limits
	sysctls map[string]string
	apps    map[string]appPlan
}

type appPlan struct {
	limits          limits
	capabilities    []string
	noNewPrivileges bool
	oomScoreAdj     *int
	seccomp         *specs.LinuxSeccomp // nil is no filter
}

// limits are those of a cgroup. An amount of 0 is no limit.
type limits struct {
	cpu, memory     sandbox.Resource
	bandwidth, iops int64
	shares          int64
	device          blockDevice // that bandwidth and iops are of
	flat            bool        // bandwidth and iops do not hold for cgroups below
	withSwap        bool        // memory is to bound swap, too
}

// planner makes a plan, and tells what becomes of each isolator.
type planner struct {
	pod      sandbox.Pod
	host     cgroups
	stateDir string
	outcomes []sandbox.Outcome
}

// plan gives the plan for a pod. Errors: ErrBadPod.
func (e *Engine) plan(pod sandbox.Pod) (plan, []sandbox.Outcome, error) {
	if pod.Profile == "" {
		pod.Profile = sandbox.ProfileDefault
	}
	if _, ok := profiles[pod.Profile]; !ok {
		return plan{}, nil, fmt.Errorf("%w: unknown profile %q", sandbox.ErrBadPod, pod.Profile)
	}
	r := planner{pod: pod, host: e.cgroups, stateDir: e.cfg.StateDir}
	p := plan{apps: map[string]appPlan{}}
	for _, is := range pod.Isolators {
		switch is.Name {
		case sandbox.Sysctl:
			var detail string
			p.sysctls, detail = r.sysctls(is.Value.(sandbox.Settings))
			status := sandbox.Modified
			if len(p.sysctls) == 0 {
				status = sandbox.Ignored
			}
			r.tell("", is, status, detail)
		default:
			r.limit("", is, &p.limits)
		}
	}
	for _, app := range pod.Apps {
		a, err := r.app(app)
		if err != nil {
			return plan{}, nil, fmt.Errorf("app %s: %w", app.Name, err)
		}
		p.apps[app.Name] = a
	}
	return p, r.outcomes, nil
}

func (r *planner) tell(app string, is sandbox.Isolator, otherwise sandbox.Status, detail string) {
	r.outcomes = append(r.outcomes, is.Outcome(app, otherwise, detail))
}

func (r *planner) app(app sandbox.App) (appPlan, error) {
	base := profiles[r.pod.Profile]
	a := appPlan{capabilities: base.Capabilities, noNewPrivileges: base.NoNewPrivileges}
	var filter sandbox.Isolator
	for _, is := range app.Isolators {
		switch is.Name {
		case sandbox.CapabilitiesRetain, sandbox.CapabilitiesRemove:
			var detail string
			a.capabilities, detail = capabilities(base.Capabilities, is)
			r.tell(app.Name, is, sandbox.Modified, detail)
		case sandbox.NoNewPrivileges:
			on := bool(is.Value.(sandbox.Switch))
			if !on && is.Image && base.NoNewPrivileges {
				r.tell(app.Name, is, sandbox.Ignored, fmt.Sprintf("the profile %s has it on, and an image cannot turn it off", r.pod.Profile))
				continue
			}
			a.noNewPrivileges = on
			r.tell(app.Name, is, "", "")
		case sandbox.OOMScoreAdj:
			n := int(is.Value.(sandbox.Number))
			if n < 0 && is.Image {
				r.tell(app.Name, is, sandbox.Ignored, "an image cannot have others killed before it")
				continue
			}
			a.oomScoreAdj = &n
			r.tell(app.Name, is, "", "")
		case sandbox.CPUShares:
			detail := r.host.lacks("cpu")
			if detail == "" {
				a.limits.shares = int64(is.Value.(sandbox.Number))
			}
			r.tell(app.Name, is, sandbox.Ignored, detail)
		case sandbox.SeccompRetain, sandbox.SeccompRemove:
			filter = is // once the capabilities are known, on which the default profile depends
			r.tell(app.Name, is, "", "")
		default:
			r.limit(app.Name, is, &a.limits)
		}
	}
	var err error
	if a.seccomp, err = defaultSeccomp(a.capabilities); err != nil {
		return a, fmt.Errorf("make seccomp profile: %w", err)
	}
	if filter.Value != nil {
		var detail string
		a.seccomp, detail = restrict(a.seccomp, filter)
		i := slices.IndexFunc(r.outcomes, func(o sandbox.Outcome) bool { return o.App == app.Name && o.Isolator == filter.Name })
		r.outcomes[i] = filter.Outcome(app.Name, sandbox.Modified, detail)
	}
	return a, nil
}

// limit takes in an isolator that can be of a pod as well as of an app.
func (r *planner) limit(app string, is sandbox.Isolator, l *limits) {
	value, _ := is.Value.(sandbox.Resource)
	switch is.Name {
	case sandbox.CPU:
		detail := r.host.lacks("cpu")
		if detail == "" {
			l.cpu = value
		}
		r.tell(app, is, sandbox.Ignored, detail)
	case sandbox.Memory:
		detail := r.host.lacks("memory")
		if detail == "" {
			l.memory, l.withSwap = value, r.host.countsSwap()
		}
		r.tell(app, is, sandbox.Ignored, detail)
	case sandbox.BlockBandwidth, sandbox.BlockIOPS:
		detail, status := r.blockLimit(l)
		if status != sandbox.Ignored && is.Name == sandbox.BlockBandwidth {
			l.bandwidth = value.Limit
		} else if status != sandbox.Ignored {
			l.iops = value.Limit
		}
		r.tell(app, is, status, detail)
	default:
		r.tell(app, is, sandbox.Ignored, ignored(is.Name))
	}
}

// ignored says why nothing is done about an isolator.
func ignored(name string) string {
	switch name {
	case sandbox.NetworkBandwidth:
		return "jetpack does not shape traffic"
	case sandbox.SELinuxContext:
		return "jetpack sets no SELinux contexts"
	case sandbox.AppArmorProfile:
		return "jetpack sets no AppArmor profiles"
	case sandbox.FreeBSDRctl, sandbox.FreeBSDCpuset, sandbox.FreeBSDJailParam:
		return "it is for FreeBSD"
	}
	return "jetpack does not know it"
}

// blockLimit finds the disk that limits of input and output are of: that of the root.
func (r *planner) blockLimit(l *limits) (detail string, otherwise sandbox.Status) {
	controller := "io"
	if !r.host.unified {
		controller = "blkio"
	}
	if detail := r.host.lacks(controller); detail != "" {
		return detail, sandbox.Ignored
	}
	device, err := deviceOf(r.stateDir)
	if err != nil {
		return err.Error(), sandbox.Ignored
	}
	l.device = device
	if l.flat = !r.host.unified; l.flat {
		return "with cgroups of version 1 each process and its descendants have as much, and writes that the kernel caches are not bounded", sandbox.Modified
	}
	return "", sandbox.Enforced
}

// capabilities gives what an isolator leaves of those of the profile, or puts in
// their place; detail says where that is not what it asks for.
func capabilities(base []string, is sandbox.Isolator) (set []string, detail string) {
	names := is.Value.(sandbox.Set).Names
	var details []string
	without := func(bad func(string) bool, why string) {
		if i := slices.IndexFunc(names, bad); i >= 0 {
			details = append(details, names[i]+" "+why)
			names = slices.DeleteFunc(slices.Clone(names), bad)
		}
	}
	without(func(name string) bool { return !isCapability(name) }, "is unknown here")
	if is.Name == sandbox.CapabilitiesRemove {
		set = slices.DeleteFunc(slices.Clone(base), func(c string) bool { return slices.Contains(names, c) })
		return set, strings.Join(details, "; ")
	}
	if is.Image {
		without(func(name string) bool { return !slices.Contains(base, name) }, "is not in the profile, to which an image cannot add")
	}
	// Process 1 of a pod is a process of the host's mount namespace with all powers.
	without(func(name string) bool { return name == "CAP_SYS_PTRACE" }, "would be a way out of the pod")
	return names, strings.Join(details, "; ")
}

func isCapability(name string) bool {
	return slices.ContainsFunc(capability.ListKnown(), func(c capability.Cap) bool { return "CAP_"+strings.ToUpper(c.String()) == name })
}

// sysctls gives those that are the pod's own, in a namespace, and that this kernel has.
func (r *planner) sysctls(asked sandbox.Settings) (set map[string]string, detail string) {
	set = map[string]string{}
	var foreign, missing []string
	for name, value := range asked {
		switch {
		case !namespaced(name, r.pod.Network):
			foreign = append(foreign, name)
		default:
			set[name] = value
		}
	}
	if len(set) > 0 {
		missing = missingSysctls(set)
	}
	for _, name := range missing {
		delete(set, name)
	}
	var details []string
	slices.Sort(foreign)
	slices.Sort(missing)
	if len(foreign) > 0 {
		details = append(details, strings.Join(foreign, " ")+" would change the host")
	}
	if len(missing) > 0 {
		details = append(details, "no pod here has "+strings.Join(missing, " "))
	}
	return set, strings.Join(details, "; ")
}

// ipcSysctls are those of an IPC namespace (ipc_namespaces(7)) beside fs.mqueue.
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

func namespaced(name string, network sandbox.Network) bool {
	return !strings.Contains(name, "/") && (slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue.") ||
		strings.HasPrefix(name, "net.") && network != sandbox.NetworkHost)
}

// missingSysctls looks for sysctls in namespaces like a pod's: some of net are there
// for the host only.
func missingSysctls(set map[string]string) (missing []string) {
	done := make(chan struct{})
	onOwnThread(func() {
		defer close(done)
		err := unix.Unshare(unix.CLONE_NEWIPC | unix.CLONE_NEWNET)
		for name := range set {
			if err == nil && unix.Access("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), unix.W_OK) == nil {
				continue
			}
			missing = append(missing, name)
		}
	})
	<-done
	return missing
}

// blockDevice is a whole disk. Its numbers are 0 for none.
type blockDevice struct{ major, minor int64 }

// deviceOf finds the disk that a directory is on. Limits are of disks, not of their
// parts, nor of what is no device, as ZFS.
func deviceOf(dir string) (blockDevice, error) {
	dev, err := deviceNumber(dir)
	if err != nil {
		return blockDevice{}, err
	}
	major, minor := int64(unix.Major(dev)), int64(unix.Minor(dev))
	sys, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", major, minor))
	if errors.Is(err, fs.ErrNotExist) {
		return blockDevice{}, fmt.Errorf("%s is on no block device", dir)
	}
	if err != nil {
		return blockDevice{}, err
	}
	_, err = os.Stat(filepath.Join(sys, "partition"))
	if errors.Is(err, fs.ErrNotExist) {
		return blockDevice{major, minor}, nil
	}
	if err != nil {
		return blockDevice{}, err
	}
	data, err := os.ReadFile(filepath.Join(path.Dir(sys), "dev"))
	if err != nil {
		return blockDevice{}, err
	}
	var d blockDevice
	if _, err := fmt.Sscanf(string(data), "%d:%d", &d.major, &d.minor); err != nil {
		return blockDevice{}, fmt.Errorf("device of %s: %w", dir, err)
	}
	return d, nil
}

// deviceNumber is that of the file system of a directory, or where this has none, as
// btrfs, of the device that it was mounted from.
func deviceNumber(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if unix.Major(st.Dev) != 0 {
		return st.Dev, nil
	}
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(dir))
	if err != nil {
		return 0, err
	}
	var mount *mountinfo.Info // the one furthest down
	for _, m := range mounts {
		if mount == nil || len(m.Mountpoint) >= len(mount.Mountpoint) {
			mount = m
		}
	}
	if mount != nil && unix.Stat(mount.Source, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return st.Rdev, nil
	}
	return st.Dev, nil
}

// quota is the time that cpu leaves in each period, in microseconds. The kernel takes no
// quota below a millisecond.
func (l limits) quota() (quota int64, period uint64) {
	period = 100_000
	if l.cpu.Limit < 10 {
		period = 1_000_000
	}
	return l.cpu.Limit * int64(period) / 1000, period
}

// weight is the weight in cpu shares: as asked for, or as much as is requested, 1024 for
// a core.
func (l limits) weight() int64 {
	if l.shares > 0 || l.cpu.Request == 0 {
		return l.shares
	}
	return min(max(l.cpu.Request*1024/1000, 2), 262144)
}

// within are the limits of an app, or where it has none of its own, those of its pod.
func (l limits) within(pod limits) limits {
	if l.cpu.Limit == 0 {
		l.cpu = pod.cpu
	}
	if l.memory.Limit == 0 {
		l.memory, l.withSwap = pod.memory, pod.withSwap
	}
	if l.bandwidth == 0 {
		l.bandwidth = pod.bandwidth
	}
	if l.iops == 0 {
		l.iops = pod.iops
	}
	if l.device == (blockDevice{}) {
		l.device, l.flat = pod.device, pod.flat
	}
	return l
}

// spec is for the cgroup of one process, where programs look for limits.
func (l limits) spec() *specs.LinuxResources {
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	if l.memory.Limit > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &l.memory.Limit}
		if l.withSwap {
			r.Memory.Swap = &l.memory.Limit
		}
	}
	if l.cpu.Limit > 0 {
		quota, period := l.quota()
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if l.flat {
		r.BlockIO = &specs.LinuxBlockIO{
			ThrottleReadBpsDevice: l.throttle(l.bandwidth), ThrottleWriteBpsDevice: l.throttle(l.bandwidth),
			ThrottleReadIOPSDevice: l.throttle(l.iops), ThrottleWriteIOPSDevice: l.throttle(l.iops),
		}
	}
	return r
}

func (l limits) throttle(rate int64) []specs.LinuxThrottleDevice {
	if rate == 0 {
		return nil
	}
	d := specs.LinuxThrottleDevice{Rate: uint64(rate)}
	d.Major, d.Minor = l.device.major, l.device.minor
	return []specs.LinuxThrottleDevice{d}
}
