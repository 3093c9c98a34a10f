package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// programs has, on a machine without Go, what tests would build or take from modules
// (test/remote).
const programs = "JETPACK_TEST_BIN"

// Program gives the file of a package's program, which it builds: statically, so
// that it runs in an empty root. On a machine without Go, JETPACK_TEST_BIN is the
// directory that has it by its name (test/remote).
func Program(t testing.TB, name, pkg string) string {
	t.Helper()
	return ProgramFor(t, runtime.GOOS, name, pkg)
}

// ProgramFor gives the same for another operating system; without Go, its name is then
// followed by that of the system.
func ProgramFor(t testing.TB, goos, name, pkg string) string {
	t.Helper()
	if goos != runtime.GOOS {
		name += "-" + goos
	}
	if dir := os.Getenv(programs); dir != "" {
		return filepath.Join(dir, name)
	}
	file := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return file
}

// ModuleFile gives a file of a module that jetpack is made of. Without Go, it is found by
// the last element of its path, like a program.
func ModuleFile(t testing.TB, module, path string) string {
	t.Helper()
	if dir := os.Getenv(programs); dir != "" {
		return filepath.Join(dir, filepath.Base(path))
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatalf("find module %s: %v", module, err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), path)
}
