package ociengine

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/console"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

var update = flag.Bool("update", false, "write the golden files")

// The seccomp profile is left out of the golden files: it is another module's.
var testFacts = facts{
	Cgroup: "/jetpack-scope-id/web/1",
	Limits: appPlan{capabilities: podman},
	Namespaces: map[string]string{
		"ipc": "/proc/9/fd/3", "uts": "/proc/9/fd/4", "net": "/proc/9/fd/5", "pid": "/proc/9/fd/6",
	},
	Shm: "/state/id/shm",
}

func TestContainerSpec(t *testing.T) {
	hostNetwork := testFacts
	hostNetwork.Namespaces = map[string]string{"ipc": "/proc/9/fd/3", "uts": "/proc/9/fd/4", "pid": "/proc/9/fd/6"}
	hostNetwork.UnifiedOnly = true
	for _, tt := range []struct {
		name    string
		app     sandbox.App
		process sandbox.Process
		facts   facts
	}{
		{"root", sandbox.App{Name: "web", Root: "/roots/web"}, sandbox.Process{
			App: "web", Args: []string{"/bin/web", "-x"}, Env: []string{"A=b"}, Dir: "/",
		}, testFacts},
		{"user", sandbox.App{Name: "web", Root: "/roots/web", ReadOnly: true, Mounts: []sandbox.Mount{
			{Source: "/srv/a", Target: "/a"},
			{Source: "/srv/b", Target: "/b", ReadOnly: true},
			{Source: "/srv/c", Target: "/c", Recursive: true},
			{Source: "/srv/d", Target: "/d", Recursive: true, ReadOnly: true},
		}}, sandbox.Process{
			App: "web", Args: []string{"web"}, Dir: "/work", UID: 1000, GID: 100, Groups: []uint32{5, 6},
			Terminal: true, Size: console.WinSize{Height: 24, Width: 80},
		}, hostNetwork},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := json.MarshalIndent(containerSpec(tt.app, tt.process, tt.facts), "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			golden := "testdata/" + tt.name + ".json"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("differs from %s (see -update):\n%s", golden, got)
			}
		})
	}
}

// What a user that is not root must not have, whatever the golden files say.
func TestCapabilities(t *testing.T) {
	for _, tt := range []struct {
		uid  uint32
		want specs.LinuxCapabilities
	}{
		{0, specs.LinuxCapabilities{Bounding: podman, Effective: podman, Permitted: podman}},
		{1, specs.LinuxCapabilities{Bounding: podman}},
	} {
		if got := processSpec(sandbox.Process{UID: tt.uid}, appPlan{capabilities: podman}).Capabilities; !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("user %d has %+v", tt.uid, *got)
		}
	}
	for _, never := range []string{"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_NET_RAW", "CAP_MKNOD", "CAP_DAC_READ_SEARCH"} {
		if slices.Contains(podman, never) {
			t.Errorf("%s is a default capability", never)
		}
	}
}

func TestDefaultSeccomp(t *testing.T) {
	profile, err := defaultSeccomp(podman)
	if err != nil {
		t.Fatal(err)
	}
	if profile.DefaultAction != specs.ActErrno || len(profile.Syscalls) == 0 || len(profile.Architectures) == 0 {
		t.Errorf("profile %+v", profile)
	}
	for _, rule := range profile.Syscalls {
		for _, never := range []string{"mount", "bpf", "kexec_load", "init_module", "open_by_handle_at", "keyctl"} {
			if rule.Action == specs.ActAllow && slices.Contains(rule.Names, never) {
				t.Errorf("%s is allowed", never)
			}
		}
	}
}

func TestArgsFor(t *testing.T) {
	for _, tt := range []struct {
		name string
		arg  string
		env  []string
		want string
	}{
		{"absolute", "/bin/x", nil, "/bin/x"},
		{"relative", "./x", nil, "./x"},
		{"searched", "x", []string{"PATH=/a:/b"}, "x"},
		{"no PATH", "x", nil, "/found/x"},
		{"empty PATH", "x", []string{"PATH="}, "/found/x"},
		{"empty element", "x", []string{"PATH=/a::/b"}, "/found/x"},
		{"relative element", "x", []string{"PATH=/a:b"}, "/found/x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := argsFor(sandbox.Process{Args: []string{tt.arg, "y"}, Env: tt.env}, "/found/x")
			if want := []string{tt.want, "y"}; !slices.Equal(got, want) {
				t.Errorf("arguments %q, want %q", got, want)
			}
		})
	}
}
