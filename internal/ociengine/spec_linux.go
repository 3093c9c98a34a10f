package ociengine

import (
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// facts are what a container's configuration needs to know of the host and the pod.
type facts struct {
	Cgroup      string            // of the container
	Namespaces  map[string]string // paths by names in /proc/PID/ns
	Shm         string            // directory that becomes /dev/shm
	UnifiedOnly bool              // cgroups
	Limits      appPlan           // where the app has no limit of its own, the pod's
	Sysctls     map[string]string // in the pod's namespaces
}

func (e *Engine) facts(p *pod, app, n string) facts {
	namespaces := map[string]string{}
	for ns, f := range p.holder.namespaces {
		namespaces[ns] = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	}
	limits := p.plan.apps[app]
	limits.limits = limits.limits.within(p.plan.limits)
	return facts{
		Cgroup:      path.Join("/", e.podCgroup(p.spec.ID), app, n),
		Namespaces:  namespaces,
		Shm:         filepath.Join(p.dir, shmDir),
		UnifiedOnly: e.cgroups.unified,
		Limits:      limits,
		Sysctls:     p.plan.sysctls,
	}
}

// Paths below /proc and /sys that tell of, or change, the whole host; podman's
// defaults.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// containerSpec is the configuration of the container in which a process runs.
func containerSpec(app sandbox.App, p sandbox.Process, f facts) *specs.Spec {
	mounts := systemMounts(f)
	if !p.Terminal { // else the runtime makes it
		mounts = append(mounts, silentConsole)
	}
	return &specs.Spec{
		Version: "1.0.2", // the runtime may be an old one
		Root:    &specs.Root{Path: app.Root, Readonly: app.ReadOnly},
		Process: processSpec(p, f.Limits),
		Mounts:  append(mounts, appMounts(app.Mounts)...),
		Linux: &specs.Linux{
			CgroupsPath:   f.Cgroup,
			Namespaces:    namespaces(f),
			Resources:     f.Limits.limits.spec(),
			Seccomp:       f.Limits.seccomp,
			Sysctl:        f.Sysctls,
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
		},
	}
}

func processSpec(p sandbox.Process, limits appPlan) *specs.Process {
	umask := uint32(0o022)
	capabilities := &specs.LinuxCapabilities{Bounding: limits.capabilities}
	if p.UID == 0 {
		capabilities.Effective = limits.capabilities
		capabilities.Permitted = limits.capabilities
	}
	spec := &specs.Process{
		Terminal:     p.Terminal,
		User:         specs.User{UID: p.UID, GID: p.GID, Umask: &umask, AdditionalGids: p.Groups},
		Args:         p.Args,
		Env:          p.Env,
		Cwd:          p.Dir,
		Capabilities: capabilities,

		NoNewPrivileges: limits.noNewPrivileges,
		OOMScoreAdj:     limits.oomScoreAdj,
	}
	if p.Terminal {
		spec.ConsoleSize = &specs.Box{Height: uint(p.Size.Height), Width: uint(p.Size.Width)}
	}
	return spec
}

// namespaces are the pod's, which the container joins, and its own.
func namespaces(f facts) []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if f.UnifiedOnly {
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	for _, ns := range []struct {
		name string
		kind specs.LinuxNamespaceType
	}{{"ipc", specs.IPCNamespace}, {"uts", specs.UTSNamespace}, {"net", specs.NetworkNamespace}, {"pid", specs.PIDNamespace}} {
		if path, ok := f.Namespaces[ns.name]; ok {
			list = append(list, specs.LinuxNamespace{Type: ns.kind, Path: path})
		}
	}
	return list
}

// systemMounts are what a Linux program finds by default (App Container
// Specification, "OS-SPEC: Linux").
func systemMounts(f facts) []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "bind", Source: f.Shm, Options: []string{"bind", "rprivate", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}

// silentConsole is the /dev/console of processes without a terminal.
var silentConsole = specs.Mount{
	Destination: "/dev/console", Type: "bind", Source: "/dev/null", Options: []string{"bind", "rprivate", "nosuid", "noexec"},
}

// appMounts binds volumes. The options with an r in front hold for what is mounted
// below as well; those without do not.
func appMounts(mounts []sandbox.Mount) []specs.Mount {
	list := make([]specs.Mount, len(mounts))
	for i, m := range mounts {
		options := []string{"bind", "rprivate", "nosuid", "nodev"}
		readOnly := "ro"
		if m.Recursive {
			options = []string{"rbind", "rprivate", "rnosuid", "rnodev"}
			readOnly = "rro"
		}
		if m.ReadOnly {
			options = append(options, readOnly)
		}
		list[i] = specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: options}
	}
	return list
}
