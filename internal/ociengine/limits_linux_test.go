package ociengine

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	library "github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

func TestCapabilitiesOfIsolators(t *testing.T) {
	base := []string{"CAP_CHOWN", "CAP_KILL"}
	for _, tt := range []struct {
		name  string
		is    string
		image bool
		set   []string
		want  []string
		told  string
	}{
		{"retain", sandbox.CapabilitiesRetain, false, []string{"CAP_NET_ADMIN"}, []string{"CAP_NET_ADMIN"}, ""},
		{"retain none", sandbox.CapabilitiesRetain, false, nil, nil, ""},
		{"retain, of an image", sandbox.CapabilitiesRetain, true, []string{"CAP_KILL", "CAP_NET_ADMIN"}, []string{"CAP_KILL"}, "CAP_NET_ADMIN is not in the profile"},
		{"remove", sandbox.CapabilitiesRemove, false, []string{"CAP_KILL", "CAP_SYS_ADMIN"}, []string{"CAP_CHOWN"}, ""},
		{"remove, of an image", sandbox.CapabilitiesRemove, true, []string{"CAP_KILL"}, []string{"CAP_CHOWN"}, ""},
		{"unknown", sandbox.CapabilitiesRetain, false, []string{"CAP_FISH", "CAP_KILL"}, []string{"CAP_KILL"}, "CAP_FISH is unknown here"},
		{"way out", sandbox.CapabilitiesRetain, false, []string{"CAP_SYS_PTRACE", "CAP_KILL"}, []string{"CAP_KILL"}, "CAP_SYS_PTRACE would be a way out"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, told := capabilities(base, sandbox.Isolator{Name: tt.is, Image: tt.image, Value: sandbox.Set{Names: tt.set}})
			if !slices.Equal(got, tt.want) || !strings.Contains(told, tt.told) || (told == "") != (tt.told == "") {
				t.Errorf("%q, %q, want %q, %q", got, told, tt.want, tt.told)
			}
		})
	}
}

// calls writes a filter as a line: what happens to calls of no rule, then each rule.
func calls(f *specs.LinuxSeccomp) string {
	if f == nil {
		return "none"
	}
	text := func(action specs.LinuxSeccompAction, errno *uint) string {
		if errno != nil {
			return fmt.Sprintf("%s(%d)", action, *errno)
		}
		return string(action)
	}
	line := text(f.DefaultAction, f.DefaultErrnoRet)
	for _, r := range f.Syscalls {
		names := slices.DeleteFunc(slices.Clone(r.Names), func(n string) bool { return slices.Contains(runtimeCalls, n) })
		line += fmt.Sprintf("; %s %s", strings.Join(names, ","), text(r.Action, r.ErrnoRet))
		if len(r.Args) > 0 {
			line += " if"
		}
	}
	return strings.ReplaceAll(line, "SCMP_ACT_", "")
}

func TestRestrict(t *testing.T) {
	eperm := uint(unix.EPERM)
	base := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &eperm,
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"accept", "bind", "mkdir"}, Action: specs.ActAllow},
			{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{}}},
		},
	}
	for _, tt := range []struct {
		name  string
		is    string
		image bool
		set   sandbox.Set
		want  string
		told  string
	}{
		{"remove", sandbox.SeccompRemove, false, sandbox.Set{Names: []string{"mkdir", "reboot"}, Errno: "ENOTSUP"},
			"ERRNO(1); accept,bind ALLOW; clone ALLOW if; mkdir,reboot ERRNO(95)", ""},
		{"remove, killing", sandbox.SeccompRemove, true, sandbox.Set{Names: []string{"clone"}},
			"ERRNO(1); accept,bind,mkdir ALLOW; clone KILL_PROCESS", ""},
		{"remove nothing", sandbox.SeccompRemove, true, sandbox.Set{Names: []string{"@appc.io/empty", "mkdir"}},
			"ERRNO(1); accept,bind,mkdir ALLOW; clone ALLOW if", ""},
		{"remove a group", sandbox.SeccompRemove, false, sandbox.Set{Names: []string{"@docker/default-blacklist", "bind"}, Errno: "EACCES"},
			"ERRNO(1); accept,mkdir ALLOW; clone ALLOW if; bind ERRNO(13)", ""},
		{"remove an unknown group", sandbox.SeccompRemove, false, sandbox.Set{Names: []string{"@systemd/mount"}, Errno: "EACCES"},
			"ERRNO(1); accept,bind,mkdir ALLOW; clone ALLOW if", "unknown: @systemd/mount"},
		{"unknown error", sandbox.SeccompRemove, false, sandbox.Set{Names: []string{"bind"}, Errno: "EFISH"},
			"ERRNO(1); accept,mkdir ALLOW; clone ALLOW if; bind ERRNO(1)", "EFISH is unknown here"},
		{"retain", sandbox.SeccompRetain, false, sandbox.Set{Names: []string{"reboot", "clone"}, Errno: "EACCES"},
			"ERRNO(13); reboot,clone ALLOW", ""},
		{"retain, of an image", sandbox.SeccompRetain, true, sandbox.Set{Names: []string{"reboot", "clone"}, Errno: "EACCES"},
			"ERRNO(13); clone ALLOW if", ""},
		{"retain a group and more", sandbox.SeccompRetain, false, sandbox.Set{Names: []string{"@rkt/default-whitelist", "reboot", "clone"}},
			"KILL_PROCESS; reboot,clone ALLOW; accept,bind,mkdir ALLOW", ""},
		{"retain a group, of an image", sandbox.SeccompRetain, true, sandbox.Set{Names: []string{"@docker/default-whitelist", "reboot"}, Errno: "EPERM"},
			"ERRNO(1); accept,bind,mkdir ALLOW; clone ALLOW if", ""},
		{"retain all", sandbox.SeccompRetain, false, sandbox.Set{Names: []string{"@appc.io/all"}}, "none", ""},
		{"retain all, of an image", sandbox.SeccompRetain, true, sandbox.Set{Names: []string{"@appc.io/all"}},
			"ERRNO(1); accept,bind,mkdir ALLOW; clone ALLOW if", "the filter of the profile stays"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := calls(base)
			got, told := restrict(base, sandbox.Isolator{Name: tt.is, Image: tt.image, Value: tt.set})
			if calls(got) != tt.want || !strings.Contains(told, tt.told) || (told == "") != (tt.told == "") {
				t.Errorf("%s, %q\nwant %s, %q", calls(got), told, tt.want, tt.told)
			}
			if calls(base) != before {
				t.Error("the profile has changed")
			}
		})
	}
}

func TestDenial(t *testing.T) {
	for name, want := range map[string]uint{
		"EPERM": 1, "ENOSYS": 38, "ENOTSUP": 95, "EOPNOTSUPP": 95, "EWOULDBLOCK": 11, "EAGAIN": 11, "EDEADLOCK": 35, "EHWPOISON": 133,
	} {
		if action, errno, ok := denial(name); !ok || action != specs.ActErrno || *errno != want {
			t.Errorf("%s is %d, %v", name, *errno, ok)
		}
	}
}

func TestNamespaced(t *testing.T) {
	for name, want := range map[string]bool{
		"net.ipv4.ip_forward": true, "kernel.msgmax": true, "kernel.shm_rmid_forced": true, "fs.mqueue.msg_max": true,
		"kernel.core_pattern": false, "vm.swappiness": false, "kernel.hostname": false, "net/../kernel/core_pattern": false,
		"kernel.sem": true, "fs.file-max": false, "network": false,
	} {
		if got := namespaced(name, sandbox.NetworkNone); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if namespaced("net.ipv4.ip_forward", sandbox.NetworkHost) || !namespaced("kernel.sem", sandbox.NetworkHost) {
		t.Error("the host's network is not the pod's")
	}
}

func TestResources(t *testing.T) {
	for _, tt := range []struct {
		name string
		l    limits
		want library.Resources
	}{
		{"none", limits{}, library.Resources{}},
		{"processors", limits{cpu: sandbox.Resource{Request: 500, Limit: 1500}},
			library.Resources{CpuQuota: 150_000, CpuPeriod: 100_000, CpuShares: 512, CpuWeight: 59}},
		{"few", limits{cpu: sandbox.Resource{Request: 1, Limit: 1}},
			library.Resources{CpuQuota: 1000, CpuPeriod: 1_000_000, CpuShares: 2, CpuWeight: 1}},
		{"requested only", limits{cpu: sandbox.Resource{Request: 1000}}, library.Resources{CpuShares: 1024, CpuWeight: 100}},
		{"shares", limits{cpu: sandbox.Resource{Request: 500, Limit: 500}, shares: 2048},
			library.Resources{CpuQuota: 50_000, CpuPeriod: 100_000, CpuShares: 2048, CpuWeight: 174}},
		{"memory", limits{memory: sandbox.Resource{Request: 1 << 20, Limit: 2 << 20}},
			library.Resources{Memory: 2 << 20, MemoryReservation: 1 << 20}},
		{"memory and swap", limits{memory: sandbox.Resource{Request: 2 << 20, Limit: 2 << 20}, withSwap: true},
			library.Resources{Memory: 2 << 20, MemoryReservation: 2 << 20, MemorySwap: 2 << 20}},
		{"disk", limits{bandwidth: 1000, iops: 10, device: blockDevice{8, 16}}, library.Resources{
			BlkioThrottleReadBpsDevice:   []*library.ThrottleDevice{library.NewThrottleDevice(8, 16, 1000)},
			BlkioThrottleWriteBpsDevice:  []*library.ThrottleDevice{library.NewThrottleDevice(8, 16, 1000)},
			BlkioThrottleReadIOPSDevice:  []*library.ThrottleDevice{library.NewThrottleDevice(8, 16, 10)},
			BlkioThrottleWriteIOPSDevice: []*library.ThrottleDevice{library.NewThrottleDevice(8, 16, 10)},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.SkipDevices = true
			if got := tt.l.resources(); !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("%+v\nwant %+v", *got, tt.want)
			}
		})
	}
}

// Info lists the isolators that take effect on a host that has everything, and no others.
func TestInfoIsolators(t *testing.T) {
	samples := map[string]sandbox.Value{
		sandbox.CapabilitiesRetain: sandbox.Set{}, sandbox.CapabilitiesRemove: sandbox.Set{},
		sandbox.SeccompRetain: sandbox.Set{}, sandbox.SeccompRemove: sandbox.Set{},
		sandbox.NoNewPrivileges: sandbox.Switch(true), sandbox.OOMScoreAdj: sandbox.Number(-1), sandbox.CPUShares: sandbox.Number(2),
		sandbox.Sysctl: sandbox.Settings{"kernel.sem": "1 2 3 4"},
	}
	dir := t.TempDir()
	_, noDisk := deviceOf(dir)
	controllers := map[string]string{"cpu": dir, "memory": dir, "io": dir}
	e := &Engine{cfg: Config{StateDir: dir}, cgroups: cgroups{unified: true, controllers: controllers}}
	for _, name := range sandbox.Isolators() {
		value := samples[name]
		if value == nil {
			value = sandbox.Resource{Request: 1000, Limit: 1000}
		}
		pod := sandbox.Pod{Network: sandbox.NetworkNone, Apps: []sandbox.App{{Name: "web"}}}
		is := []sandbox.Isolator{{Name: name, Value: value}}
		if pod.Isolators = is; strings.HasPrefix(name, "os/linux/") {
			pod.Isolators, pod.Apps[0].Isolators = nil, is
		}
		_, outcomes, err := e.plan(pod)
		if err != nil || len(outcomes) != 1 {
			t.Fatalf("%s: %v, %v", name, outcomes, err)
		}
		listed := e.Info().Isolators[name] != ""
		if noDisk != nil && strings.HasPrefix(name, "resource/block-") {
			listed = false
		}
		if listed == (outcomes[0].Status == sandbox.Ignored) {
			t.Errorf("%s is %+v, listed: %v", name, outcomes[0], listed)
		}
	}
}

// The disk of a file system is found, and of part of a disk the whole.
func TestDeviceOf(t *testing.T) {
	d, err := deviceOf(t.TempDir())
	if err != nil {
		t.Skip(err)
	}
	sys := fmt.Sprintf("/sys/dev/block/%d:%d", d.major, d.minor)
	if _, err := os.Stat(filepath.Join(sys, "queue")); err != nil {
		t.Errorf("%+v is no whole disk: %v", d, err)
	}
	if _, err := deviceOf("/proc"); err == nil {
		t.Error("/proc is on a disk")
	}
}
