package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

func TestRun(t *testing.T) {
	h := newHost(t)
	tests := []struct {
		name     string
		commands []string
		statuses map[string]AppStatus
		status   int
	}{
		{"success", []string{"exit 0"}, map[string]AppStatus{"probe": {}}, 0},
		{"failure", []string{"exit 3"}, map[string]AppStatus{"probe": {Status: 3}}, 3},
		{"first that is not zero", []string{"exit 0", "exit 4", "exit 5"},
			map[string]AppStatus{"probe": {}, "probe-2": {Status: 4}, "probe-3": {Status: 5}}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := time.Now().Add(-time.Second)
			run, _ := h.up(t, h.probes(t, tt.commands...), noNetwork)
			info := ended(t, run)
			if got := info.Status(); got != tt.status {
				t.Errorf("status %d, want %d", got, tt.status)
			}
			if fmt.Sprint(info.State.Apps) != fmt.Sprint(tt.statuses) {
				t.Errorf("apps %v, want %v", info.State.Apps, tt.statuses)
			}
			if s := info.State; s.Started.Before(before) || s.Ended.Before(s.Started) || s.BootID != "boot" {
				t.Errorf("state %+v", s)
			}
			// What others see is the same.
			seen, err := h.Inspect(t.Context(), run.UUID())
			if err != nil || fmt.Sprint(seen.State) != fmt.Sprint(info.State) {
				t.Errorf("seen %+v, %v; want %+v", seen.State, err, info.State)
			}
			h.holdsNothing(t)
			if err := h.Remove(t.Context(), run.UUID()); err != nil {
				t.Fatal(err)
			}
			h.isClean(t)
		})
	}
}

func TestSignals(t *testing.T) {
	tests := []struct {
		name, command string
		end           func(h *host, run *Run) error
		signal        syscall.Signal
	}{
		{"stop", "trap 2", func(_ *host, run *Run) error { run.Stop(patience); return nil }, syscall.SIGTERM},
		{"stop, and kill after grace", "trap 15", func(_ *host, run *Run) error { run.Stop(10 * time.Millisecond); return nil }, syscall.SIGKILL},
		{"kill", "trap 15", func(_ *host, run *Run) error { run.Kill(); return nil }, syscall.SIGKILL},
		{"stop, then kill", "trap 15", func(_ *host, run *Run) error { run.Stop(patience); run.Kill(); return nil }, syscall.SIGKILL},
		{"signal", "trap 15", func(_ *host, run *Run) error { run.Signal(syscall.SIGUSR1); return nil }, syscall.SIGUSR1},
		{"stop from elsewhere", "trap 2", func(h *host, run *Run) error { return h.Stop(context.Background(), run.UUID(), patience) }, syscall.SIGTERM},
		{"stop from elsewhere, kill after grace", "trap 15", func(h *host, run *Run) error {
			return h.Stop(context.Background(), run.UUID(), 10*time.Millisecond)
		}, syscall.SIGKILL},
		{"signal from elsewhere", "sleep", func(h *host, run *Run) error {
			return h.Kill(context.Background(), run.UUID(), syscall.SIGHUP)
		}, syscall.SIGHUP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			run, c := h.up(t, h.probes(t, tt.command, tt.command), noNetwork)
			c.wait(2, "ready")
			if phase := h.phase(t, run.UUID()); phase != Running {
				t.Errorf("it is %s", phase)
			}
			done := make(chan error, 1)
			go func() { done <- tt.end(h, run) }()
			info := ended(t, run)
			if err := <-done; err != nil {
				t.Error(err)
			}
			want := AppStatus{Status: 128 + int(tt.signal), Signal: int(tt.signal)}
			for _, app := range []string{"probe", "probe-2"} {
				if info.State.Apps[app] != want {
					t.Errorf("app %s: %+v, want %+v", app, info.State.Apps[app], want)
				}
			}
			run.Stop(0) // of what has ended
			run.Kill()
			if err := h.Remove(t.Context(), run.UUID()); err != nil {
				t.Fatal(err)
			}
			h.isClean(t)
		})
	}
}

// handlers is a pod with an app whose main process and event handlers are the
// given commands; "" is none.
func (h *host) handlers(t *testing.T, pre, main, post string) *schema.PodManifest {
	t.Helper()
	m := h.probes(t, main)
	for name, command := range map[string]string{"pre-start": pre, "post-stop": post} {
		if command != "" {
			exec := append(types.Exec{"/bin/probe"}, strings.Fields(command)...)
			m.Apps[0].App.EventHandlers = append(m.Apps[0].App.EventHandlers, types.EventHandler{Name: name, Exec: exec})
		}
	}
	return m
}

func TestEventHandlers(t *testing.T) {
	tests := []struct {
		name, pre, main, post string
		want                  AppStatus
		output                string // main prints {"main"}
		notice                string
	}{
		{"all well", "args pre", "args main", "args post", AppStatus{},
			`["/bin/probe","args","pre"]["/bin/probe","args","main"]["/bin/probe","args","post"]`, ""},
		{"pre-start fails", "exit 3", "args main", "args post", AppStatus{Status: 125, Error: "pre-start: exit status 3"},
			"", "app probe: pre-start: exit status 3"},
		{"pre-start missing", "", "args main", "", AppStatus{}, `["/bin/probe","args","main"]`, ""},
		{"post-stop fails", "", "exit 0", "exit 5", AppStatus{Status: 125, Error: "post-stop: exit status 5"},
			"", "app probe: post-stop: exit status 5"},
		{"main and post-stop fail", "", "exit 9", "exit 5", AppStatus{Status: 9, Error: "post-stop: exit status 5"},
			"", "app probe: post-stop: exit status 5"},
		{"post-stop after a failure", "", "exit 9", "args post", AppStatus{Status: 9}, `["/bin/probe","args","post"]`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			run, c := h.up(t, h.handlers(t, tt.pre, tt.main, tt.post), noNetwork)
			info := ended(t, run)
			if got := info.State.Apps["probe"]; got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if got := strings.ReplaceAll(c.text(), "\n", ""); got != tt.output {
				t.Errorf("output %s, want %s", got, tt.output)
			}
			if got := strings.Join(h.noted(), "|"); got != tt.notice {
				t.Errorf("notices %q, want %q", got, tt.notice)
			}
		})
	}
}

func TestCommandOfHandlerNotFound(t *testing.T) {
	h := newHost(t)
	m := h.handlers(t, "x", "args", "x")
	m.Apps[0].App.EventHandlers[0].Exec = types.Exec{"/bin/none"}
	m.Apps[0].App.EventHandlers[1].Exec = types.Exec{"/bin/none"}
	run, _ := h.up(t, m, noNetwork)
	info := ended(t, run)
	if got := info.State.Apps["probe"]; got.Status != 127 || !strings.HasPrefix(got.Error, "pre-start: ") {
		t.Errorf("got %+v, want 127 of pre-start", got)
	}
}

// A pre-start handler may make the command that comes after it.
func TestCommandMadeByHandler(t *testing.T) {
	h := newHost(t)
	m := h.handlers(t, "write /tmp/made x", "args", "")
	m.Apps[0].App.Exec[0] = "/tmp/made"
	run, _ := h.up(t, m, noNetwork)
	info := ended(t, run)
	// What the probe writes is no program, but it was looked for, and later.
	if got := info.State.Apps["probe"]; got.Status != 126 || !strings.Contains(got.Error, "exec format error") && !strings.Contains(got.Error, "permission denied") {
		t.Errorf("got %+v", got)
	}
}

// A pre-start handler that takes its time keeps no other app waiting.
func TestHandlerBlocksNobody(t *testing.T) {
	h := newHost(t)
	m := h.probes(t, "args first", "args second")
	m.Apps[0].App.EventHandlers = []types.EventHandler{{Name: "pre-start", Exec: types.Exec{"/bin/probe", "trap", "15"}}}
	run, c := h.up(t, m, noNetwork)
	c.wait(1, "ready")
	c.wait(1, "second")
	if strings.Contains(c.text(), "first") {
		t.Error("main has not waited for its handler")
	}
	run.Kill()
	info := ended(t, run)
	if got := info.State.Apps["probe"]; got.Status != 125 || got.Error != "pre-start: killed by SIGKILL" {
		t.Errorf("first %+v", got)
	}
	if got := info.State.Apps["probe-2"]; got != (AppStatus{}) {
		t.Errorf("second %+v", got)
	}
}

// Nothing that went wrong is lost.
func TestAllFailuresAreKept(t *testing.T) {
	h := newHost(t)
	a := &appRun{app: &app{name: "a"}, run: &Run{pod: &Pod{rt: h.Runtime}}}
	a.fail(errors.New("one"))
	a.fail(errors.New("two"))
	if a.status.Error != "one; two" || a.status.Status != 125 {
		t.Errorf("%+v", a.status)
	}
}

// Handlers run as root in the app's directory and environment.
func TestHandlerIdentity(t *testing.T) {
	a := &app{name: "web", own: &types.App{WorkingDirectory: "/srv"}, id: identity{uid: 5, gid: 6, groups: []uint32{7}, home: "/h", shell: "/s"}}
	main, handler := a.process([]string{"m"}), a.handler([]string{"h"})
	if main.UID != 5 || main.GID != 6 || len(main.Groups) != 1 {
		t.Errorf("main %+v", main)
	}
	if handler.UID != 0 || handler.GID != 0 || handler.Groups != nil {
		t.Errorf("handler %+v", handler)
	}
	if fmt.Sprint(handler.Env) != fmt.Sprint(main.Env) || handler.Dir != "/srv" {
		t.Errorf("handler %+v, main %+v", handler, main)
	}
}

// A pod that is stopped while handlers run starts nothing but what cleans up.
func TestStopDuringHandlers(t *testing.T) {
	t.Run("pre-start", func(t *testing.T) {
		h := newHost(t)
		run, c := h.up(t, h.handlers(t, "sleep", "args main", "args post"), noNetwork)
		c.wait(1, "ready")
		run.Stop(patience)
		info := ended(t, run)
		if got := info.State.Apps["probe"]; got.Status != 125 || got.Error != "pre-start: killed by SIGTERM" {
			t.Errorf("got %+v", got)
		}
		if got := c.text(); strings.Contains(got, "main") || strings.Contains(got, "post") {
			t.Errorf("output %s", got)
		}
	})
	t.Run("pre-start that ignores it", func(t *testing.T) {
		h := newHost(t)
		run, c := h.up(t, h.handlers(t, "trap 15", "args main", ""), noNetwork)
		c.wait(1, "ready")
		run.Stop(10 * time.Millisecond)
		if got := ended(t, run).State.Apps["probe"]; got.Error != "pre-start: killed by SIGKILL" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("post-stop runs after a stop", func(t *testing.T) {
		h := newHost(t)
		run, c := h.up(t, h.handlers(t, "", "sleep", "args post"), noNetwork)
		c.wait(1, "ready")
		run.Stop(patience)
		info := ended(t, run)
		if got := info.State.Apps["probe"]; got != (AppStatus{Status: 143, Signal: 15}) {
			t.Errorf("got %+v", got)
		}
		c.wait(1, "post")
	})
	t.Run("post-stop that hangs after a kill", func(t *testing.T) {
		h := newHost(t)
		h.Grace = 20 * time.Millisecond
		run, c := h.up(t, h.handlers(t, "", "sleep", "trap 15"), noNetwork)
		c.wait(1, "ready")
		run.Kill()
		info := ended(t, run)
		if got := info.State.Apps["probe"]; got != (AppStatus{Status: 137, Signal: 9, Error: "post-stop: killed by SIGKILL"}) {
			t.Errorf("got %+v", got)
		}
	})
}

// failing is an engine whose tasks cannot be waited for.
type failing struct{ sandbox.Engine }

type failingTask struct{ sandbox.Task }

func (e failing) Start(ctx context.Context, id string, p sandbox.Process) (sandbox.Task, error) {
	t, err := e.Engine.Start(ctx, id, p)
	return failingTask{t}, err
}

func (failingTask) Wait(context.Context) (sandbox.Exit, error) {
	return sandbox.Exit{}, errors.New("nobody knows")
}

// Not to know how an app ended is not its success.
func TestWaitFails(t *testing.T) {
	h := newHost(t)
	h.Engine = failing{h.Engine}
	run, _ := h.up(t, h.probes(t, "exit 0"), noNetwork)
	info := ended(t, run)
	if got := info.State.Apps["probe"]; got != (AppStatus{Status: 255, Error: "nobody knows"}) {
		t.Errorf("got %+v", got)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(m *schema.PodManifest, o *Options)
		is     error
	}{
		{"host network", func(_ *schema.PodManifest, o *Options) { o.Network = sandbox.NetworkHost }, sandbox.ErrUnsupported},
		{"two terminals", func(_ *schema.PodManifest, o *Options) { o.Terminal = []string{"a", "b"} }, ErrInvalid},
		{"two readers", func(_ *schema.PodManifest, o *Options) { o.Interactive = []string{"a", "b"} }, ErrInvalid},
		{"bad name", func(_ *schema.PodManifest, o *Options) { o.Name = "A" }, ErrInvalid},
		{"no command", func(m *schema.PodManifest, _ *Options) { m.Apps[0].App.Exec = nil }, ErrInvalid},
		{"command not found", func(m *schema.PodManifest, _ *Options) { m.Apps[0].App.Exec = types.Exec{"/bin/none"} }, sandbox.ErrCommandNotFound},
		{"command of the second app not found", func(m *schema.PodManifest, _ *Options) {
			m.Apps[1].App.Exec = types.Exec{"/bin/none"}
		}, sandbox.ErrCommandNotFound},
		{"command not executable", func(m *schema.PodManifest, _ *Options) { m.Apps[0].App.Exec = types.Exec{"/etc"} }, sandbox.ErrCommandNotExecutable},
		{"no working directory", func(m *schema.PodManifest, _ *Options) { m.Apps[0].App.WorkingDirectory = "/none" }, sandbox.ErrNoWorkDir},
		{"unknown user", func(m *schema.PodManifest, _ *Options) { m.Apps[0].App.User = "nobody" }, ErrInvalid},
		{"terminal that the engine lacks", func(_ *schema.PodManifest, o *Options) { o.Terminal = []string{"probe"} }, sandbox.ErrUnsupported},
		{"terminal of the second app that the engine lacks", func(_ *schema.PodManifest, o *Options) {
			o.Terminal = []string{"probe-2"}
		}, sandbox.ErrUnsupported},
		{"two apps of one name", func(m *schema.PodManifest, _ *Options) { m.Apps[1].Name = m.Apps[0].Name }, nil},
		{"two volumes of one name", func(m *schema.PodManifest, _ *Options) {
			m.Volumes = []types.Volume{EmptyVolume("v"), EmptyVolume("v")}
		}, nil},
		{"volume name too long", func(m *schema.PodManifest, _ *Options) {
			m.Volumes = []types.Volume{EmptyVolume(types.ACName(strings.Repeat("v", 64)))}
		}, ErrInvalid},
		{"no apps", func(m *schema.PodManifest, _ *Options) { m.Apps = nil }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			m, o := h.probes(t, "sleep", "sleep"), noNetwork
			tt.change(m, &o)
			run, err := h.Run(t.Context(), m, o, false, newCapture(t).io())
			if err == nil {
				run.Kill()
				ended(t, run)
				t.Fatal("it runs")
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v, want %v", err, tt.is)
			}
			h.isClean(t)
		})
	}
}

// The user interrupts at any time: nothing is left, or the pod runs and can be ended.
func TestInterruptedStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := h.probes(t, "sleep", "sleep")
	m.Volumes = []types.Volume{EmptyVolume("v")}
	m.Apps[0].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}}
	var cut, ran int
	for delay := time.Duration(0); ran < 3; delay += 250 * time.Microsecond {
		ctx, cancel := context.WithCancel(t.Context())
		if delay == 0 {
			cancel() // however fast the host is
		}
		time.AfterFunc(delay, cancel)
		run, err := h.Run(ctx, m, noNetwork, false, newCapture(t).io())
		cancel()
		if err != nil {
			cut++
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("after %v: %v", delay, err)
			}
		} else {
			ran++
			run.Kill()
			ended(t, run)
			if err := h.Remove(t.Context(), run.UUID()); err != nil {
				t.Fatal(err)
			}
		}
		h.isClean(t)
		if t.Failed() {
			t.Fatalf("after %v", delay)
		}
	}
	if cut == 0 {
		t.Error("no start was interrupted")
	}
}

// Every start begins with fresh copies of the image and empty volumes.
func TestStartIsFresh(t *testing.T) {
	h := newHost(t)
	m := h.probes(t, "write /tmp/x x", "write /v/y y")
	m.Volumes = []types.Volume{EmptyVolume("v")}
	for i := range m.Apps {
		m.Apps[i].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}}
	}
	id := h.prepared(t, m, noNetwork)
	for range 3 {
		if info := h.restart(t, id); info.Status() != 0 {
			t.Fatalf("%+v", info.State)
		}
		for tree, file := range map[string]string{
			rootTree(id, "probe"): "tmp/x", volumeTree(id, "", EmptyVolume("v")): "y",
		} {
			dir, err := h.Storage.Mount(t.Context(), tree)
			if err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(filepath.Join(dir, file)); err != nil || len(data) != 1 {
				t.Errorf("%s: %q, %v; want one letter", file, data, err)
			}
			if err := os.WriteFile(filepath.Join(dir, "debris"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	h.isClean(t)
}

// A start that fails leaves the pod as it was, and nothing of it running or mounted.
func TestFailedStart(t *testing.T) {
	tests := []struct {
		name     string
		terminal string
		exec     string
		want     error
	}{
		{"before there is a sandbox", "", "/bin/none", sandbox.ErrCommandNotFound},
		{"with the first app", "probe", "/bin/probe", sandbox.ErrUnsupported},
		{"with the second app", "probe-2", "/bin/probe", sandbox.ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			m, o := h.probes(t, "sleep", "sleep"), noNetwork
			m.Apps[1].App.Exec[0] = tt.exec
			if tt.terminal != "" {
				o.Terminal = []string{tt.terminal}
			}
			id := h.prepared(t, m, o)
			before, err := h.Inspect(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				h.tryStart(t, id, tt.want)
				h.holdsNothing(t)
				after, err := h.Inspect(t.Context(), id)
				if err != nil || fmt.Sprint(after.State) != fmt.Sprint(before.State) {
					t.Errorf("state %+v, %v; was %+v", after.State, err, before.State)
				}
			}
			if err := h.Remove(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			h.isClean(t)
		})
	}
}

// Neither success nor failure keeps descriptors.
func TestDescriptors(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc: ", err)
		}
		return len(entries)
	}
	h := newHost(t)
	good, bad := h.probes(t, "args", "args"), h.probes(t, "sleep", "sleep")
	c := newCapture(t)
	cycle := func() {
		run, err := h.Run(t.Context(), good, noNetwork, false, c.io())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := run.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := run.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		o := noNetwork
		o.Terminal = []string{"probe-2"}
		if _, err := h.Run(t.Context(), bad, o, false, c.io()); err == nil {
			t.Fatal("it runs")
		}
	}
	cycle()
	before := count()
	for range 5 {
		cycle()
	}
	eventually(t, "the descriptors to be closed", func() bool { return count() <= before })
}
