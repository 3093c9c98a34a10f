package testenv

import (
	"os/exec"
	"strings"
	"testing"
)

// LinuxABI has the host run Linux programs until the test ends, as the service linux does
// (linux(4)); static ones do not say what they are for.
func LinuxABI(t testing.TB) {
	t.Helper()
	Root(t)
	const brand = "kern.elf64.fallback_brand"
	before := command(t, "sysctl", "-n", brand)
	command(t, "kldload", "-n", "linux64", "pty")
	command(t, "sysctl", brand+"=3")
	t.Cleanup(func() { command(t, "sysctl", brand+"="+before) })
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
