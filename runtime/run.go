package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// Run is a pod whose apps run, supervised by this process.
type Run struct {
	pod     *Pod
	apps    []*appRun
	out     *output
	control net.Listener
	forget  func()         // ends the registration with the metadata service; or nil
	wg      sync.WaitGroup // one per app

	stopOnce sync.Once
	stopping chan struct{} // closed when the pod was asked to stop
}

// appRun is one app's supervision: its event handlers and its main process.
type appRun struct {
	*app
	run     *Run
	stdio   stdio
	status  AppStatus
	sockets sockets

	mu   sync.Mutex
	task sandbox.Task // what runs now: handler or main, or nil
}

func (p *Pod) newRun(files IO, apps []*app) (*Run, error) {
	r := &Run{pod: p, stopping: make(chan struct{}), out: newOutput(files, len(apps) > 1)}
	for _, a := range apps {
		r.apps = append(r.apps, &appRun{app: a, run: r})
	}
	l, err := p.listen()
	if err != nil {
		return nil, err
	}
	r.control = l
	return r, nil
}

// start starts every app at once: they may wait for each other. An app without
// pre-start handler that cannot be started fails the whole pod at once.
func (r *Run) start(ctx context.Context) error {
	for _, a := range r.apps {
		var err error
		if a.stdio, err = r.out.open(a.app); err != nil {
			return fmt.Errorf("app %s: %w", a.name, err)
		}
	}
	for _, a := range r.apps {
		if err := a.listen(ctx); err != nil {
			return fmt.Errorf("app %s: %w", a.name, err)
		}
	}
	for _, a := range r.apps {
		if a.event("pre-start") != nil {
			continue
		}
		if err := a.startMain(ctx); err != nil {
			return fmt.Errorf("app %s: %w", a.name, err)
		}
	}
	for _, a := range r.apps {
		r.wg.Go(a.supervise)
	}
	go r.serve()
	return nil
}

// shut ends what is left of the sandbox, and then the output, which ends when
// nothing in the sandbox can write any more.
func (r *Run) shut(ctx context.Context) error {
	err := r.control.Close()
	for _, a := range r.apps {
		err = errors.Join(err, a.sockets.close())
	}
	destroyErr := r.pod.rt.Engine.Destroy(ctx, r.pod.UUID)
	if r.forget != nil {
		r.forget()
	}
	err = errors.Join(err, destroyErr, r.out.close())
	if destroyErr == nil { // else something may still run, and write for ever
		r.out.drain()
	}
	return err
}

// Wait returns when every app has ended and nothing of the pod runs, is mounted or
// listens any more; the pod is then Exited, and its lock still held. When its sandbox
// cannot be taken away, something may still run: to others it is then Crashed.
func (r *Run) Wait() (Info, error) {
	r.prepareRemove() // many pods end as soon as they have begun
	r.wg.Wait()
	r.prepareRemove()
	ctx := context.Background()
	p := r.pod
	shutErr := r.shut(ctx)
	err := errors.Join(shutErr, p.release(ctx))
	state := p.State
	state.Ended, state.Apps = time.Now().UTC(), map[string]AppStatus{}
	if shutErr == nil {
		state.Phase = Exited
	}
	for _, a := range r.apps {
		state.Apps[a.name] = a.status
	}
	err = errors.Join(err, p.setState(state))
	return p.Info, err
}

// prepareRemove prepares the removal of a pod that goes with its end.
func (r *Run) prepareRemove() {
	p := r.pod
	d, ok := p.rt.Storage.(storage.Preparer)
	if !ok || !p.Options.Transient {
		return
	}
	trees, _ := p.rt.podTrees(context.Background(), p.Info) // asked for again when it counts
	for _, tree := range trees {
		d.PrepareDestroy(tree)
	}
}

// UUID is the pod's.
func (r *Run) UUID() string { return r.pod.UUID }

// HasTerminal tells whether an app of the pod has the terminal.
func (r *Run) HasTerminal() bool { return len(r.pod.Options.Terminal) > 0 }

// Remove takes the pod away, after Wait.
func (r *Run) Remove(ctx context.Context) error { return r.pod.Remove(ctx) }

// Close gives up the pod's lock, after Wait. The pod stays as it is.
func (r *Run) Close() error { return r.pod.Close() }

// Stop asks every app to end: SIGTERM, or the signal that its image names, and SIGKILL
// after grace. It does not wait.
func (r *Run) Stop(grace time.Duration) {
	r.stopOnce.Do(func() {
		close(r.stopping)
		for _, a := range r.apps {
			a.signal(a.stopSignal)
		}
		time.AfterFunc(grace, r.Kill)
	})
}

// Kill ends every app at once, without asking.
func (r *Run) Kill() {
	r.stopOnce.Do(func() { close(r.stopping) })
	r.Signal(syscall.SIGKILL)
}

// Signal sends a signal to what runs in each app now.
func (r *Run) Signal(sig syscall.Signal) {
	for _, a := range r.apps {
		a.signal(sig)
	}
}

func (a *appRun) signal(sig syscall.Signal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.task == nil {
		return
	}
	// One that has just ended needs no signal.
	if err := a.task.Signal(context.Background(), sig); err != nil && !errors.Is(err, sandbox.ErrExited) {
		a.run.pod.rt.Notice(fmt.Sprintf("app %s: signal: %v", a.name, err))
	}
}

func (r *Run) isStopping() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// Resize tells the app with the terminal that the user's changed.
func (r *Run) Resize(size console.WinSize) {
	for _, a := range r.apps {
		a.mu.Lock()
		if a.task != nil && a.task.Console() != nil {
			_ = a.task.Console().Resize(size) // a terminal that is gone has no size
		}
		a.mu.Unlock()
	}
}

// supervise sees one app through: pre-start, main, post-stop.
func (a *appRun) supervise() {
	ctx := context.Background()
	if a.task == nil {
		if err := a.runHandler(ctx, "pre-start"); err != nil {
			a.fail(err)
			return
		}
		if err := a.startMain(ctx); err != nil {
			a.fail(err)
			return
		}
	}
	exit, err := a.wait(ctx)
	if err != nil {
		exit = sandbox.Exit{Unknown: true}
	}
	a.status.Status, a.status.Signal = exit.Status(), int(exit.Signal)
	if err != nil {
		a.fail(err)
	}
	if err := a.runHandler(ctx, "post-stop"); err != nil {
		a.fail(err)
	}
}

// fail records why an app did not run as it should and tells the user.
func (a *appRun) fail(err error) {
	if a.status.Error != "" {
		a.status.Error += "; "
	}
	a.status.Error += err.Error()
	if a.status.Status == 0 {
		a.status.Status = FailureStatus(err)
	}
	a.run.pod.rt.Notice(fmt.Sprintf("app %s: %v", a.name, err))
}

// FailureStatus is the exit code for an app that could not be run, as shells report it.
func FailureStatus(err error) int {
	switch {
	case errors.Is(err, sandbox.ErrCommandNotFound):
		return 127
	case errors.Is(err, sandbox.ErrCommandNotExecutable):
		return 126
	}
	return 125
}

func (a *appRun) startMain(ctx context.Context) error {
	proc := a.process(a.own.Exec)
	proc.Terminal, proc.Size = a.terminal, a.stdio.size
	proc.Stdin, proc.Stdout, proc.Stderr = a.stdio.in, a.stdio.out, a.stdio.err
	if err := a.activate(&proc); err != nil {
		return err
	}
	if err := a.startTask(ctx, proc, false); err != nil {
		return err
	}
	if err := a.sockets.close(); err != nil {
		return err
	}
	if c := a.task.Console(); c != nil {
		a.stdio.attach(c)
	}
	return nil
}

// runHandler runs an event handler to its end, if the app has it.
func (a *appRun) runHandler(ctx context.Context, event string) error {
	args := a.event(event)
	if args == nil {
		return nil
	}
	proc := a.handler(args)
	proc.Stdout, proc.Stderr = a.stdio.handlerOut, a.stdio.handlerErr
	if err := a.startTask(ctx, proc, event == "post-stop"); err != nil {
		return fmt.Errorf("%s: %w", event, err)
	}
	if a.run.isStopping() {
		// Nobody is left to end a handler that hangs.
		defer time.AfterFunc(a.run.pod.rt.Grace, func() { a.signal(syscall.SIGKILL) }).Stop()
	}
	exit, err := a.wait(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", event, err)
	}
	if exit.Signal != 0 {
		return fmt.Errorf("%s: killed by %s", event, signalName(exit.Signal))
	}
	if exit.Status() != 0 {
		return fmt.Errorf("%s: exit status %d", event, exit.Status())
	}
	return nil
}

func signalName(sig syscall.Signal) string {
	return first(unix.SignalName(sig), fmt.Sprintf("signal %d", sig)) // real-time signals have no name
}

// startTask makes the started process the one that signals go to. Once the pod was
// asked to stop, nothing begins but what cleans up.
func (a *appRun) startTask(ctx context.Context, proc sandbox.Process, cleansUp bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.run.isStopping() && !cleansUp {
		return errors.New("stopped before it began")
	}
	task, err := a.run.pod.rt.Engine.Start(ctx, a.run.pod.UUID, proc)
	if err != nil {
		return err
	}
	a.task = task
	return nil
}

func (a *appRun) wait(ctx context.Context) (sandbox.Exit, error) {
	exit, err := a.task.Wait(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.task = nil
	return exit, err
}
