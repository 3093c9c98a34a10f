package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/appc/spec/schema/types"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/inroot"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// roots is a small file in the pod's directory, there from when the roots and
// volumes of a start are complete until the next start makes fresh ones: the root
// of each app, by its name.
type roots map[string]madeRoot

// madeRoot is a root and what jetpack itself has made in it.
type madeRoot struct {
	Dir  string            `json:"dir"`  // where it is mounted
	Made map[string]string `json:"made"` // descriptions by path, see describe
}

// beginRoots gives the roots that a start goes on with, or nil when it makes fresh ones.
func (p *Pod) beginRoots() (roots, error) {
	if p.Options.KeepRootfs {
		return p.rt.readRoots(p.UUID)
	}
	err := p.rt.step("remove roots", func() error { return os.Remove(filepath.Join(p.dir(), rootsFile)) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pod %s: %w", p.UUID, err)
	}
	return nil, nil
}

func (p *Pod) recordRoots(made roots) error {
	raw, err := json.Marshal(made)
	if err != nil {
		return err
	}
	if err := p.write("write roots", rootsFile, raw); err != nil {
		return fmt.Errorf("pod %s: write roots: %w", p.UUID, err)
	}
	return nil
}

// readRoots gives nil where there are no complete roots.
func (r *Runtime) readRoots(id string) (roots, error) {
	raw, err := os.ReadFile(filepath.Join(r.podDir(id), rootsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	made := roots{}
	if err == nil {
		err = json.Unmarshal(raw, &made)
	}
	if err != nil {
		return nil, fmt.Errorf("pod %s: read roots: %w", id, err)
	}
	return made, nil
}

// add records what was made in an app's root, in addition to what is kept of it.
func (r roots) add(app, dir string, root *inroot.Root) error {
	made := madeRoot{Dir: dir, Made: map[string]string{}}
	if kept, ok := r[app]; ok {
		made.Made = kept.Made
	}
	for _, path := range root.Made() {
		d, err := describe(root, path)
		if err != nil {
			return err
		}
		made.Made[path] = d
	}
	r[app] = made
	return nil
}

// describe changes with a file, except for what is in a directory.
func describe(root *inroot.Root, path string) (string, error) {
	st, err := root.Lstat(path)
	if err != nil {
		return "", err
	}
	d := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		d += fmt.Sprintf(" %d", st.Ctim.Nano())
	}
	return d, nil
}

// AppChange is something that an app has written outside its volumes.
type AppChange struct {
	App string `json:"app"`
	storage.Change
}

// Diff lists what the apps of a pod, or the one of that name, have changed in their
// roots, in the manifest's order and by path. What jetpack made there is left out
// unless the app has changed it. The pod may run. Errors: ErrNotFound,
// ErrNotStarted, ErrBusy, sandbox.ErrNotFound (app).
func (r *Runtime) Diff(ctx context.Context, id, app string) (changes []AppChange, err error) {
	info, err := r.Inspect(ctx, id)
	if err != nil {
		return nil, err
	}
	if info.State.Phase != Running {
		// Its roots are mounted for a while, and nobody else may do so meanwhile.
		p, err := r.Lock(ctx, id)
		if err != nil {
			return nil, err
		}
		defer func() {
			err = errors.Join(err, p.release(context.WithoutCancel(ctx)), p.Close())
		}()
		info = p.Info
	}
	made, err := r.readRoots(id)
	if err != nil {
		return nil, err
	}
	if made == nil {
		return nil, fmt.Errorf("%s: %w: start it with 'jetpack pod start %s'", id, ErrNotStarted, id)
	}
	known := app == ""
	for _, ra := range info.Manifest.Apps {
		name := ra.Name.String()
		if app != "" && app != name {
			continue
		}
		known = true
		own, err := r.diffRoot(ctx, rootTree(id, ra.Name), made[name], info.State.Phase == Running)
		if err != nil {
			return nil, fmt.Errorf("pod %s: app %s: %w", id, name, err)
		}
		for _, c := range own {
			changes = append(changes, AppChange{name, c})
		}
	}
	if !known {
		return nil, fmt.Errorf("pod %s: app %s: %w", id, app, sandbox.ErrNotFound)
	}
	return changes, nil
}

// diffRoot compares one root with its image. That of a running pod is mounted, and
// only its supervisor's to mount.
func (r *Runtime) diffRoot(ctx context.Context, tree string, made madeRoot, running bool) (_ []storage.Change, err error) {
	changes, err := r.Storage.Diff(ctx, tree)
	if err != nil {
		return nil, err
	}
	dir := made.Dir
	if !running {
		if dir, err = r.Storage.Mount(ctx, tree); err != nil {
			return nil, err
		}
	}
	root, err := inroot.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return slices.DeleteFunc(changes, func(c storage.Change) bool {
		was, ours := made.Made[c.Path]
		if ours {
			// One that cannot be looked at just now is not known to have changed.
			is, err := describe(root, c.Path)
			return err != nil || is == was
		}
		return isSystem(c.Path)
	}), nil
}

// Root gives do the root of an app, mounted, after Wait and without what jetpack itself
// has made in it; diff compares it with the image. Errors: sandbox.ErrNotFound (app).
func (r *Run) Root(ctx context.Context, app types.ACName, do func(dir string, diff func() ([]storage.Change, error)) error) (err error) {
	p := r.pod
	if p.Manifest.Apps.Get(app) == nil {
		return fmt.Errorf("pod %s: app %s: %w", p.UUID, app, sandbox.ErrNotFound)
	}
	made, err := p.rt.readRoots(p.UUID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.release(context.WithoutCancel(ctx))) }()
	tree := rootTree(p.UUID, app)
	dir, err := p.rt.Storage.Mount(ctx, tree)
	if err != nil {
		return err
	}
	if err := made[app.String()].clear(dir); err != nil {
		return fmt.Errorf("pod %s: app %s: %w", p.UUID, app, err)
	}
	return do(dir, func() ([]storage.Change, error) {
		changes, err := p.rt.Storage.Diff(ctx, tree)
		return slices.DeleteFunc(changes, func(c storage.Change) bool {
			// Where the image has no directory to mount the system on, it stays without.
			return c.Kind == storage.Added && isSystem(c.Path) && os.Remove(filepath.Join(dir, c.Path)) == nil
		}), err
	})
}

// clear takes away what jetpack has made in a root, unless the app has changed it or put
// something into it.
func (m madeRoot) clear(dir string) (err error) {
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	paths := slices.Sorted(maps.Keys(m.Made))
	for _, path := range slices.Backward(paths) { // what is in a directory first
		is, err := describe(root, path)
		if err == nil && is == m.Made[path] {
			err = root.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	return nil
}

// isSystem tells of what the sandbox makes to mount the system on: apps never see
// what is there.
func isSystem(path string) bool { return path == "/dev" || path == "/proc" || path == "/sys" }
