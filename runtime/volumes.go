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
)

// checkVolume refuses a host volume whose source is missing, or is reached through
// a symbolic link, which whoever may write there could turn (appc spec, "Volume
// Setup"; containerd's CVE-2022-23648 is the same fault).
func checkVolume(v types.Volume) error {
	if len(v.Name) > maxName {
		return fmt.Errorf("%w: volume name %q is longer than %d characters", ErrInvalid, v.Name, maxName)
	}
	if v.Kind != "host" {
		return nil
	}
	if path.Clean(v.Source) != v.Source {
		return fmt.Errorf("volume %s: %w: source %s: write it as %s", v.Name, ErrInvalid, v.Source, path.Clean(v.Source))
	}
	for p := v.Source; p != "/"; p = filepath.Dir(p) {
		fi, err := os.Lstat(p)
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

// makeVolumes makes the pod's `empty` volumes anew.
func (p *Pod) makeVolumes(ctx context.Context) error {
	for _, v := range p.Manifest.Volumes {
		if err := p.makeVolume(ctx, "", v); err != nil {
			return err
		}
	}
	for _, app := range p.Manifest.Apps {
		for _, m := range app.Mounts {
			if m.AppVolume == nil {
				continue
			}
			if err := p.makeVolume(ctx, app.Name.String(), *m.AppVolume); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Pod) makeVolume(ctx context.Context, app string, v types.Volume) error {
	if v.Kind != "empty" {
		return checkVolume(v) // it may have gone since the pod was prepared
	}
	name := volumeTree(p.UUID, app, v)
	if err := storage.Remove(ctx, p.rt.Storage, name); err != nil {
		return err
	}
	if err := p.rt.Storage.Create(ctx, name, storage.Options{Meta: p.meta()}); err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	dir, err := p.rt.Storage.Mount(ctx, name)
	if err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	mode, err := strconv.ParseUint(*v.Mode, 8, 32)
	if err != nil {
		return fmt.Errorf("volume %s: %w: mode %q", v.Name, ErrInvalid, *v.Mode)
	}
	// chown first: it clears the set-id bits.
	if err := errors.Join(os.Chown(dir, *v.UID, *v.GID), unix.Chmod(dir, uint32(mode))); err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return nil
}

// meta marks the trees of a pod for administrators.
func (p *Pod) meta() map[string]string {
	return map[string]string{"pod": p.UUID}
}

// mounts turns the mounts of an app into what the sandbox binds, parents first,
// and makes their targets inside root. Nothing is followed out of the root.
func (p *Pod) mounts(ctx context.Context, root *inroot.Root, app *schema.RuntimeApp, own *types.App) ([]sandbox.Mount, error) {
	var mounts []sandbox.Mount
	for _, m := range app.Mounts {
		v := findVolume(p.Manifest, m)
		source := v.Source
		if v.Kind == "empty" {
			scope := ""
			if m.AppVolume != nil {
				scope = app.Name.String()
			}
			var err error
			if source, err = p.rt.Storage.Mount(ctx, volumeTree(p.UUID, scope, *v)); err != nil {
				return nil, fmt.Errorf("volume %s: %w", v.Name, err)
			}
		}
		target, err := p.makeTarget(root, app.Name.String(), m.Path, source)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, sandbox.Mount{
			Source:    source,
			Target:    target,
			ReadOnly:  isTrue(v.ReadOnly) || mountPointReadOnly(own, m.Path),
			Recursive: v.Recursive == nil || *v.Recursive,
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
	for _, m := range mounts {
		if err := root.Bind(m.Target, m.Source); err != nil {
			return nil, fmt.Errorf("app %s: mount %s: %w", app.Name, m.Target, err)
		}
	}
	return mounts, nil
}

func isTrue(b *bool) bool { return b != nil && *b }

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
		return "", fmt.Errorf("app %s: %w: mount target %s: %s", app, ErrInvalid, target, fmt.Sprintf(format, args...))
	}
	target = path.Clean(target)
	if reserved(target) {
		return fail("it belongs to jetpack")
	}
	parent, err := makeParent(root, path.Dir(target))
	if err != nil {
		return fail("%v", err)
	}
	resolved := path.Join(parent, path.Base(target))
	if reserved(resolved) {
		return fail("it belongs to jetpack")
	}
	var src unix.Stat_t
	if err := unix.Stat(source, &src); err != nil {
		return fail("source %s: %v", source, err)
	}
	wantDir := src.Mode&unix.S_IFMT == unix.S_IFDIR
	st, err := root.Lstat(resolved)
	switch kind := st.Mode & unix.S_IFMT; {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fail("%v", err)
	case kind == unix.S_IFLNK:
		return fail("it is a symbolic link in the image; mount at what it points to")
	case kind == unix.S_IFDIR && !wantDir:
		return fail("it is a directory, and %s is a file", source)
	case kind == unix.S_IFDIR || !wantDir:
		return resolved, nil
	default:
		p.rt.Notice(fmt.Sprintf("app %s: mount target %s: the file there is replaced by a directory", app, target))
		if err := root.Remove(resolved); err != nil {
			return fail("%v", err)
		}
	}
	if wantDir {
		err = root.MkdirAll(resolved, 0o755)
	} else {
		err = root.WriteFile(resolved, nil, 0o644)
	}
	if err != nil {
		return fail("%v", err)
	}
	return resolved, nil
}

// makeParent gives dir without symbolic links, and makes it when it is missing.
func makeParent(root *inroot.Root, dir string) (string, error) {
	resolved, err := root.Resolve(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return resolved, err
	}
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return root.Resolve(dir)
}
