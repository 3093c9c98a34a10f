//go:build !linux

package platform

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
)

func chooseStorage(_, want string) (name, notice string, err error) {
	switch want {
	case "plaindir":
		return want, "", nil
	case "auto":
		return "plaindir", "storage plaindir: images are copied for every pod", nil
	}
	return "", "", fmt.Errorf("storage %s: no such driver on this platform", want)
}

func openStorage(name, dir string) (storage.Driver, error) {
	if name != "plaindir" {
		return nil, fmt.Errorf("storage %s: no such driver on this platform", name)
	}
	return openPlain(dir)
}

func newEngine(_, _, _ string) (sandbox.Engine, error) { return nil, ErrNoEngine }

// RuntimeVersion tells what isolates pods, for reports.
func RuntimeVersion(context.Context, sandbox.Engine) (string, error) { return "", nil }

// RuntimeWarning says what is wrong with a runtime of that version, or "".
func RuntimeWarning(string) string { return "" }

// Backends are all that this platform has, for the table of capabilities.
func Backends() ([]storage.Info, []sandbox.Info) {
	return []storage.Info{(*plaindir.Driver)(nil).Info()}, nil
}

// BootID tells one boot of the host from the next: kern.boottime(9) would do, and
// nothing here needs it while no pods run.
func BootID() (string, error) { return "", nil }

// Kernel is the kernel's name and release.
func Kernel() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]), nil
}
