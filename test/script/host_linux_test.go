package script

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"

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
	h.must("init")
	h.must("image", "import", "--insecure=signature", aci)
	t.Cleanup(func() { h.must("pod", "gc") })
	return h
}

func (h *host) command(args ...string) *exec.Cmd {
	return exec.Command(h.bin, append([]string{"--root", h.root}, args...)...)
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
	for _, sub := range []string{"run", "storage/pods", "storage/volumes"} {
		left, err := filepath.Glob(filepath.Join(h.root, sub, "*"))
		if err != nil || len(left) > 0 {
			h.t.Fatalf("still there: %v, %v", left, err)
		}
	}
	var id struct{ ID string }
	raw, err := os.ReadFile(filepath.Join(h.root, "jetpack.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &id); err != nil {
		h.t.Fatal(err)
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

// TestKilledAnywhere kills `pod run` at a random moment of its life; one gc must
// take away everything, each time.
func TestKilledAnywhere(t *testing.T) {
	h := newHost(t)
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for i := range rounds {
		cmd := h.command("pod", "run", "--volume", "v", "example.com/probe", "--mount", "v:/v", "--", "fork", "3")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		delay := time.Duration(rand.N(150)) * time.Millisecond
		time.Sleep(delay)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		h.must("pod", "gc")
		t.Logf("round %d: killed after %v", i, delay)
		h.clean()
		if pods := h.must("pod", "list", "-q"); pods != "" {
			t.Fatalf("pods left: %s", pods)
		}
	}
}

// TestImportKilledAnywhere does the same with an import.
func TestImportKilledAnywhere(t *testing.T) {
	h := newHost(t)
	aci := filepath.Join(t.TempDir(), "back.aci")
	h.must("image", "export", "example.com/probe", aci)
	for range 20 {
		h.must("image", "rm", "example.com/probe")
		cmd := h.command("image", "import", "--insecure=signature", aci)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.N(60)) * time.Millisecond)
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		h.must("system", "prune", "--force")
		h.clean()
		h.must("image", "import", "--insecure=signature", aci)
		h.clean()
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
	t.Run("without -t the app has no terminal", func(t *testing.T) {
		term := h.onTerminal(size, "pod", "run", "--rm", "-i", "example.com/probe", "--", "terminal")
		term.expect("descriptor 0")
		if code := term.code(); code != 1 {
			t.Errorf("exit code %d:\n%s", code, term.shown())
		}
	})
	h.clean()
}
