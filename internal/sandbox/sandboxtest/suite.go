//go:build unix

package sandboxtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// Suite is the conformance suite of sandbox.Engine.
type Suite struct {
	// New makes the engine under test with its state in dir. Engines of one dir, in
	// one process or in several, see the same pods.
	New func(dir string) (sandbox.Engine, error)
	// Leftovers lists what there is on the host of a pod: mounts, processes, files
	// and so on, as lines for an error message.
	Leftovers func(dir, podID string) ([]string, error)
	// Owner names, among all suites of the test binary, the process that owns a pod
	// and is killed. The test binary calls Register in an init function, and
	// reexec.Init first thing in its TestMain, returning when that is true.
	Owner string
}

// deadline bounds everything that a case waits for.
const deadline = 20 * time.Second

// testCase is a case of the suite. It is skipped when the engine lacks what needs
// names, which is a field of sandbox.Info.
type testCase struct {
	name  string
	needs string
	run   func(t *testing.T, s *setup)
}

const (
	isolates       = "Isolates"
	hostNetwork    = "HostNetwork"
	privateNetwork = "PrivateNetwork"
	terminal       = "Terminal"
	diesWithOwner  = "DiesWithOwner"
)

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	probe := BuildProbe(t)
	engine, err := s.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	info := engine.Info()
	has := map[string]bool{
		isolates: info.Isolates, hostNetwork: info.HostNetwork, privateNetwork: info.PrivateNetwork,
		terminal: info.Terminal, diesWithOwner: info.DiesWithOwner,
	}
	for _, c := range slices.Concat(processCases, streamCases, fileCases, commandCases, podCases, limitCases, lifeCases, terminalCases) {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			if c.needs != "" && !has[c.needs] {
				t.Skipf("engine %s does not have %s", info.Name, c.needs)
			}
			c.run(t, s.setUp(t, probe))
		})
	}
}

// setup is what a case starts with: a pod, not yet created, of the apps "a" and
// "b", each with the probe in a root of its own and a volume that they share.
type setup struct {
	suite  Suite
	dir    string
	engine sandbox.Engine
	pod    sandbox.Pod
	volume string // on the host; /vol in both apps
}

func (s Suite) setUp(t *testing.T, probe string) *setup {
	dir := t.TempDir()
	env := &setup{suite: s, dir: filepath.Join(dir, "state"), volume: filepath.Join(dir, "volume")}
	var err error
	if env.engine, err = s.New(env.dir); err != nil {
		t.Fatal(err)
	}
	makeDir(t, env.volume)
	env.pod = sandbox.Pod{ID: uuid.NewString(), Hostname: "pod-host", Network: sandbox.NetworkNone}
	for _, name := range []string{"a", "b"} {
		root := filepath.Join(dir, "root-"+name)
		for _, d := range []string{"", "tmp", "vol", "work dir"} {
			makeDir(t, filepath.Join(root, d))
		}
		InstallProbe(t, probe, root)
		writeFile(t, filepath.Join(root, "name"), name)
		env.pod.Apps = append(env.pod.Apps, sandbox.App{
			Name: name, Root: root, Mounts: []sandbox.Mount{{Source: env.volume, Target: "/vol"}},
		})
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		if err := env.engine.Destroy(ctx, env.pod.ID); err != nil {
			t.Errorf("Destroy: %v", err)
		}
		env.nothingLeft(t)
	})
	return env
}

func (s *setup) create(t *testing.T) *setup {
	t.Helper()
	if err := s.engine.Create(t.Context(), s.pod); err != nil {
		t.Fatalf("Create: %v", err)
	}
	return s
}

// nothingLeft fails the test when anything of the pod exists.
func (s *setup) nothingLeft(t *testing.T) {
	t.Helper()
	ids, err := s.engine.List(context.Background())
	if err != nil || slices.Contains(ids, s.pod.ID) {
		t.Errorf("List after Destroy = %q, %v", ids, err)
	}
	if left, err := s.suite.Leftovers(s.dir, s.pod.ID); err != nil || len(left) > 0 {
		t.Errorf("left after Destroy: %s (%v)", strings.Join(left, "\n\t"), err)
	}
}

// process is a call of the probe in an app, as root.
func process(app string, args ...string) sandbox.Process {
	return sandbox.Process{
		App: app, Args: append([]string{ProbePath}, args...), Env: []string{"HOME=/"}, Dir: "/",
	}
}

// running is a task with its outputs.
type running struct {
	sandbox.Task
	stdin  *os.File      // to write to
	lines  *json.Decoder // of standard output
	stdout *os.File
	stderr chan string
}

// start starts a process with pipes as its standard files.
func (s *setup) start(t *testing.T, p sandbox.Process) *running {
	t.Helper()
	r := &running{stderr: make(chan string, 1)}
	var stderr *os.File
	p.Stdin, r.stdin = pipe(t)
	r.stdout, p.Stdout = pipe(t)
	stderr, p.Stderr = pipe(t)
	go func() {
		data, _ := io.ReadAll(stderr) // until the test closes it
		r.stderr <- string(data)
	}()
	r.lines = json.NewDecoder(r.stdout)
	task, err := s.engine.Start(t.Context(), s.pod.ID, p)
	closeAll(t, p.Stdin, p.Stdout, p.Stderr)
	if err != nil {
		t.Fatalf("Start %q: %v", p.Args, err)
	}
	r.Task = task
	return r
}

// next reads the next value that the probe prints.
func (r *running) next(t *testing.T, v any) {
	t.Helper()
	if err := r.stdout.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	if err := r.lines.Decode(v); err != nil {
		t.Fatalf("read output of the probe: %v", err)
	}
}

func (r *running) ready(t *testing.T) {
	t.Helper()
	var word string
	if r.next(t, &word); word != "ready" {
		t.Fatalf("probe says %q, want ready", word)
	}
}

// wait waits for the end.
func (r *running) wait(t *testing.T) sandbox.Exit {
	t.Helper()
	return wait(t, r.Task)
}

func wait(t *testing.T, task sandbox.Task) sandbox.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	exit, err := task.Wait(ctx)
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return exit
}

// result is what a process that has ended leaves.
type result struct {
	stdout []byte
	stderr string
	exit   sandbox.Exit
}

// run runs a process to its end with an empty standard input.
func (s *setup) run(t *testing.T, p sandbox.Process) result {
	t.Helper()
	r := s.start(t, p)
	closeAll(t, r.stdin)
	return r.finish(t)
}

func (r *running) finish(t *testing.T) result {
	t.Helper()
	if err := r.stdout.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	stdout, err := io.ReadAll(r.stdout)
	if err != nil {
		t.Fatalf("read output of the probe: %v", err)
	}
	return result{stdout: stdout, stderr: <-r.stderr, exit: r.wait(t)}
}

// ask runs a process that must succeed and decodes what it prints into v.
func (s *setup) ask(t *testing.T, p sandbox.Process, v any) {
	t.Helper()
	res := s.succeed(t, p)
	if err := json.Unmarshal(res.stdout, v); err != nil {
		t.Fatalf("probe %q printed %q: %v", p.Args[1:], res.stdout, err)
	}
}

func (s *setup) succeed(t *testing.T, p sandbox.Process) result {
	t.Helper()
	res := s.run(t, p)
	if res.exit != (sandbox.Exit{}) {
		t.Fatalf("probe %q ended with %+v: %s", p.Args[1:], res.exit, res.stderr)
	}
	return res
}

// refuse runs a process that must fail, naming why.
func (s *setup) refuse(t *testing.T, p sandbox.Process, why string) {
	t.Helper()
	res := s.run(t, p)
	if res.exit != (sandbox.Exit{Code: 1}) || !strings.Contains(res.stderr, why) {
		t.Errorf("probe %q ended with %+v: %q, want failure: %s", p.Args[1:], res.exit, res.stderr, why)
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func closeAll(t *testing.T, files ...*os.File) {
	t.Helper()
	for _, f := range files {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func makeDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, name, data string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// size is that of a file which need not exist.
func size(t *testing.T, name string) int64 {
	t.Helper()
	fi, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after %v: %s", deadline, what)
		}
	}
}

// silent fails the test when a file still grows.
func silent(t *testing.T, name string) {
	t.Helper()
	before := size(t, name)
	time.Sleep(50 * time.Millisecond)
	if after := size(t, name); after != before {
		t.Errorf("something still runs: %s grew from %d to %d bytes", filepath.Base(name), before, after)
	}
}

// ownerOrder is what the owner process is told.
type ownerOrder struct {
	Dir string
	Pod sandbox.Pod
}

// Register makes the test binary able to be the owner process.
func (s Suite) Register() {
	reexec.Register(s.Owner, func() {
		fmt.Fprintln(os.Stderr, "owner:", s.own(os.Args[1]))
		os.Exit(1)
	})
}

// own creates a pod and goes on starting processes in it until that fails.
func (s Suite) own(order string) error {
	var o ownerOrder
	if err := json.Unmarshal([]byte(order), &o); err != nil {
		return err
	}
	engine, err := s.New(o.Dir)
	if err != nil {
		return err
	}
	fmt.Println("new")
	ctx := context.Background()
	if err := engine.Create(ctx, o.Pod); err != nil {
		return err
	}
	fmt.Println("created")
	for i := 0; ; i++ {
		app := o.Pod.Apps[i%len(o.Pod.Apps)].Name
		if _, err := engine.Start(ctx, o.Pod.ID, process(app, "tick", "/vol/tick")); err != nil {
			return err
		}
		fmt.Println("started")
	}
}

// startOwner starts a process that owns the pod, and waits until it has printed a
// line so many times.
func (s *setup) startOwner(t *testing.T, lines int) *exec.Cmd {
	t.Helper()
	order, err := json.Marshal(ownerOrder{s.dir, s.pod})
	if err != nil {
		t.Fatal(err)
	}
	owner := reexec.Command(s.suite.Owner, string(order))
	owner.SysProcAttr = &syscall.SysProcAttr{}
	var stderr bytes.Buffer
	owner.Stderr = &stderr
	stdout, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Process.Kill(); _ = owner.Wait() })
	for buf := make([]byte, 1); lines > 0; {
		if _, err := stdout.Read(buf); err != nil {
			_ = owner.Wait()
			t.Fatalf("owner ended: %s", stderr.String())
		}
		if buf[0] == '\n' {
			lines--
		}
	}
	return owner
}
