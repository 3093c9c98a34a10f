package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/spf13/pflag"

	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/runtime"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

// appLine is one app as the command line describes it.
type appLine struct {
	appOptions
	image string
	args  []string
}

// parseApps reads IMAGE [APP FLAGS] [-- ARG...] [--- ...]; before are the app flags
// that stood before the first image.
func parseApps(before appOptions, args []string) ([]appLine, error) {
	if len(args) == 0 {
		return nil, usagef("which IMAGE? see 'jetpack pod run --help'")
	}
	several := slices.Contains(args, "---")
	if several && !before.isZero() {
		return nil, usagef("with several apps, each app's flags stand behind its IMAGE")
	}
	var apps []appLine
	for len(args) > 0 {
		segment, rest := args, []string(nil)
		if i := slices.Index(args, "---"); i >= 0 {
			segment, rest = args[:i], args[i+1:]
			if len(rest) == 0 {
				return nil, usagef("an IMAGE must follow ---")
			}
		}
		app, err := parseApp(before, segment)
		if err != nil {
			return nil, err
		}
		apps, args = append(apps, app), rest
	}
	return apps, nil
}

func parseApp(o appOptions, segment []string) (appLine, error) {
	if len(segment) == 0 || strings.HasPrefix(segment[0], "-") && segment[0] != "-" {
		return appLine{}, usagef("an IMAGE must come before its flags and arguments")
	}
	var own appOptions
	f := pflag.NewFlagSet(segment[0], pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	own.add(f)
	if err := f.Parse(segment[1:]); err != nil {
		return appLine{}, usagef("%s: %w; flags of the pod stand before IMAGE, arguments of the app behind --", segment[0], err)
	}
	dash := f.ArgsLenAtDash()
	if dash < 0 {
		dash = f.NArg()
	}
	if dash > 0 {
		return appLine{}, usagef("%s: unexpected %q: arguments of the app stand behind --", segment[0], f.Arg(0))
	}
	return appLine{appOptions: o.with(own), image: segment[0], args: f.Args()}, nil
}

func (o appOptions) isZero() bool { return reflect.ValueOf(o).IsZero() }

// with lays what stands behind the image over what stood before it.
func (o appOptions) with(p appOptions) appOptions {
	return appOptions{
		name: cmp.Or(p.name, o.name), exec: cmp.Or(p.exec, o.exec), user: cmp.Or(p.user, o.user),
		group: cmp.Or(p.group, o.group), workDir: cmp.Or(p.workDir, o.workDir),
		env: slices.Concat(o.env, p.env), envFiles: slices.Concat(o.envFiles, p.envFiles),
		mounts: slices.Concat(o.mounts, p.mounts), isolators: slices.Concat(o.isolators, p.isolators),
		readOnly: o.readOnly || p.readOnly, tty: o.tty || p.tty, interactive: o.interactive || p.interactive,
	}
}

func (a appLine) request() (runtime.AppRequest, error) {
	req := runtime.AppRequest{
		Image: a.image, Name: a.name, Exec: a.exec, Args: a.args, User: a.user, Group: a.group,
		WorkDir: a.workDir, ReadOnly: a.readOnly,
	}
	for _, file := range a.envFiles {
		raw, err := os.ReadFile(file)
		if err != nil {
			return req, err
		}
		for line := range strings.Lines(string(raw)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				req.Env = append(req.Env, line)
			}
		}
	}
	req.Env = append(req.Env, a.env...)
	for _, text := range a.isolators {
		isolator, err := manifest.ParseIsolator([]byte(text))
		if err != nil {
			return req, usagef("--isolator %s: %w", text, err)
		}
		req.Isolators = append(req.Isolators, isolator)
	}
	for _, spec := range a.mounts {
		name, target, ok := strings.Cut(spec, ":")
		if !ok {
			target = name // the mount point of the volume's name
		}
		if !types.ValidACName.MatchString(name) || target == "" {
			return req, usagef("--mount %q: want VOLUME[:PATH]", spec)
		}
		req.Mounts = append(req.Mounts, schema.Mount{Volume: types.ACName(name), Path: target})
	}
	return req, nil
}

// podVolumes are what --volume flags say: the pod's volumes, mounts for a single
// app, and annotations that give volumes a named one.
type podVolumes struct {
	volumes     []types.Volume
	mounts      []schema.Mount
	annotations types.Annotations
}

// parseVolumes reads --volume flags; those of the form SRC:DST[:ro] also give a mount.
func parseVolumes(specs []string) (podVolumes, error) {
	var pv podVolumes
	for i, spec := range specs {
		if err := pv.add(spec, fmt.Sprintf("bind-%d", i+1)); err != nil {
			return podVolumes{}, err
		}
	}
	return pv, nil
}

// add takes in one flag; bind is the name of a volume that it gives none.
func (pv *podVolumes) add(spec, bind string) error {
	var v types.Volume
	var named string
	var err error
	if head, _, _ := strings.Cut(spec, ","); strings.HasPrefix(spec, "/") || strings.Contains(head, ":") {
		var m schema.Mount
		if v, m, named, err = parseBind(spec, bind); err != nil {
			return err
		}
		pv.mounts = append(pv.mounts, m)
	} else if v, named, err = parseVolume(spec); err != nil {
		return err
	}
	if slices.ContainsFunc(pv.volumes, func(o types.Volume) bool { return o.Name == v.Name }) {
		return usagef("--volume %s: the name is given twice", v.Name)
	}
	pv.volumes = append(pv.volumes, v)
	if named != "" {
		pv.annotations.Set(types.ACIdentifier(volume.AnnotationPrefix+v.Name.String()), named)
	}
	return nil
}

// parseBind reads SRC:DST[:ro], SRC being a host's directory or a named volume.
func parseBind(spec, name string) (v types.Volume, m schema.Mount, named string, err error) {
	parts := strings.Split(spec, ":")
	readOnly := len(parts) == 3 && parts[2] == "ro"
	if len(parts) != 2 && !readOnly || !path.IsAbs(parts[1]) {
		return v, m, "", usagef("--volume %q: want SRC:DST[:ro], DST absolute, SRC too or the name of a volume", spec)
	}
	v, m = runtime.EmptyVolume(types.ACName(name)), schema.Mount{Volume: types.ACName(name), Path: parts[1]}
	if path.IsAbs(parts[0]) {
		v = types.Volume{Name: v.Name, Kind: "host", Source: parts[0]}
	} else if named = parts[0]; volume.CheckName(named) != nil {
		return v, m, "", usagef("--volume %q: SRC is neither an absolute path nor the name of a volume", spec)
	}
	v.ReadOnly = &readOnly
	return v, m, named, nil
}

// namedSource comes before the name of a volume in its source.
const namedSource = "volume:"

// parseVolume reads NAME[,key=value]..., with the keys of the specification's
// volumes; source=volume:NAMED is jetpack's own.
func parseVolume(spec string) (v types.Volume, named string, err error) {
	name, rest, _ := strings.Cut(spec, ",")
	if !types.ValidACName.MatchString(name) {
		return v, "", usagef("--volume %q: the name needs lower-case letters, digits and single hyphens; a host directory is given as /SRC:/DST", spec)
	}
	v = types.Volume{Name: types.ACName(name)}
	kind := ""
	for field := range strings.SplitSeq(rest, ",") {
		if field == "" {
			continue
		}
		key, value, _ := strings.Cut(field, "=")
		if err := setVolumeField(&v, &kind, key, value); err != nil {
			return v, "", usagef("--volume %s: %w", name, err)
		}
	}
	if named, err = bindSource(&v, kind); err != nil {
		return v, "", usagef("--volume %s: %w", name, err)
	}
	return v, named, nil
}

// bindSource settles what kind of volume it is.
func bindSource(v *types.Volume, kind string) (named string, err error) {
	source, isNamed := strings.CutPrefix(v.Source, namedSource)
	if kind == "" {
		switch {
		case isNamed:
			kind = "volume"
		case v.Source != "":
			kind = "host"
		default:
			kind = "empty"
		}
	}
	owned := v.Mode != nil || v.UID != nil || v.GID != nil
	empty := runtime.EmptyVolume(v.Name)
	switch kind {
	case "empty":
		if v.Source != "" {
			return "", errors.New("an empty volume has no source")
		}
	case "host":
		if !path.IsAbs(v.Source) {
			return "", errors.New("a host volume needs source=/PATH")
		}
		v.Kind, v.Mode, v.UID, v.GID = "host", nil, nil, nil
		return "", nil
	case "volume":
		if !isNamed || volume.CheckName(source) != nil {
			return "", errors.New("a named volume needs source=volume:NAME")
		}
		if owned {
			return "", errors.New("a named volume has the mode and the owner that it was made with")
		}
		named, v.Source = source, ""
	default:
		return "", fmt.Errorf("kind %q: want empty, host or volume", kind)
	}
	v.Kind = "empty"
	v.Mode, v.UID, v.GID = cmp.Or(v.Mode, empty.Mode), cmp.Or(v.UID, empty.UID), cmp.Or(v.GID, empty.GID)
	return named, nil
}

func setVolumeField(v *types.Volume, kind *string, key, value string) error {
	var err error
	switch key {
	case "kind":
		*kind = value
	case "source":
		v.Source = value
	case "mode":
		if _, err := strconv.ParseUint(value, 8, 12); err != nil {
			return fmt.Errorf("mode %q: want octal digits", value)
		}
		v.Mode = &value
	case "readOnly":
		v.ReadOnly, err = parseBool(value)
	case "recursive":
		v.Recursive, err = parseBool(value)
	case "uid":
		v.UID, err = parseID(value)
	case "gid":
		v.GID, err = parseID(value)
	default:
		return fmt.Errorf("unknown key %q: want kind, source, readOnly, recursive, mode, uid or gid", key)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func parseBool(s string) (*bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return nil, fmt.Errorf("%q: want true or false", s)
	}
	return &b, nil
}

func parseID(s string) (*int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return nil, fmt.Errorf("%q: want a number", s)
	}
	id := int(n)
	return &id, nil
}
