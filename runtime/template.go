package runtime

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/image"
)

// AppRequest is an app as a command line asks for it.
type AppRequest struct {
	Image string // a name, an ID or a unique ID prefix
	Name  string // of the app; "" is made from the image's name
	// Exec with Args is the whole command; without Exec, Args follow the image's own, and
	// replace the default arguments of an OCI image.
	Exec        string
	Args        []string
	User, Group string   // "" is the image's
	WorkDir     string   // "" is the image's
	Env         []string // NAME=value, over the image's
	Mounts      []schema.Mount
	ReadOnly    bool
	Isolators   []types.Isolator // over the image's
}

// Template makes a pod manifest of what a command line asks for. An app whose
// command, identity or environment differs from its image's carries the whole
// app object, because the pod's replaces the image's (appc spec, "Pod Manifest").
// Errors: those of the image store, ErrInvalid.
func (r *Runtime) Template(ctx context.Context, apps []AppRequest, volumes []types.Volume) (*schema.PodManifest, error) {
	m := schema.BlankPodManifest()
	m.Volumes = volumes
	for _, req := range apps {
		img, err := r.find(ctx, req.Image)
		if err != nil {
			return nil, err
		}
		app, err := req.runtimeApp(img)
		if err != nil {
			return nil, err
		}
		app.Name = freeName(m.Apps, app.Name, req.Name == "")
		m.Apps = append(m.Apps, app)
	}
	return m, nil
}

// freeName numbers the second and later apps of one image, unless the user named them.
func freeName(apps schema.AppList, name types.ACName, number bool) types.ACName {
	free := name
	for n := 2; number && apps.Get(free) != nil; n++ {
		suffix := fmt.Sprintf("-%d", n)
		kept := name[:min(len(name), maxName-len(suffix))]
		free = types.ACName(strings.TrimRight(string(kept), "-") + suffix)
	}
	return free
}

func (req AppRequest) runtimeApp(img *image.Image) (schema.RuntimeApp, error) {
	app := schema.RuntimeApp{
		Image:          runtimeImage(img),
		ReadOnlyRootFS: req.ReadOnly,
		Mounts:         slices.Clone(req.Mounts),
	}
	for i, m := range app.Mounts {
		app.Mounts[i].Path = mountPointPath(ownApp(img.Parsed().App), m.Path)
	}
	name := req.Name
	if name == "" {
		name = defaultAppName(img.Name())
	}
	if !types.ValidACName.MatchString(name) {
		return app, fmt.Errorf("%w: app name %q: want lower-case letters, digits and single hyphens", ErrInvalid, name)
	}
	app.Name = types.ACName(name)
	if req.Exec == "" && len(req.Args) == 0 && req.User == "" && req.Group == "" && req.WorkDir == "" && len(req.Env) == 0 && len(req.Isolators) == 0 {
		return app, nil
	}
	own := ownApp(img.Parsed().App)
	switch {
	case req.Exec != "":
		own.Exec = append(types.Exec{req.Exec}, req.Args...)
	case len(own.Exec) == 0 && len(req.Args) > 0:
		return app, fmt.Errorf("%w: app %s: image %s has no command to take arguments; give it with --exec", ErrInvalid, name, img.Name())
	case len(req.Args) > 0:
		own.Exec = append(takesArgs(img, own.Exec), req.Args...)
	}
	own.User = first(req.User, own.User)
	own.Group = first(req.Group, own.Group)
	own.WorkingDirectory = first(req.WorkDir, own.WorkingDirectory)
	for _, kv := range req.Env {
		k, v, err := splitEnv(kv)
		if err != nil {
			return app, err
		}
		own.Environment.Set(k, v)
	}
	own.Isolators = addIsolators(own.Isolators, req.Isolators)
	app.App = own
	return app, nil
}

// takesArgs is what of an image's command arguments follow: all of it, or the entrypoint
// of an OCI image, which has arguments of its own for where there are none.
func takesArgs(img *image.Image, command types.Exec) types.Exec {
	if n, ok := img.Entrypoint(); ok && n <= len(command) {
		return command[:n:n]
	}
	return command
}

// runtimeImage pins an image as a reified manifest names it.
func runtimeImage(img *image.Image) schema.RuntimeImage {
	name := img.Parsed().Name
	id, err := types.NewHash(string(img.ID))
	if err != nil {
		panic(err) // the store holds no other IDs
	}
	return schema.RuntimeImage{Name: &name, ID: *id, Labels: slices.Clone(img.Parsed().Labels)}
}

// ownApp copies an image's app object as far as it is changed here; an image
// without one gives root's defaults.
func ownApp(app *types.App) *types.App {
	if app == nil {
		return &types.App{User: "0", Group: "0"}
	}
	own := *app
	own.Exec = slices.Clone(app.Exec)
	own.Environment = slices.Clone(app.Environment)
	return &own
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
