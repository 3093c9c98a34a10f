// Package packaging tests that 'make install' puts on FreeBSD what the port's
// packing list says, with GNU make and with BSD make.
package packaging

import (
	"debug/elf"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

const (
	top     = "../.."
	plist   = top + "/packaging/freebsd/pkg-plist"
	dataDir = "share/jetpack" // what the ports tree puts for %%DATADIR%%
)

var update = flag.Bool("update", false, "write pkg-plist")

// eachMake runs a test with every make that is there: on FreeBSD, "make" is BSD make.
func eachMake(t *testing.T, do func(t *testing.T, run func(args ...string))) {
	for _, name := range []string{"make", "bmake"} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skipf("needs %s", name)
			}
			do(t, func(args ...string) {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), path, append([]string{"-s"}, args...)...)
				cmd.Dir = top
				// A make that runs this test must not pass its settings on.
				cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKEOVERRIDES=", "MAKELEVEL=")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
				}
			})
		})
	}
}

func TestInstall(t *testing.T) {
	bin := testenv.Program(t, "jetpack", "github.com/jetpack-run/jetpack/cmd/jetpack")
	mdc := filepath.Join(t.TempDir(), "ac-mdc")
	for _, system := range []string{"freebsd", "linux"} {
		if err := os.WriteFile(mdc+"."+system, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	eachMake(t, func(t *testing.T, run func(args ...string)) {
		stage := t.TempDir()
		// GO=true: it is built already.
		run("install", "GO=true", "BIN="+bin, "MDC="+mdc, "GOOS=freebsd", "PREFIX=/usr/local", "DESTDIR="+stage)
		got := installed(t, filepath.Join(stage, "usr/local"))
		if *update {
			if err := os.WriteFile(plist, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := os.ReadFile(plist)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
		for _, line := range got {
			if !slices.Contains(want, line) {
				t.Errorf("installed, and not in %s (see -update): %s", plist, line)
			}
		}
		for _, line := range want {
			if !slices.Contains(got, line) {
				t.Errorf("in %s, and not installed (see -update): %s", plist, line)
			}
		}
		outside, err := os.ReadDir(stage)
		if err != nil || len(outside) != 1 {
			t.Errorf("installed outside PREFIX: %v, %v", outside, err)
		}
	})
}

// installed lists what is below a prefix as pkg-create(8) has it.
func installed(t *testing.T, prefix string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(prefix, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(prefix, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			entries, err := os.ReadDir(path)
			if err == nil && len(entries) == 0 {
				lines = append(lines, "@dir "+strings.Replace(name, dataDir, "%%DATADIR%%", 1))
			}
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(name, "bin/") || strings.HasPrefix(name, "libexec/") || strings.HasPrefix(name, "etc/rc.d/") {
			mode = 0o755
		}
		if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), mode)
		}
		lines = append(lines, plistLine(name))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func plistLine(name string) string {
	switch {
	case strings.HasPrefix(name, "share/man/"):
		return name + ".gz" // the ports tree compresses them
	case strings.HasSuffix(name, ".sample"):
		return "@sample " + name
	case strings.HasPrefix(name, "etc/newsyslog.conf.d/"):
		return "@config " + name
	}
	return strings.Replace(name, dataDir+"/", "%%DATADIR%%/", 1)
}

// What names files of the installation follows the prefix.
func TestPrefix(t *testing.T) {
	eachMake(t, func(t *testing.T, run func(args ...string)) {
		stage := t.TempDir()
		run("install-share", "GOOS=freebsd", "PREFIX=/opt/jetpack", "DESTDIR="+stage)
		for _, name := range []string{"rc.d/jetpack", "rc.d/jetpack_mds", "newsyslog.conf.d/jetpack.conf"} {
			raw, err := os.ReadFile(filepath.Join(stage, "opt/jetpack/etc", name))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(raw), "/usr/local") || !strings.Contains(string(raw), "/opt/jetpack/") {
				t.Errorf("%s:\n%s", name, raw)
			}
		}
	})
}

// The service removes what a crash has left, and no pod that has ended.
func TestServiceKeepsPods(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(top, "share/rc.d/jetpack"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := strings.NewReplacer("/etc/rc.subr", dir+"/rc.subr", "/usr/local/bin", dir, "/var/", dir+"/").Replace(string(raw))
	for name, text := range map[string]string{
		"service": script,
		"rc.subr": "load_rc_config() { :; }; check_startmsgs() { :; }; warn() { :; }; run_rc_command() { jetpack_$1; }\n",
		"jetpack": "#!/bin/sh\necho \"$*\" >>" + dir + "/called\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "sh", filepath.Join(dir, "service"), "start").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	called, err := os.ReadFile(filepath.Join(dir, "called"))
	if err != nil || !strings.Contains(string(called), "\npod gc --grace-period 876000h\n") {
		t.Errorf("called: %v\n%s", err, called)
	}
}

func TestBuildForFreeBSD(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs go")
	}
	eachMake(t, func(t *testing.T, run func(args ...string)) {
		dir := t.TempDir()
		bin := filepath.Join(dir, "jetpack")
		run("build", "GOOS=freebsd", "BIN="+bin, "MDC="+filepath.Join(dir, "ac-mdc"), "VERSION=9.8.7-test")
		f, err := elf.Open(bin)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }() // it was only read
		if f.OSABI != elf.ELFOSABI_FREEBSD {
			t.Errorf("built for %v", f.OSABI)
		}
		raw, err := os.ReadFile(bin)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), "9.8.7-test") {
			t.Error("VERSION is not in the binary")
		}
	})
}
