package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/discovery"
	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/fetch"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/image/trust"
	"github.com/jetpack-run/jetpack/internal/config"
	"github.com/jetpack-run/jetpack/internal/httpclient"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/platform"
)

func downloadsDir(root string) string { return filepath.Join(root, "downloads") }
func keysDir(root string) string      { return filepath.Join(root, "keys") }

func newImageFetchCommand(c *cli) *cobra.Command {
	var o fetchOptions
	cmd := &cobra.Command{
		Use:   "fetch NAME|LOCATION...",
		Short: "Fetch images by their names, with what they depend on, and print their IDs",
		Long: "Fetch images, and what they depend on, from where their names say, and print their\n" +
			"IDs. NAME is NAME[:VERSION][,LABEL=VALUE]...; without a version it is the latest.\n" +
			"A signature by a key that is trusted for the name has to vouch for each of them.\n" +
			"What broke off is resumed.\n\n" + ociLong,
		Args: some("NAME|LOCATION..."),
		RunE: func(cmd *cobra.Command, args []string) error { return c.runFetch(cmd.Context(), &o, args) },
	}
	o.waived.add(cmd)
	o.format.add(cmd)
	f := cmd.Flags()
	f.Lookup("format").Usage = "`FORMAT` of --dry-run: table, json, jsonl, or a Go template for each step"
	f.Lookup("quiet").Usage = "with --dry-run, only the URLs of the steps"
	f.StringVar(&o.pull, "pull", "newer", "`WHEN` to ask the servers: newer (always; what is here already is not sent again), missing")
	f.BoolVar(&o.strict, "strict", false, "refuse a manifest that there are warnings about")
	addPlatform(cmd, &o.platform)
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "fetch nothing; show where the images are looked for, and what is found")
	return cmd
}

type fetchOptions struct {
	waived insecure
	format listOptions
	pull   string
	strict bool
	dryRun bool
	// platform is that of OCI images.
	platform string
}

func (c *cli) runFetch(ctx context.Context, o *fetchOptions, names []string) error {
	if err := o.waived.check(); err != nil {
		return err
	}
	if o.pull != pullNewer && o.pull != pullMissing {
		return usagef("--pull %q: want newer or missing", o.pull)
	}
	if o.format.quiet && !o.dryRun || o.format.format != "table" && !o.dryRun {
		return usagef("--format and --quiet are for --dry-run")
	}
	var refs []manifest.Ref // of ACIs
	for _, name := range names {
		if oci.IsLocation(name) {
			if o.dryRun {
				return usagef("--dry-run shows how names are looked up: %s is a location", name)
			}
			continue
		}
		ref, err := parseName(name)
		if err != nil {
			return err
		}
		refs = append(refs, ref)
	}
	if o.platform != "" && len(refs) > 0 {
		return usagef("--platform is for OCI images; an ACI is asked for by its labels, as NAME,os=linux,arch=aarch64")
	}
	if c.cfg.FetchDiscovery == "off" && len(refs) > 0 {
		return errNoDiscovery
	}
	h, err := c.open()
	if err != nil {
		return err
	}
	if o.dryRun {
		return c.dryRun(ctx, h, o, refs)
	}
	images := c.fetching(h, o.waived, o.strict, o.pull)
	for _, name := range names {
		var img *image.Image
		if oci.IsLocation(name) {
			img, err = c.bringOCI(ctx, h, name, ociOptions{o.waived, o.strict, o.pull, o.platform})
		} else {
			img, err = images.Find(ctx, refs[0].String())
			refs = refs[1:]
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c.stdout, img.ID); err != nil {
			return err
		}
	}
	return nil
}

var errNoDiscovery = errors.New("the configuration permits no discovery: fetch.discovery is off; 'jetpack image import' takes in a file or URL")

func parseName(name string) (manifest.Ref, error) {
	if fetch.IsLocation(name) {
		return manifest.Ref{}, usagef("%s is a location, not a name: use 'jetpack image import'", name)
	}
	ref, err := manifest.ParseRef(name)
	if err != nil {
		return ref, usageError{err}
	}
	return ref, nil
}

// When servers are asked for an image of a name.
const (
	pullNever   = "never"
	pullMissing = "missing"
	pullNewer   = "newer"
)

var pulls = []string{pullNever, pullMissing, pullNewer}

// fetchingImages is a store that fetches what it lacks.
type fetchingImages struct {
	*image.Store
	pull  string
	fetch func(context.Context, manifest.Ref) (*image.Image, error)
}

// fetching is the store of a host as commands use it that bring in images.
func (c *cli) fetching(h *host, waived insecure, strict bool, pull string) fetchingImages {
	if c.cfg.FetchDiscovery == "off" {
		pull = pullNever
	}
	return fetchingImages{h.images, pull, func(ctx context.Context, ref manifest.Ref) (*image.Image, error) {
		f, done, err := c.fetcher(h, waived, strict)
		if err != nil {
			return nil, err
		}
		defer done()
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(extract.Memory))
		img, err := f.Fetch(ctx, ref)
		if errors.Is(err, discovery.ErrNotFound) {
			err = fmt.Errorf("%w; 'jetpack fetch --dry-run %s' shows where it was looked for", err, ref)
		}
		if err == nil {
			c.noteInsecure(img)
		}
		return img, err
	}}
}

// Find is Store.Find, and a fetch as the policy says. IDs, tags, and names that no host
// stands in, are local.
func (f fetchingImages) Find(ctx context.Context, name string) (*image.Image, error) {
	img, err := f.Store.Find(ctx, name)
	if err != nil && !errors.Is(err, image.ErrNotFound) || f.pull == pullNever || err == nil && f.pull == pullMissing {
		return img, err
	}
	ref, refErr := manifest.ParseRef(name)
	if refErr != nil || !isRemote(ref.Name) || err == nil && !ref.Matches(img.Parsed()) {
		return img, err
	}
	return f.fetch(ctx, ref)
}

// noteInsecure says what was waived for an image.
func (c *cli) noteInsecure(img *image.Image) {
	if len(img.Insecure) > 0 {
		c.warn(fmt.Sprintf("%s (%s) admitted with --insecure=%s", img.Name(), img.ID.Short(), strings.Join(img.Insecure, ",")))
	}
}

// isRemote tells a name that begins with a host.
func isRemote(name string) bool {
	host, _, _ := strings.Cut(name, "/")
	return strings.Contains(host, ".") || host == "localhost"
}

// fetcher fetches with what the configuration and the command line permit. done ends
// what shows its progress.
func (c *cli) fetcher(h *host, waived insecure, strict bool) (_ *fetch.Fetcher, done func(), err error) {
	client, err := c.httpClient(waived)
	if err != nil {
		return nil, nil, err
	}
	meter, done := c.meter()
	f := &fetch.Fetcher{
		Store: h.images, HTTP: client, Discovery: c.discovery(client, waived),
		Trust: trust.Open(keysDir(c.cfg.Root)), Policy: c.trustPolicy(),
		Downloads: downloadsDir(c.cfg.Root), Limits: limits(c.cfg),
		Labels:   map[string]string{"os": platform.OS(), "arch": platform.Arch()},
		Insecure: waived, Strict: strict, Offline: c.cfg.FetchDiscovery == "off",
		Meter: meter, Notice: c.notice, Warn: c.warn,
	}
	if c.asks() {
		f.Review = c.reviewFor(f.Trust)
	}
	return f, done, nil
}

func (c *cli) trustPolicy() trust.Policy { return trust.Policy{Legacy: c.cfg.TrustLegacy == "on"} }

func (c *cli) discovery(client *httpclient.Client, waived insecure) *discovery.Client {
	d := &discovery.Client{HTTP: client, NoSimple: c.cfg.DiscoverySimple == "off", AllowHTTP: waived.has("http")}
	if c.cfg.DiscoveryPort != 443 {
		d.Port = int(c.cfg.DiscoveryPort)
	}
	return d
}

func (c *cli) httpClient(waived insecure) (*httpclient.Client, error) {
	o := httpclient.Options{HTTP: waived.has("http"), TLS: waived.has("tls"), UserAgent: "jetpack/" + version}
	if c.cfg.DiscoveryCAFile != "none" {
		o.CAFile = c.cfg.DiscoveryCAFile
	}
	if c.cfg.FetchCredentialsFile != "none" {
		hosts, err := config.Credentials(c.cfg.FetchCredentialsFile)
		if err != nil {
			return nil, err
		}
		o.Credentials = map[string]httpclient.Credentials{}
		for host, h := range hosts {
			o.Credentials[strings.ToLower(host)] = httpclient.Credentials{Username: h.Username, Password: h.Password, Token: h.Token}
		}
	}
	return httpclient.New(o)
}

// stepView is a step of a search.
type stepView struct {
	Image  string `json:"image" doc:"name that was looked for"`
	URL    string `json:"url" doc:"what was tried: a page, or what a page said"`
	Status string `json:"status" doc:"HTTP status, or a word: found, left, timeout, TLS, network, refused, error"`
	Note   string `json:"note" doc:"what was found, or why it was left"`
}

// dryRun shows the search for images, to its end: whether the files are there.
func (c *cli) dryRun(ctx context.Context, h *host, o *fetchOptions, refs []manifest.Ref) error {
	f, done, err := c.fetcher(h, o.waived, o.strict)
	if err != nil {
		return err
	}
	defer done()
	var rows []row
	var errs []error
	for _, ref := range refs {
		steps, err := f.Search(ctx, ref)
		errs = append(errs, err)
		for _, s := range steps {
			note := strings.TrimPrefix(s.Note, s.URL+": ")
			rows = append(rows, row{s.URL, []string{s.URL, s.Status, note}, stepView{ref.String(), s.URL, s.Status, note}})
		}
	}
	return errors.Join(append(errs, o.format.print(c.stdout, []string{"URL", "STATUS", "NOTE"}, rows))...)
}
