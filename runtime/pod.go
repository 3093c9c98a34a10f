package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/gofrs/flock"
	"github.com/google/uuid"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

// Phase is where a pod is in its life.
type Phase string

// The phases, in their order. Two are never written, but are what a reader finds:
// Crashed is a running pod without supervisor, Damaged one that nobody runs and
// whose files cannot be understood.
const (
	Embryo   Phase = "embryo"
	Prepared Phase = "prepared"
	Running  Phase = "running"
	Exited   Phase = "exited"
	Crashed  Phase = "crashed"
	Garbage  Phase = "garbage"
	Damaged  Phase = "damaged"
)

// State is the small file that is replaced at each step of a pod's life.
type State struct {
	Phase   Phase     `json:"phase"`
	BootID  string    `json:"bootID,omitempty"` // of the last start
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	// Apps tells how each app ended, by its name; empty until then.
	Apps map[string]AppStatus `json:"apps,omitempty"`
	// Isolators tells what became of each when it was last looked at, here or at a start.
	Isolators []sandbox.Outcome `json:"isolators,omitempty"`
}

// AppStatus is how an app ended.
type AppStatus struct {
	// Status is the exit code as shells report it: 128+N after signal N; 125 when
	// jetpack could not run the app, 126 and 127 as for a shell, 255 when unknown.
	Status int `json:"status"`
	Signal int `json:"signal,omitempty"` // what killed it, or 0
	// Error says why the app did not run or which event handler failed.
	Error string `json:"error,omitempty"`
}

// Options is what jetpack keeps of a pod beside its manifest.
type Options struct {
	Name     string          `json:"name,omitempty"`
	Hostname string          `json:"hostname,omitempty"` // "" is the pod's UUID
	Network  sandbox.Network `json:"network"`
	Profile  sandbox.Profile `json:"profile,omitempty"` // "" is sandbox.ProfileDefault
	// Isolators names, by app, those that the operator gave to it, and no image.
	Isolators map[string][]string `json:"isolators,omitempty"`
	// Strict: the pod does not start when an isolator is not enforced as it says.
	Strict  bool      `json:"strict,omitempty"`
	Created time.Time `json:"created"`
	// Terminal and Interactive name the apps that get a terminal, and standard input.
	Terminal    []string `json:"terminal,omitempty"`
	Interactive []string `json:"interactive,omitempty"`
	// KeepRootfs: a start goes on with the roots and `empty` volumes that the one
	// before has left, instead of fresh ones. It may be set on a Pod for one start.
	KeepRootfs bool `json:"keepRootfs,omitempty"`
	// Transient says that the one who makes the pod removes it when it ends: its files
	// need not outlive the boot.
	Transient bool `json:"-"`
	// Boot marks a pod that the host starts when it boots. GC keeps it, ended or crashed.
	Boot bool `json:"boot,omitempty"`
	// NoMetadata: the pod is not made known to the metadata service.
	NoMetadata bool `json:"noMetadata,omitempty"`
	// MetadataClient gives the program that asks the metadata service, for apps of an
	// operating system; it is mounted in all of them. Nil is none.
	MetadataClient func(system string) string `json:"-"`
	// Fill puts more into the fresh root of each app, a directory, before anything else
	// is done with it; nil is nothing.
	Fill func(root string) error `json:"-"`
}

// Info is a pod as commands show it.
type Info struct {
	UUID     string              `json:"uuid"`
	Options  Options             `json:"options"`
	State    State               `json:"state"`
	Manifest *schema.PodManifest `json:"manifest"`
}

// Hostname is what the pod was given, by its annotation `hostname` at least, or its UUID.
func (i Info) Hostname() string {
	annotated := ""
	if i.Manifest != nil {
		annotated, _ = i.Manifest.Annotations.Get(hostnameAnnotation)
	}
	return first(i.Options.Hostname, annotated, i.UUID)
}

// Status is the pod's exit code: the first app's, in the manifest's order, that
// is not zero.
func (i Info) Status() int {
	if i.Manifest == nil {
		return 0
	}
	for _, app := range i.Manifest.Apps {
		if s := i.State.Apps[app.Name.String()].Status; s != 0 {
			return s
		}
	}
	return 0
}

const (
	manifestFile = "manifest"
	optionsFile  = "pod.json"
	stateFile    = "state"
	rootsFile    = "roots"
	sourcesDir   = "sources"
	lockFile     = "lock"
	controlFile  = "control"
)

// Pod is a pod whose lock this process holds.
type Pod struct {
	Info
	rt   *Runtime
	lock *flock.Flock

	// Between the preparation of a start and release:
	sources map[*types.Volume]string // where the volumes are on the host
	leases  []*volume.Lease
}

func (r *Runtime) podDir(id string) string { return filepath.Join(r.Dir, id) }

func (p *Pod) dir() string { return p.rt.podDir(p.UUID) }

// Close gives the lock back. The pod stays as it is.
func (p *Pod) Close() error { return p.lock.Close() }

// create makes the directory of a new pod and takes its lock. Nothing but the
// directory exists until the state is written.
func (r *Runtime) create(ctx context.Context, m *schema.PodManifest, o Options, s State) (_ *Pod, err error) {
	// Names are compared and taken under one lock.
	unlock, err := r.lockNames(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if o.Name != "" {
		if err := r.checkName(ctx, o.Name); err != nil {
			return nil, err
		}
	}
	p := &Pod{Info: Info{UUID: uuid.NewString(), Options: o, Manifest: m}, rt: r}
	if err := r.step("make pod directory", func() error { return os.Mkdir(p.dir(), 0o700) }); err != nil {
		return nil, fmt.Errorf("create pod: %w", err)
	}
	p.lock = flock.New(filepath.Join(p.dir(), lockFile), flock.SetPermissions(0o600))
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("create pod: %w", err), r.removeDir(p.UUID), p.lock.Close())
		}
	}()
	if err := r.step("lock pod", p.lock.Lock); err != nil {
		return nil, err
	}
	raw, err := manifest.MarshalPod(m)
	if err != nil {
		return nil, err
	}
	options, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	if err := p.write("write manifest", manifestFile, raw); err != nil {
		return nil, err
	}
	if err := p.write("write options", optionsFile, options); err != nil {
		return nil, err
	}
	return p, p.setState(s)
}

// write replaces a file in the pod's directory.
func (p *Pod) write(step, file string, data []byte) error {
	write := atomicfile.Write
	if p.Options.Transient {
		write = atomicfile.Replace
	}
	return p.rt.step(step, func() error { return write(filepath.Join(p.dir(), file), data, 0o600) })
}

// removeDir removes a pod's directory, which may be gone. Without its state it is an
// embryo, which needs no lock file to be collected: a crash may leave any part of the
// rest.
func (r *Runtime) removeDir(id string) error {
	if err := r.dropState(id); err != nil {
		return err
	}
	return r.step("remove pod directory", func() error { return os.RemoveAll(r.podDir(id)) })
}

func (r *Runtime) dropState(id string) error {
	return r.step("remove state", func() error {
		err := os.Remove(filepath.Join(r.podDir(id), stateFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// lockNames serializes the making of pods, across processes.
func (r *Runtime) lockNames(ctx context.Context) (unlock func() error, err error) {
	l := flock.New(filepath.Join(r.Dir, lockFile), flock.SetPermissions(0o600))
	err = r.step("lock names", func() error {
		_, err := l.TryLockContext(ctx, lockPoll)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock pods: %w", err), l.Close())
	}
	return l.Close, nil
}

// checkName refuses a name that a pod has, or that could be taken for a UUID.
func (r *Runtime) checkName(ctx context.Context, name string) error {
	if !validName(name) {
		return fmt.Errorf("%w: name %q: want lower-case letters, digits and single hyphens, beginning with a letter", ErrInvalid, name)
	}
	pods, err := r.List(ctx)
	if err != nil {
		return err
	}
	for _, other := range pods {
		if other.Options.Name == name {
			return fmt.Errorf("%s: %w by pod %s; remove it with 'jetpack pod rm %s'", name, ErrNameTaken, other.UUID, name)
		}
	}
	return nil
}

func (p *Pod) setState(s State) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := p.write("write state", stateFile, raw); err != nil {
		return fmt.Errorf("pod %s: write state: %w", p.UUID, err)
	}
	p.State = s
	return nil
}

const (
	lockPoll = 5 * time.Millisecond
	// glance outlasts readers that look who holds the lock, lockPatience whatever
	// works on a pod and does not run it.
	glance       = 100 * time.Millisecond
	lockPatience = 2 * time.Second
)

// Lock takes the lock of a pod that no supervisor holds and that is not being
// made. Errors: ErrNotFound, ErrBusy, ErrDamaged.
func (r *Runtime) Lock(ctx context.Context, id string) (*Pod, error) {
	p, err := r.lockDamaged(ctx, id)
	if p != nil && err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, err
}

// lockDamaged also locks a damaged pod: then it has what could be read, and comes
// with ErrDamaged. Errors: as Lock.
func (r *Runtime) lockDamaged(ctx context.Context, id string) (*Pod, error) {
	l, err := r.flock(ctx, id)
	if err != nil {
		return nil, err
	}
	// It may have been removed before the lock was taken, or is just being made.
	info, err := r.read(id)
	if err == nil && info.State.Phase == Embryo {
		err = unfinished(id)
	}
	if err != nil && !errors.Is(err, ErrDamaged) {
		return nil, errors.Join(err, l.Close())
	}
	return &Pod{Info: info, rt: r, lock: l}, err
}

func (r *Runtime) flock(ctx context.Context, id string) (*flock.Flock, error) {
	path := filepath.Join(r.podDir(id), lockFile)
	l := flock.New(path, flock.SetFlag(os.O_RDWR), flock.SetPermissions(0o600))
	began := time.Now()
	deadline, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		ok, err := l.TryLock()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			// What removes a pod takes its lock before its directory.
			if err := r.lockless(id); errors.Is(err, ErrNotFound) || deadline.Err() != nil {
				return nil, errors.Join(ctx.Err(), err)
			}
			time.Sleep(lockPoll)
			continue
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock pod %s: %w", id, err), l.Close())
		case ok:
			return l, nil
		}
		// A running pod's lock is its supervisor's, unless a reader looks at it just now.
		s, err := r.readState(id)
		busy := err == nil && s.Phase == Running && time.Since(began) > glance
		if deadline.Err() != nil || busy {
			return nil, errors.Join(ctx.Err(), fmt.Errorf("%s: %w", id, ErrBusy), l.Close())
		}
		time.Sleep(lockPoll)
	}
}

// lockless tells a pod that is not there from one that a crash left without lock.
func (r *Runtime) lockless(id string) error {
	if _, err := os.Stat(r.podDir(id)); err == nil {
		return unfinished(id)
	}
	return fmt.Errorf("%s: %w", id, ErrNotFound)
}

func unfinished(id string) error {
	return fmt.Errorf("%s: %w: its making is not finished; if that was cut short, 'jetpack pod gc' removes it", id, ErrBusy)
}

var errForeign = errors.New("it is not as jetpack writes it")

// readFile reads a file of a pod's directory; parse tells whether it is what belongs
// there. What else it may say is of Go and not for people. Errors: ErrDamaged, and
// with it fs.ErrNotExist when the file is not there.
func (r *Runtime) readFile(id, file string, parse func(raw []byte) bool) error {
	raw, err := os.ReadFile(filepath.Join(r.podDir(id), file))
	reason := errForeign
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason = fs.ErrNotExist
	case err != nil:
		return fmt.Errorf("read pod %s: %w", id, err)
	case parse(raw):
		return nil
	}
	return fmt.Errorf("pod %s: its file %s %w: %w; 'jetpack pod rm %s' removes the pod", id, file, ErrDamaged, reason, id)
}

// readState gives Embryo when there is none, and Damaged when it cannot be read.
func (r *Runtime) readState(id string) (s State, err error) {
	err = r.readFile(id, stateFile, func(raw []byte) bool {
		return json.Unmarshal(raw, &s) == nil && slices.Contains([]Phase{Prepared, Running, Exited, Garbage}, s.Phase)
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return State{Phase: Embryo}, nil
	case err != nil:
		return State{Phase: Damaged}, err
	}
	return s, nil
}

func (r *Runtime) readOptions(id string) (o Options, err error) {
	err = r.readFile(id, optionsFile, func(raw []byte) bool {
		return json.Unmarshal(raw, &o) == nil && o.Network != "" && !o.Created.IsZero()
	})
	return o, err
}

func (r *Runtime) readManifest(id string) (m *schema.PodManifest, err error) {
	err = r.readFile(id, manifestFile, func(raw []byte) bool {
		parsed, _, err := manifest.ParsePod(raw)
		m = parsed
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// read gives what the pod's directory says, without looking at the lock. What cannot
// be read leaves the rest as it is. Errors: ErrNotFound, ErrDamaged.
func (r *Runtime) read(id string) (Info, error) {
	info := Info{UUID: id}
	fi, err := os.Stat(r.podDir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return info, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if err != nil {
		return info, fmt.Errorf("read pod %s: %w", id, err)
	}
	var errState, errOptions, errManifest error
	info.Options.Created = fi.ModTime().UTC() // unless more is known
	if info.State, errState = r.readState(id); info.State.Phase == Embryo {
		return info, nil
	}
	if o, err := r.readOptions(id); err != nil {
		errOptions = err
	} else {
		info.Options = o
	}
	info.Manifest, errManifest = r.readManifest(id)
	err = worst(errState, errOptions, errManifest)
	if errors.Is(err, fs.ErrNotExist) {
		// The state is what Remove removes first.
		if s, err := r.readState(id); err == nil && s.Phase == Embryo {
			return info, fmt.Errorf("%s: %w", id, ErrNotFound)
		}
	}
	return info, err
}

// worst gives one error, so that it is one line; rather one that may pass than damage,
// for which a pod is removed.
func worst(errs ...error) (err error) {
	for _, e := range errs {
		if err == nil || e != nil && !errors.Is(e, ErrDamaged) {
			err = e
		}
	}
	return err
}

// held tells whether some process holds the pod's lock.
func (r *Runtime) held(id string) (bool, error) {
	l := flock.New(filepath.Join(r.podDir(id), lockFile), flock.SetFlag(os.O_RDONLY))
	ok, err := l.TryRLock()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return !ok, errors.Join(err, l.Close())
}

// Inspect gives one pod, with Crashed for a running one without supervisor. A damaged
// one comes with ErrDamaged and what is known of it: it is Running when somebody holds
// its lock, unless its state says better. Errors: ErrNotFound, ErrDamaged.
func (r *Runtime) Inspect(_ context.Context, id string) (Info, error) {
	info, err := r.read(id)
	if err != nil && !errors.Is(err, ErrDamaged) || err == nil && info.State.Phase != Running {
		return info, err
	}
	held, heldErr := r.held(id)
	if heldErr != nil {
		return info, heldErr
	}
	if held {
		if info.State.Phase == Damaged {
			info.State.Phase = Running
		}
		return info, err
	}
	// It may have ended properly between the two looks.
	info, err = r.read(id)
	switch {
	case errors.Is(err, ErrDamaged):
		info.State.Phase = Damaged
	case err == nil && info.State.Phase == Running:
		info.State.Phase = Crashed
	}
	return info, err
}

// ids lists the pods' directories.
func (r *Runtime) ids() ([]string, error) {
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if u, err := uuid.Parse(e.Name()); err == nil && u.String() == e.Name() && e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// List gives all pods, oldest first. One that cannot be read is listed with
// what is known of it, and its reason goes to Notice.
func (r *Runtime) List(ctx context.Context) ([]Info, error) {
	ids, err := r.ids()
	if err != nil {
		return nil, err
	}
	var pods []Info
	for _, id := range ids {
		info, err := r.Inspect(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			continue // removed meanwhile
		case err != nil:
			r.Notice(err.Error())
		}
		pods = append(pods, info)
	}
	slices.SortStableFunc(pods, func(a, b Info) int { return a.Options.Created.Compare(b.Options.Created) })
	return pods, nil
}

// Find gives the UUID of the pod that a user means: a name, a UUID, or a prefix
// of one that no other pod has. Errors: ErrNotFound, ErrAmbiguous.
func (r *Runtime) Find(ctx context.Context, name string) (string, error) {
	ids, err := r.ids()
	if err != nil {
		return "", err
	}
	if slices.Contains(ids, name) {
		return name, nil
	}
	if validName(name) {
		pods, err := r.List(ctx)
		if err != nil {
			return "", err
		}
		for _, p := range pods {
			if p.Options.Name == name {
				return p.UUID, nil
			}
		}
	}
	found := ""
	for _, id := range ids {
		if name == "" || !strings.HasPrefix(id, name) {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%s: %w: it could be %s or %s", name, ErrAmbiguous, found, id)
		}
		found = id
	}
	if found == "" {
		return "", fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return found, nil
}
