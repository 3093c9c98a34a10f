package main

import (
	"cmp"
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

	"github.com/jetpack-run/jetpack/runtime"
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
		mounts:   slices.Concat(o.mounts, p.mounts),
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

// parseVolumes reads --volume flags; those of the form SRC:DST[:ro] also give a mount.
func parseVolumes(specs []string) (volumes []types.Volume, mounts []schema.Mount, err error) {
	for i, spec := range specs {
		if strings.HasPrefix(spec, "/") {
			v, m, err := parseBind(spec, fmt.Sprintf("bind-%d", i+1))
			if err != nil {
				return nil, nil, err
			}
			volumes, mounts = append(volumes, v), append(mounts, m)
			continue
		}
		v, err := parseVolume(spec)
		if err != nil {
			return nil, nil, err
		}
		if slices.ContainsFunc(volumes, func(o types.Volume) bool { return o.Name == v.Name }) {
			return nil, nil, usagef("--volume %s: the name is given twice", v.Name)
		}
		volumes = append(volumes, v)
	}
	return volumes, mounts, nil
}

func parseBind(spec, name string) (types.Volume, schema.Mount, error) {
	parts := strings.Split(spec, ":")
	readOnly := len(parts) == 3 && parts[2] == "ro"
	if len(parts) != 2 && !readOnly || !path.IsAbs(parts[1]) {
		return types.Volume{}, schema.Mount{}, usagef("--volume %q: want SRC:DST[:ro], both absolute", spec)
	}
	return types.Volume{Name: types.ACName(name), Kind: "host", Source: parts[0], ReadOnly: &readOnly},
		schema.Mount{Volume: types.ACName(name), Path: parts[1]}, nil
}

// parseVolume reads NAME[,key=value]..., with the keys of the specification's volumes.
func parseVolume(spec string) (types.Volume, error) {
	name, rest, _ := strings.Cut(spec, ",")
	if !types.ValidACName.MatchString(name) {
		return types.Volume{}, usagef("--volume %q: the name needs lower-case letters, digits and single hyphens; a host directory is given as /SRC:/DST", spec)
	}
	v := runtime.EmptyVolume(types.ACName(name))
	kind := ""
	for field := range strings.SplitSeq(rest, ",") {
		if field == "" {
			continue
		}
		key, value, _ := strings.Cut(field, "=")
		if err := setVolumeField(&v, &kind, key, value); err != nil {
			return v, usagef("--volume %s: %w", name, err)
		}
	}
	if kind == "" && v.Source != "" {
		kind = "host"
	}
	switch kind {
	case "", "empty":
		if v.Source != "" {
			return v, usagef("--volume %s: an empty volume has no source", name)
		}
		return v, nil
	case "host":
		if !path.IsAbs(v.Source) {
			return v, usagef("--volume %s: a host volume needs source=/PATH", name)
		}
		v.Kind, v.Mode, v.UID, v.GID = "host", nil, nil, nil
		return v, nil
	}
	return v, usagef("--volume %s: kind %q: want empty or host", name, kind)
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
