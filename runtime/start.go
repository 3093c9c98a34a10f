package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/containerd/console"
	"github.com/moby/sys/signal"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/inroot"
	"github.com/jetpack-run/jetpack/internal/revert"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// Kinds of trees that belong to pods.
const (
	rootKind   = "pods"
	volumeKind = "volumes"
)

func rootTree(podID string, app types.ACName) string {
	return rootKind + "/" + podID + "." + app.String()
}

// IO is where a pod's apps read and write. A single app gets the files
// themselves; several share Stdout and Stderr line by line.
type IO struct {
	Stdin, Stdout, Stderr *os.File
	// Size is that of the user's terminal, for apps that get one.
	Size console.WinSize
}

// Prepare reifies m and makes the pod; nothing runs. The pod's lock is held until
// its Close. Errors: those of Reify, ErrNameTaken, ErrInvalid.
func (r *Runtime) Prepare(ctx context.Context, m *schema.PodManifest, o Options, strict bool) (*Pod, error) {
	p, _, err := r.prepare(ctx, m, o, strict, Prepared)
	return p, err
}

// Run is Prepare and Start in one: a pod that does not come up is gone again, and
// one that a crash catches on its way is never taken for one that waits for its start.
func (r *Runtime) Run(ctx context.Context, m *schema.PodManifest, o Options, strict bool, stdio IO) (*Run, error) {
	p, images, err := r.prepare(ctx, m, o, strict, Running)
	if err != nil {
		return nil, err
	}
	run, err := p.start(ctx, images, stdio)
	if err != nil {
		return nil, errors.Join(err, p.Remove(context.WithoutCancel(ctx)))
	}
	return run, nil
}

// prepare also gives the apps' images, in the manifest's order.
func (r *Runtime) prepare(ctx context.Context, m *schema.PodManifest, o Options, strict bool, phase Phase) (*Pod, []*image.Image, error) {
	images, err := r.reify(ctx, m, strict)
	if err != nil {
		return nil, nil, err
	}
	if err := r.offerClient(m, images, o.MetadataClient); err != nil {
		return nil, nil, err
	}
	outcomes, err := r.check(ctx, m, images, o, strict)
	if err != nil {
		return nil, nil, err
	}
	if len(o.Terminal) > 1 {
		return nil, nil, fmt.Errorf("%w: only one app of a pod can have the terminal", ErrInvalid)
	}
	if len(o.Interactive) > 1 {
		return nil, nil, fmt.Errorf("%w: only one app of a pod can read standard input", ErrInvalid)
	}
	o.Created, o.Strict = time.Now().UTC(), strict
	state := State{Phase: phase, Isolators: outcomes}
	if phase == Running {
		state.BootID, state.Started = r.BootID, o.Created
	}
	p, err := r.create(ctx, m, o, state)
	if err != nil {
		return nil, nil, err
	}
	if err := r.stillThere(ctx, m, images); err != nil {
		return nil, nil, errors.Join(err, p.Remove(context.WithoutCancel(ctx)))
	}
	return p, images, nil
}

// stillThere looks again for what the pod refers to: its manifest keeps that from
// now on, and it may have gone before.
func (r *Runtime) stillThere(ctx context.Context, m *schema.PodManifest, images []*image.Image) error {
	for _, img := range images {
		if _, err := r.Images.Get(ctx, img.ID); err != nil {
			return fmt.Errorf("image %s: %w", img.Name(), err)
		}
	}
	return r.namedExist(ctx, m)
}

// osVersion is the label that says which release of its system an image expects;
// OCI images have a property of that name.
const osVersion = "os.version"

// isolation is what the engine is asked for, without what exists only later.
func isolation(m *schema.PodManifest, images []*image.Image, o Options, l limits) sandbox.Pod {
	pod := sandbox.Pod{Network: o.Network, Profile: o.Profile, Isolators: l.pod, Annotations: map[string]string{}}
	for _, a := range m.Annotations {
		pod.Annotations[a.Name.String()] = a.Value
	}
	for i, app := range m.Apps {
		pod.Apps = append(pod.Apps, sandbox.App{
			Name: app.Name.String(), OS: images[i].Label("os"), OSVersion: images[i].Label(osVersion),
			Isolators: l.apps[i],
		})
	}
	return pod
}

// app is an app about to run.
type app struct {
	name     string
	own      *types.App
	root     string
	mounts   []sandbox.Mount
	id       identity
	readOnly bool
	terminal bool
	stdin    bool
	// stopSignal asks the app to end.
	stopSignal syscall.Signal
	// metadataURL is where the metadata service is; "" if there is none.
	metadataURL string
}

// stopSignal is the signal that an image's app is asked to end with: SIGTERM, unless the
// image says otherwise.
func stopSignal(img *image.Image) syscall.Signal {
	name, _ := img.Parsed().Annotations.Get(image.StopSignal)
	if sig, err := signal.ParseSignal(name); err == nil {
		return sig
	}
	return syscall.SIGTERM
}

// Start runs a pod that is prepared, or has exited or crashed, each time from
// fresh copies of its images and empty volumes unless Options.KeepRootfs, and returns when every app was
// started or the pod is gone again. ctx bounds the start only. Errors: ErrInvalid,
// those of the sandbox; after one, nothing of the pod runs and it is as before.
func (p *Pod) Start(ctx context.Context, stdio IO) (*Run, error) {
	before := p.State
	if before.Phase == Garbage {
		return nil, fmt.Errorf("%s: %w: it is %s; 'jetpack pod gc' removes it", p.UUID, ErrInvalid, before.Phase)
	}
	images, err := p.rt.reify(ctx, p.Manifest, false)
	if err != nil {
		return nil, err
	}
	outcomes, err := p.rt.check(ctx, p.Manifest, images, p.Options, p.Options.Strict)
	if err != nil {
		return nil, err
	}
	// Its last supervisor may have crashed, or have failed to take its sandbox away.
	if err := p.rt.Engine.Destroy(ctx, p.UUID); err != nil {
		return nil, fmt.Errorf("pod %s: destroy its old sandbox: %w", p.UUID, err)
	}
	if err := p.setState(State{Phase: Running, BootID: p.rt.BootID, Started: time.Now().UTC(), Isolators: outcomes}); err != nil {
		return nil, err
	}
	run, err := p.start(ctx, images, stdio)
	if err != nil {
		return nil, errors.Join(err, p.setState(before))
	}
	return run, nil
}

func (p *Pod) start(ctx context.Context, images []*image.Image, stdio IO) (_ *Run, err error) {
	var undo revert.Stack
	defer undo.Run(&err)
	// What is undone is undone to the end, whatever happened to ctx.
	forever := context.WithoutCancel(ctx)
	undo.Add(func() error { return p.release(forever) })

	apps, err := p.prepareRoots(ctx, images)
	if err != nil {
		return nil, err
	}
	l, err := limitsOf(p.Manifest, images, p.Options)
	if err != nil {
		return nil, err
	}
	pod := isolation(p.Manifest, images, p.Options, l)
	pod.ID, pod.Hostname = p.UUID, p.Hostname()
	for i, a := range apps {
		app := &pod.Apps[i]
		app.Root, app.ReadOnly, app.Mounts = a.root, a.readOnly, a.mounts
	}
	run, err := p.newRun(stdio, apps)
	if err != nil {
		return nil, err
	}
	undo.Add(func() error { return run.shut(forever) })
	if err := p.rt.Engine.Create(ctx, pod); err != nil {
		return nil, fmt.Errorf("create sandbox: %w", err)
	}
	if err := run.register(ctx, images); err != nil {
		return nil, err
	}
	if err := run.start(ctx); err != nil {
		return nil, err
	}
	undo.Disarm()
	return run, nil
}

// prepareRoots gives every app a fresh clone of its image, with its mount targets
// made and its identity known.
func (p *Pod) prepareRoots(ctx context.Context, images []*image.Image) ([]*app, error) {
	made, err := p.beginRoots()
	if err != nil {
		return nil, err
	}
	keep := made != nil
	if err := p.makeVolumes(ctx, keep); err != nil {
		return nil, err
	}
	if !keep {
		made = roots{}
	}
	var apps []*app
	for i := range p.Manifest.Apps {
		ra := &p.Manifest.Apps[i]
		a, err := p.prepareRoot(ctx, ra, images[i], made)
		if err != nil {
			return nil, err
		}
		apps = append(apps, a)
	}
	return apps, p.recordRoots(made)
}

// cloneRoot gives an app the fresh copy of its image.
func (p *Pod) cloneRoot(ctx context.Context, img *image.Image, tree string) error {
	err := p.makeTree(ctx, tree, func() error {
		return p.rt.Storage.Clone(ctx, image.Tree(img.ID), tree, storage.Options{Meta: p.meta()})
	})
	if err != nil {
		return fmt.Errorf("clone image %s: %w", img.Name(), err)
	}
	return nil
}

// makeTree makes a tree in place of an old one, which a pod that was never started
// does not have.
func (p *Pod) makeTree(ctx context.Context, tree string, create func() error) error {
	err := create()
	if !errors.Is(err, storage.ErrExists) {
		return err
	}
	if err := storage.Remove(ctx, p.rt.Storage, tree); err != nil {
		return err
	}
	return create()
}

// prepareRoot makes the root of an app, unless made already has it, and adds to
// made what jetpack makes in it.
func (p *Pod) prepareRoot(ctx context.Context, ra *schema.RuntimeApp, img *image.Image, made roots) (_ *app, err error) {
	name := ra.Name.String()
	tree := rootTree(p.UUID, ra.Name)
	_, kept := made[name]
	if !kept {
		if err := p.cloneRoot(ctx, img, tree); err != nil {
			return nil, fmt.Errorf("app %s: %w", name, err)
		}
	}
	dir, err := p.rt.Storage.Mount(ctx, tree)
	if err != nil {
		return nil, fmt.Errorf("app %s: %w", name, err)
	}
	if p.Options.Fill != nil && !kept {
		if err := p.Options.Fill(dir); err != nil {
			return nil, fmt.Errorf("app %s: %w", name, err)
		}
	}
	root, err := inroot.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("app %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	own := effectiveApp(ra, img)
	a := &app{
		name: name, own: own, root: dir, readOnly: ra.ReadOnlyRootFS,
		terminal: slices.Contains(p.Options.Terminal, name),
		stdin:    slices.Contains(p.Options.Interactive, name),

		stopSignal: stopSignal(img),
	}
	// Before the mounts: an /etc of the host is not for jetpack to write to.
	if err := p.writeEtc(root); err != nil {
		return nil, fmt.Errorf("app %s: %w", name, err)
	}
	targets, err := p.mounts(root, ra, own)
	if err != nil {
		return nil, err
	}
	if a.activated() {
		m, err := p.mountSelf(root, name, activator)
		if err != nil {
			return nil, err
		}
		targets = append(targets, m)
	}
	if err := made.add(name, dir, root); err != nil {
		return nil, fmt.Errorf("app %s: %w", name, err)
	}
	if a.mounts, err = bind(root, name, targets); err != nil {
		return nil, err
	}
	if a.id, err = lookUp(root, own); err != nil {
		return nil, fmt.Errorf("app %s: %w", name, err)
	}
	if a.event("pre-start") != nil {
		return a, nil // it may make the command
	}
	if _, err := sandbox.ResolveCommand(sandbox.App{Name: name, Root: dir, Mounts: a.mounts}, a.process(own.Exec)); err != nil {
		return nil, fmt.Errorf("app %s: %w", name, err)
	}
	return a, nil
}

func (a *app) event(name string) types.Exec {
	for _, h := range a.own.EventHandlers {
		if h.Name == name {
			return h.Exec
		}
	}
	return nil
}

// writeEtc gives an image with an /etc the hosts file it lacks, and unless it
// has no network the host's resolver; files of the image's own stay (appc spec, "Networking").
func (p *Pod) writeEtc(root *inroot.Root) error {
	st, err := root.Lstat("/etc")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil //nolint:nilerr // an image without /etc gets no files there
	}
	hosts := fmt.Sprintf("127.0.0.1 localhost\n::1 localhost\n127.0.0.1 %s\n", p.Hostname())
	if err := p.writeMissing(root, "/etc/hosts", []byte(hosts)); err != nil {
		return err
	}
	if p.Options.Network == sandbox.NetworkNone {
		return nil
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.writeMissing(root, "/etc/resolv.conf", resolv)
}

func (p *Pod) writeMissing(root *inroot.Root, path string, data []byte) error {
	_, err := root.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p.rt.step("write file of /etc", func() error { return root.WriteFile(path, data, 0o644) })
	}
	return err
}

// defaultPath is what the specification sets ("Execution Environment").
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// process is how a command of an app is run as the app's user.
func (a *app) process(args []string) sandbox.Process {
	return sandbox.Process{
		App:    a.name,
		Args:   args,
		Env:    a.environment(),
		Dir:    first(a.own.WorkingDirectory, "/"),
		UID:    a.id.uid,
		GID:    a.id.gid,
		Groups: a.id.groups,
	}
}

// handler is the same for an event handler, which runs as root whoever the app is.
func (a *app) handler(args []string) sandbox.Process {
	p := a.process(args)
	p.UID, p.GID, p.Groups = 0, 0, nil
	return p
}

// environment is complete and sorted as set: what jetpack gives, then the app's own,
// which wins, but for what tells an app where it is.
func (a *app) environment() []string {
	var env types.Environment
	env.Set("PATH", defaultPath)
	env.Set("HOME", a.id.home)
	env.Set("SHELL", a.id.shell)
	if a.id.name != "" {
		env.Set("USER", a.id.name)
		env.Set("LOGNAME", a.id.name)
	}
	if a.terminal {
		env.Set("TERM", first(os.Getenv("TERM"), "vt100"))
	}
	for _, e := range a.own.Environment {
		env.Set(e.Name, e.Value)
	}
	env.Set("AC_APP_NAME", a.name)
	env.Set("container", "jetpack")
	if a.metadataURL != "" {
		env.Set("AC_METADATA_URL", a.metadataURL)
	}
	out := make([]string, len(env))
	for i, e := range env {
		out[i] = e.Name + "=" + e.Value
	}
	return out
}

// release unmounts what the pod has mounted; its trees stay until it is removed.
func (p *Pod) release(ctx context.Context) error {
	trees, err := p.rt.podTrees(ctx, p.Info)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range trees {
		errs = append(errs, p.rt.Storage.Unmount(ctx, t))
	}
	for _, l := range p.leases {
		errs = append(errs, l.Release(ctx))
	}
	p.leases, p.sources = nil, nil
	return errors.Join(append(errs, p.rt.releaseSources(p.sourcesDir()))...)
}
