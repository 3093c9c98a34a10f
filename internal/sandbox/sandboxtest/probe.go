//go:build unix

package sandboxtest

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// ProbePath is where InstallProbe puts the probe program in a root.
const ProbePath = "/bin/probe"

const probePackage = "github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest/probe/cmd"

// BuildProbe builds the probe program, which needs nothing else in its root, and
// returns the path of the file.
func BuildProbe(t testing.TB) string {
	t.Helper()
	return testenv.Program(t, "probe", probePackage)
}

// InstallProbe copies a file to ProbePath in a root directory.
func InstallProbe(t testing.TB, file, root string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(file, filepath.Join(root, ProbePath), 0o755); err != nil {
		t.Fatal(err)
	}
}

func copyFile(from, to string, mode os.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
