package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/docker/go-units"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/fetch"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/runtime"
)

// describe turns a command line into a pod manifest and what is kept beside it.
func (c *cli) describe(ctx context.Context, h *host, rt *runtime.Runtime, o *podOptions, args []string) (*schema.PodManifest, runtime.Options, error) {
	po := runtime.Options{Name: o.name, Hostname: o.hostname, Network: o.networkOn(rt.Engine), KeepRootfs: o.keepRootfs, Transient: o.remove, Boot: o.boot, NoMetadata: o.noMDS, Profile: sandbox.Profile(cmp.Or(o.profile, c.cfg.PodProfile))}
	if o.withMDC {
		po.MetadataClient = func(system string) string { return filepath.Join(c.cfg.PathLibexec, "ac-mdc."+system) }
	}
	if err := o.check(); err != nil {
		return nil, po, err
	}
	m, err := c.template(ctx, h, rt, o, args, &po)
	if err != nil {
		return nil, po, err
	}
	limits, err := o.limits()
	if err != nil {
		return nil, po, err
	}
	for _, is := range limits {
		m.Isolators = slices.DeleteFunc(m.Isolators, func(o types.Isolator) bool { return o.Name == is.Name })
		m.Isolators = append(m.Isolators, is)
	}
	for _, kv := range o.annotations {
		name, value, err := annotation(kv)
		if err != nil {
			return nil, po, err
		}
		m.Annotations.Set(name, value)
	}
	for _, kv := range o.labels {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return nil, po, usagef("--label %q: want NAME=VALUE", kv)
		}
		if m.UserLabels == nil {
			m.UserLabels = types.UserLabels{}
		}
		m.UserLabels[name] = value
	}
	return m, po, nil
}

func (o *podOptions) check() error {
	known := []sandbox.Network{"", sandbox.NetworkPrivate, sandbox.NetworkNone, sandbox.NetworkHost}
	if !slices.Contains(known, sandbox.Network(o.network)) {
		return usagef("--net %q: want private, none or host", o.network)
	}
	if o.hostname != "" && !runtime.ValidHostname(o.hostname) {
		return usagef("--hostname %q: want letters, digits, dots and hyphens", o.hostname)
	}
	if o.withMDC && o.noMDS {
		return usagef("--with-mdc is of no use with --no-mds")
	}
	if o.boot && o.remove {
		return usagef("--rm removes the pod when it has ended: no --boot beside it")
	}
	if o.profile != "" && !slices.Contains(sandbox.Profiles(), sandbox.Profile(o.profile)) {
		return usagef("--profile %q: want strict, default or relaxed", o.profile)
	}
	if err := checkPull(o.pull); err != nil {
		return err
	}
	return o.waived.check()
}

func checkPull(when string) error {
	if !slices.Contains(pulls, when) {
		return usagef("--pull %q: want never, missing or newer", when)
	}
	return nil
}

// limits are the isolators of the pod that have flags of their own.
func (o *podOptions) limits() (isolators []types.Isolator, err error) {
	add := func(name, limit string) error {
		value, err := manifest.ParseIsolator(fmt.Appendf(nil, `{"name": %q, "value": {"limit": %q}}`, name, limit))
		isolators = append(isolators, value)
		return err
	}
	if o.memory != "" {
		bytes, err := units.RAMInBytes(o.memory)
		if err != nil || bytes <= 0 {
			return nil, usagef("--memory %q: want bytes, as 512M or 2G", o.memory)
		}
		if err := add(sandbox.Memory, strconv.FormatInt(bytes, 10)); err != nil {
			return nil, usagef("--memory %q: %w", o.memory, err)
		}
	}
	if o.cpus != "" {
		if err := add(sandbox.CPU, o.cpus); err != nil {
			return nil, usagef("--cpus %q: want a number, as 1.5: %w", o.cpus, err)
		}
	}
	return isolators, nil
}

// networkOn is the network of the pod: where there is a choice, one of its own.
func (o *podOptions) networkOn(engine sandbox.Engine) sandbox.Network {
	switch {
	case o.network != "":
		return sandbox.Network(o.network)
	case engine.Info().PrivateNetwork:
		return sandbox.NetworkPrivate
	}
	return sandbox.NetworkNone
}

func annotation(kv string) (types.ACIdentifier, string, error) {
	name, value, ok := strings.Cut(kv, "=")
	if !ok || !types.ValidACIdentifier.MatchString(name) {
		return "", "", usagef("--annotation %q: want NAME=VALUE, the name in lower case", kv)
	}
	return types.ACIdentifier(name), value, nil
}

// template reads the manifest, or makes it of the apps on the command line.
func (c *cli) template(ctx context.Context, h *host, rt *runtime.Runtime, o *podOptions, args []string, po *runtime.Options) (*schema.PodManifest, error) {
	if o.manifest != "" {
		if len(args) > 0 {
			return nil, usagef("--manifest describes the whole pod: no IMAGE beside it")
		}
		if !o.app.isZero() || len(o.volumes) > 0 {
			return nil, usagef("--manifest describes the whole pod: neither flags of an app nor --volume beside it")
		}
		return c.readManifest(o.manifest, o.strict)
	}
	apps, err := parseApps(o.app, args)
	if err != nil {
		return nil, err
	}
	volumes, err := parseVolumes(o.volumes)
	if err != nil {
		return nil, err
	}
	if len(volumes.mounts) > 0 && len(apps) > 1 {
		return nil, usagef("--volume SRC:DST is for a single app; with several, use --volume NAME,source=SRC (or volume:NAMED) and each app's --mount NAME:DST")
	}
	requests := make([]runtime.AppRequest, len(apps))
	for i, a := range apps {
		req, err := a.request()
		if err != nil {
			return nil, err
		}
		if req.Image, err = c.bringIn(ctx, h, req.Image, ociOptions{o.waived, o.strict, o.pull, ""}); err != nil {
			return nil, err
		}
		req.Mounts = append(req.Mounts, volumes.mounts...)
		requests[i] = req
	}
	m, err := rt.Template(ctx, requests, volumes.volumes)
	if err != nil {
		return nil, err
	}
	m.Annotations = append(m.Annotations, volumes.annotations...)
	for i, a := range apps {
		name := m.Apps[i].Name.String()
		if a.tty {
			po.Terminal = append(po.Terminal, name)
		}
		if a.interactive {
			po.Interactive = append(po.Interactive, name)
		}
		for _, is := range requests[i].Isolators {
			if po.Isolators == nil {
				po.Isolators = map[string][]string{}
			}
			po.Isolators[name] = append(po.Isolators[name], is.Name.String())
		}
	}
	return m, nil
}

// bringIn gives the ID of an image whose location the user gave, which is taken in; any other
// name is left for the store to find.
func (c *cli) bringIn(ctx context.Context, h *host, name string, o ociOptions) (string, error) {
	var img *image.Image
	var err error
	switch {
	case oci.IsLocation(name):
		img, err = c.bringOCI(ctx, h, name, o)
	case fetch.IsLocation(name):
		img, err = c.takeIn(ctx, h, name, "", o.waived, o.strict)
	default:
		return name, nil
	}
	if err != nil {
		return "", err
	}
	return string(img.ID), nil
}

// readManifest reads a pod manifest; with strict, what it would warn of is refused.
func (c *cli) readManifest(file string, strict bool) (*schema.PodManifest, error) {
	raw, err := c.readJSON(file)
	if err != nil {
		return nil, err
	}
	name := file
	if file == "-" {
		name = "standard input"
	}
	m, warnings, err := manifest.ParsePod(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if strict && len(warnings) > 0 {
		return nil, fmt.Errorf("%s: %s, and --strict refuses that", name, strings.Join(warnings, "; "))
	}
	for _, w := range warnings {
		c.warn(name + ": " + w)
	}
	return m, nil
}

// readJSON reads a manifest that the user wrote, from a file or standard input (-); of one that
// is larger than manifests are, so much that the parser refuses it.
func (c *cli) readJSON(file string) (_ []byte, err error) {
	in := c.stdin
	if file != "-" {
		if in, err = os.Open(file); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, in.Close()) }()
	}
	return io.ReadAll(io.LimitReader(in, manifest.MaxSize+1))
}
