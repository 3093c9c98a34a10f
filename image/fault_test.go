package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/imagetest"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/image/oci/ocitest"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

func init() { reexec.Register("image-to-be-killed", killed) }

// maxOps is more operations than anything here needs.
const maxOps = 200

// errLeft: the image is in, and something is left, of which there was a warning.
var errLeft = fmt.Errorf("%w: %w", imagetest.ErrFault, syscall.ENOSPC)

// action is something that may fail at any of its operations.
type action struct {
	name string
	// before are the images that are imported beforehand, after how many there are
	// when the action has succeeded.
	before []string
	after  int
	do     func(ctx context.Context, p *place) error
}

// archives are the images that actions work with.
var archives = func() map[string][]byte {
	t := new(testing.B) // only to report what cannot go wrong
	return map[string][]byte{
		"base": acitest.Image(t, "example.com/base", acitest.WithFile("/bin/a", "a"), acitest.WithFile("/bin/b", "b")),
		"lib":  acitest.Image(t, "example.com/lib", acitest.WithFile("/lib/l", "l")),
		"app": acitest.Image(t, "example.com/app", acitest.WithFile("/app", "app"),
			acitest.WithField(`"dependencies":[{"imageName":"example.com/base"},{"imageName":"example.com/lib"}]`),
			acitest.WithField(`"pathWhitelist":["/bin/a","/lib/l","/app"]`)),
	}
}()

var actions = []action{
	{"import", nil, 1, func(ctx context.Context, p *place) error { return p.load(ctx, "base") }},
	{"import again", []string{"base"}, 1, func(ctx context.Context, p *place) error { return p.load(ctx, "base") }},
	{"import with dependencies", []string{"base", "lib"}, 3, func(ctx context.Context, p *place) error { return p.load(ctx, "app") }},
	{"import OCI again", []string{"oci:1"}, 1, func(ctx context.Context, p *place) error { return p.load(ctx, "oci:1") }},
	{"import OCI that shares", []string{"oci:1"}, 2, func(ctx context.Context, p *place) error { return p.load(ctx, "oci:2") }},
	{"remove OCI", []string{"oci:1", "oci:2"}, 1, func(ctx context.Context, p *place) error {
		img, err := p.Find(ctx, "oci:1")
		if errors.Is(err, image.ErrNotFound) {
			return nil // it was removed before something failed
		}
		if err != nil {
			return err
		}
		return p.Remove(ctx, img.ID)
	}},
	{"remove", []string{"base"}, 0, func(ctx context.Context, p *place) error {
		images, err := p.List(ctx)
		if err != nil || len(images) == 0 {
			return err
		}
		return p.Remove(ctx, images[0].ID)
	}},
	{"tag", []string{"base"}, 1, func(ctx context.Context, p *place) error {
		img, err := p.Find(ctx, "example.com/base")
		if err != nil {
			return err
		}
		if _, err := p.Tag(ctx, img.ID, "demo/x:1"); err != nil {
			return err
		}
		return p.Untag(ctx, "demo/x:1")
	}},
	{"verify", []string{"base", "lib", "app"}, 3, func(ctx context.Context, p *place) error {
		img, err := p.Find(ctx, "example.com/app")
		if err != nil {
			return err
		}
		changes, err := aci.Verify(ctx, p.Store, img, roomy, true)
		if len(changes) > 0 {
			return fmt.Errorf("verified as changed: %v", changes)
		}
		return err
	}},
}

// load imports an archive by its name.
func (p *place) load(ctx context.Context, name string) error {
	if oci.IsLocation(name) {
		return p.loadOCI(ctx, name)
	}
	return importRaw(ctx, p, archives[name])
}

// loadOCI imports oci:TAG from a layout beside the store, which has the images 1 and 2.
func (p *place) loadOCI(ctx context.Context, name string) error {
	dir := filepath.Join(filepath.Dir(p.dir), "oci")
	if _, err := os.Stat(dir); err != nil {
		t := new(testing.B) // only to report what cannot go wrong
		common := ocitest.Layer(t, acitest.File("a", "a"), acitest.File("b", "b"))
		for _, tag := range []string{"1", "2"} {
			ocitest.Layout(t, dir, tag, ocitest.Image(t, nil, common, ocitest.Layer(t, acitest.File(".wh.a", ""), acitest.File(tag, tag))))
		}
	}
	l, err := oci.ParseLocation("oci:"+dir+":"+strings.TrimPrefix(name, "oci:"), false)
	if err != nil {
		return err
	}
	_, warnings, err := oci.Import(ctx, p.Store, l, oci.Options{
		Platforms: oci.HostPlatforms("linux", "amd64", ""), Insecure: []string{"signature"}, Limits: roomy,
		Meter: func(_ string, _, _ int64, r io.Reader) io.ReadCloser { return io.NopCloser(r) },
	})
	if err == nil && len(warnings) > 0 {
		return errLeft
	}
	return err
}

// template is a root with the images that an action needs, to be copied: importing
// them each time would take most of the time.
func (a action) template(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	p := openPlace(t, root, func(d storage.Driver) storage.Driver { return d })
	for _, name := range a.before {
		if err := p.load(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// fresh is a copy of a template.
func fresh(t *testing.T, template string) (root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "root")
	if out, err := exec.Command("cp", "-a", template, root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return root
}

// faulty is a place where operations of the driver and steps of the store can fail.
func faulty(t *testing.T, root string, faults *imagetest.Faults) *place {
	t.Helper()
	p := openPlace(t, root, func(d storage.Driver) storage.Driver { return imagetest.Driver(d, faults) })
	p.Points = faults
	return p
}

func importRaw(ctx context.Context, p *place, raw []byte) error {
	_, warnings, err := aci.Import(ctx, p.Store, bytes.NewReader(raw), aci.ImportOptions{Limits: roomy})
	if err == nil && len(warnings) > 0 {
		return errLeft
	}
	return err
}

// ids gives the images there are.
func (p *place) ids(t *testing.T) (ids []image.ID) {
	t.Helper()
	images, err := p.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		ids = append(ids, img.ID)
	}
	return ids
}

// recovers checks that after a failure the debris can be removed, that then
// everything there is, is whole, and that the action can be done.
func (a action) recovers(t *testing.T, p *place) {
	t.Helper()
	p.clean(t)
	p.holdsOnly(t, p.ids(t)...)
	if err := a.do(t.Context(), p); err != nil {
		t.Errorf("once more: %v", err)
	}
	p.holdsOnly(t, p.ids(t)...)
	if n := len(p.ids(t)); n != a.after {
		t.Errorf("%d images, want %d", n, a.after)
	}
}

func TestFaults(t *testing.T) {
	testenv.Root(t)
	var all []*imagetest.Faults
	t.Cleanup(func() { everyStepFailed(t, all) }) // after those that run in parallel
	for _, a := range actions {
		for _, mode := range []imagetest.Mode{imagetest.Before, imagetest.After, imagetest.Onwards, imagetest.Full} {
			faults := new(imagetest.Faults)
			all = append(all, faults)
			t.Run(fmt.Sprintf("%s/%s", a.name, mode), func(t *testing.T) {
				t.Parallel()
				template := a.template(t)
				for k := 1; a.fail(t, template, faults, mode, k); k++ {
					if k == maxOps {
						t.Fatal("no end of operations")
					}
				}
			})
		}
	}
}

// everyStepFailed checks that every step that the sources name was made to fail.
func everyStepFailed(t *testing.T, all []*imagetest.Faults) {
	t.Helper()
	for _, dir := range []string{".", "aci", "oci"} {
		steps, err := imagetest.Steps(dir)
		if err != nil || len(steps) == 0 {
			t.Fatal(steps, err)
		}
		for _, step := range steps {
			if !slices.ContainsFunc(all, func(f *imagetest.Faults) bool { return f.Seen(step) }) {
				t.Errorf("step %q was never driven", step)
			}
		}
	}
}

// fail fails operation k of an action; false when there are less.
func (a action) fail(t *testing.T, template string, faults *imagetest.Faults, mode imagetest.Mode, k int) bool {
	p := faulty(t, fresh(t, template), faults)
	faults.Arm(mode, k)
	err := a.do(t.Context(), p)
	failed := faults.Disarm()
	if failed == "" {
		if err != nil {
			t.Fatal(err)
		}
		return false
	}
	if !errors.Is(err, imagetest.ErrFault) {
		t.Errorf("%s failed: got error %v", failed, err)
	}
	if mode == imagetest.Full && !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%s failed: the error does not say that the disk is full: %v", failed, err)
	}
	if n := len(p.ids(t)); a.after >= len(a.before) && n < len(a.before) {
		t.Errorf("%s failed: %d images are left", failed, n)
	}
	a.recovers(t, p)
	if t.Failed() {
		t.Fatalf("after operation %d: %s", k, failed)
	}
	return true
}

// One failure leaves nothing, without anybody's help.
func TestFailedImportLeavesNothing(t *testing.T) {
	testenv.Root(t)
	raw := acitest.Image(t, "example.com/a", acitest.WithFile("/bin/a", "a"))
	tests := map[string][]byte{
		"truncated": raw[:len(raw)/2],
		"empty":     nil,
		"no image":  acitest.Tar(t, acitest.File("x", "x")),
		"bad root":  acitest.Build(t, acitest.Manifest("example.com/a"), acitest.File("rootfs/../../x", "x")),
	}
	for name, bytes := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			if err := importRaw(t.Context(), p, bytes); err == nil {
				t.Error("imported")
			}
			p.holdsOnly(t)
		})
	}
	for _, mode := range []imagetest.Mode{imagetest.Before, imagetest.After} {
		t.Run("fault "+string(mode), func(t *testing.T) {
			for k := 1; k < maxOps; k++ {
				faults := new(imagetest.Faults)
				p := faulty(t, t.TempDir(), faults)
				faults.Arm(mode, k)
				err := importRaw(t.Context(), p, raw)
				failed := faults.Disarm()
				if failed == "" {
					return
				}
				if errors.Is(err, errLeft) {
					continue
				}
				if err == nil {
					t.Errorf("%s failed, and the import did not", failed)
				}
				p.holdsOnly(t)
				if t.Failed() {
					t.Fatalf("after operation %d: %s", k, failed)
				}
			}
		})
	}
}

// killed does an action in a process that is killed at one of its operations:
// image-to-be-killed ROOT ACTION K.
func killed() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	k, err := strconv.Atoi(os.Args[3])
	fail(err)
	driver, err := plaindir.Open(os.Args[1] + "/storage")
	fail(err)
	faults := new(imagetest.Faults)
	store, err := image.Open(os.Args[1]+"/images", imagetest.Driver(driver, faults))
	fail(err)
	store.Points = faults
	p := &place{Store: store, dir: os.Args[1] + "/images", driver: driver}
	faults.Arm(imagetest.Kill, k)
	for _, a := range actions {
		if a.name == os.Args[2] {
			fail(a.do(context.Background(), p))
		}
	}
}

func TestKill(t *testing.T) {
	testenv.Root(t)
	for _, a := range actions {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			template := a.template(t)
			for k := 1; a.kill(t, template, k); k++ {
				if k == maxOps {
					t.Fatal("no end of operations")
				}
			}
		})
	}
}

// kill kills a process at operation k of an action; false when there are less.
func (a action) kill(t *testing.T, template string, k int) bool {
	root := fresh(t, template)
	p := openPlace(t, root, func(d storage.Driver) storage.Driver { return d })
	cmd := reexec.Command("image-to-be-killed", root, a.name, strconv.Itoa(k))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("operation %d: %v: %s", k, err, stderr.Bytes())
	}
	a.recovers(t, p)
	if t.Failed() {
		t.Fatalf("killed at operation %d", k)
	}
	return true
}
