package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jetpack-run/jetpack/internal/storage"
)

// podTrees lists the trees that a pod has or may have. Its manifest, which never
// changes, tells them; only where it cannot be read is all storage looked through.
func (r *Runtime) podTrees(ctx context.Context, info Info) (names []string, err error) {
	id, m := info.UUID, info.Manifest
	if m != nil {
		for _, v := range m.Volumes {
			if v.Kind == "empty" && namedFor(m, v.Name) == "" {
				names = append(names, volumeTree(id, "", v))
			}
		}
		for _, app := range m.Apps {
			names = append(names, rootTree(id, app.Name))
			for _, mount := range app.Mounts {
				if v := mount.AppVolume; v != nil && v.Kind == "empty" {
					names = append(names, volumeTree(id, app.Name.String(), *v))
				}
			}
		}
		return names, nil
	}
	for _, kind := range []string{rootKind, volumeKind} {
		trees, err := r.Storage.List(ctx, kind)
		if err != nil {
			return nil, err
		}
		for _, t := range trees {
			if strings.HasPrefix(t.Name, kind+"/"+id+".") {
				names = append(names, t.Name)
			}
		}
	}
	return names, nil
}

// Remove takes a pod away that does not run, damaged or not, with all it has; the
// named volumes that it used are kept, and named. Errors: ErrNotFound, ErrBusy.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	p, err := r.lockDamaged(ctx, id)
	if p == nil {
		return err
	}
	if err := p.Remove(ctx); err != nil {
		return err
	}
	if p.Manifest == nil {
		return nil // it cannot tell them
	}
	for _, name := range namedVolumes(p.Manifest) {
		r.Notice(fmt.Sprintf("volume %s is kept", name))
	}
	return nil
}

// Remove takes the pod away and gives up its lock. It is done as far as it gets: a
// second attempt finds Garbage and goes on.
func (p *Pod) Remove(ctx context.Context) error {
	err := p.remove(ctx)
	return errors.Join(err, p.lock.Close())
}

func (p *Pod) remove(ctx context.Context) error {
	if err := p.discard(); err != nil {
		return err
	}
	if err := p.rt.clear(ctx, p.Info); err != nil {
		return fmt.Errorf("remove pod %s: %w", p.UUID, err)
	}
	if err := p.rt.removeDir(p.UUID); err != nil {
		return fmt.Errorf("remove pod %s: %w", p.UUID, err)
	}
	return nil
}

// discard marks the pod as one that cannot be used any more. A full disk has no room
// for a mark, and must not keep the pod: without state it is an embryo, which is
// collected as well, though not found by its name.
func (p *Pod) discard() error {
	err := p.setState(State{Phase: Garbage})
	if err != nil && p.rt.dropState(p.UUID) == nil {
		return nil
	}
	return err
}

// clear takes away what a pod has outside its directory.
func (r *Runtime) clear(ctx context.Context, info Info) error {
	if err := r.Engine.Destroy(ctx, info.UUID); err != nil {
		return err
	}
	// What is removed after this has nothing of the host's mounted in it.
	if err := r.releaseSources(filepath.Join(r.podDir(info.UUID), sourcesDir)); err != nil {
		return err
	}
	trees, err := r.podTrees(ctx, info)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range trees {
		errs = append(errs, storage.Remove(ctx, r.Storage, t))
	}
	return errors.Join(errs...)
}

// GC removes pods that ended longer than grace ago, and whatever crashes left of
// pods and of named volumes. It gives the UUIDs of what it removed, and goes on after an error.
func (r *Runtime) GC(ctx context.Context, grace time.Duration) (removed []string, err error) {
	ids, err := r.ids()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, id := range ids {
		gone, err := r.collect(ctx, id, grace)
		if gone {
			removed = append(removed, id)
		}
		errs = append(errs, err)
	}
	strays, err := r.Debris(ctx)
	errs = append(errs, err)
	for _, d := range strays {
		errs = append(errs, r.mend(ctx, d.What, d.Remove))
	}
	volumes, err := r.Volumes.Debris(ctx)
	errs = append(errs, err)
	for _, d := range volumes {
		errs = append(errs, r.mend(ctx, d.What, d.Remove))
	}
	return removed, errors.Join(errs...)
}

// mend takes debris away and tells.
func (r *Runtime) mend(ctx context.Context, what string, remove func(context.Context) error) error {
	if err := remove(ctx); err != nil {
		return fmt.Errorf("mend: %s: %w", what, err)
	}
	r.Notice("mended: " + what)
	return nil
}

// collect removes one pod if it is over.
func (r *Runtime) collect(ctx context.Context, id string, grace time.Duration) (removed bool, err error) {
	held, err := r.held(id)
	if err != nil || held {
		return false, err
	}
	info, err := r.read(id)
	if over, err := isOver(info, err, grace); err != nil || !over {
		return false, err
	}
	if info.State.Phase == Embryo {
		return r.collectEmbryo(ctx, id)
	}
	l, err := r.flock(ctx, id)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrBusy) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// It may have been started, and have ended again, since.
	info, err = r.read(id)
	over, err := isOver(info, err, grace)
	if err != nil || !over {
		return false, errors.Join(err, l.Close())
	}
	p := &Pod{Info: info, rt: r, lock: l}
	err = p.Remove(ctx)
	return err == nil, err
}

// isOver tells whether a pod that nobody holds has come to its end, from what was read
// of it. A damaged one has if its state says so, or is what is damaged; one that could
// not be read just now may be well. One that is marked for boot is to be started again.
func isOver(info Info, readErr error, grace time.Duration) (bool, error) {
	switch {
	case errors.Is(readErr, ErrNotFound):
		return false, nil
	case readErr != nil && !errors.Is(readErr, ErrDamaged):
		return false, readErr
	}
	switch info.State.Phase {
	case Prepared:
		return false, nil
	case Running: // it has crashed
		return !info.Options.Boot, nil
	case Exited:
		return !info.Options.Boot && time.Since(info.State.Ended) >= grace, nil
	}
	return true, nil
}

// collectEmbryo removes a pod whose making, or whose removal, was cut short. Pods are
// made under the lock of all names, so that under it a directory without state is
// debris, unless it is just being removed: that is done under the pod's own lock.
func (r *Runtime) collectEmbryo(ctx context.Context, id string) (removed bool, err error) {
	unlock, err := r.lockNames(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if s, err := r.readState(id); err != nil || s.Phase != Embryo {
		return false, err
	}
	if held, err := r.held(id); err != nil || held {
		return false, err
	}
	if err := r.clear(ctx, Info{UUID: id}); err != nil {
		return false, err
	}
	return true, r.removeDir(id)
}

// Debris is something that a crash left and that no pod's directory leads to.
type Debris struct {
	What   string // what it is, for people
	remove func(ctx context.Context) error
}

// Remove takes it away.
func (d Debris) Remove(ctx context.Context) error { return d.remove(ctx) }

// Debris lists sandboxes and trees of pods that are not there any more. A pod's
// directory comes before and goes after all else of it, so that whatever is
// seen before the directories are read belongs to one of them, or to nobody.
func (r *Runtime) Debris(ctx context.Context) ([]Debris, error) {
	boxes, err := r.Engine.List(ctx)
	if err != nil {
		return nil, err
	}
	var trees []string
	for _, kind := range []string{rootKind, volumeKind} {
		list, err := r.Storage.List(ctx, kind)
		if err != nil {
			return nil, err
		}
		for _, t := range list {
			trees = append(trees, t.Name)
		}
	}
	ids, err := r.ids()
	if err != nil {
		return nil, err
	}
	var debris []Debris
	for _, id := range boxes {
		if !slices.Contains(ids, id) {
			debris = append(debris, Debris{
				What:   "sandbox of pod " + id + ", which is gone",
				remove: func(ctx context.Context) error { return r.Engine.Destroy(ctx, id) },
			})
		}
	}
	for _, name := range trees {
		_, rest, _ := strings.Cut(name, "/")
		id, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(ids, id) {
			debris = append(debris, Debris{
				What:   "tree " + name + " of a pod that is gone",
				remove: func(ctx context.Context) error { return storage.Remove(ctx, r.Storage, name) },
			})
		}
	}
	return debris, nil
}

// Check lists what is not as it should be with pods, and which named volumes are
// damaged; a clean host has an empty list.
func (r *Runtime) Check(ctx context.Context) ([]string, error) {
	var found []string
	ids, err := r.ids()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		info, err := r.Inspect(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			found = append(found, err.Error())
		case info.State.Phase == Crashed, info.State.Phase == Garbage, info.State.Phase == Embryo:
			held, err := r.held(id)
			if err != nil {
				return nil, err
			}
			if !held {
				found = append(found, fmt.Sprintf("pod %s is %s", id, info.State.Phase))
			}
		}
	}
	debris, err := r.Debris(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range debris {
		found = append(found, d.What)
	}
	damaged, err := r.Volumes.Damaged(ctx)
	return append(found, damaged...), err
}

// Init makes the directory of pods.
func Init(dir string) error {
	if err := os.MkdirAll(filepath.Clean(dir), 0o700); err != nil {
		return fmt.Errorf("create pods' directory: %w", err)
	}
	return nil
}
