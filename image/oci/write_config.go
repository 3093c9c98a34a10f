package oci

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// config gives the configuration of an ACI (OCI image-spec, config.md), and what it lacks
// that the manifest has.
func (e Exporter) config(m *schema.ImageManifest) (*v1.ConfigFile, []string, error) {
	c := &v1.ConfigFile{RootFS: v1.RootFS{Type: "layers"}, Created: created(m), Config: v1.Config{Labels: map[string]string{}}}
	if err := e.setPlatform(c, m); err != nil {
		return nil, nil, err
	}
	for _, a := range m.Annotations {
		switch a.Name {
		case "created":
		case healthcheck:
			if h := (*v1.HealthConfig)(nil); json.Unmarshal([]byte(a.Value), &h) == nil {
				c.Config.Healthcheck = h
			} else {
				c.Config.Labels[a.Name.String()] = a.Value
			}
		case image.StopSignal:
			c.Config.StopSignal = a.Value
		case "authors":
			c.Author = a.Value
		default:
			c.Config.Labels[a.Name.String()] = a.Value
		}
	}
	for _, l := range m.Labels {
		switch l.Name {
		case "os", "arch":
		case "os.version":
			c.OSVersion = l.Value
		case "version":
			c.Config.Labels["org.opencontainers.image.version"] = l.Value
		default:
			c.Config.Labels[l.Name.String()] = l.Value
		}
	}
	if m.App == nil {
		return c, nil, nil
	}
	lost, err := setApp(&c.Config, m.App)
	return c, lost, err
}

// setPlatform puts the os and arch labels into the words of Go.
func (e Exporter) setPlatform(c *v1.ConfigFile, m *schema.ImageManifest) error {
	c.OS = e.OS
	if os, ok := m.GetLabel("os"); ok {
		c.OS = os
	}
	arch, ok := m.GetLabel("arch")
	if !ok {
		arch = e.Arch
	}
	c.Architecture, c.Variant, ok = manifest.GoArch(c.OS, arch)
	if !ok {
		return fmt.Errorf("%w: there is no word for %s on %s", ErrNoOCI, arch, c.OS)
	}
	return nil
}

// created is when an image says that it was made, 1970 if it does not.
func created(m *schema.ImageManifest) v1.Time {
	text, _ := m.GetAnnotation("created")
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t = time.Unix(0, 0)
	}
	return v1.Time{Time: t.UTC()}
}

// setApp says what running the image means.
func setApp(c *v1.Config, app *types.App) (lost []string, err error) {
	if path.IsAbs(app.User) || path.IsAbs(app.Group) {
		return nil, fmt.Errorf("%w: its user or group is the owner of a file; 'jetpack image edit' can set --user and --group", ErrNoOCI)
	}
	c.Entrypoint = app.Exec
	c.User = app.User + ":" + app.Group
	c.WorkingDir = app.WorkingDirectory
	for _, v := range app.Environment {
		c.Env = append(c.Env, v.Name+"="+v.Value)
	}
	for _, p := range app.MountPoints {
		c.Volumes = put(c.Volumes, p.Path)
	}
	for _, p := range app.Ports {
		for i := range cmp.Or(p.Count, 1) {
			c.ExposedPorts = put(c.ExposedPorts, strconv.FormatUint(uint64(p.Port+i), 10)+"/"+p.Protocol)
		}
	}
	if len(app.EventHandlers) > 0 {
		lost = append(lost, "its event handlers are left out")
	}
	if len(app.Isolators) > 0 {
		lost = append(lost, "its isolators are left out")
	}
	if len(app.SupplementaryGIDs) > 0 {
		lost = append(lost, "its supplementary groups are left out")
	}
	return lost, nil
}

func put(set map[string]struct{}, key string) map[string]struct{} {
	if set == nil {
		set = map[string]struct{}{}
	}
	set[key] = struct{}{}
	return set
}

// RefName is what an image is called among others: NAME:VERSION, or NAME without a
// version, in a registry's words where the name comes from one (see identifier).
func RefName(img *image.Image) string {
	return strings.TrimSuffix(inRegistry.Replace(img.Name())+":"+img.Label("version"), ":")
}

// inRegistry is identifier's inverse for all that names in registries can have.
var inRegistry = strings.NewReplacer("~2d", "-", "~2e", ".", "~3a", ":", "~5f", "_")
