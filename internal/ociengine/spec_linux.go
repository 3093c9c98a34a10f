package ociengine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// facts are what a container's configuration needs to know of the host and the pod.
type facts struct {
	Name        string            // of the container and its cgroup
	Namespaces  map[string]string // paths by names in /proc/PID/ns
	Shm         string            // directory that becomes /dev/shm
	UnifiedOnly bool              // cgroups
	Seccomp     *specs.LinuxSeccomp
}

func (e *Engine) facts(p *pod, name string) (facts, error) {
	filter, err := defaultSeccomp()
	if err != nil {
		return facts{}, fmt.Errorf("make seccomp profile: %w", err)
	}
	namespaces := map[string]string{}
	for ns, f := range p.holder.namespaces {
		namespaces[ns] = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	}
	return facts{
		Name:        name,
		Namespaces:  namespaces,
		Shm:         filepath.Join(p.dir, shmDir),
		UnifiedOnly: e.cgroups.unified,
		Seccomp:     filter,
	}, nil
}

// defaultCapabilities are what root in a container has by podman's default.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
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

// defaultSeccomp is the containers' default profile for defaultCapabilities, less
// the x32 ABI: hardly a kernel has it, and the runtime takes milliseconds for its
// rules. System calls of an ABI that the profile does not have are fatal.
var defaultSeccomp = sync.OnceValues(func() (*specs.LinuxSeccomp, error) {
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: defaultCapabilities}},
	})
	if err != nil {
		return nil, err
	}
	profile.Architectures = slices.DeleteFunc(profile.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
	return profile, nil
})

// containerSpec is the configuration of the container in which a process runs.
func containerSpec(app sandbox.App, p sandbox.Process, f facts) *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2", // the runtime may be an old one
		Root:    &specs.Root{Path: app.Root, Readonly: app.ReadOnly},
		Process: processSpec(p),
		Mounts:  append(systemMounts(f), appMounts(app.Mounts)...),
		Linux: &specs.Linux{
			CgroupsPath:   "/" + f.Name,
			Namespaces:    namespaces(f),
			Resources:     &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Seccomp:       f.Seccomp,
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
		},
	}
}

func processSpec(p sandbox.Process) *specs.Process {
	umask := uint32(0o022)
	capabilities := &specs.LinuxCapabilities{Bounding: defaultCapabilities}
	if p.UID == 0 {
		capabilities.Effective = defaultCapabilities
		capabilities.Permitted = defaultCapabilities
	}
	spec := &specs.Process{
		Terminal:     p.Terminal,
		User:         specs.User{UID: p.UID, GID: p.GID, Umask: &umask, AdditionalGids: p.Groups},
		Args:         p.Args,
		Env:          p.Env,
		Cwd:          p.Dir,
		Capabilities: capabilities,
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
