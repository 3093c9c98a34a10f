package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/jetpack-run/jetpack/internal/lazyregexp"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/coreos/go-semver/semver"
)

// rename is a key that has another name in documents of earlier versions.
type rename struct {
	in       reflect.Type
	old, new string
	before   semver.Version
}

// The versions of the appc specification (its CHANGELOG.md and tags) in which
// names and units changed.
var (
	v020 = semver.Version{Minor: 2}
	v052 = semver.Version{Minor: 5, Patch: 2}
	v060 = semver.Version{Minor: 6}
	v070 = semver.Version{Minor: 7}
)

// renames lists the keys whose meaning stayed the same. Those of container
// runtime manifests, which pod manifests replaced in 0.5, are not among them.
var renames = []rename{
	{reflect.TypeFor[types.Label](), "val", "value", v020},
	{reflect.TypeFor[types.Isolator](), "val", "value", v020},
	{reflect.TypeFor[types.Dependency](), "hash", "imageID", v020},
	{reflect.TypeFor[types.Dependency](), "name", "imageName", v020},
	{reflect.TypeFor[types.Dependency](), "app", "imageName", v060},
	{reflect.TypeFor[schema.Mount](), "mountPoint", "path", v070},
}

// revokeSet is what the library called the isolator that the specification
// calls types.LinuxCapabilitiesRevokeSetName, before v052.
const revokeSet = "os/linux/capabilities-revoke-set"

// versionOf reads an acVersion. What cannot be read is not early; the library
// refuses it.
func versionOf(data json.RawMessage) semver.Version {
	var v types.SemVer
	if err := json.Unmarshal(data, &v); err != nil {
		return semver.Version(schema.AppContainerVersion)
	}
	return semver.Version(v)
}

// updateKeys gives what an early document calls otherwise its present name, and
// warns of each.
func updateKeys(fields map[string]json.RawMessage, s *shape, version semver.Version) ([]string, error) {
	if !version.LessThan(v070) {
		return nil, nil
	}
	u := updater{version: version}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		field, ok := s.fields[key]
		if !ok || !field.hasObjects() {
			continue
		}
		dec := json.NewDecoder(bytes.NewReader(fields[key]))
		dec.UseNumber()
		var v any
		if err := dec.Decode(&v); err != nil {
			return nil, invalid(key, "%s", reason(err))
		}
		if err := u.value(key, v, field); err != nil {
			return nil, err
		}
		updated, err := json.Marshal(v)
		if err != nil {
			return nil, invalid(key, "%s", reason(err))
		}
		fields[key] = updated
	}
	return u.warnings, nil
}

// hasObjects says whether the schema has an object of known fields here.
func (s *shape) hasObjects() bool {
	return s.fields != nil || s.elem != nil && s.elem.hasObjects()
}

type updater struct {
	version  semver.Version
	warnings []string
}

func (u *updater) warn(format string, args ...any) {
	if len(u.warnings) <= maxWarnings {
		u.warnings = append(u.warnings, fmt.Sprintf(format, args...))
	}
}

func (u *updater) value(where string, v any, s *shape) error {
	switch v := v.(type) {
	case map[string]any:
		return u.object(where, v, s)
	case []any:
		for i, elem := range v {
			if s.elem == nil {
				return nil
			}
			if err := u.value(index(where, i), elem, s.elem); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *updater) object(where string, v map[string]any, s *shape) error {
	for _, r := range s.earlier {
		value, ok := v[r.old]
		if !ok || !u.version.LessThan(r.before) {
			continue
		}
		if present, both := v[r.new]; both && !reflect.DeepEqual(present, value) {
			return invalid(where, "%s and %s, its name since %s, differ", r.old, r.new, r.before)
		}
		delete(v, r.old)
		v[r.new] = value
		u.warn("%s.%s is read as %s, its name since %s", where, r.old, r.new, r.before)
	}
	if s.isolator {
		u.isolator(where, v)
	}
	for _, key := range slices.Sorted(maps.Keys(s.fields)) {
		if err := u.value(join(where, key), v[key], s.fields[key]); err != nil {
			return err
		}
	}
	return nil
}

// noUnit matches a quantity without suffix.
var noUnit = lazyregexp.New(`^[0-9]+(\.[0-9]+)?$`)

// isolator updates the name and the unit of an isolator.
func (u *updater) isolator(where string, v map[string]any) {
	if v["name"] == revokeSet && u.version.LessThan(v052) {
		v["name"] = types.LinuxCapabilitiesRevokeSetName
		u.warn("%s: %s is read as %s, its name since %s", where, revokeSet, types.LinuxCapabilitiesRevokeSetName, v052)
	}
	value, ok := v["value"].(map[string]any)
	if !ok || v["name"] != string(types.ResourceCPUName) {
		return
	}
	// Cores are the unit since v070, thousandths of one were it before.
	for _, key := range []string{"limit", "request"} {
		quantity := fmt.Sprint(value[key])
		if noUnit().MatchString(quantity) {
			value[key] = quantity + "m"
			u.warn("%s.value.%s is read as %.60sm, the unit before %s", where, key, quantity, v070)
		}
	}
}
