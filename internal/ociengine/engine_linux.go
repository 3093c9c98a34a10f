package ociengine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/lazyregexp"
	"github.com/jetpack-run/jetpack/internal/network"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// Config is what an Engine is made from.
type Config struct {
	// Runtime is the OCI runtime, a path or a name to be found in PATH: "runc".
	Runtime string
	// StateDir is an absolute directory for the engine alone; it is created, 0700.
	StateDir string
	// Scope tells engines of one host apart, in the names of what lies outside
	// StateDir: 1 to 32 lower-case letters and digits.
	Scope string
	// Bridge is where pods with addresses of their own are.
	Bridge network.Bridge
}

// Engine is a sandbox.Engine.
type Engine struct {
	cfg     Config
	cgroups cgroups
	own     func() error // see own

	mu   sync.Mutex
	pods map[string]*pod // those that this process owns
}

var scopePattern = lazyregexp.New(`^[a-z0-9]{1,32}$`)

// New makes an engine; pods need root, New does not.
func New(cfg Config) (*Engine, error) {
	if !scopePattern().MatchString(cfg.Scope) {
		return nil, fmt.Errorf("invalid engine scope %q", cfg.Scope)
	}
	if !filepath.IsAbs(cfg.StateDir) {
		return nil, fmt.Errorf("engine state directory %q is not absolute", cfg.StateDir)
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make engine state directory: %w", err)
	}
	if err := os.Chmod(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("protect engine state directory: %w", err)
	}
	hierarchies, err := findCgroups()
	if err != nil {
		return nil, err
	}
	return &Engine{cfg: cfg, cgroups: hierarchies, own: sync.OnceValue(own), pods: map[string]*pod{}}, nil
}

// Info implements sandbox.Engine.
func (e *Engine) Info() sandbox.Info {
	info := sandbox.Info{
		Name: "oci", DiesWithOwner: true, Isolates: true, HostNetwork: true, PrivateNetwork: true, Terminal: true,
		Isolators: effects, Profiles: map[sandbox.Profile]string{},
	}
	for name, p := range profiles {
		info.Profiles[name] = p.info()
	}
	return info
}

// RuntimeVersion is the first line that the runtime prints of its version:
// "runc version 1.1.5".
func (e *Engine) RuntimeVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, e.cfg.Runtime, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", e.cfg.Runtime, err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(line), nil
}

// Check implements sandbox.Engine.
func (e *Engine) Check(ctx context.Context, spec sandbox.Pod) ([]sandbox.Outcome, error) {
	_, outcomes, err := e.check(ctx, spec)
	return outcomes, err
}

func (e *Engine) check(ctx context.Context, spec sandbox.Pod) (plan, []sandbox.Outcome, error) {
	switch spec.Network {
	case sandbox.NetworkNone, sandbox.NetworkHost:
	case sandbox.NetworkPrivate:
		if err := e.CheckNetwork(ctx); err != nil {
			return plan{}, nil, err
		}
	default:
		return plan{}, nil, fmt.Errorf("network %q: %w", spec.Network, sandbox.ErrUnsupported)
	}
	if _, err := exec.LookPath(e.cfg.Runtime); err != nil {
		return plan{}, nil, fmt.Errorf("%s not found in PATH: install %[1]s, or set linux.runtime", e.cfg.Runtime)
	}
	return e.plan(spec)
}

// CheckNetwork tells whether pods can have a private network on this host.
func (e *Engine) CheckNetwork(ctx context.Context) error {
	if err := e.cfg.Bridge.Check(ctx); err != nil {
		return fmt.Errorf("network private: %w%s", err, otherwise)
	}
	return nil
}

// otherwise is what can be done without a private network.
const otherwise = "; --net none and --net host do without one"

// Create implements sandbox.Engine.
func (e *Engine) Create(ctx context.Context, spec sandbox.Pod) (err error) {
	dir, err := e.podDir(spec.ID)
	if err != nil {
		return err
	}
	plan, _, err := e.check(ctx, spec)
	if err := errors.Join(ctx.Err(), err, e.own()); err != nil {
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
	p, err := e.newPod(ctx, dir, spec, plan)
	if err != nil {
		return errors.Join(fmt.Errorf("create pod %s: %w", spec.ID, err), e.Destroy(context.WithoutCancel(ctx), spec.ID))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pods[spec.ID] = p
	return nil
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
	t, err := e.start(pod, p)
	if err != nil {
		return nil, fmt.Errorf("start in pod %s: %w", podID, err)
	}
	return t, nil
}

// Listen implements sandbox.Engine.
func (e *Engine) Listen(ctx context.Context, podID, protocol string, port uint16) ([]*os.File, error) {
	e.mu.Lock()
	pod := e.pods[podID]
	e.mu.Unlock()
	if pod == nil {
		return nil, fmt.Errorf("listen in pod %s: %w", podID, sandbox.ErrNotFound)
	}
	socket, err := pod.holder.listen(ctx, protocol, port)
	if err != nil {
		return nil, fmt.Errorf("listen in pod %s: %w", podID, err)
	}
	return []*os.File{socket}, nil
}

// Destroy implements sandbox.Engine.
func (e *Engine) Destroy(ctx context.Context, podID string) error {
	dir, err := e.podDir(podID)
	if err != nil {
		return err
	}
	if err := e.destroy(ctx, dir, podID); err != nil {
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
		p.release()
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

// List implements sandbox.Engine. A pod whose directory was taken away by hand may have
// left an interface.
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
	owners, err := network.Owners()
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	for _, owner := range owners {
		if id, ok := strings.CutPrefix(owner, e.owner("")); ok && isPodID(id) {
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

// own prepares this process for owning pods.
func own() error {
	// The runtime detaches from the processes that it starts: they become ours, and
	// we can wait for them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	// A signal that is ignored (nohup(1), "&" in sh) would be ignored by every
	// process of the pods as well (execve(2)); one that is caught is not.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	return nil
}
