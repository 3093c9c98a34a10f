package platform

import (
	"context"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/jail"
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

func newEngine(dir, _ string, cfg EngineConfig) (sandbox.Engine, error) {
	return jail.New(jail.Config{
		StateDir: dir, Interface: cfg.Interface, Ruleset: int32(cfg.Ruleset), Allow: cfg.Allow,
	})
}

// RuntimeVersion tells what isolates pods, for reports.
func RuntimeVersion(context.Context, sandbox.Engine) (string, error) { return "", nil }

// RuntimeWarning says what is wrong with a runtime of that version, or "".
func RuntimeWarning(string) string { return "" }

// Backends are all that this platform has, for the table of capabilities.
func Backends() ([]storage.Info, []sandbox.Info) {
	return []storage.Info{(*plaindir.Driver)(nil).Info()}, []sandbox.Info{jail.Info()}
}

// BootID tells one boot of the host from the next: it is when the host booted, which
// a clock that is set moves. Nothing but reports hang on it while locks are held.
func BootID() (string, error) {
	at, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return "", fmt.Errorf("kern.boottime: %w", err)
	}
	return strconv.FormatInt(at.Sec, 10), nil
}

// Kernel is the kernel's name and release.
func Kernel() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]), nil
}
