package ace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateNetwork(m)) }

const specification = "github.com/appc/spec"

// roles are the validator's two images.
var roles = []string{"main", "sidekick"}

func imageName(role string) string { return "coreos.com/ace-validator-" + role }

// host is an initialized root with the validator's images for an operating system.
type host struct {
	t           *testing.T
	bin, config string
	goos        string
	port        string            // of the metadata service
	ids         map[string]string // of the images, by role
}

func newHost(t *testing.T, goos string) *host {
	t.Helper()
	testenv.Root(t)
	dir := t.TempDir()
	h := &host{
		t: t, bin: testenv.Program(t, "jetpack", "github.com/jetpack-run/jetpack/cmd/jetpack"),
		config: filepath.Join(dir, "jetpack.toml"), goos: goos, port: freePort(t), ids: map[string]string{},
	}
	settings := fmt.Sprintf("root = %q\nfetch.discovery = \"off\"\nmds.port = %s\nmds.user = \"nobody\"\n", filepath.Join(dir, "root"), h.port)
	if lo := os.Getenv(testenv.Loopback); lo != "" {
		settings += "freebsd.interface = " + strconv.Quote(lo) + "\n"
	}
	if dataset := testenv.Dataset(t); dataset != "" {
		settings += "storage.dataset = " + strconv.Quote(dataset) + "\n"
	}
	if err := os.WriteFile(h.config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("init")
	t.Cleanup(func() {
		h.must("pod", "gc")
		h.must("system", "check")
	})
	for _, role := range roles {
		file := filepath.Join(dir, role+".aci")
		if err := os.WriteFile(file, validatorImage(t, goos, role), 0o600); err != nil {
			t.Fatal(err)
		}
		h.ids[role] = strings.TrimSpace(h.must("image", "import", "--insecure=signature", file))
	}
	return h
}

// freePort gives a port of the loopback interface that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	return port
}

// validatorImage makes an image as the specification's own script does: with the manifest
// at the end, and nothing beside the program but its working directory.
func validatorImage(t *testing.T, goos, role string) []byte {
	t.Helper()
	program, err := os.ReadFile(testenv.ProgramFor(t, goos, "ace-validator", specification+"/ace"))
	if err != nil {
		t.Fatal(err)
	}
	template, err := os.ReadFile(testenv.ModuleFile(t, specification, "ace/image_manifest_"+role+".json.in"))
	if err != nil {
		t.Fatal(err)
	}
	arch, _ := manifest.Arch(goos, runtime.GOARCH)
	text := strings.NewReplacer("@ACI_OS@", goos, "@ACI_ARCH@", arch).Replace(string(template))
	archive := acitest.Tar(
		t,
		acitest.Dir("rootfs"), acitest.File("rootfs/ace-validator", string(program)),
		acitest.Dir("rootfs/opt"), acitest.Dir("rootfs/opt/acvalidator"),
		acitest.File("manifest", text),
	)
	var buf bytes.Buffer
	w, _ := gzip.NewWriterLevel(&buf, gzip.BestSpeed) // the level is good
	if _, err := w.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.bin, args...)
	cmd.Env = append(os.Environ(), "JETPACK_CONFIG="+h.config)
	// Like daemons and commands of several users: the scheduler of Linux shares the processors
	// between sessions (sched(7), "The autogroup feature").
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// must runs a command that has to succeed and gives what it printed.
func (h *host) must(args ...string) string {
	h.t.Helper()
	var stderr strings.Builder
	cmd := h.command(args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("jetpack %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// with is the same host for a subtest.
func (h *host) with(t *testing.T) *host {
	own := *h
	own.t = t
	return &own
}

// serveMetadata runs the metadata service until the test ends.
func (h *host) serveMetadata() {
	h.t.Helper()
	cmd := h.command("mds", "serve")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	said := bufio.NewScanner(stderr)
	var lines []string
	for said.Scan() {
		lines = append(lines, said.Text())
		if strings.Contains(said.Text(), "the metadata service answers pods at ") {
			break
		}
	}
	rest := make(chan struct{})
	go func() {
		defer close(rest)
		for said.Scan() {
			lines = append(lines, said.Text())
		}
	}()
	h.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended, which is said next
		<-rest
		if err := cmd.Wait(); err != nil {
			h.t.Errorf("mds serve: %v\n%s", err, strings.Join(lines, "\n"))
		}
	})
}

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
}

// run runs a command, which reads a text.
func (h *host) run(stdin string, args ...string) result {
	h.t.Helper()
	var stdout, stderr strings.Builder
	cmd := h.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		h.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
