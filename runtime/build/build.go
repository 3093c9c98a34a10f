// Package build makes images: a command runs once, in a pod of its own on a copy of a base
// image, and what it has changed there becomes an image that depends on the base.
//
// Not for: how a pod runs (runtime), the format of what is made (image/aci), what the
// command is (share/jetpack.image.mk has make for it).
package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/runtime"
)

// ErrFailed says that the command ended with another exit code than 0, or left no manifest.
var ErrFailed = errors.New("the build failed")

// WorkDir is where the command runs. It is always the same, so that two builds are, and
// begins as that of the first jetpack did.
const WorkDir = "/.jetpack.build.d"

// ManifestFile is what the command leaves in WorkDir: the new image's manifest, of which
// nothing but the name is mandatory.
const ManifestFile = "manifest.json"

// baseOS is the variable by which the command knows the base's operating system, in the appc
// spec's words.
const baseOS = "JETPACK_BASE_OS"

// sourceDate is the variable that says the time of what is made, in seconds of Unix
// (reproducible-builds.org).
const sourceDate = "SOURCE_DATE_EPOCH"

// appName is the pod's only app.
const appName types.ACName = "build"

// Options say what is built.
type Options struct {
	Base    string // a name, an ID or a unique ID prefix
	Command []string
	Dir     string   // the directory whose content the command finds in its own
	Copy    []string // further files and directories for it
	Env     []string // NAME=value, over the base's
	Network sandbox.Network
	// Keep keeps the pod of a build that failed.
	Keep bool
	// Epoch is the time of the new image: nothing in it is later (SOURCE_DATE_EPOCH). Zero
	// is now, and files keep their times.
	Epoch       time.Time
	Compression extract.Compression // of the new image's archive
	Limits      layer.Limits
}

// Builder makes images. Notice is told, a line a call, what a user should know.
type Builder struct {
	Runtime *runtime.Runtime
	Store   *image.Store
	Notice  func(line string)
}

// Start runs the command; Finish makes the image of what it leaves. Whatever happens then,
// nothing but the image stays, or the pod that Options.Keep asks for. Errors: those of
// runtime, of the file system for what is copied.
func (b *Builder) Start(ctx context.Context, o Options, stdio runtime.IO) (*Build, error) {
	base, err := b.Runtime.Images.Find(ctx, o.Base)
	if err != nil {
		return nil, err
	}
	m, err := b.Runtime.Template(ctx, []runtime.AppRequest{{
		Image: string(base.ID), Name: appName.String(), Exec: o.Command[0], Args: o.Command[1:],
		User: "0", Group: "0", WorkDir: WorkDir, Env: b.environment(base, o),
	}}, nil)
	if err != nil {
		return nil, err
	}
	bare(m.Apps[0].App)
	m.Annotations = b.permissions()
	build := &Build{builder: b, base: base, options: o}
	po := runtime.Options{
		Network: o.Network, Profile: sandbox.ProfileRelaxed, NoMetadata: true, Transient: !o.Keep, KeepRootfs: o.Keep,
		Fill: func(root string) error { return build.fill(ctx, root) },
	}
	if build.Run, err = b.Runtime.Run(ctx, m, po, false, stdio); err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	return build, nil
}

// environment is what the command finds in addition to the base's. A base without a label for it is
// of the host's operating system, as for a pod.
func (b *Builder) environment(base *image.Image, o Options) []string {
	env := []string{baseOS + "=" + cmp.Or(base.Label("os"), b.Runtime.OS)}
	if !o.Epoch.IsZero() {
		env = append(env, fmt.Sprintf("%s=%d", sourceDate, o.Epoch.Unix()))
	}
	return append(env, o.Env...)
}

// bare leaves of the base's app what is the file system's: neither its handlers nor its
// mount points are for a build.
func bare(app *types.App) {
	app.EventHandlers, app.MountPoints, app.Ports, app.Isolators, app.SupplementaryGIDs = nil, nil, nil, nil, nil
}

// permissions lets a build set file flags, where there are any: a base system has some.
func (b *Builder) permissions() (annotations types.Annotations) {
	for _, p := range []struct{ name, value string }{
		{"jetpack/jail.conf/allow.chflags", "true"}, {"jetpack/jail.conf/securelevel", "0"},
	} {
		if b.Runtime.Heeds(p.name) {
			annotations.Set(types.ACIdentifier(p.name), p.value)
		}
	}
	return annotations
}

// Build is a command that runs.
type Build struct {
	Run *runtime.Run // for signals and the terminal; Finish waits for it

	builder  *Builder
	base     *image.Image
	options  Options
	resolver resolver
}

// Finish waits for the command and takes the image into the store. Errors: ErrFailed,
// manifest.ErrInvalid, those of aci.Import.
func (b *Build) Finish(ctx context.Context) (img *image.Image, err error) {
	info, err := b.Run.Wait()
	defer func() {
		if err != nil && b.options.Keep {
			b.builder.Notice(fmt.Sprintf("kept what was built in pod %s: 'jetpack pod diff' shows what changed, 'jetpack pod rm' removes it", info.UUID))
			err = errors.Join(err, b.Run.Close())
			return
		}
		err = errors.Join(err, b.Run.Remove(context.WithoutCancel(ctx)))
	}()
	if err != nil {
		return nil, err
	}
	if status := info.State.Apps[appName.String()]; status.Status != 0 {
		return nil, fmt.Errorf("%w: %s", ErrFailed, describe(b.options.Command[0], status))
	}
	err = b.Run.Root(ctx, appName, func(root string, diff func() ([]storage.Change, error)) error {
		img, err = b.commit(ctx, root, diff)
		return err
	})
	return img, err
}

func describe(command string, s runtime.AppStatus) string {
	switch {
	case s.Error != "":
		return s.Error
	case s.Signal != 0:
		return fmt.Sprintf("%s was ended by signal %d", command, s.Signal)
	}
	return fmt.Sprintf("%s ended with exit code %d", command, s.Status)
}

// commit makes the image of what the command has left in a root.
func (b *Build) commit(ctx context.Context, root string, diff func() ([]storage.Change, error)) (*image.Image, error) {
	m, err := b.readManifest(root)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(root, WorkDir)); err != nil {
		return nil, fmt.Errorf("build: remove %s: %w", WorkDir, err)
	}
	if err := b.resolver.restore(root, b.options.Limits); err != nil {
		return nil, fmt.Errorf("build: restore the base's %s: %w", resolvConf, err)
	}
	changes, err := diff()
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	names, deleted := []string{}, false
	for _, c := range changes {
		if c.Kind == storage.Deleted {
			deleted = true
			continue
		}
		names = append(names, relative(c.Path))
	}
	if deleted {
		// appc has no other way to take away what the base has (aci.md, pathWhitelist).
		if m.PathWhitelist, err = allPaths(ctx, root); err != nil {
			return nil, fmt.Errorf("build: %w", err)
		}
	}
	raw, err := manifest.MarshalImage(m)
	if err != nil {
		return nil, fmt.Errorf("build: %s: %w", ManifestFile, err)
	}
	// It is imported as anybody else would.
	img, warnings, err := aci.ImportWritten(ctx, b.builder.Store, func(w io.Writer) error {
		return aci.Pack(ctx, w, raw, aci.PackOptions{Root: root, Names: names, Latest: b.options.Epoch, Compression: b.options.Compression})
	}, aci.ImportOptions{Origin: "image build", Limits: b.options.Limits})
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	for _, line := range warnings {
		b.builder.Notice(line)
	}
	return img, nil
}

func relative(p string) string {
	if p == "/" {
		return "."
	}
	return p[1:]
}

// allPaths lists what is in a root, for a pathWhitelist.
func allPaths(ctx context.Context, root string) (paths []string, err error) {
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || p == root {
			return err
		}
		if d.Type() != fs.ModeSocket { // which no image has
			paths = append(paths, p[len(root):])
		}
		return nil
	})
	slices.Sort(paths)
	return paths, err
}

// readManifest reads the manifest that the command has left and completes it.
func (b *Build) readManifest(root string) (*schema.ImageManifest, error) {
	raw, err := readFile(filepath.Join(root, WorkDir), ManifestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the command has left no %s in its directory", ErrFailed, ManifestFile)
	}
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	m, warnings, err := manifest.ParseImage(manifest.CompleteImage(raw))
	if err != nil {
		return nil, fmt.Errorf("build: %s: %w", ManifestFile, err)
	}
	for _, w := range warnings {
		b.builder.Notice(ManifestFile + ": " + w)
	}
	b.complete(m)
	return m, nil
}

// readFile reads a file of a directory that hostile processes have written to.
func readFile(dir, name string) (_ []byte, err error) {
	d, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	fi, err := d.Stat(name)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, manifest.MaxSize+1)) // the parser refuses what is larger
}

// complete adds to a manifest what follows from the build.
func (b *Build) complete(m *schema.ImageManifest) {
	for _, name := range []types.ACIdentifier{"os", "arch"} {
		own := slices.IndexFunc(m.Labels, func(l types.Label) bool { return l.Name == name })
		value, ok := b.base.Parsed().GetLabel(name.String())
		switch {
		case own >= 0 && m.Labels[own].Value == "": // it shall have none
			m.Labels = slices.Delete(m.Labels, own, own+1)
		case own < 0 && ok:
			m.Labels = append(m.Labels, types.Label{Name: name, Value: value})
		}
	}
	created := b.options.Epoch
	if created.IsZero() {
		created = time.Now()
	}
	// timestamp is what the first jetpack called it.
	for _, name := range []types.ACIdentifier{"created", "timestamp"} {
		if _, ok := m.Annotations.Get(name.String()); !ok {
			m.Annotations.Set(name, created.UTC().Format(time.RFC3339))
		}
	}
	id, err := types.NewHash(string(b.base.ID))
	if err != nil {
		panic(err) // the store holds no other IDs
	}
	m.Dependencies = append(types.Dependencies{{
		ImageName: b.base.Parsed().Name, ImageID: id, Labels: slices.Clone(b.base.Parsed().Labels),
	}}, m.Dependencies...)
}

// fill makes the command's directory in a root, and gives it the resolver of the host whose network
// it is to use.
func (b *Build) fill(ctx context.Context, root string) error {
	o := &b.options
	if o.Network == sandbox.NetworkHost {
		if err := b.resolver.replace(ctx, root); err != nil {
			return fmt.Errorf("build: the host's %s: %w", resolvConf, err)
		}
	}
	work := filepath.Join(root, WorkDir)
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("build: the base has a %s: %w", WorkDir, err)
	}
	if o.Dir != "" {
		if err := copyDir(ctx, o.Dir, work, o.Limits); err != nil {
			return fmt.Errorf("build: copy %s: %w", o.Dir, err)
		}
	}
	for _, file := range o.Copy {
		if err := copyFile(ctx, file, work, o.Limits); err != nil {
			return fmt.Errorf("build: copy %s: %w", file, err)
		}
	}
	return nil
}
