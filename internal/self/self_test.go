package self

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const again = "a-name-that-is-longer-than-the-path-of-the-program"

// environment tells a copy of this program what it is: one that starts itself, or the one
// that was started.
const environment = "JETPACK_TEST_SELF"

func TestMain(m *testing.M) {
	switch os.Getenv(environment) {
	case "starts":
		path, err := Path(again)
		if err != nil {
			os.Exit(1)
		}
		cmd := exec.Command(path)
		cmd.Args = []string{again}
		cmd.Env = []string{environment + "=started"}
		_ = cmd.Run()
		os.Exit(cmd.ProcessState.ExitCode())
	case "started":
		if os.Args[0] == again {
			os.Exit(7)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// The name arrives, however short the path is.
func TestPath(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "") //nolint:usetesting // a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(dir, "x")
	if len(short) >= len(again) {
		t.Fatalf("%s is too long", short)
	}
	if err := os.WriteFile(short, raw, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(short)
	cmd.Env = []string{environment + "=starts"}
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%v: %s", err, out)
	}
}

func TestPad(t *testing.T) {
	for _, tt := range []struct {
		path   string
		length int
	}{
		{"/j", 0},
		{"/j", 2},
		{"/j", 3},
		{"/j", 15},
		{"/usr/local/bin/jetpack", 15},
	} {
		got := pad(tt.path, tt.length)
		if len(got) < tt.length || !strings.HasSuffix(got, tt.path) || filepath.Clean(got) != tt.path {
			t.Errorf("%s, %d: %s", tt.path, tt.length, got)
		}
	}
}
