package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Program gives the file of a package's program, which it builds: statically, so
// that it runs in an empty root. On a machine without Go, JETPACK_TEST_BIN is the
// directory that has it by its name (test/remote).
func Program(t testing.TB, name, pkg string) string {
	t.Helper()
	if dir := os.Getenv("JETPACK_TEST_BIN"); dir != "" {
		return filepath.Join(dir, name)
	}
	file := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return file
}
