package script

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestImportInterrupted: Ctrl-C while the image still comes in leaves nothing.
func TestImportInterrupted(t *testing.T) {
	h := newHost(t)
	cmd := h.command("image", "import", "--insecure=signature", "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if drafts, err := filepath.Glob(filepath.Join(h.root, "images/.import-*/aci")); err != nil || len(drafts) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the import does not begin")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the code says it
	if err := in.Close(); err != nil && !strings.Contains(err.Error(), os.ErrClosed.Error()) {
		t.Error(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != 1 || stderr.String() != "jetpack: interrupted\n" {
		t.Errorf("exit code %d, %q", code, stderr.String())
	}
	h.clean()
	if left, err := filepath.Glob(filepath.Join(h.root, "images/.import-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
