package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/image/imagetest"
	"github.com/jetpack-run/jetpack/internal/plaindir"
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

func init() {
	reexec.Register("volume-to-be-killed", killed)
	reexec.Register("volume-churn", churned)
}

// maxOps is more operations than anything here needs.
const maxOps = 60

// action is something that may fail at any of its operations.
type action struct {
	name string
	// before: the volume "data" is there beforehand, with a file "file"; after: it
	// is there when the action has succeeded.
	before, after bool
	do            func(ctx context.Context, s *volume.Store) error
}

var actions = []action{
	{"create", false, true, func(ctx context.Context, s *volume.Store) error {
		_, err := s.Create(ctx, "data", volume.Options{Mode: 0o750, UID: 5, GID: 6})
		if errors.Is(err, volume.ErrExists) { // the last time it was done after all
			return nil
		}
		return err
	}},
	{"use", true, true, func(ctx context.Context, s *volume.Store) error {
		l, err := s.Acquire(ctx, "data")
		if err != nil {
			return err
		}
		_, err = os.Stat(filepath.Join(l.Dir, "file"))
		return errors.Join(err, l.Release(ctx))
	}},
	{"remove", true, false, func(ctx context.Context, s *volume.Store) error {
		err := s.Remove(ctx, "data")
		if errors.Is(err, volume.ErrNotFound) { // the last time it was done after all
			return nil
		}
		return err
	}},
	{"look", true, true, func(ctx context.Context, s *volume.Store) error {
		_, errList := s.List(ctx)
		_, errInspect := s.Inspect(ctx, "data")
		debris, errDebris := s.Debris(ctx)
		errs := []error{errList, errInspect, errDebris}
		for _, d := range debris {
			errs = append(errs, d.Remove(ctx))
		}
		return errors.Join(errs...)
	}},
}

// prepare makes what an action finds.
func (a action) prepare(t *testing.T, s *volume.Store) {
	t.Helper()
	if !a.before {
		return
	}
	if _, err := s.Create(t.Context(), "data", volume.Options{Mode: 0o750, UID: 5, GID: 6}); err != nil {
		t.Fatal(err)
	}
	l := acquire(t, s, "data")
	if err := os.WriteFile(filepath.Join(l.Dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	release(t, l)
	if a.name != "look" {
		return
	}
	// Debris to be found.
	if err := s.Driver.Create(t.Context(), "drafts/x", storage.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Driver.Mount(t.Context(), "named/data"); err != nil {
		t.Fatal(err)
	}
}

// recovers checks that after a failure the debris can be removed, that a volume
// there is, is whole, and that the action can be done.
func (a action) recovers(t *testing.T, s *volume.Store) {
	t.Helper()
	clean(t, s)
	a.whole(t, s, a.before && a.after)
	if err := a.do(t.Context(), s); err != nil {
		t.Errorf("once more: %v", err)
	}
	a.whole(t, s, a.after)
	clean(t, s)
}

func (a action) whole(t *testing.T, s *volume.Store, must bool) {
	t.Helper()
	v, err := s.Get(t.Context(), "data")
	if errors.Is(err, volume.ErrNotFound) && !must {
		return
	}
	if err != nil || v.Mode != 0o750 || v.UID != 5 || v.GID != 6 || v.InUse {
		t.Errorf("volume %+v, %v", v, err)
		return
	}
	l := acquire(t, s, "data")
	defer release(t, l)
	if fi, err := os.Stat(l.Dir); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("directory %v, %v", fi, err)
	}
	if _, err := os.Stat(filepath.Join(l.Dir, "file")); a.before && err != nil {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	testenv.Root(t)
	for driver, open := range drivers {
		for _, a := range actions {
			for _, mode := range []imagetest.Mode{imagetest.Before, imagetest.After, imagetest.Onwards} {
				t.Run(fmt.Sprintf("%s/%s/%s", driver, a.name, mode), func(t *testing.T) {
					for k := 1; a.fail(t, open, mode, k); k++ {
						if k == maxOps {
							t.Fatal("no end of operations")
						}
					}
				})
			}
		}
	}
}

// fail fails operation k of an action; false when there are less.
func (a action) fail(t *testing.T, open func(*testing.T, string) storage.Driver, mode imagetest.Mode, k int) bool {
	root := t.TempDir()
	faults := new(imagetest.Faults)
	s := newStore(t, root, imagetest.Driver(open(t, root), faults))
	s.Points = faults
	a.prepare(t, s)
	faults.Arm(mode, k)
	err := a.do(t.Context(), s)
	failed := faults.Disarm()
	if failed == "" {
		if err != nil {
			t.Fatal(err)
		}
		a.whole(t, s, a.after)
		if left := found(t, s); left != nil {
			t.Errorf("left: %q", left)
		}
		return false
	}
	if !errors.Is(err, imagetest.ErrFault) {
		t.Errorf("%s failed: got error %v", failed, err)
	}
	if left := found(t, s); a.name == "create" && mode != imagetest.Onwards && left != nil {
		t.Errorf("%s failed and left %q", failed, left)
	}
	if _, err := s.Get(t.Context(), "data"); a.name == "create" && mode != imagetest.Onwards && !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("%s failed, and there is a volume: %v", failed, err)
	}
	a.recovers(t, s)
	if t.Failed() {
		t.Fatalf("after operation %d: %s", k, failed)
	}
	return true
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// killed does an action in a process that is killed at one of its operations:
// volume-to-be-killed ROOT DRIVER ACTION K.
func killed() {
	k, err := strconv.Atoi(os.Args[4])
	exitOn(err)
	faults := new(imagetest.Faults)
	s := reopen(os.Args[1], os.Args[2])
	s.Driver, s.Points = imagetest.Driver(s.Driver, faults), faults
	faults.Arm(imagetest.Kill, k)
	for _, a := range actions {
		if a.name == os.Args[3] {
			exitOn(a.do(context.Background(), s))
		}
	}
}

// reopen opens a store in a process that has no testing.T.
func reopen(root, driver string) *volume.Store {
	s := &volume.Store{Dir: filepath.Join(root, "volumes")}
	var err error
	if driver == "plaindir" {
		s.Driver, err = plaindir.Open(filepath.Join(root, "storage"))
	} else {
		s.Driver, err = reopenMounting(root)
	}
	exitOn(err)
	return s
}

func TestKill(t *testing.T) {
	testenv.Root(t)
	for driver := range drivers {
		for _, a := range actions {
			t.Run(driver+"/"+a.name, func(t *testing.T) {
				for k := 1; a.kill(t, driver, k); k++ {
					if k == maxOps {
						t.Fatal("no end of operations")
					}
				}
			})
		}
	}
}

// kill kills a process at operation k of an action; false when there are less.
func (a action) kill(t *testing.T, driver string, k int) bool {
	root := t.TempDir()
	s := newStore(t, root, drivers[driver](t, root))
	a.prepare(t, s)
	cmd := reexec.Command("volume-to-be-killed", root, driver, a.name, strconv.Itoa(k))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("operation %d: %v: %s", k, err, stderr.Bytes())
	}
	a.recovers(t, s)
	if t.Failed() {
		t.Fatalf("killed at operation %d", k)
	}
	return true
}
