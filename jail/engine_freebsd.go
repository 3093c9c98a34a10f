package jail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/network"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// Config is what an Engine is made from.
type Config struct {
	// StateDir is an absolute directory for the engine alone; it is created, 0700.
	StateDir string
	// Root is the directory below which jetpack mounts what is its own, such as the roots of
	// other pods: a volume that holds it does not bring that along, and keep it from being
	// unmounted. It is StateDir if empty.
	Root string
	// Interface is the one that pods get addresses of: "lo1".
	Interface string
	// Ruleset is the devfs(8) rule set of pods that name no other. An empty one gets
	// the rules that suit pods.
	Ruleset int32
	// Allow names permissions for all pods, as jail(8) does: "allow.raw_sockets".
	Allow []string
}

// Engine is a sandbox.Engine.
type Engine struct {
	cfg Config
	own func() error

	mu   sync.Mutex
	pods map[string]*pod // those that this process owns
}

// New makes an engine; pods need root, New does not.
func New(cfg Config) (*Engine, error) {
	if err := checkPath(cfg.StateDir); err != nil {
		return nil, fmt.Errorf("engine state directory: %w", err)
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make engine state directory: %w", err)
	}
	if err := os.Chmod(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("protect engine state directory: %w", err)
	}
	return &Engine{cfg: cfg, own: sync.OnceValue(own), pods: map[string]*pod{}}, nil
}

// Info implements sandbox.Engine.
func (e *Engine) Info() sandbox.Info { return Info() }

// Check implements sandbox.Engine.
func (e *Engine) Check(_ context.Context, spec sandbox.Pod) ([]sandbox.Outcome, error) {
	_, outcomes, err := planFor(spec, hostAbilities())
	if err != nil {
		return nil, err
	}
	return outcomes, e.check(spec)
}

func (e *Engine) check(spec sandbox.Pod) error {
	_, refused := AnnotationParams(spec.Annotations)
	if len(refused) > 0 {
		return fmt.Errorf("%w: %w", sandbox.ErrBadPod, refused[0])
	}
	ruleset, err := e.ruleset(spec)
	if err != nil {
		return err
	}
	if ruleset != e.cfg.Ruleset {
		if err := checkRules(ruleset); err != nil {
			return fmt.Errorf("annotation %s: %w: %w", devfsAnnotation, sandbox.ErrBadPod, err)
		}
	}
	if err := checkSystems(spec.Apps); err != nil {
		return err
	}
	switch spec.Network {
	case sandbox.NetworkHost:
		return nil
	case sandbox.NetworkNone:
		if !supports("vnet") {
			return fmt.Errorf("network none: this kernel has no vnet(9): %w", sandbox.ErrUnsupported)
		}
		return nil
	case sandbox.NetworkPrivate:
		_, err := network.Networks(e.cfg.Interface)
		if errors.Is(err, network.ErrNoNetwork) {
			return e.noNetwork(err)
		}
		return err
	}
	return fmt.Errorf("network %q: %w", spec.Network, sandbox.ErrUnsupported)
}

// ruleset is the devfs(8) rule set of a pod.
func (e *Engine) ruleset(spec sandbox.Pod) (int32, error) {
	text, ok := spec.Annotations[devfsAnnotation]
	if !ok {
		return e.cfg.Ruleset, nil
	}
	n, err := number(1, maxRuleset)(text)
	if err != nil {
		return 0, fmt.Errorf("annotation %s: %w: %w", devfsAnnotation, sandbox.ErrBadPod, err)
	}
	return n.(int32), nil
}

// checkSystems tells whether the kernel runs what the apps' images are for.
func checkSystems(apps []sandbox.App) error {
	release, err := unix.Sysctl("kern.osrelease")
	if err != nil {
		return fmt.Errorf("kern.osrelease: %w", err)
	}
	for _, app := range apps {
		switch app.OS {
		case "", "freebsd":
			if app.OSVersion != "" {
				if err := checkOSRelease(osRelease(app.OSVersion)); err != nil {
					return fmt.Errorf("app %s: os.version of its image: %w: %w", app.Name, sandbox.ErrBadPod, err)
				}
			}
			if newerThan(app.OSVersion, release) {
				return fmt.Errorf("app %s: its image is for FreeBSD %s, this host's kernel is %s: %w", app.Name, app.OSVersion, release, sandbox.ErrUnsupported)
			}
		case "linux":
			if !hasModule("linux64elf") {
				return fmt.Errorf("app %s: its image is for linux, and this kernel does not run that: %w; 'kldload linux64' mends it", app.Name, sandbox.ErrUnsupported)
			}
		default:
			return fmt.Errorf("app %s: its image is for %s: %w", app.Name, app.OS, sandbox.ErrUnsupported)
		}
	}
	return nil
}

// Create implements sandbox.Engine.
func (e *Engine) Create(ctx context.Context, spec sandbox.Pod) (err error) {
	dir, err := e.podDir(spec.ID)
	if err != nil {
		return err
	}
	plan, _, err := planFor(spec, hostAbilities())
	if err := errors.Join(ctx.Err(), err, e.check(spec), e.own()); err != nil {
		return fmt.Errorf("create pod %s: %w", spec.ID, err)
	}
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create pod %s: %w", spec.ID, sandbox.ErrExists)
	}
	if err != nil {
		return fmt.Errorf("create pod: %w", err)
	}
	e.forget(spec.ID) // one that another process has destroyed
	p := &pod{spec: spec, plan: plan, dir: dir}
	if err := e.create(ctx, p); err != nil {
		return errors.Join(fmt.Errorf("create pod %s: %w", spec.ID, err), e.Destroy(context.WithoutCancel(ctx), spec.ID))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pods[spec.ID] = p
	return nil
}

// create makes the isolation of a pod in its new directory: its mounts, while no
// process of its can interfere, then the jail.
func (e *Engine) create(ctx context.Context, p *pod) (err error) {
	lock, err := p.enter(os.O_CREATE)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // which gives the lock back
	opts, err := e.options(p)
	if err != nil {
		return err
	}
	mounts, err := Mounts(p.spec, opts)
	if err != nil {
		return err
	}
	if err := p.makeMountPoints(opts); err != nil {
		return err
	}
	if opts.DevfsRuleset == e.cfg.Ruleset {
		if err := defineRules(opts.DevfsRuleset); err != nil {
			return err
		}
	}
	if err := checkRules(opts.DevfsRuleset); err != nil {
		return err
	}
	for _, m := range mounts {
		if err := m.make(); err != nil {
			return err
		}
	}
	if p.spec.Network != sandbox.NetworkPrivate {
		return p.makeJail(opts)
	}
	return network.Lease(ctx, e.cfg.Interface, network.Seed(p.spec.ID), jailed,
		func(addrs []netip.Addr) error {
			return network.Held{Interface: e.cfg.Interface, Addresses: addrs}.Write(p.dir)
		},
		func(addrs []netip.Addr) error {
			opts.Addresses = addrs
			return p.makeJail(opts)
		})
}

func (p *pod) makeJail(opts Options) error {
	params, err := Params(p.spec, opts)
	if err != nil {
		return err
	}
	if p.jid, err = set(params); err != nil {
		return fmt.Errorf("jail_set: %w", err)
	}
	if p.spec.Network == sandbox.NetworkNone {
		if err := upLoopback(p.jid); err != nil {
			return err
		}
	}
	p.own = map[string]int{}
	for _, app := range opts.Linux {
		params, err := AppParams(p.spec, app, opts)
		if err != nil {
			return err
		}
		if p.own[app], err = set(params); err != nil {
			return fmt.Errorf("jail_set for app %s: %w", app, err)
		}
	}
	return p.apply()
}

func (e *Engine) options(p *pod) (opts Options, err error) {
	opts = Options{
		Path: filepath.Join(p.dir, rootDir), Allow: e.cfg.Allow, Refuse: p.plan.refuse, Annotations: p.plan.annotations, Supports: supports,
	}
	if opts.DevfsRuleset, err = e.ruleset(p.spec); err != nil {
		return opts, err
	}
	for _, app := range p.spec.Apps {
		switch {
		case app.OS == "linux":
			opts.Linux = append(opts.Linux, app.Name)
		case newerThan(app.OSVersion, opts.OSRelease):
			opts.OSRelease = osRelease(app.OSVersion)
		}
	}
	level, err := unix.SysctlUint32("kern.securelevel")
	if err != nil {
		return opts, fmt.Errorf("kern.securelevel: %w", err)
	}
	opts.HostSecureLevel = int32(level)
	mounts, err := mountTable()
	for _, m := range mounts {
		if m.kind != "devfs" && within(m.path, cmp.Or(e.cfg.Root, e.cfg.StateDir)) {
			continue
		}
		opts.HostMounts = append(opts.HostMounts, HostMount{Path: m.path, Type: m.kind})
	}
	return opts, err
}

// Start implements sandbox.Engine.
func (e *Engine) Start(ctx context.Context, podID string, p sandbox.Process) (sandbox.Task, error) {
	e.mu.Lock()
	pod := e.pods[podID]
	e.mu.Unlock()
	if pod == nil {
		return nil, fmt.Errorf("start in pod %s: %w", podID, sandbox.ErrNotFound)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start in pod %s: %w", podID, err)
	}
	t, err := pod.start(p)
	if err != nil {
		return nil, fmt.Errorf("start in pod %s: %w", podID, err)
	}
	return t, nil
}

// Listen implements sandbox.Engine. A pod has no network stack of its own that the host can
// reach into, unless it has no other network at all.
func (e *Engine) Listen(ctx context.Context, podID, protocol string, port uint16) (sockets []*os.File, err error) {
	e.mu.Lock()
	pod := e.pods[podID]
	e.mu.Unlock()
	if pod == nil {
		return nil, fmt.Errorf("listen in pod %s: %w", podID, sandbox.ErrNotFound)
	}
	at := []netip.Addr{{}} // any
	switch pod.spec.Network {
	case sandbox.NetworkNone:
		return nil, fmt.Errorf("listen in pod %s: it has network %s: %w", podID, pod.spec.Network, sandbox.ErrUnsupported)
	case sandbox.NetworkPrivate:
		if at, err = e.Addresses(ctx, podID); err != nil {
			return nil, err
		}
	case sandbox.NetworkHost:
	}
	for _, a := range at {
		socket, err := sandbox.Listen(ctx, protocol, a, port)
		if err != nil {
			for _, s := range sockets {
				_ = s.Close() // nobody has used it
			}
			return nil, fmt.Errorf("listen in pod %s: %w", podID, err)
		}
		sockets = append(sockets, socket)
	}
	return sockets, nil
}

// Destroy implements sandbox.Engine.
func (e *Engine) Destroy(ctx context.Context, podID string) error {
	dir, err := e.podDir(podID)
	if err != nil {
		return err
	}
	if err := destroy(ctx, dir, podID); err != nil {
		return fmt.Errorf("destroy pod %s: %w", podID, err)
	}
	e.forget(podID)
	return nil
}

// forget lets go of a pod that does not exist any more.
func (e *Engine) forget(podID string) {
	e.mu.Lock()
	p := e.pods[podID]
	delete(e.pods, podID)
	e.mu.Unlock()
	if p != nil {
		p.tasks.Wait()
	}
}

// Addresses implements sandbox.Engine.
func (e *Engine) Addresses(_ context.Context, podID string) ([]netip.Addr, error) {
	dir, err := e.podDir(podID)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("addresses of pod %s: %w", podID, sandbox.ErrNotFound)
	} else if err != nil {
		return nil, err
	}
	held, err := network.ReadHeld(dir)
	return held.Addresses, err
}

// List implements sandbox.Engine. A jail whose directory was taken away by hand is
// there all the same.
func (e *Engine) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(e.cfg.StateDir)
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var ids []string
	for _, entry := range entries {
		if isPodID(entry.Name()) {
			ids = append(ids, entry.Name())
		}
	}
	for j, err := range jails() {
		if err != nil {
			return nil, fmt.Errorf("list jails: %w", err)
		}
		id, ours := strings.CutPrefix(j.name, jailName(""))
		if ours && isPodID(id) && within(j.path, e.cfg.StateDir) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// podDir is the pod's directory. The id becomes part of paths.
func (e *Engine) podDir(id string) (string, error) {
	if !isPodID(id) {
		return "", fmt.Errorf("pod id %q is not a canonical UUID", id)
	}
	return filepath.Join(e.cfg.StateDir, id), nil
}

func isPodID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.String() == id
}
