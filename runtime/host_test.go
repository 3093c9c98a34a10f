package runtime

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/appc/spec/schema"
	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(testenv.PrivateMounts(m))
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// program passes for an executable; the fake engine runs the probe instead of it.
const program = "\x7fELF\x02\x01\x01" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00" + // 16 bytes: 64 bit, little-endian
	"\x02\x00\x3e\x00\x01\x00\x00\x00" + // type, machine, version
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x40\x00\x38\x00" + // flags, header size, size of a program header
	"\x00\x00\x00\x00\x00\x00\x00\x00" // and none of them

// probeApp is the app of most images here.
const probeApp = `"app":{"exec":["/bin/probe"],"user":"0","group":"0"}`

// host is a runtime on plain directories and the fake engine.
type host struct {
	*Runtime
	images *image.Store
	named  *volume.Store
	over   chan error // the end of the pod that runs in the background

	mu      sync.Mutex
	notices []string
}

// openHost opens the host in root, for this process or one that is to be killed.
func openHost(root string, driver func(storage.Driver) storage.Driver, engine sandbox.Engine) (*host, error) {
	d, err := plaindir.Open(filepath.Join(root, "storage"))
	if err != nil {
		return nil, err
	}
	if _, err := image.Init(context.Background(), filepath.Join(root, "images")); err != nil {
		return nil, err
	}
	if err := Init(filepath.Join(root, "pods")); err != nil {
		return nil, err
	}
	if err := volume.Init(filepath.Join(root, "volumes")); err != nil {
		return nil, err
	}
	wrapped := driver(d)
	h := &host{named: &volume.Store{Dir: filepath.Join(root, "volumes"), Driver: wrapped}}
	if h.images, err = image.Open(filepath.Join(root, "images"), wrapped); err != nil {
		return nil, err
	}
	h.Runtime = &Runtime{
		Dir: filepath.Join(root, "pods"), Images: h.images, Volumes: h.named, Storage: wrapped, Engine: engine,
		OS: "linux", Arch: "amd64", Grace: 5 * time.Second, BootID: "boot", Notice: h.note, Report: h.report,
	}
	return h, nil
}

func (h *host) note(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notices = append(h.notices, line)
}

// report notes what becomes of isolators, a line each.
func (h *host) report(outcomes []sandbox.Outcome) {
	for _, o := range outcomes {
		h.note(fmt.Sprintf("%s|%s|%s|%s|%s", o.App, o.Isolator, o.Value, o.Status, o.Detail))
	}
}

// noted gives what Notice was told since the last time.
func (h *host) noted() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := h.notices
	h.notices = nil
	return lines
}

func asIs(d storage.Driver) storage.Driver { return d }

// mounting is a driver whose trees must be mounted to be used, and unmounted to be
// destroyed, as most drivers' are.
type mounting struct {
	storage.Driver

	mu      sync.Mutex
	mounted map[string]bool
}

func mountTrees(d storage.Driver) storage.Driver {
	return &mounting{Driver: d, mounted: map[string]bool{}}
}

func (d *mounting) Mount(ctx context.Context, name string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, err := d.Driver.Mount(ctx, name)
	if err == nil {
		d.mounted[name] = true
	}
	return dir, err
}

func (d *mounting) Unmount(ctx context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mounted, name)
	return d.Driver.Unmount(ctx, name)
}

func (d *mounting) Seal(ctx context.Context, name string) error {
	return d.unless(name, func() error { return d.Driver.Seal(ctx, name) })
}

func (d *mounting) Rename(ctx context.Context, from, to string) error {
	return d.unless(from, func() error { return d.Driver.Rename(ctx, from, to) })
}

func (d *mounting) Destroy(ctx context.Context, name string) error {
	return d.unless(name, func() error { return d.Driver.Destroy(ctx, name) })
}

// unless does what is not possible with a mounted tree.
func (d *mounting) unless(name string, do func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mounted[name] {
		return fmt.Errorf("%s is mounted: %w", name, storage.ErrBusy)
	}
	return do()
}

// holdsNothing checks that nothing runs or is mounted.
func (h *host) holdsNothing(t *testing.T) {
	t.Helper()
	boxes, err := h.Engine.List(t.Context())
	if err != nil || len(boxes) > 0 {
		t.Errorf("sandboxes %v, %v", boxes, err)
	}
	d := h.Storage.(*mounting)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mounted) > 0 {
		t.Errorf("mounted: %v", d.mounted)
	}
}

// newHost makes a host with the image example.com/probe.
func newHost(t *testing.T) *host {
	t.Helper()
	testenv.Root(t)
	h, err := openHost(t.TempDir(), mountTrees, sandboxtest.NewFake())
	if err != nil {
		t.Fatal(err)
	}
	h.add(t, "example.com/probe", probeApp)
	return h
}

// add makes an image with the members of its manifest and the program in it.
func (h *host) add(t *testing.T, name string, fields ...string) *image.Image {
	t.Helper()
	return h.addWith(t, name, nil, fields...)
}

// addWith has its root filled further.
func (h *host) addWith(t *testing.T, name string, fill func(root string) error, fields ...string) *image.Image {
	t.Helper()
	d, err := h.images.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.MakeRoot(t.Context(), nil, 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Discard(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for _, dir := range []string{"bin", "etc", "tmp"} {
		if err := os.Mkdir(filepath.Join(d.Root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.Root, "bin", "probe"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	if fill != nil {
		if err := fill(d.Root); err != nil {
			t.Fatal(err)
		}
	}
	manifest := acitest.Manifest(name, fields...)
	sum := sha512.Sum512([]byte(manifest))
	img, err := d.Commit(t.Context(), image.Image{
		ID: image.ID("sha512-" + hex.EncodeToString(sum[:])), Manifest: json.RawMessage(manifest), Imported: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// probes is a pod with an app of example.com/probe for each command line.
func (h *host) probes(t testing.TB, commands ...string) *schema.PodManifest {
	t.Helper()
	m, err := h.template(t.Context(), commands...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (h *host) template(ctx context.Context, commands ...string) (*schema.PodManifest, error) {
	var apps []AppRequest
	for _, c := range commands {
		apps = append(apps, AppRequest{Image: "example.com/probe", Args: strings.Fields(c)})
	}
	return h.Template(ctx, apps, nil)
}

var noNetwork = Options{Network: sandbox.NetworkNone}

// up runs a pod in the background of the test.
func (h *host) up(t *testing.T, m *schema.PodManifest, o Options) (*Run, *capture) {
	t.Helper()
	c := newCapture(t)
	if o.Network == "" {
		o.Network = sandbox.NetworkNone
	}
	run, err := h.Run(t.Context(), m, o, false, c.io())
	if err != nil {
		t.Fatal(err)
	}
	return run, c
}

// ended waits for a run and gives up its lock.
func ended(t *testing.T, run *Run) Info {
	t.Helper()
	done := make(chan struct{})
	var info Info
	var err error
	go func() {
		info, err = run.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the pod does not end")
	}
	if err != nil {
		t.Error("wait:", err)
	}
	if info.State.Phase != Exited {
		t.Errorf("it is %s after wait", info.State.Phase)
	}
	if err := run.Close(); err != nil {
		t.Error("close:", err)
	}
	return info
}

// capture is a file that apps write to.
type capture struct {
	t            *testing.T
	stdout, errs *os.File
}

func newCapture(t *testing.T) *capture {
	t.Helper()
	c := &capture{t: t}
	var err error
	if c.stdout, err = os.CreateTemp(t.TempDir(), "out"); err != nil {
		t.Fatal(err)
	}
	if c.errs, err = os.CreateTemp(t.TempDir(), "err"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.stdout.Close(), c.errs.Close() })
	return c
}

func (c *capture) io() IO { return IO{Stdout: c.stdout, Stderr: c.errs} }

func (c *capture) text() string {
	c.t.Helper()
	data, err := os.ReadFile(c.stdout.Name())
	if err != nil {
		c.t.Fatal(err)
	}
	return string(data)
}

// wait waits until the apps have written something n times.
func (c *capture) wait(n int, what string) {
	c.t.Helper()
	eventually(c.t, what, func() bool { return strings.Count(c.text(), what) >= n })
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// addVolume makes a named volume.
func (h *host) addVolume(t *testing.T, name string) {
	t.Helper()
	if _, err := h.named.Create(t.Context(), name, volume.Options{}); err != nil {
		t.Fatal(err)
	}
}

// left lists what there is of pods: sandboxes, trees and directories.
func (h *host) left(t *testing.T) []string {
	t.Helper()
	left, err := h.Engine.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"", rootKind, volumeKind} {
		trees, err := h.Storage.List(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, tree := range trees {
			kept := strings.HasPrefix(tree.Name, "images/") || strings.HasPrefix(tree.Name, "named/")
			if !kept && !slices.Contains(left, tree.Name) {
				left = append(left, tree.Name)
			}
		}
	}
	entries, err := os.ReadDir(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != lockFile {
			left = append(left, e.Name())
		}
	}
	return left
}

func (h *host) isClean(t *testing.T) {
	t.Helper()
	if left := h.left(t); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	found, err := h.Check(t.Context())
	if err != nil || len(found) > 0 {
		t.Errorf("check: %q, %v", found, err)
	}
}

func (h *host) phase(t *testing.T, id string) Phase {
	t.Helper()
	info, err := h.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Phase
}

// prepared makes a pod that waits for its start.
func (h *host) prepared(t *testing.T, m *schema.PodManifest, o Options) string {
	t.Helper()
	if o.Network == "" {
		o.Network = sandbox.NetworkNone
	}
	p, err := h.Prepare(t.Context(), m, o, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return p.UUID
}

// restart starts a pod once more and sees it through.
func (h *host) restart(t *testing.T, id string) Info {
	t.Helper()
	p, err := h.Lock(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	run, err := p.Start(t.Context(), newCapture(t).io())
	if err != nil {
		t.Fatal(err)
	}
	return ended(t, run)
}
