//go:build unix

package sandboxtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"testing"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest/probe"
)

// limitCases are about isolators and profiles. What of an isolator a host cannot do, or
// an engine cannot anywhere, Check says, and the case is skipped.
var limitCases = []testCase{
	{"memory of a pod", isolates, func(t *testing.T, s *setup) {
		s.pod.Isolators = []sandbox.Isolator{{Name: sandbox.Memory, Value: sandbox.Resource{Request: 64 << 20, Limit: 64 << 20}}}
		s.enforce(t).hogMemory(t)
		s.succeed(t, process("b", "exit", "0"))
	}},
	{"memory of an app", isolates, func(t *testing.T, s *setup) {
		s.pod.Apps[0].Isolators = []sandbox.Isolator{{Name: sandbox.Memory, Value: sandbox.Resource{Request: 64 << 20, Limit: 64 << 20}}}
		s.enforce(t).hogMemory(t)
		s.succeed(t, process("b", "hog-memory", "100"))
	}},
	{"processors of a pod", isolates, func(t *testing.T, s *setup) {
		s.pod.Isolators = []sandbox.Isolator{{Name: sandbox.CPU, Value: sandbox.Resource{Request: 200, Limit: 200}}}
		s.enforce(t).hogCPU(t, 0.2)
	}},
	{"processors of an app", isolates, func(t *testing.T, s *setup) {
		s.pod.Isolators = []sandbox.Isolator{{Name: sandbox.CPU, Value: sandbox.Resource{Request: 1500, Limit: 1500}}}
		s.pod.Apps[0].Isolators = []sandbox.Isolator{{Name: sandbox.CPU, Value: sandbox.Resource{Request: 200, Limit: 200}}}
		s.enforce(t).hogCPU(t, 0.2)
	}},
	{"bandwidth of a disk", isolates, func(t *testing.T, s *setup) {
		s.pod.Isolators = []sandbox.Isolator{{Name: sandbox.BlockBandwidth, Value: sandbox.Resource{Request: 2 << 20, Limit: 2 << 20}}}
		var took float64
		s.enforce(t).ask(t, process("a", "hog-disk", "/tmp/file", "8"), &took)
		t.Logf("8 MiB at 2 a second took %.2f seconds", took)
		if took < 2 {
			t.Errorf("8 MiB at 2 a second took %.2f seconds", took)
		}
	}},
	{"set-id programs", isolates, func(t *testing.T, s *setup) {
		s.setID(t)
		if got := s.create(t).effectiveUser(t); got != 0 {
			t.Errorf("effective user %d, want root", got)
		}
	}},
	{"no new privileges", isolates, func(t *testing.T, s *setup) {
		s.setID(t)
		s.pod.Apps[0].Isolators = []sandbox.Isolator{{Name: sandbox.NoNewPrivileges, Value: sandbox.Switch(true)}}
		if got := s.enforce(t).effectiveUser(t); got != 1000 {
			t.Errorf("effective user %d, want that of the process", got)
		}
	}},
	{"a removed capability is missing", isolates, func(t *testing.T, s *setup) {
		low := process("a", "bind", "80")
		s.create(t).succeed(t, low)
		if err := s.engine.Destroy(t.Context(), s.pod.ID); err != nil {
			t.Fatal(err)
		}
		for i := range s.pod.Apps {
			s.pod.Apps[i].Isolators = []sandbox.Isolator{{Name: sandbox.CapabilitiesRemove, Value: sandbox.Set{Names: []string{"CAP_NET_BIND_SERVICE"}}}}
		}
		s.enforce(t).refuse(t, low, "denied")
	}},
	{"a removed system call fails as said", isolates, func(t *testing.T, s *setup) {
		s.pod.Apps[0].Isolators = []sandbox.Isolator{{
			Name: sandbox.SeccompRemove, Value: sandbox.Set{Names: []string{"mkdir", "mkdirat"}, Errno: "EDOM"},
		}}
		s.enforce(t).refuse(t, process("a", "mkdir", "/tmp/x"), syscall.EDOM.Error())
		s.succeed(t, process("b", "mkdir", "/tmp/x"))
	}},
	{"a removed system call ends the process", isolates, func(t *testing.T, s *setup) {
		s.pod.Apps[0].Isolators = []sandbox.Isolator{{
			Name: sandbox.SeccompRemove, Value: sandbox.Set{Names: []string{"mkdir", "mkdirat"}},
		}}
		if exit := s.enforce(t).run(t, process("a", "mkdir", "/tmp/x")).exit; exit.Signal != syscall.SIGSYS {
			t.Errorf("ended with %+v", exit)
		}
	}},
	{"only retained system calls", isolates, func(t *testing.T, s *setup) {
		s.pod.Apps[0].Isolators = []sandbox.Isolator{{
			Name: sandbox.SeccompRetain, Value: sandbox.Set{Names: []string{"arch_prctl", "clone", "clone3", "eventfd2", "pipe2", "prlimit64", "uname"}, Errno: "EDOM"},
		}}
		s.enforce(t).succeed(t, process("a", "args"))
		s.refuse(t, process("a", "mkdir", "/tmp/x"), syscall.EDOM.Error())
	}},
	{"an image adds nothing to the profile", isolates, func(t *testing.T, s *setup) {
		for i := range s.pod.Apps {
			s.pod.Apps[i].Isolators = []sandbox.Isolator{
				{Name: sandbox.CapabilitiesRetain, Image: true, Value: sandbox.Set{Names: []string{"CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SYS_TIME"}}},
				{Name: sandbox.SeccompRetain, Image: true, Value: sandbox.Set{Names: []string{"@appc.io/all"}}},
			}
		}
		for _, o := range s.check(t) {
			if o.Status == sandbox.Enforced && o.Isolator == sandbox.CapabilitiesRetain {
				t.Errorf("%s is enforced", o.Isolator)
			}
		}
		s.attempts(t, 0)
	}},
	{"nothing is forgotten of what is asked for", isolates, func(t *testing.T, s *setup) {
		s.pod.Isolators = []sandbox.Isolator{
			{Name: "example.com/unknown", Value: sandbox.Text("1")},
			{Name: sandbox.NetworkBandwidth, Value: sandbox.Resource{Request: 1000, Limit: 1000}},
			{Name: sandbox.Memory, Value: sandbox.Resource{Request: 1 << 30, Limit: 1 << 30}},
		}
		s.pod.Apps[1].Isolators = []sandbox.Isolator{
			{Name: sandbox.SELinuxContext, Value: sandbox.Text("a:b:c:d")}, {Name: sandbox.CPUShares, Value: sandbox.Number(100)},
		}
		var got []string
		for _, o := range s.check(t) {
			if (o.Detail == "") != (o.Status == sandbox.Enforced) {
				t.Errorf("%+v", o)
			}
			got = append(got, o.App+" "+o.Isolator)
		}
		want := []string{
			" example.com/unknown", " " + sandbox.NetworkBandwidth, " " + sandbox.Memory,
			"b " + sandbox.SELinuxContext, "b " + sandbox.CPUShares,
		}
		if !slices.Equal(got, want) {
			t.Errorf("outcomes of %q, want %q", got, want)
		}
	}},
	{"processes of profile strict are like others", isolates, func(t *testing.T, s *setup) {
		type seen struct {
			Args, Env []string
			Dir       string
			Process   probe.Process
			FDs       []int
		}
		look := func() (all seen) {
			p := process("a", "args", "\xff", "two words", "")
			p.Env, p.Dir = append(p.Env, "BAD=\xff", "GODEBUG=asyncpreemptoff=1"), "/work dir"
			p.UID, p.GID, p.Groups = 1000, 1001, []uint32{1002, 1003}
			for _, c := range []struct {
				command string
				into    any
			}{{"args", &all.Args}, {"env", &all.Env}, {"cwd", &all.Dir}, {"process", &all.Process}, {"fds", &all.FDs}} {
				p.Args[1] = c.command
				s.ask(t, p, c.into)
			}
			slices.Sort(all.Env)
			for name, want := range map[string]error{"/nothing": sandbox.ErrCommandNotFound, "/name": sandbox.ErrCommandNotExecutable} {
				p.Args[0] = name
				if _, err := s.engine.Start(t.Context(), s.pod.ID, p); !errors.Is(err, want) {
					t.Errorf("Start %s = %v, want %v", name, err, want)
				}
			}
			if err := s.engine.Destroy(t.Context(), s.pod.ID); err != nil {
				t.Fatal(err)
			}
			return all
		}
		s.create(t)
		others := look()
		s.pod.Profile = sandbox.ProfileStrict
		s.create(t)
		if got := look(); !reflect.DeepEqual(got, others) {
			t.Errorf("strict: %+v\nothers: %+v", got, others)
		}
	}},
	{"profile strict", isolates, func(t *testing.T, s *setup) {
		s.pod.Profile = sandbox.ProfileStrict
		s.attempts(t, 0)
	}},
	{"unknown profile", isolates, func(t *testing.T, s *setup) {
		s.pod.Profile = "none"
		if _, err := s.engine.Check(t.Context(), s.pod); !errors.Is(err, sandbox.ErrBadPod) {
			t.Errorf("Check = %v", err)
		}
	}},
}

func (s *setup) check(t *testing.T) []sandbox.Outcome {
	t.Helper()
	outcomes, err := s.engine.Check(t.Context(), s.pod)
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	return outcomes
}

// enforce creates the pod, or skips the test when one of its isolators is ignored.
func (s *setup) enforce(t *testing.T) *setup {
	t.Helper()
	for _, o := range s.check(t) {
		if o.Status == sandbox.Ignored {
			t.Skipf("%s is ignored: %s", o.Isolator, o.Detail)
		}
	}
	return s.create(t)
}

// user is a process of no privileges: limits of apps need not bind root.
func user(app string, args ...string) sandbox.Process {
	p := process(app, args...)
	p.UID, p.GID = 1000, 1000
	return p
}

// hogMemory makes sure that a process of app a that wants too much is killed.
func (s *setup) hogMemory(t *testing.T) {
	t.Helper()
	res := s.run(t, user("a", "hog-memory", "1024"))
	got := 0
	for lines := json.NewDecoder(bytes.NewReader(res.stdout)); ; {
		if err := lines.Decode(&got); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a memory hog limited to 64 MiB got %d", got)
	if res.exit.Signal != syscall.SIGKILL || got > 512 {
		t.Errorf("got %d MiB and ended with %+v: %s", got, res.exit, res.stderr)
	}
}

// hogCPU makes sure that a process of app a gets no more than its share.
func (s *setup) hogCPU(t *testing.T, share float64) {
	t.Helper()
	var got probe.Usage
	s.ask(t, user("a", "hog-cpu", "8"), &got)
	t.Logf("a processor hog limited to %.2f got %.2f seconds in %.2f", share, got.CPU, got.Wall)
	if got.CPU > 2*share*got.Wall {
		t.Errorf("got %.2f seconds in %.2f, want about %.2f", got.CPU, got.Wall, share*got.Wall)
	}
}

const setIDProbe = "/bin/set-id-probe"

// setID puts a probe in app a's root that runs as root, whoever executes it.
func (s *setup) setID(t *testing.T) {
	t.Helper()
	name := filepath.Join(s.pod.Apps[0].Root, setIDProbe)
	if err := copyFile(filepath.Join(s.pod.Apps[0].Root, ProbePath), name, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
}

// effectiveUser is that of a process that a user starts with the program of setID.
func (s *setup) effectiveUser(t *testing.T) int {
	t.Helper()
	p := user("a", "process")
	p.Args[0] = setIDProbe
	var got probe.Process
	s.ask(t, p, &got)
	return got.EUID
}
