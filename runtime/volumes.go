package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/inroot"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

// allowSymlinks is the annotation of a pod that permits, when "true", symbolic links
// in the sources of its host volumes.
const allowSymlinks = "jetpack/allow-symlinked-sources"

// symlinksAllowed reads the switch. Errors: ErrInvalid.
func symlinksAllowed(m *schema.PodManifest) (bool, error) {
	value, ok := m.Annotations.Get(allowSymlinks)
	if ok && value != "true" && value != "false" {
		return false, fmt.Errorf("annotation %s: %w: %q: want true or false", allowSymlinks, ErrInvalid, value)
	}
	return value == "true", nil
}

// namedFor gives the named volume that a pod's volume is bound to, or "".
func namedFor(m *schema.PodManifest, v types.ACName) string {
	name, _ := m.Annotations.Get(volume.AnnotationPrefix + v.String())
	return name
}

// namedVolumes lists the named volumes that a pod is bound to.
func namedVolumes(m *schema.PodManifest) (names []string) {
	for _, a := range m.Annotations {
		if strings.HasPrefix(a.Name.String(), volume.AnnotationPrefix) && !slices.Contains(names, a.Value) {
			names = append(names, a.Value)
		}
	}
	return names
}

// checkNamed refuses a binding of what the pod does not have, or to a named volume
// that there is not.
func (r *Runtime) checkNamed(ctx context.Context, m *schema.PodManifest) error {
	for _, a := range m.Annotations {
		name, ok := strings.CutPrefix(a.Name.String(), volume.AnnotationPrefix)
		if !ok {
			continue
		}
		i := slices.IndexFunc(m.Volumes, func(v types.Volume) bool { return v.Name.String() == name })
		switch {
		case i < 0:
			return fmt.Errorf("annotation %s: %w: the pod has no volume %s", a.Name, ErrInvalid, name)
		case m.Volumes[i].Kind != "empty":
			return fmt.Errorf("annotation %s: %w: volume %s is of kind %s, not empty", a.Name, ErrInvalid, name, m.Volumes[i].Kind)
		}
	}
	return r.namedExist(ctx, m)
}

// namedExist: the named volumes that a pod is bound to are there.
func (r *Runtime) namedExist(ctx context.Context, m *schema.PodManifest) error {
	for _, name := range namedVolumes(m) {
		if _, err := r.Volumes.Get(ctx, name); err != nil {
			return createNamed(name, err)
		}
	}
	return nil
}

// createNamed says what to do about a named volume that there is not.
func createNamed(name string, err error) error {
	if errors.Is(err, volume.ErrNotFound) {
		return fmt.Errorf("volume %w; make it with 'jetpack volume create %s'", err, name)
	}
	return fmt.Errorf("named volume: %w", err)
}

// checkVolume refuses a host volume whose source is missing, or, unless that is
// allowed, is reached through a symbolic link, which whoever may write there could
// turn (appc spec, "Volume Setup"; containerd's CVE-2022-23648 is the same fault).
func checkVolume(v types.Volume, symlinks bool) error {
	if len(v.Name) > maxName {
		return fmt.Errorf("%w: volume name %q is longer than %d characters", ErrInvalid, v.Name, maxName)
	}
	if v.Kind != "host" {
		return nil
	}
	if path.Clean(v.Source) != v.Source {
		return fmt.Errorf("volume %s: %w: source %s: write it as %s", v.Name, ErrInvalid, v.Source, path.Clean(v.Source))
	}
	stat := os.Lstat
	if symlinks {
		stat = os.Stat
	}
	for p := v.Source; p != "/"; p = filepath.Dir(p) {
		fi, err := stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("volume %s: %w: source %s does not exist; create it first", v.Name, ErrInvalid, p)
		case err != nil:
			return fmt.Errorf("volume %s: %w", v.Name, err)
		case fi.Mode().Type() == fs.ModeSymlink:
			return fmt.Errorf("volume %s: %w: source %s: %s is a symbolic link; name what it points to", v.Name, ErrInvalid, v.Source, p)
		case p == v.Source && !fi.IsDir() && !fi.Mode().IsRegular():
			return fmt.Errorf("volume %s: %w: source %s is neither a directory nor a file", v.Name, ErrInvalid, p)
		}
	}
	return nil
}

// volumeTree names the tree of an `empty` volume; app is "" for one of the pod.
func volumeTree(podID, app string, v types.Volume) string {
	name := podID + "."
	if app != "" {
		name += app + "."
	}
	return volumeKind + "/" + name + v.Name.String()
}

// makeVolumes makes the pod's `empty` volumes anew, unless they are kept, and makes
// all volumes reachable: sources says where.
func (p *Pod) makeVolumes(ctx context.Context, keep bool) error {
	p.sources = map[*types.Volume]string{}
	// A start that a crash cut short may have left some.
	if err := p.rt.releaseSources(p.sourcesDir()); err != nil {
		return err
	}
	for i := range p.Manifest.Volumes {
		if err := p.makeVolume(ctx, "", &p.Manifest.Volumes[i], keep); err != nil {
			return err
		}
	}
	for _, app := range p.Manifest.Apps {
		for _, m := range app.Mounts {
			if m.AppVolume == nil {
				continue
			}
			if err := p.makeVolume(ctx, app.Name.String(), m.AppVolume, keep); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Pod) makeVolume(ctx context.Context, app string, v *types.Volume, keep bool) error {
	symlinks, err := symlinksAllowed(p.Manifest)
	if err != nil {
		return err
	}
	if err := checkVolume(*v, symlinks); err != nil { // it may have gone since the pod was prepared
		return err
	}
	switch {
	case v.Kind == "host":
		name := strconv.Itoa(len(p.sources))
		p.sources[v], err = p.rt.holdSource(p.sourcesDir(), name, v.Source, symlinks, isRecursive(*v))
	case app == "" && namedFor(p.Manifest, v.Name) != "":
		p.sources[v], err = p.lease(ctx, namedFor(p.Manifest, v.Name))
	default:
		p.sources[v], err = p.emptyVolume(ctx, volumeTree(p.UUID, app, *v), *v, keep)
	}
	if err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return nil
}

// sourcesDir is where the sources of host volumes are mounted while the pod runs.
func (p *Pod) sourcesDir() string { return filepath.Join(p.dir(), sourcesDir) }

// lease takes a named volume into use until release. Its owner and mode stay.
func (p *Pod) lease(ctx context.Context, name string) (dir string, err error) {
	l, err := p.rt.Volumes.Acquire(ctx, name)
	if err != nil {
		return "", createNamed(name, err)
	}
	p.leases = append(p.leases, l)
	return l.Dir, nil
}

func (p *Pod) emptyVolume(ctx context.Context, tree string, v types.Volume, keep bool) (string, error) {
	if keep {
		dir, err := p.rt.Storage.Mount(ctx, tree)
		if !errors.Is(err, storage.ErrNotFound) {
			return dir, err
		}
	}
	err := p.makeTree(ctx, tree, func() error {
		return p.rt.Storage.Create(ctx, tree, storage.Options{Meta: p.meta()})
	})
	if err != nil {
		return "", err
	}
	dir, err := p.rt.Storage.Mount(ctx, tree)
	if err != nil {
		return "", err
	}
	mode, err := strconv.ParseUint(*v.Mode, 8, 32)
	if err != nil {
		return "", fmt.Errorf("%w: mode %q", ErrInvalid, *v.Mode)
	}
	return dir, p.rt.step("set owner and mode of volume", func() error {
		// chown first: it clears the set-id bits.
		return errors.Join(os.Chown(dir, *v.UID, *v.GID), unix.Chmod(dir, uint32(mode)))
	})
}

// meta marks the trees of a pod for administrators.
func (p *Pod) meta() map[string]string {
	return map[string]string{"pod": p.UUID}
}

// mounts turns the mounts of an app into what the sandbox binds, parents first,
// and makes their targets inside root. Nothing is followed out of the root.
func (p *Pod) mounts(root *inroot.Root, app *schema.RuntimeApp, own *types.App) ([]sandbox.Mount, error) {
	var mounts []sandbox.Mount
	for _, m := range app.Mounts {
		v := findVolume(p.Manifest, m)
		source := p.sources[v]
		target, err := p.makeTarget(root, app.Name.String(), m.Path, source)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, sandbox.Mount{
			Source:    source,
			Target:    target,
			ReadOnly:  isTrue(v.ReadOnly) || mountPointReadOnly(own, m.Path),
			Recursive: isRecursive(*v),
		})
	}
	slices.SortFunc(mounts, func(a, b sandbox.Mount) int { return strings.Compare(a.Target, b.Target) })
	for i := range mounts {
		for j := range i { // sorted, a path stands behind its parents
			if a, b := mounts[j].Target, mounts[i].Target; a == b || strings.HasPrefix(b, a+"/") {
				return nil, fmt.Errorf("app %s: %w: mounts %s and %s overlap", app.Name, ErrInvalid, a, b)
			}
		}
	}
	return mounts, nil
}

// mountSelf makes the mount of the program jetpack in an app.
func (p *Pod) mountSelf(root *inroot.Root, app, target string) (m sandbox.Mount, err error) {
	if m.Source, err = os.Executable(); err != nil {
		return m, err
	}
	m.ReadOnly = true
	m.Target, err = p.makeTarget(root, app, target, m.Source)
	return m, err
}

// bind has lookups in root see through the mounts of an app.
func bind(root *inroot.Root, app string, mounts []sandbox.Mount) ([]sandbox.Mount, error) {
	for _, m := range mounts {
		if err := root.Bind(m.Target, m.Source); err != nil {
			return nil, fmt.Errorf("app %s: mount %s: %w", app, m.Target, err)
		}
	}
	return mounts, nil
}

func isTrue(b *bool) bool { return b != nil && *b }

// isRecursive: what is mounted below a volume's source comes along by default.
func isRecursive(v types.Volume) bool { return v.Recursive == nil || *v.Recursive }

// mountPointReadOnly: a mount is read-only when either side says so.
func mountPointReadOnly(own *types.App, target string) bool {
	return slices.ContainsFunc(own.MountPoints, func(mp types.MountPoint) bool {
		return mp.ReadOnly && path.Clean(mp.Path) == path.Clean(target)
	})
}

// reserved tells what the sandbox mounts itself: below /dev there may be more.
func reserved(target string) bool {
	return target == "/" || target == "/dev" || target == "/proc" || target == "/sys" ||
		strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/sys/")
}

// makeTarget makes the place where a mount goes and gives its path without
// symbolic links: missing parents are made, a file in a directory's place is
// replaced (appc spec, "Volume Setup").
func (p *Pod) makeTarget(root *inroot.Root, app, target, source string) (string, error) {
	fail := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("app %s: %w: mount target %s: %w", app, ErrInvalid, target, fmt.Errorf(format, args...))
	}
	target = path.Clean(target)
	if reserved(target) {
		return fail("it belongs to jetpack")
	}
	parent, err := p.makeParent(root, path.Dir(target))
	if err != nil {
		return fail("%w", err)
	}
	resolved := path.Join(parent, path.Base(target))
	if reserved(resolved) {
		return fail("it belongs to jetpack")
	}
	var src unix.Stat_t
	if err := unix.Stat(source, &src); err != nil {
		return fail("volume: %w", err)
	}
	wantDir := src.Mode&unix.S_IFMT == unix.S_IFDIR
	st, err := root.Lstat(resolved)
	switch kind := st.Mode & unix.S_IFMT; {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fail("%w", err)
	case kind == unix.S_IFLNK:
		return fail("it is a symbolic link in the image; mount at what it points to")
	case kind == unix.S_IFDIR && !wantDir:
		return fail("it is a directory in the image, and the volume is a file")
	case kind == unix.S_IFDIR:
		return resolved, p.noteHidden(root, app, resolved)
	case !wantDir:
		return resolved, nil
	default:
		p.rt.Notice(fmt.Sprintf("app %s: mount target %s: the file there is replaced by a directory", app, target))
		if err := p.rt.step("remove file at mount target", func() error { return root.Remove(resolved) }); err != nil {
			return fail("%w", err)
		}
	}
	err = p.rt.step("make mount target", func() error {
		if wantDir {
			return root.MkdirAll(resolved, 0o755)
		}
		return root.WriteFile(resolved, nil, 0o644)
	})
	if err != nil {
		return fail("%w", err)
	}
	return resolved, nil
}

// noteHidden tells of a directory that a mount hides with what is in it.
func (p *Pod) noteHidden(root *inroot.Root, app, dir string) error {
	empty, err := root.IsEmpty(dir)
	if err != nil {
		return fmt.Errorf("app %s: mount target: %w", app, err)
	}
	if !empty {
		p.rt.Notice(fmt.Sprintf("app %s: mount target %s: what the image has there is hidden", app, dir))
	}
	return nil
}

// makeParent gives dir without symbolic links, and makes it when it is missing.
func (p *Pod) makeParent(root *inroot.Root, dir string) (string, error) {
	resolved, err := root.Resolve(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return resolved, err
	}
	if err := p.rt.step("make parents of mount target", func() error { return root.MkdirAll(dir, 0o755) }); err != nil {
		return "", err
	}
	return root.Resolve(dir)
}
