package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// programs are what tests run besides themselves, by the name that
// testenv.Program gives them.
var programs = map[string]string{
	"jetpack":       "./cmd/jetpack",
	"ac-mdc":        "./cmd/ac-mdc",
	"probe":         "./internal/sandbox/sandboxtest/probe/cmd",
	"ace-validator": "github.com/appc/spec/ace",
}

// linuxPrograms are those that testenv.ProgramFor gives for Linux elsewhere.
var linuxPrograms = map[string]string{
	"ace-validator-linux": "github.com/appc/spec/ace",
	"probe-linux":         "./internal/sandbox/sandboxtest/probe/cmd",
}

// moduleFiles are what testenv.ModuleFile gives, of the module of that name.
var moduleFiles = map[string]string{
	"ace/image_manifest_main.json.in":     "github.com/appc/spec",
	"ace/image_manifest_sidekick.json.in": "github.com/appc/spec",
}

type options struct {
	destination string // as ssh takes it: ssh://[USER@]HOST[:PORT] or [USER@]HOST
	key, disk   string // may be empty
	timeout     time.Duration
	suites      []string
}

func main() {
	if config := os.Getenv(execEnv); config != "" { // go test runs it with a test
		os.Exit(execTest(config, os.Args[1], os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.destination, "host", os.Getenv("HOST"), "the machine, ssh://[USER@]HOST[:PORT]; it is $HOST when not given")
	flag.StringVar(&o.key, "i", os.Getenv("KEY"), "private key `FILE`; it is $KEY when not given")
	flag.StringVar(&o.disk, "disk", os.Getenv("DISK"), "disk for a ZFS pool, whose content is lost; it is $DISK when not given, or else a file")
	flag.DurationVar(&o.timeout, "timeout", 60*time.Minute, "how long the tests of a package may take")
	flag.Parse()
	o.suites = flag.Args()
	if len(o.suites) == 0 {
		o.suites = []string{"./..."}
	}
	// A second signal finds the clean-up under way and does not end it.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGHUP, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "remote:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.destination == "" {
		return errors.New("no machine: set HOST=ssh://root@host:port")
	}
	top, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	if err := os.Chdir(top); err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "jetpack-remote-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()

	h, err := connect(ctx, o, filepath.Join(temp, "ssh"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	build := append(os.Environ(), "CGO_ENABLED=0", "GOOS="+h.os, "GOARCH="+h.arch)
	files, err := gather(ctx, temp, build, h)
	if err != nil {
		return err
	}
	sources, err := output(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for _, name := range strings.Split(strings.TrimRight(sources, "\x00"), "\x00") {
		files["src/"+name] = filepath.Join(top, name)
	}
	h.remote.Top = top
	if err := h.remote.send(ctx, files); err != nil {
		return err
	}
	commit, err := output(ctx, "git", "describe", "--always", "--dirty", "--exclude=*")
	if err != nil {
		return err
	}
	return test(ctx, o, h, build, h.uname+", "+commit)
}

// gather builds the programs in a directory, and gives the files that go to bin there.
func gather(ctx context.Context, dir string, env []string, h *host) (map[string]string, error) {
	files := map[string]string{}
	build := func(programs map[string]string, env []string) error {
		for name, pkg := range programs {
			files["bin/"+name] = filepath.Join(dir, name)
			cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", files["bin/"+name], pkg)
			cmd.Env, cmd.Stderr = env, os.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("build %s: %w", pkg, err)
			}
		}
		return nil
	}
	if err := build(programs, env); err != nil {
		return nil, err
	}
	if h.os != "linux" {
		if err := build(linuxPrograms, append(env, "GOOS=linux")); err != nil {
			return nil, err
		}
	}
	for path, module := range moduleFiles {
		at, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
		if err != nil {
			return nil, err
		}
		files["bin/"+filepath.Base(path)] = filepath.Join(at, path)
	}
	return files, nil
}

// test runs the suites; report reads what all of them print.
func test(ctx context.Context, o options, h *host, env []string, label string) error {
	// It prints what there is even when the tests are interrupted.
	report := exec.CommandContext(context.WithoutCancel(ctx), "go", "run", "./test/report", label)
	report.Stdout, report.Stderr = os.Stdout, os.Stderr
	report.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	events, err := report.StdinPipe()
	if err != nil {
		return err
	}
	if err := report.Start(); err != nil {
		return fmt.Errorf("go run ./test/report: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	config, err := json.Marshal(h.remote)
	if err != nil {
		return err
	}
	env = append(env, execEnv+"="+string(config))
	for _, s := range o.suites {
		args := strings.Fields(s)
		flags := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") })
		if flags < 0 {
			flags = len(args)
		}
		// -p 1: the suites measure and count what is on the machine. -s: most of a test is copied, not run.
		args = slices.Concat([]string{"test", "-json", "-count=1", "-p=1", "-vet=off", "-ldflags=-s -w",
			"-timeout=" + o.timeout.String(), "-exec=" + self}, args[:flags], args[flags:])
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env, cmd.Stdout, cmd.Stderr = env, events, os.Stderr
		// With a process group of its own, so that an interrupt ends the test that it waits for as well.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
		cmd.WaitDelay = 10 * time.Second
		if testErr := cmd.Run(); testErr != nil {
			err = fmt.Errorf("go test %s: %w", s, testErr)
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			break
		}
	}
	return errors.Join(err, events.Close(), report.Wait())
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return strings.TrimRight(string(out), "\n"), nil
}
