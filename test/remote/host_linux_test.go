package main

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakes are commands that stand for those of another machine: ssh is this one, and
// a pool is a file in $FAKE.
var fakes = map[string]string{
	"ssh": `#!/bin/sh
while :; do
	case $1 in
	-o | -i) shift 2 ;;
	-O) exit ;;
	-*) shift ;;
	*) break ;;
	esac
done
shift
exec setsid -w /bin/sh -c "$*" # as sshd does
`,
	"uname": `#!/bin/sh
[ "$1" = -srm ] && echo Linux 6.1 x86_64 || echo Linux
`,
	"zpool": `#!/bin/sh
case $1 in
list) cat "$FAKE/pool" ;;
create) for last; do :; done; [ -f "$last" ] && echo "$7" >"$FAKE/pool" ;;
destroy) [ "$3" = "$(cat "$FAKE/pool")" ] && rm "$FAKE/pool" ;;
esac
`,
	"zfs": `#!/bin/sh
echo "$*" >"$FAKE/dataset"
`,
}

// fakeMachine puts the fakes before all other commands, and gives $FAKE.
func fakeMachine(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, script := range fakes {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("FAKE", dir)
	return dir
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestHost(t *testing.T) {
	fake := fakeMachine(t)
	h, err := connect(t.Context(), options{destination: "machine"}, filepath.Join(t.TempDir(), "ssh"))
	if err != nil {
		t.Fatal(err)
	}
	pool, _, _ := strings.Cut(strings.TrimPrefix(h.remote.Env[0], "JETPACK_TEST_ZFS="), "/")
	if h.os != "linux" || h.arch != "amd64" || !strings.HasPrefix(pool, "jetpacktest-") || !exists(h.remote.Dir+"/tmp") || !exists(fake+"/pool") {
		t.Errorf("%+v, pool %q", h, pool)
	}

	// Another run leaves it alone, and takes away what a crashed one left.
	stale := "/tmp/jetpack-test-" + rand.Text()
	if err := os.MkdirAll(stale+"/tmp/deep", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(stale) })
	if err := os.Rename(fake+"/pool", fake+"/pool.first"); err != nil {
		t.Fatal(err)
	}
	second, err := connect(t.Context(), options{destination: "machine"}, filepath.Join(t.TempDir(), "ssh"))
	if err != nil {
		t.Fatal(err)
	}
	if exists(stale) || !exists(h.remote.Dir) {
		t.Errorf("stale is there: %v; the one in use: %v", exists(stale), exists(h.remote.Dir))
	}
	if err := second.close(); err != nil || exists(second.remote.Dir) || exists(fake+"/pool") {
		t.Errorf("close: %v; directory: %v, pool: %v", err, exists(second.remote.Dir), exists(fake+"/pool"))
	}

	if err := os.Rename(fake+"/pool.first", fake+"/pool"); err != nil {
		t.Fatal(err)
	}
	if err := h.close(); err != nil || exists(h.remote.Dir) || exists(fake+"/pool") {
		t.Errorf("close: %v; directory: %v, pool: %v", err, exists(h.remote.Dir), exists(fake+"/pool"))
	}
}

// TestExec has a shell script stand for a test binary.
func TestExec(t *testing.T) {
	fakeMachine(t)
	h, err := connect(t.Context(), options{destination: "machine"}, filepath.Join(t.TempDir(), "ssh"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	top, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	h.remote.Top = filepath.Dir(top)
	config, err := json.Marshal(h.remote)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	test := filepath.Join(t.TempDir(), "pkg.test")
	script := `#!/bin/sh
{ pwd; printf '%s\n' "$JETPACK_TEST_BIN" "$JETPACK_TEST_ZFS" "$TMPDIR" "$@"; cat; } >` + out + `
sleep 600 &
exit 3
`
	if err := os.WriteFile(test, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run=^(A|B)$", "it's", "$HOME `x` \"", ""}
	if code := execTest(string(config), test, args); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	dir := h.remote.Dir
	want := strings.Join(append([]string{
		dir + "/src/remote", dir + "/bin", strings.TrimPrefix(h.remote.Env[0], "JETPACK_TEST_ZFS="), dir + "/tmp",
	}, args...), "\n") + "\n"
	if string(got) != want {
		t.Errorf("it saw\n%s\nwant\n%s", got, want)
	}
	if exists(dir+"/src/remote/pkg.test") || exists(dir+"/group") {
		t.Error("the test has not been removed")
	}
}

// A test that is still running when the connection ends is killed, with its children.
func TestKilledAtTheEnd(t *testing.T) {
	fakeMachine(t)
	h, err := connect(t.Context(), options{destination: "machine"}, filepath.Join(t.TempDir(), "ssh"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(h.remote.Dir+"/src", 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := h.remote.command(t.Context(), "exec /bin/sh")
	cmd.Stdin = strings.NewReader(script(&h.remote, "src", "../../../bin/sleep", []string{"600"}))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !exists(h.remote.Dir+"/group") && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if err := h.close(); err != nil {
		t.Error(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it has ended by itself")
		}
	case <-time.After(10 * time.Second):
		t.Error("it still runs")
	}
}

// So is what a test has started in a session of its own.
func TestSessionsAtTheEnd(t *testing.T) {
	fakeMachine(t)
	h, err := connect(t.Context(), options{destination: "machine"}, filepath.Join(t.TempDir(), "ssh"))
	if err != nil {
		t.Fatal(err)
	}
	program := h.remote.Dir + "/stray"
	if out, err := exec.CommandContext(t.Context(), "cp", "/bin/sleep", program).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), program, "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := h.close(); err != nil {
		t.Error(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("it has ended by itself")
		}
	case <-time.After(10 * time.Second):
		t.Error("it still runs")
		_ = cmd.Process.Kill()
	}
}
