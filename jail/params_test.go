package jail

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

const (
	podID   = "6733c088-a507-4694-aabf-8c2f1cd0b7f8"
	jailDir = "/var/jetpack/run/" + podID
)

func plainPod() sandbox.Pod {
	return sandbox.Pod{
		ID: podID, Hostname: "web", Network: sandbox.NetworkNone,
		Apps: []sandbox.App{{Name: "web", Root: "/var/jetpack/trees/web"}},
	}
}

func plainOptions() Options { return Options{Path: jailDir, DevfsRuleset: 4242} }

// with gives a pod and options changed from the plain ones.
func with(change func(*sandbox.Pod, *Options)) (sandbox.Pod, Options) {
	pod, opts := plainPod(), plainOptions()
	if change != nil {
		change(&pod, &opts)
	}
	return pod, opts
}

func addrs(s ...string) []netip.Addr {
	var a []netip.Addr
	for _, s := range s {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

// show writes parameters as jail.conf(5) would, one a word.
func show(ps []Param) string {
	var words []string
	for _, p := range ps {
		if p.Value == nil {
			words = append(words, p.Name)
			continue
		}
		words = append(words, fmt.Sprintf("%s=%v", p.Name, p.Value))
	}
	return strings.Join(words, " ")
}

const (
	identity = "name=jetpack-" + podID + " path=" + jailDir + " host.hostname=web host.hostuuid=" + podID + " persist children.max=0"
	strict   = " securelevel=2 enforce_statfs=2 devfs_ruleset=4242"
	sysVIPC  = " sysvmsg=1 sysvsem=1 sysvshm=1"
	noNet    = " vnet=1"
	allow    = " allow.nomount allow.noadjtime allow.nochflags allow.noextattr allow.nomlock allow.noquotas" +
		" allow.noraw_sockets allow.noread_msgbuf allow.reserved_ports allow.norouting allow.noset_hostname" +
		" allow.nosetaudit allow.nosettime allow.nosocket_af allow.suser" +
		" allow.nounprivileged_parent_tampering allow.nounprivileged_proc_debug"
)

func allowing(flags ...string) string {
	s := allow
	for _, f := range flags {
		s = strings.Replace(s, "allow.no"+f, "allow."+f, 1)
	}
	return s
}

// withChild is the identity of a pod with a Linux app.
var withChild = strings.Replace(identity, "children.max=0", "children.max=1", 1)

// TestAppParams: nothing but the root differs from the pod's jail.
func TestAppParams(t *testing.T) {
	const identity = "name=jetpack-" + podID + ".app-web path=" + jailDir + "/web host=2 persist children.max=0 securelevel=2 enforce_statfs=1"
	tests := []struct {
		name   string
		change func(*sandbox.Pod, *Options)
		want   string
	}{
		{"no network", nil, identity + " sysvmsg=2 sysvsem=2 sysvshm=2 ip4=2 ip6=2" + allow},
		{"host network", func(p *sandbox.Pod, o *Options) {
			p.Network = sandbox.NetworkHost
		}, identity + " sysvmsg=2 sysvsem=2 sysvshm=2 ip4=2 ip6=2" + allow},
		{"address", func(p *sandbox.Pod, o *Options) {
			p.Network = sandbox.NetworkPrivate
			o.Addresses = addrs("127.1.0.7")
		}, identity + " sysvmsg=2 sysvsem=2 sysvshm=2 ip4=2 ip6=0" + allow},
		{"annotations", func(p *sandbox.Pod, o *Options) {
			o.Annotations = map[string]string{"jetpack/jail.conf/allow.chflags": "true", "jetpack/jail.conf/sysvshm": "disable"}
		}, identity + " sysvmsg=2 sysvsem=2 sysvshm=0 ip4=2 ip6=2" + allowing("chflags")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, opts := with(tt.change)
			opts.Linux = []string{"web"}
			ps, err := AppParams(pod, "web", opts)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(ps); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestParams(t *testing.T) {
	tests := []struct {
		name   string
		change func(*sandbox.Pod, *Options)
		want   string
	}{
		{"plain", nil, identity + strict + sysVIPC + noNet + allow},
		{"host network", func(p *sandbox.Pod, o *Options) {
			p.Network = sandbox.NetworkHost
		}, identity + strict + sysVIPC + " ip4=2 ip6=2" + allow},
		{"loopback alias", func(p *sandbox.Pod, o *Options) {
			p.Network = sandbox.NetworkPrivate
			o.Addresses = addrs("127.1.0.7")
		}, identity + strict + sysVIPC + " ip4=1 ip4.addr=[127.1.0.7] ip6=0" + allow},
		{"IPv6 alone", func(p *sandbox.Pod, o *Options) {
			p.Network = sandbox.NetworkPrivate
			o.Addresses = addrs("fd00::7")
		}, identity + strict + sysVIPC + " ip4=0 ip6=1 ip6.addr=[fd00::7]" + allow},
		{"addresses keep their order by family", func(p *sandbox.Pod, o *Options) {
			p.Network = sandbox.NetworkPrivate
			o.Addresses = addrs("10.0.0.9", "fd00::9", "10.0.0.1", "fd00::1")
		}, identity + strict + sysVIPC + " ip4=1 ip4.addr=[10.0.0.9 10.0.0.1] ip6=1 ip6.addr=[fd00::9 fd00::1]" + allow},
		{"two apps are one jail", func(p *sandbox.Pod, o *Options) {
			p.Apps = append(p.Apps, sandbox.App{Name: "db", Root: "/var/jetpack/trees/db"})
		}, identity + strict + sysVIPC + noNet + allow},
		{"Linux app", func(p *sandbox.Pod, o *Options) {
			o.Linux = []string{"web"}
		}, withChild + " securelevel=2 enforce_statfs=1 devfs_ruleset=4242" + sysVIPC + noNet + allow},
		{"Linux app that may not see its mounts", func(p *sandbox.Pod, o *Options) {
			o.Linux, o.EnforceStatfs = []string{"web"}, 2
		}, withChild + strict + sysVIPC + noNet + allow},
		{"osrelease", func(p *sandbox.Pod, o *Options) {
			o.OSRelease = "14.3-RELEASE-p2"
		}, identity + strict + sysVIPC + " osrelease=14.3-RELEASE-p2" + noNet + " osreldate=1403000" + allow},
		{"levels", func(p *sandbox.Pod, o *Options) {
			o.SecureLevel, o.HostSecureLevel, o.EnforceStatfs = -1, -1, 1
		}, identity + " securelevel=-1 enforce_statfs=1 devfs_ruleset=4242" + sysVIPC + noNet + allow},
		{"a host more secure than the pod asks", func(p *sandbox.Pod, o *Options) {
			o.HostSecureLevel = 3
			o.Annotations = map[string]string{"jetpack/jail.conf/securelevel": "1"}
		}, identity + " securelevel=3 enforce_statfs=2 devfs_ruleset=4242" + sysVIPC + noNet + allow},
		{"read-only root is no matter of the jail", func(p *sandbox.Pod, o *Options) {
			p.Apps[0].ReadOnly = true
		}, identity + strict + sysVIPC + noNet + allow},
		{"allowed by the configuration", func(p *sandbox.Pod, o *Options) {
			o.Allow = []string{"allow.raw_sockets", "allow.settime", "allow.suser"}
		}, identity + strict + sysVIPC + noNet + allowing("raw_sockets", "settime")},
		{"annotations", func(p *sandbox.Pod, o *Options) {
			o.OSRelease, o.HostSecureLevel = "14.3-RELEASE", -1
			o.Annotations = map[string]string{
				"jetpack/jail.conf/allow.chflags":        "true",
				"jetpack/jail.conf/allow.reserved-ports": "false",
				"jetpack/jail.conf/securelevel":          "-1",
				"jetpack/jail.conf/osrelease":            "15.0-CURRENT",
				"jetpack/jail.conf/enforce-statfs":       "1",
				"jetpack/jail.conf/sysvshm":              "disable",
				"hostname":                               "other",
			}
		}, identity + " securelevel=-1 enforce_statfs=1 devfs_ruleset=4242 sysvmsg=1 sysvsem=1 sysvshm=0 osrelease=15.0-CURRENT" + noNet +
			strings.Replace(allowing("chflags"), "allow.reserved_ports", "allow.noreserved_ports", 1)},
		{"osrelease from an annotation alone", func(p *sandbox.Pod, o *Options) {
			o.Annotations = map[string]string{"jetpack/jail.conf/osrelease": "13.5-STABLE"}
		}, identity + strict + sysVIPC + noNet + " osrelease=13.5-STABLE osreldate=1305000" + allow},
		{"an annotation takes back what the configuration allows", func(p *sandbox.Pod, o *Options) {
			o.Allow = []string{"allow.raw_sockets"}
			o.Annotations = map[string]string{"jetpack/jail.conf/allow.raw_sockets": "false"}
		}, identity + strict + sysVIPC + noNet + allow},
		{"a kernel without some permissions", func(p *sandbox.Pod, o *Options) {
			o.Allow = []string{"allow.mlock"}
			o.Supports = func(s string) bool { return s == "allow.mlock" || s == "allow.chflags" }
		}, identity + strict + sysVIPC + noNet + " allow.nomount allow.nochflags allow.mlock"},
		{"a hostname of 255 bytes", func(p *sandbox.Pod, o *Options) {
			p.Hostname = strings.Repeat("a", 255)
		}, strings.Replace(identity, "host.hostname=web", "host.hostname="+strings.Repeat("a", 255), 1) + strict + sysVIPC + noNet + allow},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, opts := with(tt.change)
			ps, err := Params(pod, opts)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(ps); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestParamsErrors(t *testing.T) {
	annotation := func(name, value string) func(*sandbox.Pod, *Options) {
		return func(_ *sandbox.Pod, o *Options) {
			o.Annotations = map[string]string{"jetpack/jail.conf/" + name: value}
		}
	}
	allowed := func(name string) func(*sandbox.Pod, *Options) {
		return func(_ *sandbox.Pod, o *Options) { o.Allow = []string{name} }
	}
	address := func(a ...netip.Addr) func(*sandbox.Pod, *Options) {
		return func(p *sandbox.Pod, o *Options) { p.Network, o.Addresses = sandbox.NetworkPrivate, a }
	}
	var many []netip.Addr
	for a := netip.MustParseAddr("10.0.0.1"); len(many) < 256; a = a.Next() {
		many = append(many, a)
	}
	tests := []struct {
		name   string
		change func(*sandbox.Pod, *Options)
		want   string
	}{
		{"no ID", func(p *sandbox.Pod, _ *Options) { p.ID = "" }, "canonical UUID"},
		{"ID in capitals", func(p *sandbox.Pod, _ *Options) { p.ID = strings.ToUpper(podID) }, "canonical UUID"},
		{"ID in braces", func(p *sandbox.Pod, _ *Options) { p.ID = "{" + podID + "}" }, "canonical UUID"},
		{"ID with a rule", func(p *sandbox.Pod, _ *Options) { p.ID = podID + ":pcpu:deny=1" }, "canonical UUID"},
		{"ID of a child jail", func(p *sandbox.Pod, _ *Options) { p.ID = "a." + podID[2:] }, "canonical UUID"},
		{"no hostname", func(p *sandbox.Pod, _ *Options) { p.Hostname = "" }, "not a host name"},
		{"newline in the hostname", func(p *sandbox.Pod, _ *Options) { p.Hostname = "web\nexec.start=x" }, "not a host name"},
		{"newline after the hostname", func(p *sandbox.Pod, _ *Options) { p.Hostname = "web\n" }, "not a host name"},
		{"NUL in the hostname", func(p *sandbox.Pod, _ *Options) { p.Hostname = "web\x00" }, "not a host name"},
		{"hostname is an option", func(p *sandbox.Pod, _ *Options) { p.Hostname = "-x" }, "not a host name"},
		{"hostname too long", func(p *sandbox.Pod, _ *Options) { p.Hostname = strings.Repeat("a", 256) }, "not a host name"},
		{"no path", func(_ *sandbox.Pod, o *Options) { o.Path = "" }, "clean absolute path"},
		{"the host's root", func(_ *sandbox.Pod, o *Options) { o.Path = "/" }, "clean absolute path"},
		{"relative path", func(_ *sandbox.Pod, o *Options) { o.Path = "jail" }, "clean absolute path"},
		{"path with dots", func(_ *sandbox.Pod, o *Options) { o.Path = "/var/../etc" }, "clean absolute path"},
		{"path with a newline", func(_ *sandbox.Pod, o *Options) { o.Path = "/a\nb" }, "control character"},
		{"path too long", func(_ *sandbox.Pod, o *Options) { o.Path = "/" + strings.Repeat("a", 1023) }, "longer than 1023"},
		{"no devfs rules", func(_ *sandbox.Pod, o *Options) { o.DevfsRuleset = 0 }, "rule set 0"},
		{"devfs rules that cannot be", func(_ *sandbox.Pod, o *Options) { o.DevfsRuleset = 65536 }, "rule set 65536"},
		{"securelevel", func(_ *sandbox.Pod, o *Options) { o.SecureLevel = 4 }, "securelevel 4"},
		{"enforce_statfs", func(_ *sandbox.Pod, o *Options) { o.EnforceStatfs = -1 }, "enforce_statfs -1"},
		{"osrelease", func(_ *sandbox.Pod, o *Options) { o.OSRelease = "14.3-RELEASE;x" }, "osrelease"},
		{"osrelease too long", func(_ *sandbox.Pod, o *Options) { o.OSRelease = "14.3-" + strings.Repeat("A", 26) }, "osrelease"},
		{"no network", func(p *sandbox.Pod, _ *Options) { p.Network = "" }, "unknown network"},
		{"host network with addresses", func(p *sandbox.Pod, o *Options) { p.Network, o.Addresses = sandbox.NetworkHost, addrs("10.0.0.1") }, "no addresses of its own"},
		{"own network with addresses", func(_ *sandbox.Pod, o *Options) { o.Addresses = addrs("10.0.0.1") }, "no addresses of its own"},
		{"private network without an address", func(p *sandbox.Pod, _ *Options) { p.Network = sandbox.NetworkPrivate }, "needs an address"},
		{"same address twice", address(addrs("10.0.0.1", "10.0.0.2", "10.0.0.1")...), "given twice"},
		{"no address", address(netip.Addr{}), "not an address"},
		{"any IPv4 address", address(addrs("0.0.0.0")...), "not an address"},
		{"any IPv6 address", address(addrs("::")...), "not an address"},
		{"broadcast", address(addrs("255.255.255.255")...), "not an address"},
		{"multicast", address(addrs("224.0.0.1")...), "not an address"},
		{"address with a zone", address(addrs("fe80::1%lo1")...), "not an address"},
		{"IPv4 in IPv6", address(addrs("::ffff:10.0.0.1")...), "not an address"},
		{"too many addresses", address(many[1:]...), ""},
		{"one more address", address(many...), "more than 255"},
		{"allow mounts", allowed("allow.mount"), "cannot be allowed"},
		{"allow nullfs mounts", allowed("allow.mount.nullfs"), "cannot be allowed"},
		{"allow System V IPC of the host", allowed("allow.sysvipc"), "cannot be allowed"},
		{"allow a command", allowed("exec.start"), "cannot be allowed"},
		{"allow a refusal", allowed("allow.noraw_sockets"), "cannot be allowed"},
		{"allow without the prefix", allowed("raw_sockets"), "cannot be allowed"},
		{"allow all", allowed("allow.*"), "cannot be allowed"},
		{"allow what the kernel has not", func(_ *sandbox.Pod, o *Options) {
			o.Allow, o.Supports = []string{"allow.settime"}, func(string) bool { return false }
		}, "kernel has no allow.settime"},
		{"annotate what the kernel has not", func(_ *sandbox.Pod, o *Options) {
			o.Annotations = map[string]string{"jetpack/jail.conf/allow.mlock": "true"}
			o.Supports = func(string) bool { return false }
		}, "kernel has no allow.mlock"},
		{"annotate a command", annotation("exec.prestart", "rm -rf /"), "may not set"},
		{"annotate a mount", annotation("mount.fstab", "/etc/fstab"), "may not set"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, opts := with(tt.change)
			ps, err := Params(pod, opts)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatalf("no error but %s", show(ps))
			}
			if ps != nil {
				t.Errorf("parameters beside the error %v", err)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("error %q, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestReleases(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"14.3", "13.2-RELEASE-p4", true},
		{"13.3-RELEASE", "13.2-RELEASE", true},
		{"13.10", "13.9", true},
		{"13.2-RELEASE-p9", "13.2-RELEASE", false},
		{"13.1", "13.2-RELEASE", false},
		{"9.9", "13.2-RELEASE", false},
		{"", "13.2-RELEASE", false},
		{"13.2", "", true},
		{"nonsense", "13.2", false},
	} {
		if got := newerThan(tt.a, tt.b); got != tt.want {
			t.Errorf("newerThan(%q, %q) = %v", tt.a, tt.b, got)
		}
	}
	for version, want := range map[string]string{"14.3": "14.3-RELEASE", "13.5-STABLE": "13.5-STABLE"} {
		if got := osRelease(version); got != want || checkOSRelease(got) != nil {
			t.Errorf("osRelease(%q) = %q, want %q", version, got, want)
		}
	}
}

func TestRuleMarshal(t *testing.T) {
	b, err := rule{path: "pts/*"}.marshal(5000, 300)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 236)
	put := func(offset int, v uint32) { binary.NativeEndian.PutUint32(want[offset:], v) }
	put(0, 0xdb0a087a)
	put(4, 5000<<16|300)
	put(8, 2)
	copy(want[16:], "pts/*")
	put(216, 1)
	put(220, 2)
	if !bytes.Equal(b, want) {
		t.Errorf("got %x, want %x", b, want)
	}
	if ruleSet(b) != 5000 {
		t.Errorf("rule set %d", ruleSet(b))
	}
	if _, err := (rule{path: strings.Repeat("x", 200)}).marshal(1, 1); err == nil {
		t.Error("a pattern without room for its end")
	}
	for i, r := range devices {
		b, err := r.marshal(5000, 100*i)
		if err != nil || hidesAll(b) != (i == 0) {
			t.Errorf("rule %d, %+v, hides everything: %v, %v", i, r, hidesAll(b), err)
		}
	}
	include, hideOne := make([]byte, ruleSize), make([]byte, ruleSize)
	binary.NativeEndian.PutUint32(include[216:], 0x10)
	copy(hideOne, want)
	binary.NativeEndian.PutUint32(hideOne[220:], 1)
	if !hidesAll(include) || hidesAll(hideOne) {
		t.Error("including another set may hide everything, hiding one device does not")
	}
}

func TestParamBytes(t *testing.T) {
	for _, tt := range []struct {
		value any
		want  []byte
	}{
		{nil, nil},
		{"web", []byte("web\x00")},
		{int32(-1), []byte{255, 255, 255, 255}},
		{int32(1), binary.NativeEndian.AppendUint32(nil, 1)},
		{addrs("10.0.0.1", "10.0.0.2"), []byte{10, 0, 0, 1, 10, 0, 0, 2}},
		{addrs("fd00::1"), []byte{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
	} {
		if got := (Param{"x", tt.value}).Bytes(); !bytes.Equal(got, tt.want) {
			t.Errorf("Bytes of %v: %v, want %v", tt.value, got, tt.want)
		}
	}
}

func TestAnnotationParams(t *testing.T) {
	tests := []struct {
		name, value string
		want        string // "" is refused
	}{
		{"allow.chflags", "true", "allow.chflags"},
		{"allow.chflags", "false", "allow.nochflags"},
		{"allow.raw-sockets", "true", "allow.raw_sockets"},
		{"allow.raw_sockets", "true", "allow.raw_sockets"},
		{"allow.mlock", "true", "allow.mlock"},
		{"allow.set-hostname", "true", "allow.set_hostname"},
		{"allow.unprivileged-proc-debug", "true", "allow.unprivileged_proc_debug"},
		{"enforce-statfs", "1", "enforce_statfs=1"},
		{"securelevel", "-1", "securelevel=-1"},
		{"securelevel", "3", "securelevel=3"},
		{"osrelease", "14.3-RELEASE", "osrelease=14.3-RELEASE"},
		{"sysvmsg", "new", "sysvmsg=1"},
		{"sysvsem", "disable", "sysvsem=0"},
		{"sysvshm", "inherit", ""},
		{"enforce_statfs", "0", ""},
		{"enforce_statfs", "3", ""},
		{"enforce_statfs", "", ""},
		{"securelevel", "4294967297", ""},
		{"securelevel", "2 ", ""},
		{"osrelease", "", ""},
		{"osrelease", "14.3-RELEASE\n", ""},
		{"allow.chflags", "1", ""},
		{"allow.chflags", "true; exec.start=x", ""},
		{"allow.nochflags", "true", ""},
		{"allow.suser", "false", ""},
		{"allow.settime", "true", ""},
		{"allow.socket_af", "true", ""},
		{"allow.mount", "true", ""},
		{"allow.mount.zfs", "true", ""},
		{"allow.sysvipc", "true", ""},
		{"allow.dying", "true", ""},
		{"allow", "true", ""},
		{"", "true", ""},
		{"exec.prestart", "id", ""},
		{"exec-prestart", "id", ""},
		{"mount.fstab", "/etc/fstab", ""},
		{"path", "/", ""},
		{"name", "x", ""},
		{"children.max", "1", ""},
		{"devfs_ruleset", "0", ""},
		{"ip4", "inherit", ""},
		{"ip4.addr", "10.0.0.1", ""},
		{"vnet", "new", ""},
		{"host.hostname", "x", ""},
		{"SECURELEVEL", "1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			ps, refused := AnnotationParams(map[string]string{"jetpack/jail.conf/" + tt.name: tt.value, "other": "x"})
			if got := show(ps); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if (len(refused) == 0) != (tt.want != "") {
				t.Errorf("refused: %v", refused)
			}
		})
	}
}

func TestAnnotationParamsTogether(t *testing.T) {
	ps, refused := AnnotationParams(map[string]string{
		"jetpack/jail.conf/securelevel":       "1",
		"jetpack/jail.conf/allow.raw-sockets": "true",
		"jetpack/jail.conf/allow.raw_sockets": "false",
		"jetpack/jail.conf/exec.start":        "id",
		"jetpack/jail.confx":                  "id",
		"Jetpack/jail.conf/securelevel":       "3",
	})
	if got, want := show(ps), "allow.raw_sockets securelevel=1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(refused) != 2 || !strings.Contains(refused[0].Error(), "set twice") || !strings.Contains(refused[1].Error(), "exec.start") {
		t.Errorf("refused: %v", refused)
	}
}

// showMounts writes mounts as fstab(5) would, one a line.
func showMounts(ms []Mount) string {
	var b strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&b, "%s %s %s %s\n", m.Source, m.Target, m.Type, strings.Join(m.Options, ","))
	}
	return b.String()
}

const (
	webRoot   = jailDir + "/web"
	rootMount = "/var/jetpack/trees/web " + webRoot + " nullfs nocover\n"
	devMounts = "devfs " + webRoot + "/dev devfs nosuid,noexec,ruleset=4242,nocover\n" +
		"fdescfs " + webRoot + "/dev/fd fdescfs nocover\n"
)

func mounting(ms ...sandbox.Mount) func(*sandbox.Pod, *Options) {
	return func(p *sandbox.Pod, _ *Options) { p.Apps[0].Mounts = ms }
}

func TestMounts(t *testing.T) {
	tests := []struct {
		name   string
		change func(*sandbox.Pod, *Options)
		want   string
	}{
		{"plain", nil, rootMount + devMounts},
		{"no app", func(p *sandbox.Pod, _ *Options) { p.Apps = nil }, ""},
		{"read-only root below writable volume", func(p *sandbox.Pod, _ *Options) {
			p.Apps[0].ReadOnly = true
			p.Apps[0].Mounts = []sandbox.Mount{{Source: "/data", Target: "/var/db"}}
		}, "/var/jetpack/trees/web " + webRoot + " nullfs ro,nocover\n" + devMounts +
			"/data " + webRoot + "/var/db nullfs nosuid,nocover\n"},
		{"two apps, one for Linux", func(p *sandbox.Pod, o *Options) {
			p.Apps = append(p.Apps, sandbox.App{Name: "db", Root: "/var/jetpack/trees/db"})
			o.Linux = []string{"db"}
		}, rootMount + devMounts +
			"/var/jetpack/trees/db " + jailDir + "/db nullfs nocover\n" +
			"devfs " + jailDir + "/db/dev devfs nosuid,noexec,ruleset=4242,nocover\n" +
			"fdescfs " + jailDir + "/db/dev/fd fdescfs linrdlnk,nocover\n" +
			"tmpfs " + jailDir + "/db/dev/shm tmpfs nosuid,noexec,mode=1777,size=67108864,nocover\n" +
			"linprocfs " + jailDir + "/db/proc linprocfs nosuid,noexec,nocover\n" +
			"linsysfs " + jailDir + "/db/sys linsysfs nosuid,noexec,nocover\n"},
		{"nested volumes, parents first", mounting(
			sandbox.Mount{Source: "/c", Target: "/data/sub/deep", ReadOnly: true},
			sandbox.Mount{Source: "/d", Target: "/data-x"},
			sandbox.Mount{Source: "/b", Target: "/data/sub"},
			sandbox.Mount{Source: "/a", Target: "/data"},
		), rootMount + devMounts +
			"/a " + webRoot + "/data nullfs nosuid,nocover\n" +
			"/d " + webRoot + "/data-x nullfs nosuid,nocover\n" +
			"/b " + webRoot + "/data/sub nullfs nosuid,nocover\n" +
			"/c " + webRoot + "/data/sub/deep nullfs ro,nosuid,nocover\n"},
		{"recursive", func(p *sandbox.Pod, o *Options) {
			p.Apps[0].Mounts = []sandbox.Mount{{Source: "/srv", Target: "/data", ReadOnly: true, Recursive: true}}
			o.HostMounts = []HostMount{{"/", "zfs"}, {"/srv", "zfs"}, {"/srv/b/c", "tmpfs"}, {"/srv/b", "zfs"}, {"/srv/b", "zfs"}, {"/srvx", "zfs"}, {"/srv/dev", "devfs"}, {"/srv/dev/fd", "fdescfs"}, {"/srv/dev/shm", "tmpfs"}}
		}, rootMount + devMounts +
			"/srv " + webRoot + "/data nullfs ro,nosuid,nocover\n" +
			"/srv/b " + webRoot + "/data/b nullfs ro,nosuid,nocover\n" +
			"/srv/b/c " + webRoot + "/data/b/c nullfs ro,nosuid,nocover\n"},
		{"not recursive", func(p *sandbox.Pod, o *Options) {
			p.Apps[0].Mounts = []sandbox.Mount{{Source: "/srv", Target: "/data"}}
			o.HostMounts = []HostMount{{"/srv/b", "zfs"}}
		}, rootMount + devMounts + "/srv " + webRoot + "/data nullfs nosuid,nocover\n"},
		{"all of the host", func(p *sandbox.Pod, o *Options) {
			p.Apps[0].Mounts = []sandbox.Mount{{Source: "/", Target: "/host", Recursive: true}}
			o.HostMounts = []HostMount{{"/", "zfs"}, {"/dev", "devfs"}, {"/tmp", "zfs"}}
		}, rootMount + devMounts +
			"/ " + webRoot + "/host nullfs nosuid,nocover\n" +
			"/tmp " + webRoot + "/host/tmp nullfs nosuid,nocover\n"},
		{"a FreeBSD app may use /proc", mounting(sandbox.Mount{Source: "/x", Target: "/proc"}),
			rootMount + devMounts + "/x " + webRoot + "/proc nullfs nosuid,nocover\n"},
		{"names with spaces and commas", mounting(sandbox.Mount{Source: "/a b,rw", Target: "/c d,x"}),
			rootMount + devMounts + "/a b,rw " + webRoot + "/c d,x nullfs nosuid,nocover\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, opts := with(tt.change)
			ms, err := Mounts(pod, opts)
			if err != nil {
				t.Fatal(err)
			}
			if got := showMounts(ms); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestMountsErrors(t *testing.T) {
	app := func(change func(*sandbox.App)) func(*sandbox.Pod, *Options) {
		return func(p *sandbox.Pod, _ *Options) { change(&p.Apps[0]) }
	}
	tests := []struct {
		name   string
		change func(*sandbox.Pod, *Options)
		want   string
	}{
		{"ID", func(p *sandbox.Pod, _ *Options) { p.ID = "x" }, "canonical UUID"},
		{"no devfs rules", func(_ *sandbox.Pod, o *Options) { o.DevfsRuleset = 0 }, "rule set"},
		{"app named ..", app(func(a *sandbox.App) { a.Name = ".." }), "AC Name"},
		{"app named a/../../b", app(func(a *sandbox.App) { a.Name = "a/../../b" }), "AC Name"},
		{"app without a name", app(func(a *sandbox.App) { a.Name = "" }), "AC Name"},
		{"app with a newline", app(func(a *sandbox.App) { a.Name = "web\n" }), "AC Name"},
		{"two apps of a name", func(p *sandbox.Pod, _ *Options) { p.Apps = append(p.Apps, p.Apps[0]) }, `two apps are named "web"`},
		{"Linux app that is not there", func(_ *sandbox.Pod, o *Options) { o.Linux = []string{"db"} }, `no app "db"`},
		{"the host as root", app(func(a *sandbox.App) { a.Root = "/" }), "clean absolute path"},
		{"root is not clean", app(func(a *sandbox.App) { a.Root = "/a/../b" }), "clean absolute path"},
		{"root in /dev", app(func(a *sandbox.App) { a.Root = "/dev/fd" }), "device file system"},
		{"root in the jail", app(func(a *sandbox.App) { a.Root = webRoot }), "overlap"},
		{"root around the jail", app(func(a *sandbox.App) { a.Root = "/var/jetpack" }), "overlap"},
		{"target is the root", mounting(sandbox.Mount{Source: "/a", Target: "/"}), "clean absolute path"},
		{"target is relative", mounting(sandbox.Mount{Source: "/a", Target: "data"}), "clean absolute path"},
		{"no target", mounting(sandbox.Mount{Source: "/a"}), "clean absolute path"},
		{"target leaves the root", mounting(sandbox.Mount{Source: "/a", Target: "/../../etc"}), "clean absolute path"},
		{"target with a newline", mounting(sandbox.Mount{Source: "/a", Target: "/x\ny"}), "control character"},
		{"target with a NUL", mounting(sandbox.Mount{Source: "/a", Target: "/x\x00y"}), "control character"},
		{"target too long with the root", mounting(sandbox.Mount{Source: "/a", Target: "/" + strings.Repeat("x", 1000)}), "longer than 1023"},
		{"target is /dev", mounting(sandbox.Mount{Source: "/a", Target: "/dev"}), "nothing can be mounted"},
		{"target is in /dev", mounting(sandbox.Mount{Source: "/a", Target: "/dev/shm"}), "nothing can be mounted"},
		{"target is in a Linux app's /sys", func(p *sandbox.Pod, o *Options) {
			mounting(sandbox.Mount{Source: "/a", Target: "/sys/x"})(p, o)
			o.Linux = []string{"web"}
		}, "nothing can be mounted"},
		{"source is relative", mounting(sandbox.Mount{Source: "a", Target: "/data"}), "clean absolute path"},
		{"source is not clean", mounting(sandbox.Mount{Source: "/a/", Target: "/data"}), "clean absolute path"},
		{"source is the host's /dev", mounting(sandbox.Mount{Source: "/dev", Target: "/data"}), "device file system"},
		{"source is a device", mounting(sandbox.Mount{Source: "/dev/ada0", Target: "/data"}), "device file system"},
		{"source is another devfs", func(p *sandbox.Pod, o *Options) {
			mounting(sandbox.Mount{Source: "/jails/x/dev", Target: "/data"})(p, o)
			o.HostMounts = []HostMount{{"/jails/x/dev", "devfs"}}
		}, "device file system"},
		{"two volumes at one place", mounting(sandbox.Mount{Source: "/a", Target: "/data"}, sandbox.Mount{Source: "/b", Target: "/data"}), "same place"},
		{"a volume where a recursive one has a mount", func(p *sandbox.Pod, o *Options) {
			mounting(sandbox.Mount{Source: "/a", Target: "/data", Recursive: true}, sandbox.Mount{Source: "/b", Target: "/data/sub"})(p, o)
			o.HostMounts = []HostMount{{"/a/sub", "zfs"}}
		}, "same place"},
		{"a recursive mount with a newline", func(p *sandbox.Pod, o *Options) {
			mounting(sandbox.Mount{Source: "/a", Target: "/data", Recursive: true})(p, o)
			o.HostMounts = []HostMount{{"/a/s\nb", "zfs"}}
		}, "control character"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod, opts := with(tt.change)
			ms, err := Mounts(pod, opts)
			if err == nil {
				t.Fatalf("no error but\n%s", showMounts(ms))
			}
			if ms != nil {
				t.Errorf("mounts beside the error %v", err)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("error %q, want one line with %q", err, tt.want)
			}
		})
	}
}

// Inputs are left alone: a pod is used again after a failure.
func TestInputsUnchanged(t *testing.T) {
	change := func(p *sandbox.Pod, o *Options) {
		mounting(sandbox.Mount{Source: "/b", Target: "/b"}, sandbox.Mount{Source: "/a", Target: "/a", Recursive: true})(p, o)
		o.HostMounts = []HostMount{{"/b/z", "zfs"}, {"/a/z", "zfs"}}
		p.Network, o.Addresses = sandbox.NetworkPrivate, addrs("10.0.0.2", "10.0.0.1")
	}
	pod, opts := with(change)
	if _, err := Params(pod, opts); err != nil {
		t.Fatal(err)
	}
	if _, err := Mounts(pod, opts); err != nil {
		t.Fatal(err)
	}
	wantPod, wantOpts := with(change)
	if !reflect.DeepEqual(pod, wantPod) || !reflect.DeepEqual(opts, wantOpts) {
		t.Errorf("inputs were changed: %+v %+v", pod, opts)
	}
}

// checkParams fails on what no pod may ever have.
func checkParams(t *testing.T, ps []Param) {
	t.Helper()
	seen := make(map[string]bool)
	for _, p := range ps {
		for _, never := range []string{"allow.mount", "exec.", "mount.", "command", "vnet.", "allow.sysvipc", "allow.vmm", "allow.nfsd", "allow.dying"} {
			if strings.HasPrefix(p.Name, never) {
				t.Errorf("parameter %s", p.Name)
			}
		}
		if seen[p.Name] {
			t.Errorf("parameter %s twice", p.Name)
		}
		seen[p.Name] = true
		if strings.ContainsAny(p.Name, "\x00\n= ") {
			t.Errorf("parameter %q", p.Name)
		}
		if s, ok := p.Value.(string); ok && strings.ContainsAny(s, "\x00\n") {
			t.Errorf("parameter %s: %q", p.Name, s)
		}
	}
}

// checkMounts fails on mounts outside the apps' roots, before their parent, or of
// devices without rules.
func checkMounts(t *testing.T, pod sandbox.Pod, opts Options, ms []Mount) {
	t.Helper()
	for i, m := range ms {
		if !slices.ContainsFunc(pod.Apps, func(a sandbox.App) bool { return within(m.Target, AppRoot(opts.Path, a.Name)) }) {
			t.Errorf("target %q is in no app's root", m.Target)
		}
		if checkPath(m.Target) != nil {
			t.Errorf("target %q is not clean", m.Target)
		}
		for _, later := range ms[i+1:] {
			if within(m.Target, later.Target) {
				t.Errorf("%q is mounted before %q", m.Target, later.Target)
			}
		}
		if m.Type == "devfs" && !slices.Contains(m.Options, fmt.Sprintf("ruleset=%d", opts.DevfsRuleset)) {
			t.Errorf("devfs without rules: %v", m)
		}
		if m.Type == "nullfs" && within(m.Source, "/dev") {
			t.Errorf("the host's devices: %v", m)
		}
		if !slices.Contains(m.Options, "nocover") {
			t.Errorf("mount that may cover another: %v", m)
		}
	}
}

// TestNever puts good and hostile words everywhere, at random but the same ones
// every time: whatever is accepted is harmless.
func TestNever(t *testing.T) {
	words := []string{
		"", "/", "/a", "/a/b", "/a/../b", "..", "../x", "a", "web", "/dev", "/dev/fd", "/proc", "/var/jetpack", jailDir, jailDir + "/web", "/x\n", "/x\x00",
		"allow.mount", "allow.mount.zfs", "allow.raw_sockets", "exec.start", "mount.fstab", "true", "-1", podID, "14.3-RELEASE", "none", "host", "securelevel", "nullfs",
	}
	r := rand.New(rand.NewPCG(1, 2))
	word := func() string { return words[r.IntN(len(words))] }
	or := func(good string) string {
		if r.IntN(12) == 0 {
			return word()
		}
		return good
	}
	accepted := 0
	for range 50_000 {
		pod, opts := plainPod(), plainOptions()
		pod.ID, pod.Hostname, pod.Network = or(podID), or("web"), sandbox.Network(or("none"))
		pod.Apps[0].Name, pod.Apps[0].Root = or("web"), or("/trees/web")
		for range r.IntN(3) {
			pod.Apps[0].Mounts = append(pod.Apps[0].Mounts, sandbox.Mount{Source: word(), Target: or("/a/b"), Recursive: r.IntN(2) == 0})
		}
		opts.Path, opts.OSRelease = or(jailDir), or("")
		if r.IntN(4) == 0 {
			opts.Allow = []string{or("allow.raw_sockets")}
			opts.Annotations = map[string]string{"jetpack/jail.conf/" + or("securelevel"): or("1")}
			opts.HostMounts = []HostMount{{word(), or("zfs")}, {word(), or("devfs")}}
			opts.Linux = []string{or("web")}
		}
		if ps, err := Params(pod, opts); err == nil {
			checkParams(t, ps)
			accepted++
		}
		if ms, err := Mounts(pod, opts); err == nil {
			checkMounts(t, pod, opts, ms)
			accepted++
		}
	}
	if accepted < 5000 {
		t.Errorf("only %d of 100000 were accepted, which tests little", accepted)
	}
}

func FuzzAnnotationParams(f *testing.F) {
	f.Add("allow.raw-sockets", "true", "securelevel", "2")
	f.Add("exec.start", "id", "allow.mount.zfs", "true")
	f.Add("osrelease", "14.3-RELEASE", "sysvmsg", "new")
	f.Add("allow.raw-sockets", "true", "allow.raw_sockets", "true")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		annotations := map[string]string{annotationPrefix + name1: value1, annotationPrefix + name2: value2}
		ps, refused := AnnotationParams(annotations)
		if len(ps)+len(refused) != len(annotations) {
			t.Errorf("%d parameters and %d refusals for %d annotations", len(ps), len(refused), len(annotations))
		}
		checkParams(t, ps)
		for _, err := range refused {
			if strings.ContainsAny(err.Error(), "\n\x00\x1b") {
				t.Errorf("error is not printable: %q", err)
			}
		}
		pod, opts := plainPod(), plainOptions()
		opts.Annotations, opts.HostSecureLevel = annotations, -1
		all, err := Params(pod, opts)
		if (err == nil) != (len(refused) == 0) {
			t.Errorf("Params: %v, refused: %v", err, refused)
		}
		checkParams(t, all)
		for _, p := range ps {
			if !slices.ContainsFunc(all, func(q Param) bool { return reflect.DeepEqual(p, q) }) && err == nil {
				t.Errorf("%v is lost", p)
			}
		}
	})
}
