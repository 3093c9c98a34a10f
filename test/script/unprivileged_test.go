package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// TestUnprivileged asks as a user who is not root for what needs neither root nor a store:
// makefiles of images ask where jetpack.image.mk is, and anybody makes these.
func TestUnprivileged(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) { // the user has to get there
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	jetpack, config := filepath.Join(dir, "jetpack"), filepath.Join(dir, "jetpack.toml")
	program, err := os.ReadFile(filepath.Join(binary(t), "jetpack"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(jetpack, program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("root = \"/nonexistent\"\npath.share = \"/opt/share\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{"config path.share": "/opt/share\n", "version": "jetpack ", "completion bash": "# bash completion"} {
		cmd := exec.CommandContext(t.Context(), jetpack, strings.Fields(args)...)
		cmd.Dir, cmd.Env = "/", []string{"JETPACK_CONFIG=" + config, "PATH=/nonexistent"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s: %v\n%.500s", args, err, out)
		}
	}
}
