// Package discovery finds out where an image lies and which keys are offered for
// it, by its name alone (appc spec, discovery.md): simple discovery renders a URL
// from name and labels, meta discovery reads HTML pages at the name and its parents.
//
// Not for: downloading what was found (image/fetch), trusting it (image/trust),
// publishing (discovery/repository).
package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jetpack-run/jetpack/internal/httpclient"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// Sentinels of this package, wrapped with the name.
var (
	// ErrNotFound: every page was read, and none leads to the image or the keys.
	ErrNotFound = errors.New("no discovery page leads to it")
	// ErrBadName: the name cannot be discovered, whatever there is on the net.
	ErrBadName = errors.New("not a name that begins with a host")
)

// Bounds on what a name's host can make us do.
const (
	maxPage  = 1 << 20
	maxDepth = 32 // components of a name, and so pages
	maxTags  = 16 // of one page, for one name
)

// pageTimeout is for one page, whole.
var pageTimeout = 30 * time.Second

// Getter is the part of httpclient.Client that discovery needs.
type Getter interface {
	Get(ctx context.Context, r httpclient.Request) (*httpclient.Response, error)
}

// Client discovers.
type Client struct {
	HTTP      Getter
	Port      int  // of the name's host; 0 is the scheme's
	NoSimple  bool // meta discovery alone
	AllowHTTP bool // where https fails, and in what pages say
	// Foreign: the name was not typed but came out of an image (a dependency), so
	// that its host, too, has to have a public address.
	Foreign bool
}

// Endpoint is a place where an image may lie. Image and Signature belong together.
type Endpoint struct {
	Image, Signature *url.URL
	Simple           bool   // not announced by any page
	Foreign          bool   // a server chose the host; for httpclient.Request
	Prefix           string // the names that the page may speak for; the image's is among them
}

// Key is a place of public keys that a page offers for names.
type Key struct {
	Prefix  string // the names; never more than those below the page
	URL     *url.URL
	Foreign bool // as in Endpoint
}

// Step is one thing tried, for people to read. All of it is printable.
type Step struct {
	URL    string // a page, or a template or URL that a page gave
	Status string // "200", "404"…, "timeout", "TLS", "network", "refused", "error"; "found" or "left" for what needed no request
	Note   string // what was found, or why it was left
}

// Endpoints finds places of an image, best first: those of simple discovery,
// which needs a version and labels os and arch, and those of the first page on the
// way up from the name that leads anywhere, https before http. The version of
// templates is "latest" without one in ref. Nothing of what is returned was fetched.
//
// An error says how meta discovery ended: ErrNotFound; ErrBadName; or what made it
// stop, since behind a page that cannot be had now may be other tags than on its
// parent. The endpoints that come with an error are good all the same.
func (c *Client) Endpoints(ctx context.Context, ref manifest.Ref) ([]Endpoint, []Step, error) {
	host, err := hostOf(ref.Name)
	if err != nil {
		return nil, nil, err
	}
	w := walk{client: c, host: host, name: ref.Name}
	var out []Endpoint
	if !c.NoSimple {
		out = w.simple(ref)
	}
	err = w.up(ctx, func(page string, tags []tag) bool {
		found := w.endpoints(page, tags, ref)
		out = append(out, found...)
		return len(found) > 0
	})
	return out, w.steps, err
}

// Keys finds places of keys for a name, or for all names below it. Errors are
// those of Endpoints; there is no simple discovery of keys.
func (c *Client) Keys(ctx context.Context, name string) ([]Key, []Step, error) {
	host, err := hostOf(name)
	if err != nil {
		return nil, nil, err
	}
	w := walk{client: c, host: host, name: name}
	var out []Key
	err = w.up(ctx, func(page string, tags []tag) bool {
		out = w.keys(page, tags)
		return len(out) > 0
	})
	return out, w.steps, err
}

// hostOf is the first component of a name, if a web server can be there.
func hostOf(name string) (string, error) {
	ref, err := manifest.ParseRef(name)
	host, _, _ := strings.Cut(name, "/")
	if err != nil || ref.Name != name || !strings.Contains(host, ".") && host != "localhost" ||
		strings.Contains(host, "~") || len(host) > 253 {
		return "", fmt.Errorf("discover %.200q: %w (as example.com/app does)", name, ErrBadName)
	}
	if strings.Count(name, "/") >= maxDepth {
		return "", fmt.Errorf("discover %.200q: %w of at most %d components", name, ErrBadName, maxDepth)
	}
	return host, nil
}

// walk is one discovery.
type walk struct {
	client     *Client
	host, name string
	steps      []Step
}

func (w *walk) step(url, status, format string, args ...any) {
	w.steps = append(w.steps, Step{URL: printable(url), Status: status, Note: printable(fmt.Sprintf(format, args...))})
}

// up reads the page of the name and then of its parents, until use says that one
// had what was sought.
func (w *walk) up(ctx context.Context, use func(page string, tags []tag) bool) error {
	for page := w.name; ; {
		tags, err := w.read(ctx, page)
		switch {
		case err == nil:
			if use(page, tags) {
				return nil
			}
		case !absent(err):
			return fmt.Errorf("discover %s: %w", w.name, err)
		}
		i := strings.LastIndexByte(page, '/')
		if i < 0 {
			return fmt.Errorf("discover %s: %w", w.name, ErrNotFound)
		}
		page = page[:i]
	}
}

// absent says whether an answer is a reason to look at the parent (discovery.md,
// "Discovery URL"): the client's errors are, the server's are not.
func absent(err error) bool {
	var status *httpclient.StatusError
	return errors.As(err, &status) && status.Status >= 400 && status.Status < 500
}

// read gives the tags of a page that are for the name. Plain http is tried where
// it is allowed and https cannot even be spoken.
func (w *walk) read(ctx context.Context, page string) ([]tag, error) {
	tags, err := w.readFrom(ctx, "https", page)
	if err != nil && w.client.AllowHTTP && unreachable(err) {
		return w.readFrom(ctx, "http", page)
	}
	return tags, err
}

func (w *walk) readFrom(ctx context.Context, scheme, page string) ([]tag, error) {
	_, path, nested := strings.Cut(page, "/")
	u := &url.URL{Scheme: scheme, Host: w.address(), RawQuery: "ac-discovery=1"}
	if nested {
		u.Path = "/" + path
	}
	resp, err := w.client.HTTP.Get(ctx, httpclient.Request{
		URL: u, Foreign: w.client.Foreign, MaxBytes: maxPage, Timeout: pageTimeout,
	})
	if err != nil {
		w.step(u.String(), status(err), "%v", err)
		return nil, err
	}
	all, err := parseTags(resp.Body)
	_ = resp.Body.Close() // the rest of the page is not read
	if err != nil {
		w.step(u.String(), status(err), "%v", err)
		return nil, err
	}
	tags := slices.DeleteFunc(slices.Clone(all), func(t tag) bool { return !covers(t.prefix, w.name) })
	note := fmt.Sprintf("%d tags, %d for this name", len(all), len(tags))
	if resp.URL != nil && resp.URL.String() != u.String() {
		note += ", at " + resp.URL.String()
	}
	w.step(u.String(), strconv.Itoa(http.StatusOK), "%s", note)
	return tags, nil
}

// address is the host of the name, with the port that the administrator set.
func (w *walk) address() string {
	if w.client.Port == 0 {
		return w.host
	}
	return net.JoinHostPort(w.host, strconv.Itoa(w.client.Port))
}

// simpleTemplate is that of appc spec 0.7.4 and before.
const simpleTemplate = "://{name}-{version}-{os}-{arch}.{ext}"

func (w *walk) simple(ref manifest.Ref) []Endpoint {
	if ref.Labels["version"] == "" {
		w.step("https"+simpleTemplate, "left", "simple discovery needs a version")
		return nil
	}
	schemes := []string{"https"}
	if w.client.AllowHTTP {
		schemes = append(schemes, "http")
	}
	var out []Endpoint
	for _, scheme := range schemes {
		e, err := renderPair(scheme+simpleTemplate, ref)
		if err != nil {
			w.step(scheme+simpleTemplate, "left", "simple discovery: %v", err)
			continue
		}
		e.Image.Host, e.Signature.Host = w.address(), w.address()
		e.Simple, e.Foreign, e.Prefix = true, w.client.Foreign, ref.Name
		w.step(e.Image.String(), "found", "simple discovery")
		out = append(out, e)
	}
	return out
}

// endpoints renders the templates of a page.
func (w *walk) endpoints(page string, tags []tag, ref manifest.Ref) []Endpoint {
	var out []Endpoint
	for _, t := range w.some(page, tags, tagEndpoint) {
		e, err := renderPair(t.url, ref)
		if err == nil {
			err = w.checkScheme(e.Image)
		}
		if err != nil {
			w.step(t.url, "left", "%v", err)
			continue
		}
		e.Foreign, e.Prefix = w.foreign(e.Image), deeper(page, t.prefix)
		w.step(e.Image.String(), "found", "meta discovery for %s", t.prefix)
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b Endpoint) int { return strings.Compare(b.Image.Scheme, a.Image.Scheme) })
	return out
}

// keys reads the key URLs of a page.
func (w *walk) keys(page string, tags []tag) []Key {
	var out []Key
	for _, t := range w.some(page, tags, tagKeys) {
		u, err := parseURL(t.url)
		if err == nil {
			err = w.checkScheme(u)
		}
		if err != nil {
			w.step(t.url, "left", "%v", err)
			continue
		}
		k := Key{Prefix: deeper(page, t.prefix), URL: u, Foreign: w.foreign(u)}
		w.step(u.String(), "found", "keys for %s", k.Prefix)
		out = append(out, k)
	}
	return out
}

// some gives the tags of one kind, not more than a page needs.
func (w *walk) some(page string, tags []tag, kind string) []tag {
	tags = slices.DeleteFunc(slices.Clone(tags), func(t tag) bool { return t.kind != kind })
	if len(tags) > maxTags {
		w.step(page, "left", "%d tags after the first %d", len(tags)-maxTags, maxTags)
		tags = tags[:maxTags]
	}
	return tags
}

func (w *walk) checkScheme(u *url.URL) error {
	switch {
	case u.Scheme == "https" || u.Scheme == "http" && w.client.AllowHTTP:
		return nil
	case u.Scheme == "http":
		return errors.New("plain http is not allowed; --insecure=http permits it")
	}
	return fmt.Errorf("scheme %q is not for fetching", u.Scheme)
}

// foreign says whether a URL is anywhere but on the host of a name that was typed,
// at the port of https, http or discovery.
func (w *walk) foreign(u *url.URL) bool {
	if w.client.Foreign || u.Hostname() != w.host {
		return true
	}
	port := u.Port()
	return port != "" && port != strconv.Itoa(w.client.Port) &&
		port != map[string]string{"https": "443", "http": "80"}[u.Scheme]
}

// covers says whether a prefix is a name or one of its parents, component by
// component: example.com is none of example.com.evil.org.
func covers(prefix, name string) bool {
	return name == prefix || strings.HasPrefix(name, prefix+"/")
}

// deeper is the narrower of two prefixes of one name. A page speaks for what is
// below it and for nothing else: who owns example.com/alice may not offer keys for
// all of example.com, whatever its tags say.
func deeper(page, prefix string) string {
	if len(page) > len(prefix) {
		return page
	}
	return prefix
}

// unreachable says whether https failed before there was an answer.
func unreachable(err error) bool {
	var network net.Error
	return errors.Is(err, httpclient.ErrTLS) || errors.As(err, &network) && !errors.Is(err, httpclient.ErrPrivate)
}

// status is an error in a word.
func status(err error) string {
	var answer *httpclient.StatusError
	var network net.Error
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	switch {
	case errors.As(err, &answer):
		return strconv.Itoa(answer.Status)
	case is(httpclient.ErrTLS):
		return "TLS"
	case is(httpclient.ErrPrivate, httpclient.ErrInsecure, httpclient.ErrRedirects, httpclient.ErrTooLarge, httpclient.ErrEncoded):
		return "refused"
	case is(httpclient.ErrTooSlow):
		return "timeout"
	case errors.As(err, &network):
		if network.Timeout() {
			return "timeout"
		}
		return "network"
	}
	return "error"
}
