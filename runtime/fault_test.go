package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
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

// faultyPod is a pod with all that pods have: two apps that run until they are killed,
// a handler, volumes of the pod, of an app, of the host and a named one.
func faultyPod(ctx context.Context, h *host) (*schema.PodManifest, error) {
	m, err := h.template(ctx, "sleep", "sleep")
	if err != nil {
		return nil, err
	}
	m.Volumes = []types.Volume{EmptyVolume("v")}
	m.Volumes = append(m.Volumes, EmptyVolume("n"), types.Volume{Name: "h", Kind: "host", Source: h.Dir})
	m.Annotations.Set(volume.AnnotationPrefix+"n", "kept")
	own := EmptyVolume("w")
	m.Apps[0].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}, {Volume: "w", Path: "/w", AppVolume: &own}}
	m.Apps[1].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}, {Volume: "n", Path: "/n"}, {Volume: "h", Path: "/h"}}
	m.Apps[1].App.EventHandlers = []types.EventHandler{{Name: "post-stop", Exec: types.Exec{"/bin/probe", "exit", "0"}}}
	return m, nil
}

// see ends a run that has begun.
func see(run *Run) error {
	run.Kill()
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

// action is something that may fail at any of its operations. With setup there is
// a pod beforehand, whose id it is given.
type action struct {
	name  string
	kill  bool // to be tried by killing, which takes long
	setup func(ctx context.Context, h *host) (id string, err error)
	do    func(ctx context.Context, h *host, id string) error
}

var actions = []action{
	{"run", true, none, func(ctx context.Context, h *host, _ string) error {
		m, err := faultyPod(ctx, h)
		if err != nil {
			return err
		}
		run, err := h.Run(ctx, m, noNetwork, false, IO{})
		if err != nil {
			return err
		}
		return errors.Join(see(run), run.Remove(ctx))
	}},
	{"start", false, exitFaulty, startFaulty},
	{"remove", true, exitFaulty, func(ctx context.Context, h *host, id string) error {
		if err := h.Remove(ctx, id); !errors.Is(err, ErrNotFound) { // the first time it may be done already
			return err
		}
		return nil
	}},
	{"gc", false, exitFaulty, func(ctx context.Context, h *host, _ string) error {
		_, err := h.GC(ctx, 0)
		return err
	}},
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

func startFaulty(ctx context.Context, h *host, id string) error {
	p, err := h.Lock(ctx, id)
	if err != nil {
		return err
	}
	run, err := p.Start(ctx, IO{})
	if err != nil {
		return errors.Join(err, p.Close())
	}
	return errors.Join(see(run), run.Close())
}

func TestFaults(t *testing.T) {
	testenv.Root(t)
	for _, a := range actions {
		for _, mode := range []imagetest.Mode{imagetest.Before, imagetest.After, imagetest.Onwards} {
			t.Run(fmt.Sprintf("%s/%s", a.name, mode), func(t *testing.T) {
				t.Parallel()
				faults := new(imagetest.Faults)
				h, err := openHost(t.TempDir(), func(d storage.Driver) storage.Driver { return imagetest.Driver(d, faults) },
					&engine{sandboxtest.NewFake(), faults})
				if err != nil {
					t.Fatal(err)
				}
				h.add(t, "example.com/probe", probeApp)
				h.addVolume(t, "kept")
				for k := 1; a.fail(t, h, faults, mode, k); k++ {
					if k == maxOps {
						t.Fatal("no end of operations")
					}
				}
			})
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
		return false
	}
	if !errors.Is(err, imagetest.ErrFault) && !errors.Is(err, errApp) {
		t.Errorf("got error %v", err)
	}
	if id != "" && mode != imagetest.Onwards {
		info, err := h.Inspect(t.Context(), id)
		if err == nil && (info.State.Phase == Running || info.State.Phase == Crashed) {
			t.Errorf("the pod is %s", info.State.Phase)
		}
	}
	h.recovers(t, id)
	if t.Failed() {
		t.Fatalf("after operation %d: %s", k, failed)
	}
	return true
}

// recovers checks that after a failure what is there can be collected, or taken
// away. That the action can then be done is for the next k to show, which goes one
// operation further on the same host, and for the last one, which goes to the end.
func (h *host) recovers(t *testing.T, id string) {
	t.Helper()
	if _, err := h.GC(t.Context(), 0); err != nil {
		t.Errorf("gc: %v", err)
	}
	if id != "" {
		if err := h.Remove(t.Context(), id); err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("remove: %v", err)
		}
	}
	h.isClean(t)
	if v, err := h.named.Get(t.Context(), "kept"); err != nil || v.InUse {
		t.Errorf("the named volume: in use %v, %v", v.InUse, err)
	}
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
	h, err := openHost(os.Args[1], func(d storage.Driver) storage.Driver { return imagetest.Driver(d, faults) },
		&engine{sandboxtest.NewFake(), faults})
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
		if !a.kill {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			h, err := openHost(root, asIs, sandboxtest.NewFake())
			if err != nil {
				t.Fatal(err)
			}
			h.add(t, "example.com/probe", probeApp)
			h.addVolume(t, "kept")
			for k := 1; a.killAt(t, h, root, k); k++ {
				if k == maxOps {
					t.Fatal("no end of operations")
				}
			}
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
	for _, id := range ids {
		info, err := h.Inspect(t.Context(), id)
		if err != nil || info.State.Phase == Running {
			t.Errorf("the pod is %s, %v", info.State.Phase, err)
		}
	}
	if len(ids) > 0 && k%5 == 0 && h.phase(t, ids[0]) == Crashed {
		h.startAfterCrash(t, ids[0])
	}
	id := ""
	if len(ids) > 0 {
		id = ids[0]
	}
	h.recovers(t, id)
	if t.Failed() {
		t.Fatalf("killed at operation %d", k)
	}
	return true
}

// startAfterCrash starts a crashed pod over what its supervisor has left.
func (h *host) startAfterCrash(t *testing.T, id string) {
	t.Helper()
	if err := startFaulty(t.Context(), h, id); err != nil {
		t.Errorf("start after the crash: %v", err)
	}
	if phase := h.phase(t, id); phase != Exited {
		t.Errorf("after its second start it is %s", phase)
	}
}
