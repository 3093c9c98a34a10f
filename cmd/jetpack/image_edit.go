package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

func newImageEditCommand(c *cli) *cobra.Command {
	var e manifestEdits
	var o editOptions
	cmd := &cobra.Command{
		Use:   "edit IMAGE FLAGS",
		Short: "Make an image with another manifest and the same files",
		Long: "Make an image of the same files with another manifest, take it into the store, without\n" +
			"a signature, and print its ID; with --output only write it to a file. IMAGE stays as\n" +
			"it is. Of an OCI image the new one is an ACI that depends on it; a file has the whole\n" +
			"root of what is made of an OCI image, as 'image export' writes it.\n\n" +
			"COMMAND is words, or a JSON array of them. An image that had nothing to run gets user\n" +
			"and group 0. What is dropped need not be there.",
		Args: exactly(1, "one IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(e.edits) == 0 && o.manifest == "" {
				return usagef("say what is to be different; see '%s --help'", cmd.CommandPath())
			}
			return c.eachImage(cmd.Context(), args, func(h *host, img *image.Image) error {
				return c.runEdit(cmd.Context(), h, img, e.edits, o)
			})
		},
	}
	cmd.Flags().StringVar(&o.manifest, "manifest", "", "the whole manifest, in a `FILE`, to which the other flags make changes")
	e.add(cmd.Flags())
	o.add(cmd)
	return cmd
}

type editOptions struct {
	manifest string
	outputOptions
}

func (c *cli) runEdit(ctx context.Context, h *host, img *image.Image, edits []manifestEdit, o editOptions) error {
	flat, err := madeOfOCI(ctx, h, img)
	if err != nil {
		return err
	}
	m := img.Parsed()
	if flat = flat && o.output != ""; flat {
		m = flatManifest(img)
	}
	if o.manifest != "" {
		written, err := c.readImageManifest(o.manifest)
		if err != nil {
			return err
		}
		if m, _, err = manifest.ParseImage(written); err != nil {
			return err
		}
	}
	if img.OCI != nil && !flat {
		if m, err = manifestAbove(img, m); err != nil {
			return err
		}
	}
	raw, err := editManifest(m, edits)
	if err != nil {
		return err
	}
	compression, err := c.compression(o.compression)
	if err != nil {
		return err
	}
	err = c.putImage(ctx, o.outputOptions, "image edit", func(w io.Writer) error {
		switch {
		case flat:
			return packRoot(ctx, h, img, w, raw, aci.PackOptions{Compression: compression})
		case img.OCI != nil: // nothing but the top directory
			return packRoot(ctx, h, img, w, raw, aci.PackOptions{Names: []string{"."}, Compression: compression})
		}
		return withArchive(h, img, func(in io.Reader) error { return aci.Rewrite(ctx, w, in, raw, compression) })
	})
	if err != nil {
		return err
	}
	c.notice("the new image has no signature; to publish it: jetpack repo add --sign KEYFILE DIR FILE")
	return nil
}

// manifestAbove is m for an ACI that adds nothing to an OCI image.
func manifestAbove(img *image.Image, m *schema.ImageManifest) (*schema.ImageManifest, error) {
	id, err := types.NewHash(string(img.ID))
	if err != nil {
		return nil, err
	}
	above := *m
	above.Dependencies = append(types.Dependencies{{ImageName: img.Parsed().Name, ImageID: id}}, m.Dependencies...)
	return &above, nil
}

// editManifest gives a manifest with changes, without touching m.
func editManifest(m *schema.ImageManifest, edits []manifestEdit) ([]byte, error) {
	raw, err := manifest.MarshalImage(m)
	if err != nil {
		return nil, err
	}
	edited, _, err := manifest.ParseImage(raw)
	if err != nil {
		return nil, err
	}
	for _, e := range edits {
		if err := e.edit(edited, e.value); err != nil {
			return nil, usagef("--%s %s: %w", e.flag, e.value, err)
		}
	}
	return manifest.MarshalImage(edited)
}

// manifestEdits are flags that change an image's manifest, in the order in which they
// were given.
type manifestEdits struct{ edits []manifestEdit }

type manifestEdit struct {
	flag, value string
	edit        editFunc
}

// editFunc changes what a flag is about to what its value says.
type editFunc func(m *schema.ImageManifest, value string) error

func (e *manifestEdits) add(f *pflag.FlagSet) {
	for _, flag := range []struct {
		name, usage string
		edit        editFunc
	}{
		{"name", "set the `NAME`", editName},
		{"label", "set a label: `NAME=VALUE`; NAME= drops it", editLabel},
		{"annotation", "set an annotation: `NAME=VALUE`; NAME= drops it", editAnnotation},
		{"dependency", "add a dependency, or set its labels: `NAME[:VERSION][,LABEL=VALUE]...`", addDependency},
		{"dependency-id", "set the ID that a dependency must have: `NAME=ID`; NAME= drops it", editDependencyID},
		{"dependency-size", "set the size that a dependency should have: `NAME=BYTES`; NAME= drops it", editDependencySize},
		{"unset-dependency", "drop the dependency on `NAME`", dropDependency},
		{"exec", "set the `COMMAND` that is run", editApp(func(a *types.App, v string) (err error) {
			a.Exec, err = parseCommand(v)
			return err
		})},
		{"user", "set the `USER`: name, number, or path of a file whose owner it is", editApp(func(a *types.App, v string) error {
			a.User = v
			return nil
		})},
		{"group", "set the `GROUP`, likewise", editApp(func(a *types.App, v string) error {
			a.Group = v
			return nil
		})},
		{"supplementary-gid", "set the further groups: `GID[,GID]...`, or nothing for none", editApp(editGIDs)},
		{"workdir", "set the working `DIRECTORY`", editApp(func(a *types.App, v string) error {
			a.WorkingDirectory = v
			return nil
		})},
		{"env", "set an environment variable: `NAME=VALUE`", editApp(editEnv)},
		{"unset-env", "drop the environment variable `NAME`", editApp(dropEnv)},
		{"port", "set a port: `NAME,protocol=tcp,port=80[,count=N][,socketActivated=true]`", editApp(editPort)},
		{"unset-port", "drop the port `NAME`", editApp(dropPort)},
		{"mount", "set a mount point: `NAME,path=/PATH[,readOnly=true]`", editApp(editMount)},
		{"unset-mount", "drop the mount point `NAME`", editApp(dropMount)},
		{"event", "set an event handler: `{pre-start|post-stop}=COMMAND`; nothing for COMMAND drops it", editApp(editEvent)},
		{"isolator", "set an isolator, as `JSON`: {\"name\": NAME, \"value\": VALUE}", editApp(editIsolator)},
		{"unset-isolator", "drop the isolator `NAME`", editApp(dropIsolator)},
		{"capability", "set the capabilities that are kept: `CAP[,CAP]...`", editApp(editCapabilities(types.LinuxCapabilitiesRetainSetName))},
		{"revoke-capability", "set the capabilities that are taken away: `CAP[,CAP]...`", editApp(editCapabilities(types.LinuxCapabilitiesRevokeSetName))},
	} {
		f.VarPF(&editValue{e, flag.name, flag.edit}, flag.name, "", flag.usage)
	}
}

// editValue is a flag that notes each of its values as a change.
type editValue struct {
	edits *manifestEdits
	flag  string
	edit  editFunc
}

func (v *editValue) Set(text string) error {
	v.edits.edits = append(v.edits.edits, manifestEdit{v.flag, text, v.edit})
	return nil
}

func (v *editValue) String() string { return "" }
func (v *editValue) Type() string   { return "string" }

// editApp changes what running the image means, of which it may have none so far.
func editApp(edit func(a *types.App, value string) error) editFunc {
	return func(m *schema.ImageManifest, value string) error {
		if m.App == nil {
			m.App = &types.App{User: "0", Group: "0"}
		}
		return edit(m.App, value)
	}
}

func editName(m *schema.ImageManifest, value string) error {
	name, err := types.NewACIdentifier(value)
	if err == nil {
		m.Name = *name
	}
	return err
}

// cutPair takes NAME=VALUE apart.
func cutPair(pair string) (types.ACIdentifier, string, error) {
	text, value, ok := strings.Cut(pair, "=")
	if !ok {
		return "", "", errors.New("want NAME=VALUE")
	}
	name, err := types.NewACIdentifier(text)
	if err != nil {
		return "", "", err
	}
	return *name, value, nil
}

func editLabel(m *schema.ImageManifest, pair string) error {
	name, value, err := cutPair(pair)
	if err != nil {
		return err
	}
	m.Labels = setOrDrop(m.Labels, types.Label{Name: name, Value: value}, value == "", func(l types.Label) bool { return l.Name == name })
	return nil
}

func editAnnotation(m *schema.ImageManifest, pair string) error {
	name, value, err := cutPair(pair)
	if err != nil {
		return err
	}
	m.Annotations = setOrDrop(m.Annotations, types.Annotation{Name: name, Value: value}, value == "", func(a types.Annotation) bool { return a.Name == name })
	return nil
}

// setOrDrop puts an element in the place of the one that is it, or at the end, or drops
// that.
func setOrDrop[S ~[]E, E any](list S, element E, drop bool, is func(E) bool) S {
	i := slices.IndexFunc(list, is)
	switch {
	case drop:
		return slices.DeleteFunc(list, is)
	case i < 0:
		return append(list, element)
	}
	list[i] = element
	return list
}

func addDependency(m *schema.ImageManifest, text string) error {
	ref, err := manifest.ParseRef(text)
	if err != nil {
		return err
	}
	dep := types.Dependency{ImageName: types.ACIdentifier(ref.Name)}
	for _, name := range slices.Sorted(maps.Keys(ref.Labels)) {
		dep.Labels = append(dep.Labels, types.Label{Name: types.ACIdentifier(name), Value: ref.Labels[name]})
	}
	if old := dependency(m, dep.ImageName); old != nil { // of which there may be an ID and a size
		old.Labels = dep.Labels
		return nil
	}
	m.Dependencies = append(m.Dependencies, dep)
	return nil
}

func editDependencyID(m *schema.ImageManifest, pair string) error {
	return editDependency(m, pair, func(d *types.Dependency, id string) (err error) {
		if d.ImageID = nil; id != "" {
			d.ImageID, err = types.NewHash(id)
		}
		return err
	})
}

func editDependencySize(m *schema.ImageManifest, pair string) error {
	return editDependency(m, pair, func(d *types.Dependency, bytes string) error {
		size, err := strconv.ParseUint(cmp.Or(bytes, "0"), 10, 63)
		d.Size = uint(size)
		return err
	})
}

// editDependency changes what NAME=VALUE is about to its value.
func editDependency(m *schema.ImageManifest, pair string, edit func(d *types.Dependency, value string) error) error {
	name, value, err := cutPair(pair)
	if err != nil {
		return err
	}
	d := dependency(m, name)
	if d == nil {
		return fmt.Errorf("it does not depend on %s; --dependency adds that", name)
	}
	return edit(d, value)
}

// dependency is the first one of a name, or nil.
func dependency(m *schema.ImageManifest, name types.ACIdentifier) *types.Dependency {
	i := slices.IndexFunc(m.Dependencies, func(d types.Dependency) bool { return d.ImageName == name })
	if i < 0 {
		return nil
	}
	return &m.Dependencies[i]
}

func dropDependency(m *schema.ImageManifest, name string) error {
	m.Dependencies = slices.DeleteFunc(m.Dependencies, func(d types.Dependency) bool { return d.ImageName.String() == name })
	return nil
}

// parseCommand reads a command: a JSON array, or words.
func parseCommand(text string) (types.Exec, error) {
	if !strings.HasPrefix(text, "[") {
		return strings.Fields(text), nil
	}
	var words []string
	err := json.Unmarshal([]byte(text), &words)
	return words, err
}

func editGIDs(a *types.App, list string) error {
	a.SupplementaryGIDs = nil
	if list == "" {
		return nil
	}
	return json.Unmarshal([]byte("["+list+"]"), &a.SupplementaryGIDs)
}

func editEnv(a *types.App, pair string) error {
	name, value, ok := strings.Cut(pair, "=")
	if !ok {
		return errors.New("want NAME=VALUE")
	}
	a.Environment.Set(name, value)
	return nil
}

func dropEnv(a *types.App, name string) error {
	a.Environment = slices.DeleteFunc(a.Environment, func(v types.EnvironmentVariable) bool { return v.Name == name })
	return nil
}

func editPort(a *types.App, text string) error {
	port, err := types.PortFromString(text)
	if err != nil {
		return err
	}
	a.Ports = setOrDrop(a.Ports, *port, false, func(p types.Port) bool { return p.Name == port.Name })
	return nil
}

func dropPort(a *types.App, name string) error {
	a.Ports = slices.DeleteFunc(a.Ports, func(p types.Port) bool { return p.Name.String() == name })
	return nil
}

func editMount(a *types.App, text string) error {
	point, err := types.MountPointFromString(text)
	if err != nil {
		return err
	}
	a.MountPoints = setOrDrop(a.MountPoints, *point, false, func(p types.MountPoint) bool { return p.Name == point.Name })
	return nil
}

func dropMount(a *types.App, name string) error {
	a.MountPoints = slices.DeleteFunc(a.MountPoints, func(p types.MountPoint) bool { return p.Name.String() == name })
	return nil
}

func editEvent(a *types.App, text string) error {
	event, command, ok := strings.Cut(text, "=")
	if !ok {
		return errors.New("want EVENT=COMMAND")
	}
	exec, err := parseCommand(command)
	if err != nil {
		return err
	}
	handler := types.EventHandler{Name: event, Exec: exec}
	a.EventHandlers = setOrDrop(a.EventHandlers, handler, len(exec) == 0, func(h types.EventHandler) bool { return h.Name == event })
	return nil
}

func editIsolator(a *types.App, text string) error {
	isolator, err := manifest.ParseIsolator([]byte(text))
	if err != nil {
		return err
	}
	a.Isolators = setOrDrop(a.Isolators, isolator, false, func(i types.Isolator) bool { return i.Name == isolator.Name })
	return nil
}

func dropIsolator(a *types.App, name string) error {
	a.Isolators = slices.DeleteFunc(a.Isolators, func(i types.Isolator) bool { return i.Name.String() == name })
	return nil
}

// editCapabilities sets one of the two isolators of capabilities, of which an app has
// one at most.
func editCapabilities(name types.ACIdentifier) func(a *types.App, list string) error {
	return func(a *types.App, list string) error {
		a.Isolators = slices.DeleteFunc(a.Isolators, func(i types.Isolator) bool {
			return i.Name == types.LinuxCapabilitiesRetainSetName || i.Name == types.LinuxCapabilitiesRevokeSetName
		})
		set, err := json.Marshal(strings.Split(list, ","))
		if err != nil {
			return err
		}
		return editIsolator(a, fmt.Sprintf(`{"name":%q,"value":{"set":%s}}`, name, set))
	}
}
