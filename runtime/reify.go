package runtime

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/jetpack-run/jetpack/internal/lazyregexp"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/google/uuid"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// Reify fills in what a pod manifest leaves open and checks what can be checked
// without touching anything (appc spec, "Pod Manifest" and "Volume Setup"):
// every app gets an image ID, every mount point a volume, an `empty` one where
// none is given, with a notice. With strict, a missing volume, a mount point's name
// in place of its path and an isolator that is not enforced as it says are errors instead.
// m is changed in place, also by what o asks for.
// Errors: those of the image store and of the engine, ErrInvalid.
func (r *Runtime) Reify(ctx context.Context, m *schema.PodManifest, o Options, strict bool) error {
	images, err := r.reify(ctx, m, strict)
	if err != nil {
		return err
	}
	if err := r.offerClient(m, images, o.MetadataClient); err != nil {
		return err
	}
	_, err = r.check(ctx, m, images, o, strict)
	return err
}

// reify also gives the apps' images, in the manifest's order.
func (r *Runtime) reify(ctx context.Context, m *schema.PodManifest, strict bool) (images []*image.Image, err error) {
	if err := refuseUnknown("pod", m.Isolators, nil); err != nil {
		return nil, err
	}
	for _, p := range m.Ports {
		if strict {
			return nil, fmt.Errorf("%w: port %s is not published, and --strict asks for all of it", ErrInvalid, p.Name)
		}
		r.Notice(fmt.Sprintf("port %s is not published on the host", p.Name))
	}
	if err := checkHostname(m); err != nil {
		return nil, err
	}
	if err := r.checkAnnotations(m, strict); err != nil {
		return nil, err
	}
	if err := r.checkNamed(ctx, m); err != nil {
		return nil, err
	}
	for i := range m.Apps {
		app := &m.Apps[i]
		img, err := r.resolve(ctx, app)
		if err != nil {
			return nil, err
		}
		images = append(images, img)
		if err := r.checkApp(app, img); err != nil {
			return nil, err
		}
		if err := r.bindMountPoints(m, app, effectiveApp(app, img), strict); err != nil {
			return nil, err
		}
	}
	if err := checkPorts(m, images); err != nil {
		return nil, err
	}
	return images, r.checkVolumes(m)
}

// checkPorts: a port that is to be exposed says itself what it is, or is one port of
// one app (appc spec, "Pod Manifest Schema", ports).
func checkPorts(m *schema.PodManifest, images []*image.Image) error {
	owners := map[types.ACName][]string{}
	for i := range m.Apps {
		for _, p := range effectiveApp(&m.Apps[i], images[i]).Ports {
			owners[p.Name] = append(owners[p.Name], m.Apps[i].Name.String())
		}
	}
	for _, p := range m.Ports {
		switch apps := owners[p.Name]; {
		case p.PodPort != nil || len(apps) == 1:
		case len(apps) == 0:
			return fmt.Errorf("port %s: %w: no app has a port of that name, and it has no podPort", p.Name, ErrInvalid)
		default:
			return fmt.Errorf("port %s: %w: it could be that of app %s or of app %s; say which with podPort", p.Name, ErrInvalid, apps[0], apps[1])
		}
	}
	return nil
}

// noEffect matches annotations of a pod that mean something to jetpack, though not here.
var noEffect = lazyregexp.New(`^(ip-address|jetpack/devfs-ruleset|jetpack/jail\.conf/.*)$`)

// checkAnnotations tells which annotations have no effect; strict refuses them.
func (r *Runtime) checkAnnotations(m *schema.PodManifest, strict bool) error {
	for _, a := range m.Annotations {
		name := a.Name.String()
		if !noEffect().MatchString(name) || r.Heeds(name) {
			continue
		}
		if strict {
			return fmt.Errorf("%w: annotation %s has no effect, and --strict asks for all of them", ErrInvalid, a.Name)
		}
		r.Notice(fmt.Sprintf("annotation %s has no effect", a.Name))
	}
	return nil
}

// Heeds tells whether an annotation of a pod means something to the engine.
func (r *Runtime) Heeds(annotation string) bool {
	return slices.ContainsFunc(r.Engine.Info().Annotations, func(known string) bool {
		return annotation == known || strings.HasSuffix(known, "/") && strings.HasPrefix(annotation, known)
	})
}

// resolve finds the image of an app, and writes its ID into the manifest.
func (r *Runtime) resolve(ctx context.Context, app *schema.RuntimeApp) (*image.Image, error) {
	if !app.Image.ID.Empty() {
		id, err := image.ParseID(app.Image.ID.String())
		if err != nil {
			return nil, fmt.Errorf("app %s: %w: %w", app.Name, ErrInvalid, err)
		}
		img, err := r.Images.Get(ctx, id)
		if err != nil && app.Image.Name != nil {
			err = fmt.Errorf("image %s: %w", *app.Image.Name, err)
		}
		if err != nil {
			return nil, fmt.Errorf("app %s: %w", app.Name, err)
		}
		if app.Image.Name != nil && *app.Image.Name != img.Parsed().Name {
			return nil, fmt.Errorf("app %s: %w: image %s is %s, not %s", app.Name, ErrInvalid, img.ID.Short(), img.Name(), *app.Image.Name)
		}
		return img, nil
	}
	if app.Image.Name == nil {
		return nil, fmt.Errorf("app %s: %w: its image has neither name nor id", app.Name, ErrInvalid)
	}
	ref := manifest.Ref{Name: app.Image.Name.String(), Labels: map[string]string{}}
	for _, l := range app.Image.Labels {
		if l.Name == "version" && l.Value == "latest" {
			continue // what tools leave for the executor to bind
		}
		ref.Labels[l.Name.String()] = l.Value
	}
	img, err := r.find(ctx, ref.String())
	if err != nil {
		return nil, fmt.Errorf("app %s: %w", app.Name, err)
	}
	app.Image.ID = runtimeImage(img).ID
	return img, nil
}

// find looks an image up. A name is discovered through the host that it begins with
// (appc spec, "App Container Image Discovery"); one without can be nowhere else.
func (r *Runtime) find(ctx context.Context, name string) (*image.Image, error) {
	img, err := r.Images.Find(ctx, name)
	host, _, isPath := strings.Cut(name, "/")
	if errors.Is(err, image.ErrNotFound) && isPath && !strings.Contains(host, ".") {
		return nil, fmt.Errorf("%w: without a host in its name it can only be in the local store", err)
	}
	return img, err
}

// effectiveApp is what runs: the pod's app object replaces the image's as a whole.
func effectiveApp(app *schema.RuntimeApp, img *image.Image) *types.App {
	if app.App != nil {
		return app.App
	}
	return img.Parsed().App
}

// maxName bounds the names of apps and of volumes, so that tree names stay within
// their limit.
const maxName = 63

func (r *Runtime) checkApp(app *schema.RuntimeApp, img *image.Image) error {
	if len(app.Name) > maxName {
		return fmt.Errorf("%w: app name %q is longer than %d characters", ErrInvalid, app.Name, maxName)
	}
	if os := img.Label("os"); os != "" && os != r.OS && !slices.Contains(r.Engine.Info().Emulates, os) {
		return fmt.Errorf("app %s: %w: image %s is for %s, this host is %s", app.Name, ErrInvalid, img.Name(), os, r.OS)
	}
	if arch := img.Label("arch"); arch != "" && arch != r.Arch {
		return fmt.Errorf("app %s: %w: image %s is for %s, this host is %s", app.Name, ErrInvalid, img.Name(), arch, r.Arch)
	}
	own := effectiveApp(app, img)
	if own == nil || len(own.Exec) == 0 {
		return fmt.Errorf("app %s: %w: image %s has no command; give one with --exec", app.Name, ErrInvalid, img.Name())
	}
	if app.App != nil {
		// A template repeats what the image says.
		if err := refuseUnknown("app "+app.Name.String(), app.App.Isolators, img.Parsed().App); err != nil {
			return err
		}
	}
	for _, p := range own.Ports {
		if p.SocketActivated && p.Protocol != "tcp" && p.Protocol != "udp" {
			return fmt.Errorf("app %s: %w: port %s is socket-activated, and its protocol is %s: want tcp or udp", app.Name, ErrInvalid, p.Name, p.Protocol)
		}
	}
	return nil
}

// refuseUnknown refuses an isolator that nobody defines, in what the operator
// wrote: there it is a slip. One of the image's is reported and left alone.
func refuseUnknown(where string, isolators []types.Isolator, image *types.App) error {
	unknown := manifest.UnknownIsolators(isolators)
	if image != nil {
		unknown = slices.DeleteFunc(unknown, func(name string) bool {
			return slices.Contains(manifest.UnknownIsolators(image.Isolators), name)
		})
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%s: %w: unknown isolator %s", where, ErrInvalid, strings.Join(unknown, ", "))
	}
	return nil
}

// bindMountPoints gives every mount point of an app a volume, and turns mount
// point names in mounts into paths.
func (r *Runtime) bindMountPoints(m *schema.PodManifest, app *schema.RuntimeApp, own *types.App, strict bool) error {
	for i := range app.Mounts {
		mount := &app.Mounts[i]
		if p := mountPointPath(own, mount.Path); p != mount.Path {
			if strict {
				return fmt.Errorf("app %s: %w: mount %q is a mount point's name, and --strict asks for its path %s", app.Name, ErrInvalid, mount.Path, p)
			}
			mount.Path = p
		}
		if !path.IsAbs(mount.Path) {
			return fmt.Errorf("app %s: %w: mount %q is neither an absolute path nor a mount point of the image", app.Name, ErrInvalid, mount.Path)
		}
		if findVolume(m, *mount) == nil {
			return fmt.Errorf("app %s: %w: mount %s: the pod has no volume %s", app.Name, ErrInvalid, mount.Path, mount.Volume)
		}
	}
	for _, mp := range own.MountPoints {
		if slices.ContainsFunc(app.Mounts, func(x schema.Mount) bool { return path.Clean(x.Path) == path.Clean(mp.Path) }) {
			continue
		}
		if !hasVolume(m, mp.Name) {
			if strict {
				return fmt.Errorf("app %s: %w: no volume for mount point %s (%s), and --strict inserts none", app.Name, ErrInvalid, mp.Name, mp.Path)
			}
			r.Notice(fmt.Sprintf("app %s: no volume for mount point %s (%s): an empty one is used, gone with the pod", app.Name, mp.Name, mp.Path))
			m.Volumes = append(m.Volumes, EmptyVolume(mp.Name))
		}
		app.Mounts = append(app.Mounts, schema.Mount{Volume: mp.Name, Path: mp.Path})
	}
	return nil
}

// mountPointPath gives the path of the mount point that is named, else what it was given.
func mountPointPath(own *types.App, name string) string {
	for _, mp := range own.MountPoints {
		if name == mp.Name.String() {
			return mp.Path
		}
	}
	return name
}

// EmptyVolume is a volume of kind `empty` with the specification's defaults.
func EmptyVolume(name types.ACName) types.Volume {
	mode, zero := "0755", 0
	return types.Volume{Name: name, Kind: "empty", Mode: &mode, UID: &zero, GID: &zero}
}

func hasVolume(m *schema.PodManifest, name types.ACName) bool {
	return slices.ContainsFunc(m.Volumes, func(v types.Volume) bool { return v.Name == name })
}

// findVolume gives what a mount binds: its own volume, or the pod's of that name.
func findVolume(m *schema.PodManifest, mount schema.Mount) *types.Volume {
	if mount.AppVolume != nil {
		return mount.AppVolume
	}
	for i := range m.Volumes {
		if m.Volumes[i].Name == mount.Volume {
			return &m.Volumes[i]
		}
	}
	return nil
}

// checkVolumes looks at every host volume's source and names volumes nobody mounts.
func (r *Runtime) checkVolumes(m *schema.PodManifest) error {
	symlinks, err := symlinksAllowed(m)
	if err != nil {
		return err
	}
	used := map[types.ACName]bool{}
	for _, app := range m.Apps {
		for _, mount := range app.Mounts {
			if mount.AppVolume == nil {
				used[mount.Volume] = true
			} else if err := checkVolume(*mount.AppVolume, symlinks); err != nil {
				return err
			}
		}
	}
	for _, v := range m.Volumes {
		if err := checkVolume(v, symlinks); err != nil {
			return err
		}
		if !used[v.Name] {
			r.Notice(fmt.Sprintf("volume %s is mounted by no app", v.Name))
		}
	}
	return nil
}

// hostnameAnnotation gives a pod its host name, where the command line does not.
const hostnameAnnotation = "hostname"

// hostname is RFC 1123's.
var hostname = lazyregexp.New(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$`)

// maxHostname is the most that Linux takes, in bytes.
const maxHostname = 64

// ValidHostname tells whether a pod can have the host name.
func ValidHostname(s string) bool { return len(s) <= maxHostname && hostname().MatchString(s) }

func checkHostname(m *schema.PodManifest) error {
	if name, ok := m.Annotations.Get(hostnameAnnotation); ok && !ValidHostname(name) {
		return fmt.Errorf("annotation %s: %w: %q: want letters, digits, dots and hyphens", hostnameAnnotation, ErrInvalid, name)
	}
	return nil
}

// podName is also a host name (RFC 1123).
var podName = lazyregexp.New(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

func validName(s string) bool {
	_, err := uuid.Parse(s)
	return err != nil && len(s) <= 63 && podName().MatchString(s)
}

// defaultAppName makes an AC Name of the last component of an image's name.
func defaultAppName(imageName string) string {
	name, err := types.SanitizeACName(path.Base(imageName))
	if err != nil {
		return "app" // nothing of it can be kept
	}
	return strings.Trim(name[:min(len(name), maxName)], "-")
}

func splitEnv(kv string) (name, value string, err error) {
	name, value, ok := strings.Cut(kv, "=")
	if !ok || name == "" {
		return "", "", fmt.Errorf("%w: environment %q: want NAME=value", ErrInvalid, kv)
	}
	return name, value, nil
}
