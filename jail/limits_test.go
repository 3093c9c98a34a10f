package jail

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

var able = abilities{racct: true, noNewPrivileges: true, processors: 4}

// class is the login class of an app of podID.
const class = "jp-ZzPAiKUHRpSqv4wvHNC3-A-"

func TestPlan(t *testing.T) {
	resource := func(name string, request, limit int64) sandbox.Isolator {
		return sandbox.Isolator{Name: name, Value: sandbox.Resource{Request: request, Limit: limit}}
	}
	set := func(name string, names ...string) sandbox.Isolator {
		return sandbox.Isolator{Name: name, Value: sandbox.Set{Names: names}}
	}
	const jail = "jail:jetpack-" + podID
	for _, tt := range []struct {
		name   string
		change func(*sandbox.Pod, *abilities)
		want   plan     // without the apps that have nothing, and with annotations only if there are
		told   []string // app, isolator and status, and what the detail has in it
	}{
		{"nothing", func(*sandbox.Pod, *abilities) {}, plan{}, nil},
		{"resources", func(p *sandbox.Pod, _ *abilities) {
			p.Isolators = []sandbox.Isolator{
				resource(sandbox.CPU, 1500, 1500), resource(sandbox.Memory, 64<<20, 64<<20),
				resource(sandbox.BlockBandwidth, 2e6, 2e6), resource(sandbox.BlockIOPS, 100, 100),
				resource(sandbox.NetworkBandwidth, 1e6, 1e6),
			}
		}, plan{rules: []string{
			jail + ":pcpu:deny=150", jail + ":memoryuse:sigkill=67108864",
			jail + ":readbps:throttle=2000000", jail + ":writebps:throttle=2000000",
			jail + ":readiops:throttle=100", jail + ":writeiops:throttle=100",
		}}, []string{
			" resource/cpu enforced", " resource/memory enforced", " resource/block-bandwidth enforced",
			" resource/block-iops enforced", " resource/network-bandwidth ignored jetpack does not shape traffic",
		}},
		{"request", func(p *sandbox.Pod, _ *abilities) {
			p.Isolators = []sandbox.Isolator{resource(sandbox.CPU, 500, 1000), resource(sandbox.Memory, 1<<20, 0)}
		}, plan{rules: []string{jail + ":pcpu:deny=100"}}, []string{
			" resource/cpu modified FreeBSD guarantees no resources", " resource/memory ignored FreeBSD guarantees no resources",
		}},
		{"least of a processor", func(p *sandbox.Pod, _ *abilities) {
			p.Isolators = []sandbox.Isolator{resource(sandbox.CPU, 5, 5)}
		}, plan{rules: []string{jail + ":pcpu:deny=1"}}, []string{" resource/cpu modified 0.01 is the least"}},
		{"not counted", func(p *sandbox.Pod, a *abilities) {
			a.racct = false
			p.Isolators = []sandbox.Isolator{resource(sandbox.CPU, 500, 500), {Name: sandbox.FreeBSDRctl, Value: sandbox.Settings{"maxproc:deny": "10"}}}
		}, plan{}, []string{
			" resource/cpu ignored 'echo kern.racct.enable=1 >>/boot/loader.conf'", " os/freebsd/rctl ignored kern.racct.enable=1",
		}},
		{"of a single app", func(p *sandbox.Pod, _ *abilities) {
			p.Apps[0].Isolators = []sandbox.Isolator{resource(sandbox.CPU, 500, 500)}
		}, plan{rules: []string{jail + ":pcpu:deny=50"}}, []string{"web resource/cpu enforced"}},
		{"of one of several apps", func(p *sandbox.Pod, _ *abilities) {
			p.Apps = append(p.Apps, sandbox.App{Name: "db", Isolators: []sandbox.Isolator{resource(sandbox.CPU, 500, 500)}})
		}, plan{rules: []string{"loginclass:" + class + "1:pcpu:deny=50"}, apps: map[string]appPlan{"db": {class: class + "1"}}},
			[]string{"db resource/cpu modified it binds a login class, which root in the app can leave"}},
		{"of an app for Linux", func(p *sandbox.Pod, _ *abilities) {
			p.Isolators = []sandbox.Isolator{resource(sandbox.Memory, 1<<20, 1<<20)}
			p.Apps[0].OS, p.Apps[0].Isolators = "linux", []sandbox.Isolator{resource(sandbox.CPU, 500, 500)}
		}, plan{rules: []string{jail + ":memoryuse:sigkill=1048576", jail + ".app-web:memoryuse:sigkill=1048576", jail + ".app-web:pcpu:deny=50"}},
			[]string{" resource/memory enforced", "web resource/cpu enforced"}},
		{"of an app for Linux among others", func(p *sandbox.Pod, _ *abilities) {
			p.Isolators = []sandbox.Isolator{resource(sandbox.Memory, 1<<20, 1<<20)}
			p.Apps = append(p.Apps, sandbox.App{Name: "db", OS: "linux"})
		}, plan{rules: []string{jail + ":memoryuse:sigkill=1048576", jail + ".app-db:memoryuse:sigkill=1048576"}},
			[]string{" resource/memory modified each app for Linux has as much to itself"}},
		{"rctl", func(p *sandbox.Pod, _ *abilities) {
			p.Isolators = []sandbox.Isolator{{Name: sandbox.FreeBSDRctl, Value: sandbox.Settings{"maxproc:deny": "10", "openfiles:deny": "100/process"}}}
		}, plan{rules: []string{jail + ":maxproc:deny=10", jail + ":openfiles:deny=100/process"}}, []string{" os/freebsd/rctl enforced"}},
		{"cpuset", func(p *sandbox.Pod, _ *abilities) {
			p.Isolators = []sandbox.Isolator{{Name: sandbox.FreeBSDCpuset, Value: sandbox.Text("2-3,0")}}
		}, plan{processors: []int{0, 2, 3}}, []string{" os/freebsd/cpuset enforced"}},
		{"parameters", func(p *sandbox.Pod, _ *abilities) {
			p.Isolators = []sandbox.Isolator{{Name: sandbox.FreeBSDJailParam, Value: sandbox.Settings{"allow.mlock": "true"}}}
		}, plan{annotations: map[string]string{annotationPrefix + "allow.mlock": "true"}}, []string{" os/freebsd/jail-param enforced"}},
		{"sysctls", func(p *sandbox.Pod, _ *abilities) {
			p.Isolators = []sandbox.Isolator{{Name: sandbox.Sysctl, Value: sandbox.Settings{"kern.securelevel": "3", "kern.maxfiles": "9", "kern.osrelease": "x"}}}
		}, plan{annotations: map[string]string{annotationPrefix + "securelevel": "3"}},
			[]string{" os/unix/sysctl modified kern.maxfiles kern.osrelease cannot be set for a jail"}},
		{"no new privileges", func(p *sandbox.Pod, _ *abilities) {
			p.Apps[0].Isolators = []sandbox.Isolator{{Name: sandbox.NoNewPrivileges, Value: sandbox.Switch(true)}}
		}, plan{apps: map[string]appPlan{"web": {noNewPrivileges: true}}}, []string{"web os/linux/no-new-privileges enforced"}},
		{"no new privileges on an old kernel", func(p *sandbox.Pod, a *abilities) {
			a.noNewPrivileges = false
			p.Apps[0].Isolators = []sandbox.Isolator{{Name: sandbox.NoNewPrivileges, Value: sandbox.Switch(true)}}
		}, plan{}, []string{"web os/linux/no-new-privileges ignored this kernel cannot"}},
		{"strict", func(p *sandbox.Pod, _ *abilities) { p.Profile = sandbox.ProfileStrict },
			plan{apps: map[string]appPlan{"web": {noNewPrivileges: true}}}, nil},
		{"strict, and an image would not", func(p *sandbox.Pod, _ *abilities) {
			p.Profile = sandbox.ProfileStrict
			p.Apps[0].Isolators = []sandbox.Isolator{{Name: sandbox.NoNewPrivileges, Value: sandbox.Switch(false), Image: true}}
		}, plan{apps: map[string]appPlan{"web": {noNewPrivileges: true}}}, []string{"web os/linux/no-new-privileges ignored an image cannot turn it off"}},
		{"strict, but for the operator", func(p *sandbox.Pod, _ *abilities) {
			p.Profile = sandbox.ProfileStrict
			p.Apps[0].Isolators = []sandbox.Isolator{{Name: sandbox.NoNewPrivileges, Value: sandbox.Switch(false)}}
		}, plan{}, []string{"web os/linux/no-new-privileges enforced"}},
		{"removed capabilities", func(p *sandbox.Pod, _ *abilities) {
			p.Apps[0].Isolators = []sandbox.Isolator{set(sandbox.CapabilitiesRemove, "CAP_NET_BIND_SERVICE", "CAP_CHOWN")}
		}, plan{refuse: []string{"allow.reserved_ports"}},
			[]string{"web os/linux/capabilities-remove-set modified the jail goes without allow.reserved_ports"}},
		{"retained capabilities", func(p *sandbox.Pod, _ *abilities) {
			p.Apps[0].Isolators = []sandbox.Isolator{set(sandbox.CapabilitiesRetain, "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_ADMIN")}
		}, plan{refuse: []string{
			"allow.adjtime", "allow.chflags", "allow.extattr", "allow.mlock", "allow.read_msgbuf", "allow.routing",
			"allow.settime", "allow.unprivileged_proc_debug",
		}}, []string{"web os/linux/capabilities-retain-set modified the jail goes without allow.adjtime"}},
		{"capabilities that another app keeps", func(p *sandbox.Pod, _ *abilities) {
			p.Apps[0].Isolators = []sandbox.Isolator{set(sandbox.CapabilitiesRemove, "CAP_NET_BIND_SERVICE")}
			p.Apps = append(p.Apps, sandbox.App{Name: "db"})
		}, plan{}, []string{"web os/linux/capabilities-remove-set ignored other apps of the pod do not give up allow.reserved_ports"}},
		{"system calls", func(p *sandbox.Pod, _ *abilities) {
			p.Apps[0].Isolators = []sandbox.Isolator{set(sandbox.SeccompRetain, "@appc.io/all"), set(sandbox.SeccompRemove, "mount"), set(sandbox.SeccompRemove, "@appc.io/empty")}
		}, plan{}, []string{
			"web os/linux/seccomp-retain-set enforced", "web os/linux/seccomp-remove-set ignored FreeBSD has no filter",
			"web os/linux/seccomp-remove-set enforced",
		}},
		{"want of memory", func(p *sandbox.Pod, _ *abilities) {
			p.Apps[0].Isolators = []sandbox.Isolator{{Name: sandbox.OOMScoreAdj, Value: sandbox.Number(-500)}}
		}, plan{apps: map[string]appPlan{"web": {protect: true}}}, []string{"web os/linux/oom-score-adj modified spared altogether"}},
		{"want of memory, of an image", func(p *sandbox.Pod, _ *abilities) {
			p.Apps[0].Isolators = []sandbox.Isolator{
				{Name: sandbox.OOMScoreAdj, Value: sandbox.Number(-500), Image: true}, {Name: sandbox.OOMScoreAdj, Value: sandbox.Number(500)},
			}
		}, plan{}, []string{"web os/linux/oom-score-adj ignored an image cannot", "web os/linux/oom-score-adj ignored"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod, host := plainPod(), able
			tt.change(&pod, &host)
			got, outcomes, err := planFor(pod, host)
			if err != nil {
				t.Fatal(err)
			}
			for name, a := range got.apps {
				if a == (appPlan{}) {
					delete(got.apps, name)
				}
			}
			if len(got.apps) == 0 {
				got.apps = nil
			}
			if len(got.annotations) == 0 {
				got.annotations = nil
			}
			if len(got.refuse) == 0 {
				got.refuse = nil
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("plan %+v\nwant %+v", got, tt.want)
			}
			if len(outcomes) != len(tt.told) {
				t.Fatalf("told %+v, want %q", outcomes, tt.told)
			}
			for i, o := range outcomes {
				fields := strings.SplitN(tt.told[i], " ", 4)
				if want := fields[:3]; !slices.Equal([]string{o.App, o.Isolator, string(o.Status)}, want) || len(fields) > 3 && !strings.Contains(o.Detail, fields[3]) {
					t.Errorf("told %+v, want %q", o, tt.told[i])
				}
				if (o.Detail == "") != (o.Status == sandbox.Enforced) {
					t.Errorf("told %+v", o)
				}
			}
		})
	}
}

func TestBadIsolators(t *testing.T) {
	for _, is := range []sandbox.Isolator{
		{Name: sandbox.FreeBSDRctl, Value: sandbox.Settings{"maxproc": "10"}},
		{Name: sandbox.FreeBSDRctl, Value: sandbox.Settings{"maxproc:deny": "-1"}},
		{Name: sandbox.FreeBSDRctl, Value: sandbox.Settings{"maxproc:deny": "10,user:0:maxproc:deny=1"}},
		{Name: sandbox.FreeBSDRctl, Value: sandbox.Settings{"maxproc:deny=1:x": "10"}},
		{Name: sandbox.FreeBSDRctl, Value: sandbox.Settings{"fish:deny": "10"}},
		{Name: sandbox.FreeBSDCpuset, Value: sandbox.Text("4")},
		{Name: sandbox.FreeBSDCpuset, Value: sandbox.Text("2-1")},
		{Name: sandbox.FreeBSDCpuset, Value: sandbox.Text("1,")},
		{Name: sandbox.FreeBSDCpuset, Value: sandbox.Text("99999999999")},
		{Name: sandbox.FreeBSDJailParam, Value: sandbox.Settings{"exec.start": "/bin/sh"}},
		{Name: sandbox.FreeBSDJailParam, Value: sandbox.Settings{"allow.mount": "true"}},
		{Name: sandbox.FreeBSDJailParam, Value: sandbox.Settings{"securelevel": "x"}},
	} {
		pod := plainPod()
		pod.Isolators = []sandbox.Isolator{is}
		if _, _, err := planFor(pod, able); !errors.Is(err, sandbox.ErrBadPod) {
			t.Errorf("%s %s: %v", is.Name, is.Value, err)
		}
	}
}

func TestProfileParams(t *testing.T) {
	for _, tt := range []struct {
		profile sandbox.Profile
		want    string
	}{
		{sandbox.ProfileStrict, " securelevel=3 enforce_statfs=2 devfs_ruleset=4242 sysvmsg=0 sysvsem=0 sysvshm=0 vnet=1" + allow},
		{sandbox.ProfileDefault, strict + sysVIPC + noNet + allow},
		{sandbox.ProfileRelaxed, " securelevel=0 enforce_statfs=1 devfs_ruleset=4242" + sysVIPC + noNet +
			allowing("mlock", "raw_sockets", "set_hostname", "unprivileged_proc_debug")},
	} {
		pod, opts := with(func(p *sandbox.Pod, _ *Options) { p.Profile = tt.profile })
		got, err := Params(pod, opts)
		if err != nil || show(got) != identity+tt.want {
			t.Errorf("%s: %s, %v\nwant %s", tt.profile, show(got), err, identity+tt.want)
		}
	}
	pod, opts := with(func(p *sandbox.Pod, o *Options) {
		p.Profile, o.Refuse = sandbox.ProfileRelaxed, []string{"allow.raw_sockets", "allow.reserved_ports"}
	})
	if got, err := Params(pod, opts); err != nil || !strings.Contains(show(got), "allow.noraw_sockets allow.noread_msgbuf allow.noreserved_ports") {
		t.Errorf("refused: %s, %v", show(got), err)
	}
}

func TestLoginClass(t *testing.T) {
	if got := loginClass(podID, "63"); got != class+"63" || len(got) > 32 {
		t.Errorf("login class %q", got)
	}
}

func TestCPUMask(t *testing.T) {
	if got, want := cpuMask([]int{0, 2, 9}, 4), []byte{5, 2, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("mask %v, want %v", got, want)
	}
}

// samples are values of every isolator that take effect where any do.
var samples = map[string]sandbox.Value{
	sandbox.CPU: sandbox.Resource{Request: 100, Limit: 100}, sandbox.Memory: sandbox.Resource{Request: 1 << 20, Limit: 1 << 20},
	sandbox.BlockBandwidth: sandbox.Resource{Request: 1, Limit: 1}, sandbox.BlockIOPS: sandbox.Resource{Request: 1, Limit: 1},
	sandbox.NetworkBandwidth:   sandbox.Resource{Request: 1, Limit: 1},
	sandbox.CapabilitiesRetain: sandbox.Set{}, sandbox.CapabilitiesRemove: sandbox.Set{Names: []string{"CAP_NET_BIND_SERVICE"}},
	sandbox.SeccompRetain: sandbox.Set{Names: []string{"@appc.io/all"}}, sandbox.SeccompRemove: sandbox.Set{Names: []string{"@appc.io/empty"}},
	sandbox.NoNewPrivileges: sandbox.Switch(true), sandbox.OOMScoreAdj: sandbox.Number(-1), sandbox.CPUShares: sandbox.Number(2),
	sandbox.SELinuxContext: sandbox.Text("u:r:t:l"), sandbox.AppArmorProfile: sandbox.Text("p"),
	sandbox.Sysctl: sandbox.Settings{"kern.securelevel": "3"}, sandbox.FreeBSDRctl: sandbox.Settings{"maxproc:deny": "1"},
	sandbox.FreeBSDCpuset: sandbox.Text("0"), sandbox.FreeBSDJailParam: sandbox.Settings{"allow.mlock": "true"},
}

// Info lists the isolators that take effect, and no others.
func TestInfoIsolators(t *testing.T) {
	for _, name := range sandbox.Isolators() {
		pod := plainPod()
		is := []sandbox.Isolator{{Name: name, Value: samples[name]}}
		if pod.Isolators = is; strings.HasPrefix(name, "os/linux/") {
			pod.Isolators, pod.Apps[0].Isolators = nil, is
		}
		_, outcomes, err := planFor(pod, able)
		if err != nil || len(outcomes) != 1 {
			t.Fatalf("%s: %v, %v", name, outcomes, err)
		}
		if _, listed := Info().Isolators[name]; listed == (outcomes[0].Status == sandbox.Ignored) {
			t.Errorf("%s is %s, listed: %v", name, outcomes[0].Status, listed)
		}
	}
}

func TestRuleOf(t *testing.T) {
	for rule, want := range map[string]bool{
		"jail:jetpack-" + podID + ":pcpu:deny=1":        true,
		"jail:jetpack-" + podID + ".app-db:pcpu:deny=1": true,
		"loginclass:" + class + "1:pcpu:deny=1":         true,
		"jail:jetpack-" + podID + "0:pcpu:deny=1":       false,
		"jail:other:pcpu:deny=1":                        false,
		"loginclass:jetpack-" + podID + ":pcpu:deny=1":  false,
		"user:0:pcpu:deny=1":                            false,
		"jail:jetpack-" + podID:                         false,
	} {
		if got := ruleOf(rule, podID); got != want {
			t.Errorf("%s: %v", rule, got)
		}
	}
}

// TestBadRules: the kernel would refuse them, with nothing but a number, when the pod is there.
func TestBadRules(t *testing.T) {
	for key, amount := range map[string]string{
		"cputime:deny": "10", "wallclock:deny": "10", "readbps:deny": "10", "maxproc:throttle": "10", "pcpu:throttle": "10",
		"maxproc:sigfoo": "10", "maxproc:refuse": "10", "sockets:deny": "10", "maxproc:deny": "ten", "swapuse:deny": "10/process",
	} {
		if rules, err := rctlRules(sandbox.Settings{key: amount}); err == nil || !strings.Contains(err.Error(), key+"="+amount+": ") {
			t.Errorf("%s=%s: %v, %v", key, amount, rules, err)
		}
	}
	for _, key := range []string{"cputime:sigxcpu", "readbps:throttle", "pcpu:deny", "memoryuse:deny", "swapuse:deny"} {
		if _, err := rctlRules(sandbox.Settings{key: "10"}); err != nil {
			t.Error(err)
		}
	}
}
