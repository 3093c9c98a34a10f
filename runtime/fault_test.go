package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/image/imagetest"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

// engine is an engine with faults.
type engine struct {
	sandbox.Engine
	faults *imagetest.Faults
}

func (e *engine) Create(ctx context.Context, pod sandbox.Pod) error {
	err := e.faults.Op("Create sandbox", func() error { return e.Engine.Create(ctx, pod) })
	if err != nil { // which has left nothing, says the contract
		err = errors.Join(err, e.Engine.Destroy(ctx, pod.ID))
	}
	return err
}

func (e *engine) Start(ctx context.Context, id string, p sandbox.Process) (t sandbox.Task, err error) {
	err = e.faults.Op("Start "+p.App, func() error { t, err = e.Engine.Start(ctx, id, p); return err })
	return t, err
}

func (e *engine) Destroy(ctx context.Context, id string) error {
	return e.faults.Op("Destroy sandbox", func() error { return e.Engine.Destroy(ctx, id) })
}

func (e *engine) List(ctx context.Context) (ids []string, err error) {
	err = e.faults.Op("List sandboxes", func() error { ids, err = e.Engine.List(ctx); return err })
	return ids, err
}

// maxOps is more operations than anything here needs.
const maxOps = 200

// openFaulty opens a host where operations of storage and engine, and steps, can fail.
func openFaulty(root string, faults *imagetest.Faults) (*host, error) {
	h, err := openHost(root, func(d storage.Driver) storage.Driver { return imagetest.Driver(d, faults) },
		&engine{sandboxtest.NewFake(), faults})
	if err == nil {
		h.Points, h.named.Points = faults, faults
	}
	return h, err
}

// furnish makes what faulty pods need.
func (h *host) furnish(t *testing.T) {
	t.Helper()
	h.addWith(t, "example.com/probe", func(root string) error {
		return os.WriteFile(filepath.Join(root, "file"), nil, 0o600)
	}, probeApp)
	h.addVolume(t, "kept")
}

// faultyPod is a pod with all that pods have: two apps that run until they are killed,
// a handler, volumes of the pod, of an app, of the host and a named one, and mount
// targets that are missing or in the way.
func faultyPod(ctx context.Context, h *host) (*schema.PodManifest, error) {
	m, err := h.template(ctx, "sleep", "sleep")
	if err != nil {
		return nil, err
	}
	m.Volumes = []types.Volume{EmptyVolume("v")}
	m.Volumes = append(m.Volumes, EmptyVolume("n"), types.Volume{Name: "h", Kind: "host", Source: h.Dir})
	m.Annotations.Set(volume.AnnotationPrefix+"n", "kept")
	own := EmptyVolume("w")
	m.Apps[0].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}, {Volume: "w", Path: "/file", AppVolume: &own}}
	m.Apps[1].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}, {Volume: "n", Path: "/deep/n"}, {Volume: "h", Path: "/h"}}
	m.Apps[1].App.EventHandlers = []types.EventHandler{{Name: "post-stop", Exec: types.Exec{"/bin/probe", "exit", "0"}}}
	return m, nil
}

// see sees a run to its end.
func see(run *Run) error {
	info, err := run.Wait()
	// What kept a handler from running is in the pod's state.
	for _, s := range info.State.Apps {
		if s.Error != "" {
			err = errors.Join(err, fmt.Errorf("%w: %s", errApp, s.Error))
		}
	}
	return err
}

var errApp = errors.New("an app failed")

// action is something that may fail at any of its operations.
type action struct {
	name string
	// setup makes what it works on: a pod, whose id it is given, or "".
	setup func(ctx context.Context, h *host) (id string, err error)
	do    func(ctx context.Context, h *host, id string) error
	// frees: it takes away, and has to do so on a full disk.
	frees bool
}

var actions = []action{
	{"prepare", none, func(ctx context.Context, h *host, _ string) error {
		_, err := prepareFaulty(ctx, h)
		return err
	}, false},
	{"run", none, func(ctx context.Context, h *host, _ string) error {
		m, err := faultyPod(ctx, h)
		if err != nil {
			return err
		}
		run, err := h.Run(ctx, m, noNetwork, false, IO{})
		if err != nil {
			return err
		}
		run.Kill()
		return errors.Join(see(run), run.Remove(ctx))
	}, false},
	{"start", exitFaulty, startFaulty, false},
	{"start after a crash", crashFaulty, startFaulty, false},
	{"start with kept roots", exitFaulty, func(ctx context.Context, h *host, id string) error {
		return h.startWith(ctx, id, true, see)
	}, false},
	{"stop", superviseFaulty, func(ctx context.Context, h *host, id string) error {
		return h.ending(ctx, id, func() error { return h.Stop(ctx, id, patience) })
	}, false},
	{"kill", superviseFaulty, func(ctx context.Context, h *host, id string) error {
		return h.ending(ctx, id, func() error { return h.Kill(ctx, id, syscall.SIGKILL) })
	}, false},
	{"remove", exitFaulty, removeFaulty, true},
	{"remove unstarted", prepareFaulty, removeFaulty, true},
	{"remove after a crash", crashFaulty, removeFaulty, true},
	{"gc", exitFaulty, collectFaulty, true},
	{"gc after a crash", crashFaulty, collectFaulty, true},
}

func none(context.Context, *host) (string, error) { return "", nil }

func prepareFaulty(ctx context.Context, h *host) (string, error) {
	m, err := faultyPod(ctx, h)
	if err != nil {
		return "", err
	}
	p, err := h.Prepare(ctx, m, noNetwork, false)
	if err != nil {
		return "", err
	}
	return p.UUID, p.Close()
}

func exitFaulty(ctx context.Context, h *host) (string, error) {
	id, err := prepareFaulty(ctx, h)
	if err != nil {
		return "", err
	}
	return id, startFaulty(ctx, h, id)
}

// crashFaulty leaves a pod as a supervisor leaves it that is killed.
func crashFaulty(ctx context.Context, h *host) (string, error) {
	id, err := prepareFaulty(ctx, h)
	if err != nil {
		return "", err
	}
	return id, h.startWith(ctx, id, false, func(run *Run) error {
		run.wg.Wait()
		// What the end of a process closes: the leases' locks among it.
		errs := []error{run.control.Close(), run.out.close()}
		for _, l := range run.pod.leases {
			errs = append(errs, l.Release(ctx))
		}
		return errors.Join(errs...)
	})
}

// superviseFaulty has a pod run in the background.
func superviseFaulty(ctx context.Context, h *host) (string, error) {
	id, err := prepareFaulty(ctx, h)
	if err != nil {
		return "", err
	}
	return id, h.supervise(ctx, id)
}

func (h *host) supervise(ctx context.Context, id string) error {
	p, err := h.Lock(ctx, id)
	if err != nil {
		return err
	}
	run, err := p.Start(ctx, IO{})
	if err != nil {
		return errors.Join(err, p.Close())
	}
	h.over = make(chan error, 1)
	go func() { h.over <- errors.Join(see(run), run.Close()) }()
	return nil
}

// ending ends a pod that runs in the background, after starting it if it does not.
func (h *host) ending(ctx context.Context, id string, end func() error) error {
	info, err := h.Inspect(ctx, id)
	if err != nil {
		return err
	}
	if info.State.Phase != Running {
		if err := h.supervise(ctx, id); err != nil {
			return err
		}
	}
	return errors.Join(end(), <-h.over)
}

func startFaulty(ctx context.Context, h *host, id string) error {
	return h.startWith(ctx, id, false, see)
}

// startWith starts a pod, kills its apps, and gives up its lock after end.
func (h *host) startWith(ctx context.Context, id string, keep bool, end func(*Run) error) error {
	p, err := h.Lock(ctx, id)
	if err != nil {
		return err
	}
	p.Options.KeepRootfs = keep
	run, err := p.Start(ctx, IO{})
	if err != nil {
		return errors.Join(err, p.Close())
	}
	run.Kill()
	return errors.Join(end(run), run.Close())
}

func removeFaulty(ctx context.Context, h *host, id string) error { return h.Remove(ctx, id) }

func collectFaulty(ctx context.Context, h *host, _ string) error {
	_, err := h.GC(ctx, 0)
	return err
}

// drives collects what tests have driven.
type drives struct {
	mu    sync.Mutex
	steps map[string]bool
	total map[imagetest.Mode]int
}

// add adds what one test has driven, of all steps there are.
func (d *drives) add(all []string, faults *imagetest.Faults, mode imagetest.Mode, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, step := range all {
		if faults.Seen(step) {
			d.steps[step] = true
		}
	}
	d.total[mode] += n
}

func TestFaults(t *testing.T) {
	testenv.Root(t)
	steps, err := imagetest.Steps(".")
	if err != nil || len(steps) == 0 {
		t.Fatal(steps, err)
	}
	driven := drives{steps: map[string]bool{}, total: map[imagetest.Mode]int{}}
	t.Run("all", func(t *testing.T) { // ends with the last of them
		for _, a := range actions {
			for _, mode := range []imagetest.Mode{imagetest.Before, imagetest.After, imagetest.Full, imagetest.NoRoom} {
				t.Run(fmt.Sprintf("%s/%s", a.name, mode), func(t *testing.T) {
					t.Parallel()
					faults := new(imagetest.Faults)
					h, err := openFaulty(memoryDir(t), faults)
					if err != nil {
						t.Fatal(err)
					}
					h.furnish(t)
					k := 1
					for ; a.fail(t, h, faults, mode, k); k++ {
						if k == maxOps {
							t.Fatal("no end of operations")
						}
					}
					driven.add(steps, faults, mode, k-1)
				})
			}
		}
	})
	t.Logf("%d steps; failures: %v", len(steps), driven.total)
	// Every step that the sources name was made to fail.
	for _, step := range steps {
		if !driven.steps[step] {
			t.Errorf("step %q was never driven", step)
		}
	}
}

// fail fails operation k of an action; false when there are less. The host is
// clean before and after.
func (a action) fail(t *testing.T, h *host, faults *imagetest.Faults, mode imagetest.Mode, k int) bool {
	id, err := a.setup(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	faults.Arm(mode, k)
	done := make(chan error, 1)
	go func() { done <- a.do(t.Context(), h, id) }()
	select {
	case err = <-done:
	case <-time.After(patience):
		t.Fatalf("operation %d: %s failed, and all hangs", k, faults.Disarm())
	}
	failed := faults.Disarm()
	if failed == "" {
		if err != nil {
			t.Fatal(err)
		}
		h.empty(t)
		return false
	}
	a.reports(t, mode, failed, err)
	a.leaves(t, h, id, mode, failed)
	a.recovers(t, h, id)
	if t.Failed() {
		t.Fatalf("after operation %d: %s", k, failed)
	}
	return true
}

// reports checks what a failed action says.
func (a action) reports(t *testing.T, mode imagetest.Mode, failed string, err error) {
	t.Helper()
	full := mode == imagetest.Full || mode == imagetest.NoRoom
	switch {
	case a.frees && mode == imagetest.NoRoom:
		if err != nil {
			t.Errorf("on a full disk: %v", err)
		}
	case err == nil && failed == "write state":
		// A removal that cannot mark the pod goes on without.
	case !errors.Is(err, imagetest.ErrFault) && !errors.Is(err, errApp):
		t.Errorf("got error %v", err)
	case full && !strings.Contains(err.Error(), syscall.ENOSPC.Error()):
		t.Errorf("the error does not say that the disk is full: %v", err)
	}
}

// leaves checks what there is after a failure before anybody looks after it.
func (a action) leaves(t *testing.T, h *host, id string, mode imagetest.Mode, failed string) {
	t.Helper()
	if mode == imagetest.NoRoom && (id == "" || a.frees) {
		h.isClean(t) // there was room enough for that
	}
	if mode != imagetest.Before && mode != imagetest.After || failed == "write state" || failed == "Destroy sandbox" || strings.HasSuffix(a.name, "crash") {
		return
	}
	ids, err := h.ids()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if phase := h.phase(t, id); phase == Running || phase == Crashed {
			t.Errorf("the pod is %s", phase)
		}
	}
}

// recovers checks that after a failure one collection leaves all in order, and that
// the action can then be done: with the same pod, or with another where it is gone.
func (a action) recovers(t *testing.T, h *host, id string) {
	t.Helper()
	if _, err := h.GC(t.Context(), time.Hour); err != nil {
		t.Errorf("gc: %v", err)
	}
	h.inOrder(t)
	if _, err := h.Inspect(t.Context(), id); id != "" && errors.Is(err, ErrNotFound) {
		if id, err = a.setup(t.Context(), h); err != nil {
			t.Errorf("once more: %v", err)
			return
		}
	}
	if err := a.do(t.Context(), h, id); err != nil {
		t.Errorf("once more: %v", err)
	}
	h.inOrder(t)
	h.empty(t)
}

// inOrder checks that there is nothing but what ought to be.
func (h *host) inOrder(t *testing.T) {
	t.Helper()
	found, err := h.Check(t.Context())
	if err != nil || len(found) > 0 {
		t.Errorf("check: %q, %v", found, err)
	}
	images, err := h.images.Debris(t.Context())
	if err != nil || len(images) > 0 {
		t.Errorf("images' debris: %v, %v", images, err)
	}
	volumes, err := h.named.Debris(t.Context())
	if err != nil || len(volumes) > 0 {
		t.Errorf("volumes' debris: %v, %v", volumes, err)
	}
	if v, err := h.named.Get(t.Context(), "kept"); err != nil || v.InUse {
		t.Errorf("the named volume: in use %v, %v", v.InUse, err)
	}
}

// empty removes all pods.
func (h *host) empty(t *testing.T) {
	t.Helper()
	ids, err := h.ids()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := h.Remove(t.Context(), id); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	h.isClean(t)
}

func init() { reexec.Register("pod-to-be-killed", killed) }

// killed does an action in a process that is killed at one of its operations:
// pod-to-be-killed ROOT ACTION K.
func killed() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	k, err := strconv.Atoi(os.Args[3])
	fail(err)
	faults := new(imagetest.Faults)
	h, err := openFaulty(os.Args[1], faults)
	fail(err)
	for _, a := range actions {
		if a.name != os.Args[2] {
			continue
		}
		id, err := a.setup(context.Background(), h)
		fail(err)
		faults.Arm(imagetest.Kill, k)
		fail(a.do(context.Background(), h, id))
	}
}

func TestKill(t *testing.T) {
	testenv.Root(t)
	for _, a := range actions {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			root := memoryDir(t)
			h, err := openHost(root, asIs, sandboxtest.NewFake())
			if err != nil {
				t.Fatal(err)
			}
			h.furnish(t)
			k := 1
			for ; a.killAt(t, h, root, k); k++ {
				if k == maxOps {
					t.Fatal("no end of operations")
				}
			}
			t.Logf("killed %d times", k-1)
		})
	}
}

// killAt kills a process at operation k of an action; false when there are less.
func (a action) killAt(t *testing.T, h *host, root string, k int) bool {
	cmd := reexec.Command("pod-to-be-killed", root, a.name, strconv.Itoa(k))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("operation %d: %v: %s", k, cmd.ProcessState, stderr.Bytes())
	}
	ids, err := h.ids()
	if err != nil {
		t.Fatal(err)
	}
	id := ""
	for _, id = range ids {
		if phase := h.phase(t, id); phase == Running {
			t.Errorf("the pod is %s", phase)
		}
	}
	if id != "" && h.phase(t, id) == Crashed && k%2 == 0 {
		// It can be started over what its supervisor has left.
		if err := startFaulty(t.Context(), h, id); err != nil {
			t.Errorf("start after the crash: %v", err)
		}
	}
	a.recovers(t, h, id)
	if t.Failed() {
		t.Fatalf("killed at operation %d", k)
	}
	return true
}

// A pod that lost its state to a full disk while it is removed is left to who removes
// it; afterwards all of it is collected.
func TestCollectWithoutState(t *testing.T) {
	h := newHost(t)
	h.addVolume(t, "kept")
	id, err := exitFaulty(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Lock(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.dropState(id); err != nil {
		t.Fatal(err)
	}
	if removed, err := h.GC(t.Context(), 0); err != nil || len(removed) > 0 {
		t.Errorf("removed %q, %v", removed, err)
	}
	if found, err := h.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("check: %q, %v", found, err)
	}
	if err := h.Remove(t.Context(), id); !errors.Is(err, ErrBusy) {
		t.Errorf("removed twice at a time: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if removed, err := h.GC(t.Context(), 0); err != nil || !slices.Equal(removed, []string{id}) {
		t.Errorf("removed %q, %v", removed, err)
	}
	h.isClean(t)
}
