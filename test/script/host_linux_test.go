package script

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"

	"github.com/jetpack-run/jetpack/internal/network"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// host is an initialized root with the image example.com/probe.
type host struct {
	t         *testing.T
	bin, root string
}

func newHost(t *testing.T) *host {
	t.Helper()
	testenv.Root(t)
	probe, err := os.ReadFile(sandboxtest.BuildProbe(t))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t, filepath.Join(binary(t), "jetpack"), filepath.Join(t.TempDir(), "root")}
	aci := filepath.Join(t.TempDir(), "probe.aci")
	if err := os.WriteFile(aci, probeImage(t, probe, "example.com/probe", nil), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must(initArgs(t)...)
	h.must("image", "import", "--insecure=signature", aci)
	t.Cleanup(func() { h.must("pod", "gc") })
	return h
}

func (h *host) command(args ...string) *exec.Cmd {
	return exec.Command(h.bin, append([]string{"--root", h.root, "--set", "mds.autostart=off"}, args...)...)
}

// must runs a command that has to succeed and gives what it printed.
func (h *host) must(args ...string) string {
	h.t.Helper()
	out, err := h.command(args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("jetpack %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// timed is must, and gives how long it took, on this machine.
func (h *host) timed(args ...string) time.Duration {
	h.t.Helper()
	start := time.Now()
	h.must(args...)
	return time.Since(start)
}

// record is what a root remembers of itself.
func (h *host) record() (record struct{ ID, Dataset string }) {
	h.t.Helper()
	raw, err := os.ReadFile(filepath.Join(h.root, "jetpack.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &record); err != nil {
		h.t.Fatal(err)
	}
	return record
}

// trees are all that the storage has of a kind.
func (h *host) trees(kind string) (found []string) {
	h.t.Helper()
	dataset := h.record().Dataset
	if dataset == "" {
		found, err := filepath.Glob(filepath.Join(h.root, "storage", kind, "*"))
		if err != nil {
			h.t.Fatal(err)
		}
		return found
	}
	out, err := exec.Command("zfs", "list", "-H", "-r", "-o", "name", dataset).CombinedOutput()
	if err != nil {
		h.t.Fatalf("zfs list: %v\n%s", err, out)
	}
	for _, name := range strings.Fields(string(out)) {
		if strings.HasPrefix(name, dataset+"/"+kind+"/") {
			found = append(found, name)
		}
	}
	return found
}

// clean fails the test unless nothing of the root is mounted or running.
func (h *host) clean() {
	h.t.Helper()
	h.must("system", "check")
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		h.t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(h.root)) {
		h.t.Fatalf("still mounted:\n%s", mounts)
	}
	for _, sub := range []string{"run", "storage/pods", "storage/volumes"} { // also where trees are mounted
		left, err := filepath.Glob(filepath.Join(h.root, sub, "*"))
		if err != nil || len(left) > 0 {
			h.t.Fatalf("still there: %v, %v", left, err)
		}
	}
	for _, kind := range []string{"pods", "volumes"} {
		if left := h.trees(kind); len(left) > 0 {
			h.t.Fatalf("still there: %v", left)
		}
	}
	id := h.record()
	owners, err := network.Owners()
	if err != nil || slices.ContainsFunc(owners, func(o string) bool { return strings.HasPrefix(o, id.ID+"/") }) {
		h.t.Fatalf("interfaces left of %q, %v", owners, err)
	}
	for _, depth := range []string{"*", "*/*"} {
		left, err := filepath.Glob("/sys/fs/cgroup/" + depth + "/jetpack-" + id.ID + "-*")
		if err != nil || len(left) > 0 {
			h.t.Fatalf("cgroups left: %v, %v", left, err)
		}
	}
	// Every process of a pod has the root's path in its command line or its mounts.
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range procs {
		cmdline, err := os.ReadFile(p)
		if err == nil && bytes.HasPrefix(cmdline, []byte("/bin/probe\x00")) {
			if root, err := os.ReadFile(filepath.Join(filepath.Dir(p), "mountinfo")); err == nil && bytes.Contains(root, []byte(h.root)) {
				h.t.Fatalf("still runs: %s %q", p, cmdline)
			}
		}
	}
}

// killAfter gives a command, kills it at a random moment of its first within, and
// waits until no child of it is left: one that was just forked has its locks.
func (h *host) killAfter(within time.Duration, args ...string) {
	h.t.Helper()
	r, inherited, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	cmd := h.command(args...)
	cmd.ExtraFiles = make([]*os.File, 16) // behind those that it gives its own children
	cmd.ExtraFiles[len(cmd.ExtraFiles)-1] = inherited
	err = errors.Join(cmd.Start(), inherited.Close())
	if err != nil {
		h.t.Fatal(err)
	}
	delay := rand.N(within)
	time.Sleep(delay)
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		h.t.Fatalf("its children: %v", err)
	}
	// What extracts an image has closed all that it was given, and dies in its tree.
	for end := time.Now().Add(20 * time.Second); h.entered(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatal("a child still has its root directory in a tree")
		}
	}
	h.t.Logf("killed after %v: %s", delay, cmd.ProcessState)
}

// entered tells whether a process has its root directory in a tree.
func (h *host) entered() bool {
	links, err := filepath.Glob("/proc/[0-9]*/root")
	if err != nil {
		h.t.Fatal(err)
	}
	return slices.ContainsFunc(links, func(link string) bool {
		root, err := os.Readlink(link)
		return err == nil && strings.HasPrefix(root, h.root+"/")
	})
}

// file makes an image's file with the probe in it.
func (h *host) file(name string, fields ...string) string {
	h.t.Helper()
	probe, err := os.ReadFile(sandboxtest.BuildProbe(h.t))
	if err != nil {
		h.t.Fatal(err)
	}
	path := filepath.Join(h.t.TempDir(), "image.aci")
	if err := os.WriteFile(path, probeImage(h.t, probe, name, fields), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

var kills = flag.Int("kills", 25, "how often a command is killed")

// TestKilledAnywhere kills `pod run` and `pod start` at a random moment of their life;
// one gc must take away everything, each time, but what outlives pods.
func TestKilledAnywhere(t *testing.T) {
	h := newHost(t)
	h.must("image", "import", "--insecure=signature", h.file("example.com/handled", `"app":{"exec":["/bin/probe"],"user":"0","group":"0",
		"eventHandlers":[{"name":"pre-start","exec":["/bin/probe","write","/h/log","x"]}]}`))
	h.must("volume", "create", "data")
	dir := t.TempDir()
	shared := []string{
		"--volume", "v", "--volume", "n,source=volume:data", "--volume", "h,source=" + dir,
		"example.com/handled", "--mount", "v:/v", "--mount", "n:/n", "--mount", "h:/h", "--",
	}
	h.must(slices.Concat([]string{"pod", "run", "--rm"}, shared, []string{"write", "/n/file", "kept"})...)
	within := 3 * h.timed("pod", "run", "--rm", "example.com/probe", "--", "exit", "0") / 2
	tests := []struct {
		name   string
		before []string
		args   []string
		code   int // of the command when it is not killed; -1: it does not end
	}{
		{"run", nil, []string{"pod", "run", "--volume", "v", "example.com/probe", "--mount", "v:/v", "--", "fork", "3"}, -1},
		{"run with all kinds of volumes and a handler", nil, slices.Concat([]string{"pod", "run"}, shared, []string{"fork", "3"}), -1},
		{
			"start with kept roots", slices.Concat([]string{"pod", "run", "--name", "kept"}, shared, []string{"exit", "7"}),
			[]string{"pod", "start", "--keep-rootfs", "kept"}, 7,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &host{t, h.bin, h.root}
			for range *kills {
				if tt.before != nil {
					h.legal(h.try(tt.before...), tt.code)
				}
				h.killAfter(within, tt.args...)
				h.must("pod", "gc", "--grace-period", "1h")
				h.must("system", "check")
				// What has not crashed is still there, and can be started.
				if tt.code >= 0 && h.must("pod", "list", "-q") != "" {
					h.legal(h.try(tt.args...), tt.code)
				}
				h.must("pod", "gc")
				h.clean()
				if pods := h.must("pod", "list", "-q"); pods != "" {
					t.Fatalf("pods left: %s", pods)
				}
			}
		})
	}
	if got := h.must(slices.Concat([]string{"pod", "run", "--rm"}, shared, []string{"read", "/n/file"})...); !strings.Contains(got, "kept") {
		t.Errorf("the named volume holds %s", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "log")); err != nil {
		t.Errorf("the host's directory: %v", err)
	}
}

// TestImportKilledAnywhere does the same with imports.
func TestImportKilledAnywhere(t *testing.T) {
	h := newHost(t)
	top := h.file("example.com/top", `"dependencies":[{"imageName":"example.com/probe"}]`, "/etc/top=x")
	for name, file := range map[string]string{"example.com/alone": h.file("example.com/alone"), "example.com/top": top} {
		t.Run(name, func(t *testing.T) {
			h := &host{t, h.bin, h.root}
			within := h.timed("image", "import", "--insecure=signature", file)
			h.must("image", "rm", name)
			for range (*kills + 1) / 2 {
				h.killAfter(within, "image", "import", "--insecure=signature", file)
				h.must("system", "prune", "--force")
				h.clean()
				h.must("image", "import", "--insecure=signature", file)
				h.clean()
				h.must("image", "rm", name)
			}
		})
	}
}

// terminal is a command on a terminal of its own, as a user has it.
type terminal struct {
	t   *testing.T
	pty console.Console
	cmd *exec.Cmd

	mu  sync.Mutex
	out strings.Builder
}

func (h *host) onTerminal(size console.WinSize, args ...string) *terminal {
	h.t.Helper()
	pty, path, err := console.NewPty()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := pty.Resize(size); err != nil {
		h.t.Fatal(err)
	}
	tty, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	term := &terminal{t: h.t, pty: pty, cmd: h.command(args...)}
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = tty, tty, tty
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := term.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	if err := tty.Close(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := pty.Read(buf)
			term.mu.Lock()
			term.out.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	h.t.Cleanup(func() {
		_ = term.cmd.Process.Kill() // it may have ended
		_ = pty.Close()
	})
	return term
}

// expect waits until the terminal shows a text.
func (term *terminal) expect(text string) {
	term.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(term.shown(), text) {
			return
		}
	}
	term.t.Fatalf("the terminal never shows %q, but:\n%s", text, term.shown())
}

func (term *terminal) shown() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.out.String()
}

func (term *terminal) keys(s string) {
	term.t.Helper()
	if _, err := io.WriteString(term.pty, s); err != nil {
		term.t.Fatal(err)
	}
}

// code waits for the command and gives its exit code.
func (term *terminal) code() int {
	_ = term.cmd.Wait() // the code says it
	return term.cmd.ProcessState.ExitCode()
}

func TestTerminal(t *testing.T) {
	h := newHost(t)
	size := console.WinSize{Height: 24, Width: 91}
	t.Run("size at the start", func(t *testing.T) {
		term := h.onTerminal(size, "pod", "run", "--rm", "-t", "example.com/probe", "--", "terminal")
		term.expect(`"Columns":91`)
		if code := term.code(); code != 0 {
			t.Errorf("exit code %d:\n%s", code, term.shown())
		}
	})
	t.Run("resize", func(t *testing.T) {
		term := h.onTerminal(size, "pod", "run", "--rm", "-t", "example.com/probe", "--", "resized")
		term.expect("ready")
		if err := term.pty.Resize(console.WinSize{Height: 50, Width: 123}); err != nil {
			t.Fatal(err)
		}
		term.expect(`"Columns":123`)
		if code := term.code(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("keys and Ctrl-C go to the app", func(t *testing.T) {
		term := h.onTerminal(size, "pod", "run", "--rm", "-t", "example.com/probe", "--", "raw-int")
		term.expect("ready")
		term.keys("\x03")
		if code := term.code(); code != 42 {
			t.Errorf("exit code %d:\n%s", code, term.shown())
		}
	})
	t.Run("Ctrl-C without -t stops the pod", func(t *testing.T) {
		term := h.onTerminal(size, "pod", "run", "--rm", "example.com/probe", "--", "sleep")
		term.expect("ready")
		term.keys("\x03")
		if code := term.code(); code != 143 {
			t.Errorf("exit code %d:\n%s", code, term.shown())
		}
	})
	t.Run("a second Ctrl-C kills it", func(t *testing.T) {
		term := h.onTerminal(size, "pod", "run", "--rm", "example.com/probe", "--", "trap", "15")
		term.expect("ready")
		term.keys("\x03")
		term.expect("15\r\n")
		term.keys("\x03")
		if code := term.code(); code != 137 {
			t.Errorf("exit code %d:\n%s", code, term.shown())
		}
	})
	t.Run("Ctrl-C at a question", func(t *testing.T) {
		term := h.onTerminal(size, "image", "prune", "--all")
		term.expect("[y/N]")
		term.keys("\x03")
		term.expect("interrupted") // what it said last may come after its end
		if code := term.code(); code != 1 {
			t.Errorf("exit code %d:\n%s", code, term.shown())
		}
	})
	t.Run("without -t the app has no terminal", func(t *testing.T) {
		term := h.onTerminal(size, "pod", "run", "--rm", "-i", "example.com/probe", "--", "terminal")
		term.expect("descriptor 0")
		if code := term.code(); code != 1 {
			t.Errorf("exit code %d:\n%s", code, term.shown())
		}
	})
	h.clean()
}
