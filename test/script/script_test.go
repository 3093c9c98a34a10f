// Package script runs the txtar scripts of testdata against the real binary: one
// script per behaviour. In a script,
//
//	exits CODE COMMAND ARG...       runs a command that must end with that code
//	aci FILE NAME [FIELD]...        makes an image with /bin/probe; a FIELD is a member of
//	                                the manifest, or PATH=CONTENT, PATH/ or PATH->TARGET
//	entries FILE                    prints what is in an image's archive, a line each, without times
//	oci DIR TAG CONFIG [FIELD]...   adds an OCI image with /bin/probe to an image layout and
//	                                sets $DIGEST; CONFIG is JSON as {"Cmd": ["/bin/probe"]},
//	                                a FIELD is PATH=CONTENT, PATH, PATH->TARGET, or a comma
//	                                where the next layer begins
//	push DIR DIGEST NAME:TAG        pushes one to a registry at $REGISTRY
//	waitfor FILE TEXT               waits until a file contains a text
//	serve DIR                       serves a repository at https://localhost:$PORT, where
//	                                discovery looks from then on; what it is asked for is
//	                                in access.log
//	serve -end                      ends that
//	leavesnothing                   fails unless system check is clean and nothing is mounted
//
// $ACMDC is the program ac-mdc, and jetpack works on a root of the script's own, $ROOT, already initialized and
// with the image example.com/probe. Commands run in private mount and
// network namespaces.
package script

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateNetwork(m)) }

// binary gives a directory with the jetpack that is tested.
func binary(t *testing.T) string {
	t.Helper()
	return filepath.Dir(testenv.Program(t, "jetpack", "github.com/jetpack-run/jetpack/cmd/jetpack"))
}

func TestScripts(t *testing.T) {
	testenv.Root(t)
	bin := binary(t)
	mdc := testenv.Program(t, "ac-mdc", "github.com/jetpack-run/jetpack/cmd/ac-mdc")
	probe, err := os.ReadFile(sandboxtest.BuildProbe(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { noInterfaces(t) })
	run := func(dir string) {
		testscript.Run(t, testscript.Params{
			Dir:                 dir,
			RequireUniqueNames:  true,
			RequireExplicitExec: true,
			Setup: func(env *testscript.Env) error {
				env.Setenv("ACMDC", mdc)
				return setup(t, env, bin, probe)
			},
			Condition: condition,
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"exits":         exits,
				"waitfor":       waitFor,
				"entries":       entries,
				"oci":           func(ts *testscript.TestScript, neg bool, args []string) { makeOCI(t, ts, probe, args) },
				"push":          pushOCI,
				"aci":           func(ts *testscript.TestScript, neg bool, args []string) { makeACI(t, ts, probe, args) },
				"leavesnothing": leavesNothing,
				"serve":         serve,
			},
		})
	}
	run("testdata")
	run("testdata/oci")
	if runtime.GOOS == "linux" {
		run("testdata/linux")
	}
}

// condition is true for [zfs] when that keeps the trees, and for [attributes] when the
// scripts' directories have extended ones, which UFS1, and tmpfs on FreeBSD, do not.
func condition(name string) (bool, error) {
	switch name {
	case "zfs":
		return os.Getenv("JETPACK_TEST_ZFS") != "", nil
	case "attributes":
		f, err := os.CreateTemp("", "")
		if err != nil {
			return false, err
		}
		has := unix.Lsetxattr(f.Name(), "user.probe", nil, 0) == nil
		return has, errors.Join(f.Close(), os.Remove(f.Name()))
	}
	return false, fmt.Errorf("no condition %q", name)
}

// noInterfaces fails the test when a pod has left a bridge in the network namespace of
// the tests.
func noInterfaces(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return // the interface is the tests'
	}
	links, err := net.Interfaces()
	if err != nil || len(links) != 1 {
		t.Errorf("interfaces left: %v, %v", links, err)
	}
}

func setup(t *testing.T, env *testscript.Env, bin string, probe []byte) error {
	root := filepath.Join(env.WorkDir, "root")
	config := filepath.Join(env.WorkDir, ".jetpack.toml")
	env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
	env.Setenv("ROOT", root)
	env.Setenv("JETPACK_CONFIG", config)
	env.Setenv("HOME", env.WorkDir)
	settings := "root = " + strconv.Quote(root) + "\n" + offline
	if lo := os.Getenv(testenv.Loopback); lo != "" {
		settings += "freebsd.interface = " + strconv.Quote(lo) + "\n"
	}
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		return err
	}
	port, err := freePort(t)
	if err != nil {
		return err
	}
	arch, _ := manifest.Arch(runtime.GOOS, runtime.GOARCH)
	env.Setenv("GOOS", runtime.GOOS)
	env.Setenv("ARCH", arch)
	env.Setenv("PORT", port)
	env.Values[serverKey{}] = &server{bin: filepath.Join(bin, "jetpack")}
	env.Defer(func() {
		if err := env.Values[serverKey{}].(*server).end(); err != nil {
			t.Errorf("repo serve: %v", err)
		}
	})
	image := filepath.Join(env.WorkDir, "probe.aci")
	if err := os.WriteFile(image, probeImage(t, probe, "example.com/probe", nil), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{initArgs(t), {"image", "import", "--insecure=signature", image}} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "jetpack"), args...)
		cmd.Env = env.Vars
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("jetpack %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	env.Defer(func() {
		// A script that failed may leave a pod running; its supervisors end with the
		// script, and what they leave must not keep the work directory.
		for _, args := range [][]string{{"pod", "gc"}, {"mds", "stop"}} {
			cmd := exec.Command(filepath.Join(bin, "jetpack"), args...)
			cmd.Env = env.Vars
			if out, err := cmd.CombinedOutput(); err != nil && t.Failed() {
				t.Logf("%s: %v\n%s", strings.Join(args, " "), err, out)
			}
		}
	})
	return nil
}

// offline keeps scripts from asking others' servers, and from leaving one of their own.
const offline = "fetch.discovery = \"off\"\nmds.autostart = \"off\"\n"

// initArgs makes a root: with its trees on ZFS where there is some for tests, or else
// what is best where it is.
func initArgs(t testing.TB) []string {
	t.Helper()
	if dataset := testenv.Dataset(t); dataset != "" {
		return []string{"init", "--set", "storage.dataset=" + dataset}
	}
	return []string{"init"}
}

// probeImage is an image that holds the probe and what fields add.
func probeImage(t *testing.T, probe []byte, name string, fields []string) []byte {
	t.Helper()
	arch, _ := manifest.Arch(runtime.GOOS, runtime.GOARCH)
	options := []acitest.Option{
		acitest.WithEntry(acitest.Dir("rootfs/bin")), acitest.WithFile("/bin/probe", string(probe)),
		acitest.WithEntry(acitest.Dir("rootfs/etc")), acitest.WithEntry(acitest.Dir("rootfs/tmp")),
	}
	has := map[string]bool{}
	for _, f := range fields {
		path, content, isFile := strings.Cut(f, "=")
		from, to, isLink := strings.Cut(f, "->")
		switch {
		case strings.HasPrefix(f, "/") && isLink:
			options = append(options, acitest.WithEntry(acitest.Symlink("rootfs"+from, to)))
		case strings.HasPrefix(f, "/") && isFile:
			options = append(options, acitest.WithFile(path, strings.ReplaceAll(content, `\n`, "\n")))
		case strings.HasPrefix(f, "/"):
			options = append(options, acitest.WithEntry(acitest.Dir("rootfs"+f)))
		default:
			key, _, _ := strings.Cut(f, ":")
			has[strings.Trim(key, `" `)] = true
			options = append(options, acitest.WithField(f))
		}
	}
	if !has["labels"] {
		options = append(options, acitest.WithField(fmt.Sprintf(
			`"labels":[{"name":"version","value":"1.0"},{"name":"os","value":%q},{"name":"arch","value":%q}]`, runtime.GOOS, arch)))
	}
	if !has["app"] {
		options = append(options, acitest.WithField(`"app":{"exec":["/bin/probe"],"user":"0","group":"0"}`))
	}
	return acitest.Image(t, name, options...)
}

func makeACI(t *testing.T, ts *testscript.TestScript, probe []byte, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: aci FILE NAME [FIELD]...")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), probeImage(t, probe, args[1], args[2:]), 0o600))
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func entries(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: entries FILE")
	}
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer func() { ts.Check(f.Close()) }()
	r, _, err := aci.Decompress(f)
	ts.Check(err)
	defer func() { ts.Check(r.Close()) }()
	for in := tar.NewReader(r); ; {
		hdr, err := in.Next()
		if err == io.EOF {
			return
		}
		ts.Check(err)
		mode := hdr.Mode & 0o7777
		if hdr.Typeflag == tar.TypeSymlink {
			mode = 0o777 // FreeBSD has others, without meaning
		}
		line := fmt.Sprintf("%c %04o %d:%d %q", hdr.Typeflag, mode, hdr.Uid, hdr.Gid, hdr.Name)
		if hdr.Linkname != "" {
			line += fmt.Sprintf(" -> %q", hdr.Linkname)
		}
		for _, record := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
			if name, ok := strings.CutPrefix(record, "SCHILY.xattr."); ok {
				line += fmt.Sprintf(" %s=%q", name, hdr.PAXRecords[record])
			}
		}
		_, err = fmt.Fprintln(ts.Stdout(), line)
		ts.Check(err)
	}
}

func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitfor FILE TEXT")
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			ts.Fatalf("%v", err)
		}
		if bytes.Contains(data, []byte(args[1])) {
			return
		}
	}
	ts.Fatalf("%s never contains %q", args[0], args[1])
}

func leavesNothing(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: leavesnothing")
	}
	if err := ts.Exec("jetpack", "system", "check"); err != nil {
		ts.Fatalf("system check: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return // no such file where mounts are not counted this way
	}
	for line := range bytes.Lines(mounts) {
		if strings.Contains(string(line), ts.Getenv("ROOT")) {
			ts.Fatalf("still mounted: %s", line)
		}
	}
	for _, sub := range []string{"run", "pods"} {
		entries, err := os.ReadDir(filepath.Join(ts.Getenv("ROOT"), sub))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			ts.Fatalf("%v", err)
		}
		for _, e := range entries {
			if e.IsDir() {
				ts.Fatalf("still there: %s/%s", sub, e.Name())
			}
		}
	}
}
