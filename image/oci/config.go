package oci

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/sys/signal"
	"github.com/moby/sys/user"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/inroot"
	"github.com/jetpack-run/jetpack/internal/lazyregexp"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// Annotations of jetpack's own in the manifests of OCI images.
const (
	annotationPrefix = "jetpack/"
	// healthcheck is the configuration's Healthcheck as JSON; nobody makes it.
	healthcheck = annotationPrefix + "healthcheck"
)

// appcManifest gives the App Container manifest that a configuration stands for, and
// what of it has no place there. group and groups are those of its user: see groupsOf.
func appcManifest(ref manifest.Ref, c *v1.ConfigFile, group string, groups []int) (_ *schema.ImageManifest, warnings []string, err error) {
	m := schema.BlankImageManifest()
	m.Name = types.ACIdentifier(ref.Name)
	labels := map[string]string{"version": ref.Labels["version"], "os": c.OS, "os.version": c.OSVersion}
	if c.OS != "" || c.Architecture != "" {
		if labels["arch"], err = architecture(c); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range []string{"version", "os", "arch", "os.version"} {
		if labels[name] != "" {
			m.Labels = append(m.Labels, types.Label{Name: types.ACIdentifier(name), Value: labels[name]})
		}
	}
	name, _, _ := strings.Cut(c.Config.User, ":")
	m.App = &types.App{
		Exec: slices.Concat(types.Exec(c.Config.Entrypoint), c.Config.Cmd),
		User: cmp.Or(name, "0"), Group: group, SupplementaryGIDs: groups,
		WorkingDirectory: cmp.Or(c.Config.WorkingDir, "/"),
	}
	if !path.IsAbs(m.App.WorkingDirectory) {
		m.App.WorkingDirectory = path.Join("/", m.App.WorkingDirectory)
	}
	for _, kv := range c.Config.Env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || !variable().MatchString(name) {
			warnings = append(warnings, fmt.Sprintf("environment variable %.100q is left out: no name that a variable can have", name))
			continue
		}
		m.App.Environment.Set(name, value)
	}
	m.App.MountPoints, warnings = mountPoints(c, warnings)
	m.App.Ports, warnings = ports(c, warnings)
	m.Annotations, warnings = annotations(c, warnings)
	return m, warnings, nil
}

// variable is what the specification lets the name of an environment variable be.
var variable = lazyregexp.New(`^[A-Za-z_][A-Za-z_0-9.-]*$`)

// architecture is the word that the App Container specification has for a platform.
func architecture(c *v1.ConfigFile) (string, error) {
	arch, ok := manifest.Arch(c.OS, c.Architecture)
	if c.Architecture == "arm" && c.Variant != "" {
		arch = map[string]string{"linux/v6": "armv6l", "linux/v7": "armv7l", "freebsd/v6": "armv6", "freebsd/v7": "armv7"}[c.OS+"/"+c.Variant]
		ok = arch != ""
	}
	if !ok {
		return "", fmt.Errorf("%w: the App Container specification has no word for the platform %.100q", ErrUnsupported, c.Platform())
	}
	return arch, nil
}

// mountPoints makes a volume's path its name: /var/lib/x becomes var-lib-x.
func mountPoints(c *v1.ConfigFile, warnings []string) (points []types.MountPoint, _ []string) {
	taken := map[types.ACName]bool{}
	for _, dir := range slices.Sorted(maps.Keys(c.Config.Volumes)) {
		clean := path.Clean(dir)
		if !path.IsAbs(dir) || clean == "/" || slices.ContainsFunc(points, func(p types.MountPoint) bool { return p.Path == clean }) {
			warnings = append(warnings, fmt.Sprintf("volume %.100q is left out: no path that a volume can have", dir))
			continue
		}
		points = append(points, types.MountPoint{Name: acName(clean, "volume", taken), Path: clean})
	}
	return points, warnings
}

// acName makes an AC Name of letters and digits of s, one that is not taken yet.
func acName(s, otherwise string, taken map[types.ACName]bool) types.ACName {
	parts := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	base := cmp.Or(strings.Join(parts, "-"), otherwise)
	name := types.ACName(base)
	for n := 2; taken[name]; n++ {
		name = types.ACName(fmt.Sprintf("%s-%d", base, n))
	}
	taken[name] = true
	return name
}

// ports reads "80", "80/udp" and "8000-8010/tcp"; their names are like 8000-8010-tcp.
func ports(c *v1.ConfigFile, warnings []string) (list []types.Port, _ []string) {
	taken := map[types.ACName]bool{}
	for _, spec := range slices.Sorted(maps.Keys(c.Config.ExposedPorts)) {
		numbers, protocol, _ := strings.Cut(spec, "/")
		protocol = cmp.Or(strings.ToLower(protocol), "tcp")
		low, high, isRange := strings.Cut(numbers, "-")
		from, err := strconv.ParseUint(low, 10, 16)
		to := from
		if isRange && err == nil {
			to, err = strconv.ParseUint(high, 10, 16)
		}
		if err != nil || from == 0 || to < from || protocol != "tcp" && protocol != "udp" {
			warnings = append(warnings, fmt.Sprintf("port %.100q is left out: no port of TCP or UDP", spec))
			continue
		}
		list = append(list, types.Port{
			Name: acName(numbers+"-"+protocol, "port", taken), Protocol: protocol,
			Port: uint(from), Count: uint(to - from + 1),
		})
	}
	return list, warnings
}

// annotations are the labels, under their names written as AC Identifiers, with what
// else the specification has a name for.
func annotations(c *v1.ConfigFile, warnings []string) (list types.Annotations, _ []string) {
	for _, label := range slices.Sorted(maps.Keys(c.Config.Labels)) {
		name, value := identifier(label), c.Config.Labels[label]
		_, there := list.Get(name)
		if there || strings.HasPrefix(name, annotationPrefix) {
			warnings = append(warnings, fmt.Sprintf("label %.100q is left out: its name is taken", label))
			continue
		}
		list.Set(types.ACIdentifier(name), value)
	}
	set := func(name, value string) {
		if value != "" {
			list.Set(types.ACIdentifier(name), value)
		}
	}
	if created, ok := list.Get("created"); ok {
		if _, err := time.Parse(time.RFC3339, created); err != nil {
			list = slices.DeleteFunc(list, func(a types.Annotation) bool { return a.Name == "created" })
		}
	}
	if !c.Created.IsZero() {
		set("created", c.Created.UTC().Format(time.RFC3339))
	}
	set("authors", cmp.Or(c.Author, c.Config.Labels["org.opencontainers.image.authors"]))
	set("homepage", httpURL(c.Config.Labels["org.opencontainers.image.url"]))
	set("documentation", httpURL(c.Config.Labels["org.opencontainers.image.documentation"]))
	if _, err := signal.ParseSignal(c.Config.StopSignal); err == nil {
		set(image.StopSignal, c.Config.StopSignal)
	} else if c.Config.StopSignal != "" {
		warnings = append(warnings, fmt.Sprintf("stop signal %.100q is left out: there is none of that name", c.Config.StopSignal))
	}
	if h := c.Config.Healthcheck; h != nil {
		if raw, err := json.Marshal(h); err == nil { // strings and numbers, which can be written
			set(healthcheck, string(raw))
		}
	}
	for _, name := range []types.ACIdentifier{"homepage", "documentation"} {
		if v, ok := list.Get(name.String()); ok && httpURL(v) == "" {
			list = slices.DeleteFunc(list, func(a types.Annotation) bool { return a.Name == name })
		}
	}
	return list, warnings
}

// httpURL gives a value that the specification wants to be a URL, if it is one.
func httpURL(s string) string {
	if _, err := types.NewURL(s); err != nil {
		return ""
	}
	return s
}

// maxAccounts bounds an image's passwd and group files, in bytes.
const maxAccounts = 4 << 20

// groupsOf finds the groups of a configuration's user as Docker does: what stands behind
// the colon, else those that the accounts in the image's root give the user, else 0. Who
// is not there is the runtime's to refuse.
func groupsOf(rootfs string, c *v1.ConfigFile) (group string, groups []int, err error) {
	if _, group, _ := strings.Cut(c.Config.User, ":"); group != "" {
		return group, nil, nil
	}
	root, err := inroot.Open(rootfs)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	var files [2]bytes.Reader
	for i, name := range []string{"/etc/passwd", "/etc/group"} {
		data, err := root.ReadFile(name, maxAccounts)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // what cannot be read names nobody; the runtime says so
		}
		files[i].Reset(data)
	}
	who, err := user.GetExecUser(c.Config.User, nil, &files[0], &files[1])
	if err != nil {
		return "0", nil, nil // see above
	}
	return strconv.Itoa(who.Gid), who.Sgids, nil
}

// Step is a step in which an image was made.
type Step = v1.History

// History gives the steps in which an OCI image was made, as its configuration tells, the
// first one first.
func History(img *image.Image) ([]Step, error) {
	c, err := parseConfig(img.OCI.Config)
	if err != nil {
		return nil, err
	}
	return c.History, nil
}
