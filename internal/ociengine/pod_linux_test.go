package ociengine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func testPod(root string, mounts ...sandbox.Mount) sandbox.Pod {
	return sandbox.Pod{
		ID: uuid.NewString(), Hostname: "host", Network: sandbox.NetworkNone,
		Apps: []sandbox.App{{Name: "a", Root: root, Mounts: mounts}},
	}
}

func testProcess(args ...string) sandbox.Process {
	return sandbox.Process{App: "a", Args: append([]string{sandboxtest.ProbePath}, args...), Dir: "/", Env: []string{"HOME=/"}}
}

func probeRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	sandboxtest.InstallProbe(t, sandboxtest.BuildProbe(t), root)
	return root
}

// newTestEngine makes an engine and has the pods destroyed.
func newTestEngine(t *testing.T, dir string, pods ...sandbox.Pod) *Engine {
	t.Helper()
	e, err := New(Config{Runtime: "runc", StateDir: dir, Scope: testScope})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pod := range pods {
			if err := e.Destroy(context.Background(), pod.ID); err != nil {
				t.Error(err)
			}
			if left, err := leftovers(dir, pod.ID); err != nil || len(left) > 0 {
				t.Errorf("left: %q, %v", left, err)
			}
		}
	})
	for _, pod := range pods {
		if err := e.Create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// output runs a process and returns what it prints on both outputs.
func output(t *testing.T, e *Engine, pod sandbox.Pod, p sandbox.Process) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p.Stdout, p.Stderr = file, file
	task, err := e.Start(t.Context(), pod.ID, p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestNew(t *testing.T) {
	good := Config{Runtime: "/bin/sh", StateDir: t.TempDir(), Scope: "s"}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"relative directory", func(c *Config) { c.StateDir = "state" }, "not absolute"},
		{"scope with a wildcard", func(c *Config) { c.Scope = "a*" }, "invalid engine scope"},
		{"no scope", func(c *Config) { c.Scope = "" }, "invalid engine scope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("runtime missing", func(t *testing.T) {
		cfg := good
		cfg.Runtime = "no-such-runc"
		e, err := New(cfg) // what it left can be taken down without it
		if err != nil {
			t.Fatal(err)
		}
		const want = "no-such-runc not found in PATH: install no-such-runc, or set linux.runtime"
		id := uuid.NewString()
		if err := e.Create(t.Context(), sandbox.Pod{ID: id, Hostname: "h", Network: sandbox.NetworkNone}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Create: %v", err)
		}
		if err := e.Destroy(t.Context(), id); err != nil {
			t.Error(err)
		}
	})
	t.Run("directory is protected", func(t *testing.T) {
		cfg := good
		cfg.StateDir = filepath.Join(t.TempDir(), "a/b")
		if _, err := New(cfg); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(cfg.StateDir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("directory is %v, %v", fi.Mode(), err)
		}
	})
}

func TestIDs(t *testing.T) {
	e, err := New(Config{Runtime: "/bin/sh", StateDir: t.TempDir(), Scope: "s"})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "..", "*", "x", "1D35A438-6cdd-4313-adcb-a35c6a0c7a7c", "{1d35a438-6cdd-4313-adcb-a35c6a0c7a7c}"} {
		if err := e.Destroy(t.Context(), id); err == nil {
			t.Errorf("Destroy accepts %q", id)
		}
		if err := e.Create(t.Context(), sandbox.Pod{ID: id, Network: sandbox.NetworkNone}); err == nil {
			t.Errorf("Create accepts %q", id)
		}
	}
}

func TestRuntimeVersion(t *testing.T) {
	e, err := New(Config{Runtime: "runc", StateDir: t.TempDir(), Scope: "s"})
	if err != nil {
		t.Skip(err)
	}
	if got, err := e.RuntimeVersion(t.Context()); err != nil || !strings.HasPrefix(got, "runc version ") {
		t.Errorf("RuntimeVersion = %q, %v", got, err)
	}
}

func TestCause(t *testing.T) {
	for _, tt := range []struct {
		name, log, want string
		is              error
	}{
		{"known", `{"level":"warning","msg":"w"}` + "\n" + `{"level":"error","msg":"runc run failed: exec: \"x\": executable file not found in $PATH"}`,
			`exec: "x": executable file not found in $PATH: command not found`, sandbox.ErrCommandNotFound},
		{"unknown", `{"level":"error","msg":"disk on fire\ndetails"}` + "\n", "disk on fire", nil},
		{"nonsense", "not json\n{\n", "exit status 1", nil},
		{"nothing", "", "exit status 1", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bundle{dir: t.TempDir()}
			if err := os.WriteFile(b.path("log.json"), []byte(tt.log), 0o600); err != nil {
				t.Fatal(err)
			}
			err := b.cause(errors.New("exit status 1"))
			if err.Error() != tt.want || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("cause = %v, want %s", err, tt.want)
			}
		})
	}
}

// A number that belongs to somebody else by now must not be signalled.
func TestStaleHolder(t *testing.T) {
	bystander := exec.Command("sleep", "60")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bystander.Process.Kill(); _ = bystander.Wait() }()
	now, err := identify(bystander.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		record any
	}{
		{"other start", holderID{now.BootID, now.PID, now.Start + "0"}},
		{"before a reboot", holderID{"another", now.PID, now.Start}},
		{"nobody", holderID{now.BootID, 1 << 30, now.Start}},
		{"everybody", holderID{now.BootID, -1, now.Start}},
		{"cut off", "{"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			data, err := json.Marshal(tt.record)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, holderFile), data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := killHolder(dir); err != nil {
				t.Error(err)
			}
			if after, err := identify(now.PID); err != nil || after != now {
				t.Fatalf("the bystander was killed: %+v, %v", after, err)
			}
		})
	}
}

func TestDestroyAfterReboot(t *testing.T) {
	testenv.Root(t)
	pod := testPod(t.TempDir())
	dir := t.TempDir()
	e := newTestEngine(t, dir)
	// What is on disk of a pod that ran when the power failed.
	for name, data := range map[string]string{
		lockFile: "", holderFile: `{"bootID":"another","pid":2,"start":"1"}`, "1/config.json": "{}", "shm/x": "", "runtime/x/state.json": "{}",
	} {
		file := filepath.Join(dir, pod.ID, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(data), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Destroy(t.Context(), pod.ID); err != nil {
		t.Fatal(err)
	}
	if left, err := leftovers(dir, pod.ID); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

func TestHolderKilled(t *testing.T) {
	testenv.Root(t)
	pod := testPod(probeRoot(t))
	e := newTestEngine(t, t.TempDir(), pod)
	task, err := e.Start(t.Context(), pod.ID, testProcess("sleep"))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.pods[pod.ID].holder.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if exit, err := task.Wait(t.Context()); err != nil || exit.Status() != 137 {
		t.Errorf("Wait = %+v, %v", exit, err)
	}
	if _, err := e.Start(t.Context(), pod.ID, testProcess("sleep")); err == nil {
		t.Error("Start in a pod without process 1 succeeds")
	} else if strings.Contains(err.Error(), "\n") {
		t.Errorf("Start = %q, want one line", err)
	}
}

// A runtime that fails leaves children behind, and the holder does not end before
// those in its namespace are reaped.
func TestFailedStartsLeaveNoZombies(t *testing.T) {
	testenv.Root(t)
	root := probeRoot(t)
	before := len(zombies(t))
	for range 20 {
		pod := testPod(root)
		e := newTestEngine(t, t.TempDir(), pod)
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				if _, err := e.Start(t.Context(), pod.ID, testProcess("sleep")); err != nil && strings.Contains(err.Error(), "\n") {
					t.Errorf("Start = %q, want one line", err)
				}
			})
		}
		time.Sleep(rand.N(50 * time.Millisecond))
		if err := e.Destroy(t.Context(), pod.ID); err != nil {
			t.Fatal(err)
		}
		group.Wait()
	}
	if after := zombies(t); len(after) > before {
		t.Errorf("%d zombies more: %q", len(after)-before, after)
	}
}

// zombies lists the children of this process that have ended and not been reaped.
func zombies(t *testing.T) (list []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		stat, _ := os.ReadFile(file) // it may be gone
		if _, rest, ok := strings.Cut(string(stat), ") Z "); ok && strings.HasPrefix(rest, fmt.Sprint(os.Getpid(), " ")) {
			list = append(list, string(stat))
		}
	}
	return list
}

// The thread that made the namespaces must not serve other goroutines.
func TestThreadsStayOutside(t *testing.T) {
	testenv.Root(t)
	pod := testPod(probeRoot(t))
	e := newTestEngine(t, t.TempDir(), pod)
	if err := e.Destroy(t.Context(), pod.ID); err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		inside := 0
		for _, thread := range threads {
			if ns, err := os.Readlink(thread); err == nil && ns != host {
				inside++
			}
		}
		if inside == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d threads are still in the pod's namespaces", inside)
		}
	}
}

func TestLongStateDir(t *testing.T) {
	testenv.Root(t)
	dir := filepath.Join(t.TempDir(), strings.Repeat("long-name/", 15))
	pod := testPod(probeRoot(t))
	e := newTestEngine(t, dir, pod)
	p := testProcess("terminal")
	p.Terminal = true
	task, err := e.Start(t.Context(), pod.ID, p)
	if err != nil {
		t.Fatal(err)
	}
	defer task.Console().Close()
	if exit, err := task.Wait(t.Context()); err != nil || exit != (sandbox.Exit{}) {
		t.Errorf("Wait = %+v, %v", exit, err)
	}
}

func TestCloseEndsRead(t *testing.T) {
	testenv.Root(t)
	pod := testPod(probeRoot(t))
	e := newTestEngine(t, t.TempDir(), pod)
	p := testProcess("trap", "15")
	p.Terminal = true
	task, err := e.Start(t.Context(), pod.ID, p)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for buf := make([]byte, 64); ; {
			if _, err := task.Console().Read(buf); err != nil {
				ended <- err
				return
			}
		}
	}()
	time.Sleep(20 * time.Millisecond)
	if err := task.Console().Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("Read goes on after Close")
	}
}

// What is mounted below the source of a volume comes along or does not, and cannot
// be written when the volume is read-only.
func TestSubmounts(t *testing.T) {
	testenv.Root(t)
	root, source := probeRoot(t), t.TempDir()
	below := filepath.Join(source, "below")
	var mounts []sandbox.Mount
	for _, m := range []sandbox.Mount{
		{Target: "/plain"}, {Target: "/all", Recursive: true}, {Target: "/all-ro", Recursive: true, ReadOnly: true},
	} {
		m.Source = source
		mounts = append(mounts, m)
		if err := os.Mkdir(filepath.Join(root, m.Target), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("below", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(below, 0); err != nil {
			t.Error(err)
		}
	}()
	pod := testPod(root, mounts...)
	e := newTestEngine(t, t.TempDir(), pod)
	if got := output(t, e, pod, testProcess("write", "/all/below/x", "text")); got != "" {
		t.Errorf("write through a recursive mount: %s", got)
	}
	if got := output(t, e, pod, testProcess("read", "/all-ro/below/x")); got != "text" {
		t.Errorf("read through a recursive mount: %q", got)
	}
	if got := output(t, e, pod, testProcess("write", "/all-ro/below/x", "more")); !strings.Contains(got, "read-only") {
		t.Errorf("write through a recursive read-only mount: %q", got)
	}
	if got := output(t, e, pod, testProcess("read", "/plain/below/x")); !strings.Contains(got, "no such file") {
		t.Errorf("a mount that is not recursive shows: %q", got)
	}
}

// Devices and set-user-ID programs in a volume have no effect.
func TestVolumeOptions(t *testing.T) {
	testenv.Root(t)
	root, source := probeRoot(t), t.TempDir()
	if err := unix.Mknod(filepath.Join(source, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	sandboxtest.InstallProbe(t, sandboxtest.BuildProbe(t), source)
	if err := os.Chmod(filepath.Join(source, sandboxtest.ProbePath), 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "vol"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, recursive := range []bool{false, true} {
		pod := testPod(root, sandbox.Mount{Source: source, Target: "/vol", Recursive: recursive})
		e := newTestEngine(t, t.TempDir(), pod)
		if got := output(t, e, pod, testProcess("read", "/vol/null")); !strings.Contains(got, "permission denied") {
			t.Errorf("recursive %v: a device in a volume: %q", recursive, got)
		}
		p := testProcess("process")
		p.Args[0], p.UID = "/vol/bin/probe", 1000
		if got := output(t, e, pod, p); !strings.Contains(got, `"EUID":1000`) {
			t.Errorf("recursive %v: a set-user-ID program in a volume: %s", recursive, got)
		}
	}
}

const nohupName = "oci-nohup"

func init() { reexec.Register(nohupName, nohupMain) }

// nohupMain runs the probe as its arguments say: root and state directory.
func nohupMain() {
	err := func() error {
		ctx := context.Background()
		e, err := New(Config{Runtime: "runc", StateDir: os.Args[2], Scope: testScope})
		if err != nil {
			return err
		}
		pod := testPod(os.Args[1])
		if err := e.Create(ctx, pod); err != nil {
			return err
		}
		p := testProcess("process")
		p.Stdout, p.Stderr = os.Stdout, os.Stderr
		task, err := e.Start(ctx, pod.ID, p)
		if err == nil {
			_, err = task.Wait(ctx)
		}
		return errors.Join(err, e.Destroy(ctx, pod.ID))
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Under nohup(1) and in the background of sh, SIGHUP and SIGINT are ignored.
func TestIgnoredSignals(t *testing.T) {
	testenv.Root(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", `trap "" HUP INT; exec -a `+nohupName+` "$@"`, "bash", self, probeRoot(t), t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte(`"Ignored":null`)) {
		t.Errorf("process has %s, %v", out, err)
	}
}
