package manifest

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/jetpack-run/jetpack/internal/lazyregexp"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/coreos/go-semver/semver"
)

// maxID is the greatest user or group ID; the one above means "none" in chown(2).
const maxID = math.MaxUint32 - 1

// maxDependencies is the most dependencies that one image has.
const maxDependencies = 256

var (
	datePattern = lazyregexp.New(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)
	modePattern = lazyregexp.New(`^[0-7]{3,5}$`)
)

// checkImage checks and normalises what the library decoded.
func checkImage(m *schema.ImageManifest) ([]string, error) {
	warnings, err := checkVersion(m.ACVersion)
	if err != nil {
		return nil, err
	}
	if err = checkIdentifier("name", string(m.Name)); err != nil {
		return nil, err
	}
	if err = checkLabels("labels", m.Labels); err != nil {
		return nil, err
	}
	if err = checkAnnotations("annotations", m.Annotations); err != nil {
		return nil, err
	}
	if len(m.Dependencies) > maxDependencies {
		return nil, invalid("dependencies", "more than %d", maxDependencies)
	}
	for i, d := range m.Dependencies {
		if err = checkDependency(fmt.Sprintf("dependencies[%d]", i), d); err != nil {
			return nil, err
		}
	}
	for i, p := range m.PathWhitelist {
		if err = checkPath(p); err != nil {
			return nil, invalid(fmt.Sprintf("pathWhitelist[%d]", i), "%s", err)
		}
		m.PathWhitelist[i] = path.Clean(p)
	}
	if m.App == nil {
		return warnings, nil
	}
	more, err := checkApp("app", m.App)
	return append(warnings, more...), err
}

// checkPod checks and normalises what the library decoded.
func checkPod(m *schema.PodManifest) ([]string, error) {
	warnings, err := checkVersion(m.ACVersion)
	if err != nil {
		return nil, err
	}
	if len(m.Apps) == 0 {
		return nil, invalid("apps", "empty")
	}
	for i := range m.Apps {
		var more []string
		more, err = checkRuntimeApp(fmt.Sprintf("apps[%d]", i), &m.Apps[i])
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, more...)
	}
	for i := range m.Volumes {
		here := index("volumes", i)
		if err = checkVolume(here, &m.Volumes[i]); err != nil {
			return nil, err
		}
		warnings = append(warnings, volumeWarnings(here, m.Volumes[i])...)
	}
	if err = checkAnnotations("annotations", m.Annotations); err != nil {
		return nil, err
	}
	if err = checkExposedPorts(m.Ports); err != nil {
		return nil, err
	}
	if err = checkPortOwners(m); err != nil {
		return nil, err
	}
	more, err := checkIsolatorSet("isolators", m.Isolators)
	return append(warnings, more...), err
}

// checkVersion: manifests are compatible within a major version (appc spec,
// types.md, "AC Version Type").
func checkVersion(v types.SemVer) (warnings []string, err error) {
	if v.Empty() {
		return nil, invalid("acVersion", "missing")
	}
	their, our := semver.Version(v), semver.Version(schema.AppContainerVersion)
	if their.Major != our.Major {
		return nil, invalid("acVersion", "%q is not compatible with %s", v, our)
	}
	if their.Minor > our.Minor {
		return []string{fmt.Sprintf("acVersion %.40q is newer than %s, some of it may be ignored", v, our)}, nil
	}
	return nil, nil
}

func checkRuntimeApp(where string, a *schema.RuntimeApp) (warnings []string, err error) {
	if err := checkName(where+".name", a.Name); err != nil {
		return nil, err
	}
	if err := checkRuntimeImage(where+".image", a.Image); err != nil {
		return nil, err
	}
	for i := range a.Mounts {
		here := index(where+".mounts", i)
		if err := checkMount(here, &a.Mounts[i]); err != nil {
			return nil, err
		}
		if v := a.Mounts[i].AppVolume; v != nil {
			warnings = append(warnings, volumeWarnings(here+".appVolume", *v)...)
		}
	}
	if err := checkAnnotations(where+".annotations", a.Annotations); err != nil {
		return nil, err
	}
	if a.App == nil {
		return warnings, nil
	}
	more, err := checkApp(where+".app", a.App)
	return append(warnings, more...), err
}

func checkRuntimeImage(where string, image schema.RuntimeImage) error {
	if image.ID.Empty() && image.Name == nil {
		return invalid(where, "neither id nor name")
	}
	if !image.ID.Empty() {
		if err := checkImageID(where+".id", image.ID); err != nil {
			return err
		}
	}
	if image.Name != nil {
		if err := checkIdentifier(where+".name", string(*image.Name)); err != nil {
			return err
		}
	}
	return checkLabels(where+".labels", image.Labels)
}

func checkMount(where string, m *schema.Mount) error {
	if err := checkName(where+".volume", m.Volume); err != nil {
		return err
	}
	if !types.ValidACName.MatchString(m.Path) { // else it is a mount point's name
		target, err := checkTarget(where+".path", m.Path)
		if err != nil {
			return err
		}
		m.Path = target
	}
	if m.AppVolume == nil {
		return nil
	}
	return checkVolume(where+".appVolume", m.AppVolume)
}

func checkVolume(where string, v *types.Volume) error {
	if err := checkName(where+".name", v.Name); err != nil {
		return err
	}
	if v.Kind == "host" {
		if err := checkPath(v.Source); err != nil {
			return invalid(where+".source", "%s", err)
		}
		v.Source = path.Clean(v.Source)
	}
	if v.Mode != nil {
		mode, err := strconv.ParseUint(*v.Mode, 8, 32)
		if err != nil || !modePattern().MatchString(*v.Mode) || mode > 0o7777 {
			return invalid(where+".mode", "not a mode: %.40q", *v.Mode)
		}
	}
	if v.UID != nil && !validID(*v.UID) {
		return invalid(where+".uid", "out of range: %d", *v.UID)
	}
	if v.GID != nil && !validID(*v.GID) {
		return invalid(where+".gid", "out of range: %d", *v.GID)
	}
	return nil
}

// volumeWarnings: recursion is for volumes of kind host (appc spec, pods.md).
func volumeWarnings(where string, v types.Volume) []string {
	if v.Kind == "empty" && v.Recursive != nil {
		return []string{where + ".recursive is ignored, the volume is empty"}
	}
	return nil
}

func checkExposedPorts(ports []types.ExposedPort) error {
	seen := map[types.ACName]bool{}
	for i, p := range ports {
		where := fmt.Sprintf("ports[%d]", i)
		if err := checkName(where+".name", p.Name); err != nil {
			return err
		}
		if seen[p.Name] {
			return invalid(where+".name", "duplicate: %q", p.Name)
		}
		seen[p.Name] = true
		if p.HostIP != nil && p.HostIP.To4() == nil {
			return invalid(where+".hostIP", "not an IPv4 address: %q", p.HostIP)
		}
		count := uint(1)
		if p.PodPort != nil {
			if err := checkPort(where+".podPort", *p.PodPort); err != nil {
				return err
			}
			count = p.PodPort.Count
		}
		if err := checkPortRange(p.HostPort, count); err != nil {
			return invalid(where+".hostPort", "%s", err)
		}
	}
	return nil
}

// checkPortOwners: the name of an exposed port means the port of that name of
// one app (appc spec, pods.md, "ports"). Apps of the images are not known here.
func checkPortOwners(m *schema.PodManifest) error {
	owner := map[types.ACName]types.ACName{}
	ambiguous := map[types.ACName]types.ACName{}
	for _, a := range m.Apps {
		if a.App == nil {
			continue
		}
		for _, p := range a.App.Ports {
			if _, ok := owner[p.Name]; ok {
				ambiguous[p.Name] = a.Name
				continue
			}
			owner[p.Name] = a.Name
		}
	}
	for i, p := range m.Ports {
		if other, ok := ambiguous[p.Name]; ok && p.PodPort == nil {
			return invalid(index("ports", i)+".name", "the apps %s and %s both have a port %s", owner[p.Name], other, p.Name)
		}
	}
	return nil
}

func checkApp(where string, a *types.App) (warnings []string, err error) {
	if err := checkExec(where+".exec", a.Exec); err != nil {
		return nil, err
	}
	for i, h := range a.EventHandlers {
		here := fmt.Sprintf("%s.eventHandlers[%d].exec", where, i)
		if len(h.Exec) == 0 {
			return nil, invalid(here, "empty")
		}
		if err := checkExec(here, h.Exec); err != nil {
			return nil, err
		}
	}
	if !plain(a.User) {
		return nil, invalid(where+".user", "control character: %.100q", a.User)
	}
	if !plain(a.Group) {
		return nil, invalid(where+".group", "control character: %.100q", a.Group)
	}
	for i, gid := range a.SupplementaryGIDs {
		if !validID(gid) {
			return nil, invalid(fmt.Sprintf("%s.supplementaryGIDs[%d]", where, i), "out of range: %d", gid)
		}
	}
	if a.WorkingDirectory != "" {
		if err := checkPath(a.WorkingDirectory); err != nil {
			return nil, invalid(where+".workingDirectory", "%s", err)
		}
	}
	for i, env := range a.Environment {
		if strings.ContainsRune(env.Value, 0) {
			return nil, invalid(fmt.Sprintf("%s.environment[%d]", where, i), "NUL in the value of %s", env.Name)
		}
	}
	if err := checkMountPoints(where+".mountPoints", a.MountPoints); err != nil {
		return nil, err
	}
	if err := checkPorts(where+".ports", a.Ports); err != nil {
		return nil, err
	}
	return checkIsolatorSet(where+".isolators", a.Isolators)
}

// checkExec: an empty command is legal, an empty program is not.
func checkExec(where string, exec types.Exec) error {
	if len(exec) > 0 && exec[0] == "" {
		return invalid(where+"[0]", "empty")
	}
	for i, arg := range exec {
		if strings.ContainsRune(arg, 0) {
			return invalid(fmt.Sprintf("%s[%d]", where, i), "NUL in an argument")
		}
	}
	return nil
}

func checkMountPoints(where string, points []types.MountPoint) error {
	seen := map[types.ACName]bool{}
	for i := range points {
		here := fmt.Sprintf("%s[%d]", where, i)
		p := &points[i]
		if err := checkName(here+".name", p.Name); err != nil {
			return err
		}
		if seen[p.Name] {
			return invalid(here+".name", "duplicate: %q", p.Name)
		}
		seen[p.Name] = true
		target, err := checkTarget(here+".path", p.Path)
		if err != nil {
			return err
		}
		p.Path = target
	}
	return nil
}

func checkPorts(where string, ports []types.Port) error {
	seen := map[types.ACName]bool{}
	for i, p := range ports {
		here := fmt.Sprintf("%s[%d]", where, i)
		if err := checkPort(here, p); err != nil {
			return err
		}
		if seen[p.Name] {
			return invalid(here+".name", "duplicate: %q", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

func checkPort(where string, p types.Port) error {
	if err := checkName(where+".name", p.Name); err != nil {
		return err
	}
	if p.Protocol == "" || !plain(p.Protocol) {
		return invalid(where+".protocol", "not a protocol: %.40q", p.Protocol)
	}
	if err := checkPortRange(p.Port, p.Count); err != nil {
		return invalid(where+".port", "%s", err)
	}
	return nil
}

func checkPortRange(first, count uint) error {
	if first < 1 || first > math.MaxUint16 || count < 1 || count > math.MaxUint16+1-first {
		return fmt.Errorf("not a port range: %d ports from %d", count, first)
	}
	return nil
}

func checkDependency(where string, d types.Dependency) error {
	if err := checkIdentifier(where+".imageName", string(d.ImageName)); err != nil {
		return err
	}
	if d.ImageID != nil {
		if err := checkImageID(where+".imageID", *d.ImageID); err != nil {
			return err
		}
	}
	if uint64(d.Size) > math.MaxInt64 {
		return invalid(where+".size", "out of range: %d", d.Size)
	}
	return checkLabels(where+".labels", d.Labels)
}

// checkLabels also spells the architecture in the one way that is compared.
func checkLabels(where string, labels types.Labels) error {
	for i := range labels {
		here := fmt.Sprintf("%s[%d]", where, i)
		if err := checkIdentifier(here+".name", string(labels[i].Name)); err != nil {
			return err
		}
		if !plain(labels[i].Value) {
			return invalid(here+".value", "control character: %.100q", labels[i].Value)
		}
		labels[i].Value = normalLabel(string(labels[i].Name), labels[i].Value)
	}
	return nil
}

// checkAnnotations is stricter about dates than the library, which takes
// "T1:00:00,5Z".
func checkAnnotations(where string, annotations types.Annotations) error {
	for i, a := range annotations {
		here := index(where, i)
		if err := checkIdentifier(here+".name", string(a.Name)); err != nil {
			return err
		}
		if a.Name == "created" && !datePattern().MatchString(a.Value) {
			return invalid(here+".value", "not a date of RFC 3339: %.100q", a.Value)
		}
	}
	return nil
}

// checkIdentifier applies the pattern that the library has but does not use.
func checkIdentifier(where, s string) error {
	if !types.ValidACIdentifier.MatchString(s) {
		return invalid(where, "not an AC Identifier: %.200q", s)
	}
	return nil
}

func checkName(where string, name types.ACName) error {
	if !types.ValidACName.MatchString(string(name)) {
		return invalid(where, "not an AC Name: %.200q", name)
	}
	return nil
}

func checkImageID(where string, id types.Hash) error {
	if len(id.Val) != 128 || strings.Trim(id.Val, "0123456789abcdef") != "" { // the library checked the "sha512-"
		return invalid(where, "not sha512- and 128 lower-case hexadecimal digits: %.200q", id)
	}
	return nil
}

// checkTarget checks a path to be mounted on and returns it clean.
func checkTarget(where, p string) (string, error) {
	if err := checkPath(p); err != nil {
		return "", invalid(where, "%s", err)
	}
	if p = path.Clean(p); p == "/" {
		return "", invalid(where, "hides the whole root file system: %q", p)
	}
	return p, nil
}

func checkPath(p string) error {
	switch {
	case !path.IsAbs(p):
		return fmt.Errorf("not absolute: %.200q", p)
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("NUL in a path: %.200q", p)
	}
	for name := range strings.SplitSeq(p, "/") {
		if name == ".." {
			return fmt.Errorf(`".." in a path: %.200q`, p)
		}
	}
	return nil
}

func validID(id int) bool { return id >= 0 && int64(id) <= maxID }

// plain says that s has no control characters.
func plain(s string) bool { return !strings.ContainsFunc(s, unicode.IsControl) }
