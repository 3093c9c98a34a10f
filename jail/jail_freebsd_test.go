package jail

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/network"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// cleanupContext is for what is done after a test, whose own has ended by then.
var cleanupContext = context.Background()

// fixture is an engine with a pod of one app, not yet created.
type fixture struct {
	*Engine
	pod sandbox.Pod
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	testenv.Root(t)
	dir := t.TempDir()
	engine, err := suite.New(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	sandboxtest.InstallProbe(t, sandboxtest.BuildProbe(t), root)
	f := fixture{engine.(*Engine), sandbox.Pod{
		ID: uuid.NewString(), Hostname: "pod-host", Network: sandbox.NetworkPrivate,
		Apps: []sandbox.App{{Name: "app", Root: root}}, Annotations: map[string]string{},
	}}
	t.Cleanup(func() {
		ctx := t.Context()
		if ctx.Err() != nil {
			ctx = cleanupContext
		}
		if err := f.Destroy(ctx, f.pod.ID); err != nil {
			t.Errorf("Destroy: %v", err)
		}
		if left, err := leftovers(f.cfg.StateDir, f.pod.ID); err != nil || len(left) > 0 {
			t.Errorf("left after Destroy: %q, %v", left, err)
		}
	})
	return f
}

func (f fixture) create(t *testing.T) {
	t.Helper()
	if err := f.Create(t.Context(), f.pod); err != nil {
		t.Fatal(err)
	}
}

// parameter asks jls(8) for a parameter of the pod's jail.
func (f fixture) parameter(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "jls", "-j", jailName(f.pod.ID), name).Output()
	if err != nil {
		t.Fatalf("jls %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

func TestJailParameters(t *testing.T) {
	f := newFixture(t)
	f.pod.Apps[0].OSVersion = "12.4"
	f.pod.Annotations[annotationPrefix+"allow.chflags"] = "true"
	f.pod.Annotations[annotationPrefix+"enforce-statfs"] = "1"
	f.create(t)
	for name, want := range map[string]string{
		"host.hostname":     "pod-host",
		"host.hostuuid":     f.pod.ID,
		"osrelease":         "12.4-RELEASE",
		"osreldate":         "1204000",
		"path":              filepath.Join(f.cfg.StateDir, f.pod.ID, rootDir),
		"children.max":      "0",
		"securelevel":       "2",
		"enforce_statfs":    "1",
		"devfs_ruleset":     "54999",
		"sysvshm":           "new",
		"allow.chflags":     "true",
		"allow.raw_sockets": "false",
		"allow.mount":       "false",
	} {
		if got := f.parameter(t, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// output is what the probe prints in the app.
func (f fixture) output(t *testing.T, args ...string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	task, err := f.Start(t.Context(), f.pod.ID, sandbox.Process{
		App: "app", Args: append([]string{sandboxtest.ProbePath}, args...), Dir: "/", Stdout: w, Stderr: w,
	})
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := task.Wait(t.Context()); err != nil || exit != (sandbox.Exit{}) {
		t.Errorf("probe %q: %+v, %v: %s", args, exit, err, out)
	}
	return string(out)
}

func TestLinuxApp(t *testing.T) {
	testenv.LinuxABI(t)
	f := newFixture(t)
	app := &f.pod.Apps[0]
	f.pod.Network = sandbox.NetworkNone
	app.OS, app.Mounts = "linux", []sandbox.Mount{{Source: t.TempDir(), Target: "/vol"}}
	if err := os.Remove(filepath.Join(app.Root, sandboxtest.ProbePath)); err != nil {
		t.Fatal(err)
	}
	sandboxtest.InstallProbe(t, testenv.ProgramFor(t, "linux", "probe", "github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest/probe/cmd"), app.Root)
	if err := os.Mkdir(filepath.Join(app.Root, "vol"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.pod.Isolators = []sandbox.Isolator{{Name: sandbox.Memory, Value: sandbox.Resource{Request: 64 << 20, Limit: 64 << 20}}}
	outcomes, err := f.Check(t.Context(), f.pod)
	if err != nil {
		t.Fatal(err)
	}
	f.create(t)
	// appc spec, OS-SPEC; tty comes with a terminal, and there is no console
	devices := []string{"devices", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/ptmx"}
	if got := f.output(t, devices...); got != "[]\n" {
		t.Errorf("devices: %s", got)
	}
	mounts := f.output(t, "read", "/proc/self/mountinfo")
	for _, at := range []string{"/", "/proc", "/sys", "/dev", "/dev/shm", "/vol"} {
		if !strings.Contains(mounts, " "+at+" ") {
			t.Errorf("nothing is mounted on %s:\n%s", at, mounts)
		}
	}
	// It has a jail of its own, which has the pod's name and network, and ends with it.
	if got := f.output(t, "hostname"); got != "\"pod-host\"\n" {
		t.Errorf("hostname: %s", got)
	}
	if got := f.output(t, "bind", "0"); got != "" {
		t.Errorf("bind: %s", got)
	}
	if got := f.parameter(t, "children.cur"); got != "1" {
		t.Errorf("%s jails in the pod's", got)
	}
	// The limits of the pod bind it.
	if outcomes[0].Status != sandbox.Enforced {
		t.Skipf("%s is %s: %s", outcomes[0].Isolator, outcomes[0].Status, outcomes[0].Detail)
	}
	task, err := f.Start(t.Context(), f.pod.ID, sandbox.Process{
		App: "app", Args: []string{sandboxtest.ProbePath, "hog-memory", "1024"}, Env: []string{"HOME=/"}, Dir: "/",
	})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := task.Wait(t.Context()); err != nil || exit.Signal != syscall.SIGKILL {
		t.Errorf("a memory hog ended with %+v, %v", exit, err)
	}
}

// TestInheritedDirectory: who started us may have left one open, which the kernel takes for a
// way out of a jail.
func TestInheritedDirectory(t *testing.T) {
	f := newFixture(t)
	fd, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	f.create(t)
	if got := f.output(t, "args"); !strings.Contains(got, "args") {
		t.Errorf("args: %s", got)
	}
}

// TestRecursiveVolumeAboveOthers: a volume that holds jetpack's own directory does not keep
// other pods' mounts from being unmounted.
func TestRecursiveVolumeAboveOthers(t *testing.T) {
	other := newFixture(t)
	other.create(t)
	f := newFixture(t)
	f.cfg.Root = other.cfg.StateDir
	f.pod.Apps[0].Mounts = []sandbox.Mount{{Source: filepath.Dir(other.cfg.StateDir), Target: "/host", Recursive: true}}
	if err := os.Mkdir(filepath.Join(f.pod.Apps[0].Root, "host"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.create(t)
	if err := other.Destroy(t.Context(), other.pod.ID); err != nil {
		t.Errorf("Destroy of the other pod: %v", err)
	}
}

// TestMountWentElsewhere: what follows a link is not left there.
func TestMountWentElsewhere(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	place, link := filepath.Join(dir, "place"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(place, 0o755), os.Symlink(place, link)); err != nil {
		t.Fatal(err)
	}
	err := Mount{Source: "tmpfs", Target: link, Type: "tmpfs", Options: []string{"size=1m"}}.make()
	if err == nil || !strings.HasSuffix(err.Error(), "it went to "+place) {
		t.Errorf("mount: %v", err)
	}
	table, err := mountTable()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range table {
		if m.path == place {
			t.Errorf("%s is still mounted", m.path)
		}
	}
}

func TestDevices(t *testing.T) {
	f := newFixture(t)
	f.create(t)
	entries, err := os.ReadDir(filepath.Join(AppRoot(filepath.Join(f.cfg.StateDir, f.pod.ID, rootDir), "app"), "dev"))
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, r := range devices {
		shown[r.path] = true
	}
	for _, e := range entries {
		if !shown[e.Name()] {
			t.Errorf("/dev has %s", e.Name())
		}
	}
	if len(entries) < 8 {
		t.Errorf("/dev has only %v", entries)
	}
}

func TestBadPods(t *testing.T) {
	const empty, open = "54998", "54997"
	if out, err := exec.CommandContext(t.Context(), "devfs", "rule", "-s", open, "add", "path", "mem", "unhide").CombinedOutput(); err != nil {
		t.Skipf("needs devfs rules: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.CommandContext(cleanupContext, "devfs", "rule", "-s", open, "delset").Run() })
	for name, tt := range map[string]struct {
		annotations map[string]string
		app         sandbox.App
		want        error
		text        string
	}{
		"parameter that nobody may set": {map[string]string{annotationPrefix + "allow.mount": "true"}, sandbox.App{}, sandbox.ErrBadPod, "may not set"},
		"rule set without rules":        {map[string]string{devfsAnnotation: empty}, sandbox.App{}, sandbox.ErrBadPod, "has no rules"},
		"rule set that hides nothing":   {map[string]string{devfsAnnotation: open}, sandbox.App{}, sandbox.ErrBadPod, "hiding every device"},
		"no rule set":                   {map[string]string{devfsAnnotation: "none"}, sandbox.App{}, sandbox.ErrBadPod, "not a number"},
		"image of a later release":      {nil, sandbox.App{OSVersion: "99.1"}, sandbox.ErrUnsupported, "this host's kernel"},
		"image of no release":           {nil, sandbox.App{OSVersion: "13.1.0"}, sandbox.ErrBadPod, "not an osrelease"},
		"image for another system":      {nil, sandbox.App{OS: "plan9"}, sandbox.ErrUnsupported, "plan9"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			maps.Copy(f.pod.Annotations, tt.annotations)
			f.pod.Apps[0].OS, f.pod.Apps[0].OSVersion = tt.app.OS, tt.app.OSVersion
			_, checkErr := f.Check(t.Context(), f.pod)
			for what, err := range map[string]error{"Check": checkErr, "Create": f.Create(t.Context(), f.pod)} {
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%s = %v, want %v with %q", what, err, tt.want, tt.text)
				}
			}
		})
	}
}

// What the operator's isolators ask of a jail is there, and gone with the pod, whoever
// destroys it.
func TestIsolators(t *testing.T) {
	f := newFixture(t)
	other := f.pod.Apps[0]
	other.Name, other.Root = "other", t.TempDir()
	other.Isolators = []sandbox.Isolator{{Name: sandbox.Memory, Value: sandbox.Resource{Request: 1 << 30, Limit: 1 << 30}}}
	f.pod.Apps = append(f.pod.Apps, other)
	f.pod.Isolators = []sandbox.Isolator{
		{Name: sandbox.FreeBSDCpuset, Value: sandbox.Text("0")},
		{Name: sandbox.FreeBSDRctl, Value: sandbox.Settings{"maxproc:deny": "50"}},
		{Name: sandbox.FreeBSDJailParam, Value: sandbox.Settings{"allow.mlock": "true"}},
		{Name: sandbox.Sysctl, Value: sandbox.Settings{"kern.securelevel": "3"}},
	}
	outcomes, err := f.Check(t.Context(), f.pod)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if o.Status == sandbox.Ignored {
			t.Skipf("%s is ignored: %s", o.Isolator, o.Detail)
		}
	}
	f.create(t)
	name := jailName(f.pod.ID)
	for parameter, want := range map[string]string{"allow.mlock": "true", "securelevel": "3"} {
		if got := f.parameter(t, parameter); got != want {
			t.Errorf("%s is %s, want %s", parameter, got, want)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "cpuset", "-g", "-j", strconv.Itoa(f.pods[f.pod.ID].jid)).Output(); err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "mask: 0") {
		t.Errorf("processors: %s, %v", out, err)
	}
	limits, err := rules(":")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"jail:" + name + ":maxproc:deny=50", "loginclass:" + loginClass(f.pod.ID, "1") + ":memoryuse:sigkill=1073741824"} {
		if !slices.Contains(limits, want) {
			t.Errorf("no rule %s in %q", want, limits)
		}
	}
	second, err := suite.New(f.cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Destroy(t.Context(), f.pod.ID); err != nil {
		t.Fatal(err)
	}
	if left, err := leftovers(f.cfg.StateDir, f.pod.ID); err != nil || len(left) > 0 {
		t.Errorf("left after Destroy: %q, %v", left, err)
	}
}

// A rule that an administrator made for a pod goes with it (rctl(8)).
func TestResourceRules(t *testing.T) {
	f := newFixture(t)
	f.create(t)
	rule := "jail:" + jailName(f.pod.ID) + ":maxproc:deny=50"
	if out, err := exec.CommandContext(t.Context(), "rctl", "-a", rule).CombinedOutput(); err != nil {
		t.Skipf("needs kern.racct.enable=1: %v: %s", err, out)
	}
	if err := f.Destroy(t.Context(), f.pod.ID); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "rctl").Output(); err != nil || strings.Contains(string(out), f.pod.ID) {
		t.Errorf("rules after Destroy: %s, %v", out, err)
	}
}

// An address that somebody else's jail has is passed over.
func TestAddressInUse(t *testing.T) {
	f := newFixture(t)
	f.create(t)
	addrs, err := f.Addresses(t.Context(), f.pod.ID)
	if err != nil || len(addrs) == 0 {
		t.Fatalf("Addresses = %v, %v", addrs, err)
	}
	if err := f.Destroy(t.Context(), f.pod.ID); err != nil {
		t.Fatal(err)
	}
	// The pod's number leads to the same address again.
	name := "jptest" + f.pod.ID[:8]
	args := []string{"-c", "name=" + name, "path=/", "persist", "ip4.addr=" + addrs[0].String()}
	if out, err := exec.CommandContext(t.Context(), "jail", args...).CombinedOutput(); err != nil {
		t.Fatalf("jail: %v: %s", err, out)
	}
	defer func() {
		if err := exec.CommandContext(cleanupContext, "jail", "-r", name).Run(); err != nil {
			t.Error(err)
		}
	}()
	f.create(t)
	now, err := f.Addresses(t.Context(), f.pod.ID)
	if err != nil || len(now) == 0 || now[0] == addrs[0] || !now[0].Is4() {
		t.Errorf("Addresses = %v, %v, and %v is in use", now, err, addrs[0])
	}
}

// What an interrupted Create has left names an address that another pod may have
// got since.
func TestReleaseOfAnothersAddress(t *testing.T) {
	f := newFixture(t)
	f.create(t)
	addrs, err := f.Addresses(t.Context(), f.pod.ID)
	if err != nil {
		t.Fatal(err)
	}
	dead := &pod{dir: filepath.Join(f.cfg.StateDir, uuid.NewString())}
	if err := os.Mkdir(dead.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (network.Held{Interface: f.cfg.Interface, Addresses: addrs}).Write(dead.dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Destroy(t.Context(), filepath.Base(dead.dir)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "ifconfig", f.cfg.Interface).Output()
	if err != nil || !strings.Contains(string(out), addrs[0].String()) {
		t.Errorf("%v was taken from its pod: %v\n%s", addrs[0], err, out)
	}
}

func TestLacks(t *testing.T) {
	f := newFixture(t)
	lacks := func(want ...string) {
		t.Helper()
		got := strings.Join(f.Lacks(), "\n")
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("got %s, want %q", got, w)
			}
		}
	}
	f.cfg.Interface = "nosuch0"
	lacks("nosuch0 does not exist", "sysrc cloned_interfaces+=nosuch0 ")
	out, err := exec.CommandContext(t.Context(), "ifconfig", "lo", "create").Output()
	if err != nil {
		t.Fatal(err)
	}
	f.cfg.Interface = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.CommandContext(cleanupContext, "ifconfig", f.cfg.Interface, "destroy").Run(); err != nil {
			t.Error(err)
		}
	})
	lacks(f.cfg.Interface+" has no address with a network", "'sysrc cloned_interfaces+="+f.cfg.Interface+" ifconfig_")
}

// A set that begins with including another is as good as that one.
func TestCheckRules(t *testing.T) {
	testenv.Root(t)
	devfs := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(cleanupContext, "devfs", append([]string{"rule", "-s"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	hiding, showing, including := "54996", "54997", "54998"
	devfs(hiding, "add", "hide")
	devfs(showing, "add", "path", "null", "unhide")
	for _, tt := range []struct {
		included string
		ok       bool
	}{{hiding, true}, {showing, false}} {
		devfs(including, "add", "include", tt.included)
		if err := checkRules(54998); (err == nil) != tt.ok {
			t.Errorf("one that includes %s: %v", tt.included, err)
		}
		devfs(including, "delset")
	}
	devfs(hiding, "delset")
	devfs(showing, "delset")
}
