package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/imagetest"
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
const maxOps = 100

// action is something that may fail at any of its operations.
type action struct {
	name string
	// imported: the image is there beforehand.
	imported bool
	do       func(ctx context.Context, p *place, raw []byte) error
	// after are the images when the action has succeeded.
	after int
}

var actions = []action{
	{"import", false, importRaw, 1},
	{"import again", true, importRaw, 1},
	{"remove", true, func(ctx context.Context, p *place, _ []byte) error {
		images, err := p.List(ctx)
		if err != nil || len(images) == 0 {
			return err
		}
		return p.Remove(ctx, images[0].ID)
	}, 0},
}

func importRaw(ctx context.Context, p *place, raw []byte) error {
	_, _, err := aci.Import(ctx, p.Store, bytes.NewReader(raw), aci.ImportOptions{Limits: roomy})
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
func (a action) recovers(t *testing.T, p *place, raw []byte) {
	t.Helper()
	p.clean(t)
	p.holdsOnly(t, p.ids(t)...)
	if err := a.do(t.Context(), p, raw); err != nil {
		t.Errorf("once more: %v", err)
	}
	p.holdsOnly(t, p.ids(t)...)
	if n := len(p.ids(t)); n != a.after {
		t.Errorf("%d images, want %d", n, a.after)
	}
}

func TestFaults(t *testing.T) {
	testenv.Root(t)
	raw := acitest.Image(t, "example.com/a", acitest.WithFile("/bin/a", "a"))
	for _, a := range actions {
		for _, mode := range []imagetest.Mode{imagetest.Before, imagetest.After, imagetest.Onwards} {
			t.Run(fmt.Sprintf("%s/%s", a.name, mode), func(t *testing.T) {
				for k := 1; a.fail(t, mode, k, raw); k++ {
					if k == maxOps {
						t.Fatal("no end of operations")
					}
				}
			})
		}
	}
}

// fail fails operation k of an action; false when there are less.
func (a action) fail(t *testing.T, mode imagetest.Mode, k int, raw []byte) bool {
	faults := new(imagetest.Faults)
	p := openPlace(t, t.TempDir(), func(d storage.Driver) storage.Driver { return imagetest.Driver(d, faults) })
	if a.imported {
		if err := importRaw(t.Context(), p, raw); err != nil {
			t.Fatal(err)
		}
	}
	faults.Arm(mode, k)
	err := a.do(t.Context(), p, raw)
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
	if n := len(p.ids(t)); a.imported && a.after > 0 && n != 1 {
		t.Errorf("%s failed: the image is gone", failed)
	}
	a.recovers(t, p, raw)
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
				p := openPlace(t, t.TempDir(), func(d storage.Driver) storage.Driver { return imagetest.Driver(d, faults) })
				faults.Arm(mode, k)
				err := importRaw(t.Context(), p, raw)
				failed := faults.Disarm()
				if failed == "" {
					return
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
// image-to-be-killed ROOT ACTION K ARCHIVE.
func killed() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	k, err := strconv.Atoi(os.Args[3])
	fail(err)
	raw, err := os.ReadFile(os.Args[4])
	fail(err)
	driver, err := plaindir.Open(os.Args[1] + "/storage")
	fail(err)
	faults := new(imagetest.Faults)
	store, err := image.Open(os.Args[1]+"/images", imagetest.Driver(driver, faults))
	fail(err)
	p := &place{Store: store, dir: os.Args[1] + "/images", driver: driver}
	faults.Arm(imagetest.Kill, k)
	for _, a := range actions {
		if a.name == os.Args[2] {
			fail(a.do(context.Background(), p, raw))
		}
	}
}

func TestKill(t *testing.T) {
	testenv.Root(t)
	raw := acitest.Image(t, "example.com/a", acitest.WithFile("/bin/a", "a"))
	archive := t.TempDir() + "/a.aci"
	if err := os.WriteFile(archive, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, a := range actions {
		t.Run(a.name, func(t *testing.T) {
			for k := 1; a.kill(t, k, archive, raw); k++ {
				if k == maxOps {
					t.Fatal("no end of operations")
				}
			}
		})
	}
}

// kill kills a process at operation k of an action; false when there are less.
func (a action) kill(t *testing.T, k int, archive string, raw []byte) bool {
	root := t.TempDir()
	p := openPlace(t, root, func(d storage.Driver) storage.Driver { return d })
	if a.imported {
		if err := importRaw(t.Context(), p, raw); err != nil {
			t.Fatal(err)
		}
	}
	cmd := reexec.Command("image-to-be-killed", root, a.name, strconv.Itoa(k), archive)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("operation %d: %v: %s", k, err, stderr.Bytes())
	}
	a.recovers(t, p, raw)
	if t.Failed() {
		t.Fatalf("killed at operation %d", k)
	}
	return true
}
