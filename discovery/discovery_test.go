package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/internal/httpclient"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// web is a Getter of pages by URL. What it lacks is 404; an error is one word:
// a status, or the name of a sentinel.
type web map[string]string

var faults = map[string]error{
	"TLS":       httpclient.ErrTLS,
	"timeout":   context.DeadlineExceeded,
	"slow":      httpclient.ErrTooSlow,
	"private":   &net.OpError{Op: "dial", Err: httpclient.ErrPrivate}, // a dialer's veto
	"redirects": httpclient.ErrRedirects,
	"reset":     errors.New("reset"),
}

func (w web) Get(_ context.Context, r httpclient.Request) (*httpclient.Response, error) {
	if r.MaxBytes != maxPage || r.Timeout != pageTimeout || r.Foreign != strings.Contains(r.URL.Host, "dependency") {
		return nil, fmt.Errorf("request without its bounds: %+v", r)
	}
	page, ok := w[r.URL.String()]
	if !ok {
		page = "404"
	}
	if err, ok := faults[page]; ok {
		return nil, fmt.Errorf("%s: %w", r.URL, err)
	}
	var status int
	if _, err := fmt.Sscanf(page, "%d", &status); err == nil {
		return nil, &httpclient.StatusError{URL: r.URL.String(), Status: status}
	}
	return &httpclient.Response{URL: r.URL, Status: http.StatusOK, Size: -1, Body: io.NopCloser(strings.NewReader(page))}, nil
}

func meta(kind, content string) string {
	return fmt.Sprintf("<meta name=%q content=%q>\n", kind, content)
}

func mustRef(t testing.TB, s string) manifest.Ref {
	t.Helper()
	ref, err := manifest.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// images writes endpoints in short: flags, image, signature.
func images(endpoints []Endpoint) []string {
	var out []string
	for _, e := range endpoints {
		if e.Signature.String() != e.Image.String()+".asc" {
			out = append(out, "signature "+e.Signature.String())
		}
		s := e.Image.String()
		if e.Simple {
			s = "simple " + s
		}
		if e.Foreign {
			s = "foreign " + s
		}
		out = append(out, s)
	}
	return out
}

const template = " https://example.com/aci/{name}-{version}-{os}-{arch}.{ext}"

func TestEndpoints(t *testing.T) {
	const (
		ref      = "example.com/team/app:1.0,os=linux,arch=amd64"
		at       = "https://example.com/team/app?ac-discovery=1"
		above    = "https://example.com/team?ac-discovery=1"
		top      = "https://example.com?ac-discovery=1"
		rendered = "https://example.com/aci/example.com/team/app-1.0-linux-amd64.aci"
		simple   = "simple https://example.com/team/app-1.0-linux-amd64.aci"
	)
	page := func(content string) string { return meta("ac-discovery", content) }
	for _, tt := range []struct {
		name  string
		c     Client
		ref   string // ref if empty
		web   web
		want  []string
		pages []string // the page steps, URL and status
		is    error
	}{
		{
			name: "at the name", web: web{at: page("example.com/team/app" + template)},
			want: []string{simple, rendered}, pages: []string{at + " 200"},
		},
		{
			name: "at the parent", web: web{above: page("example.com/team" + template)},
			want: []string{simple, rendered}, pages: []string{at + " 404", above + " 200"},
		},
		{
			name: "at the host", web: web{at: "<html>", above: page("example.com/other" + template), top: page("example.com" + template)},
			want: []string{simple, rendered}, pages: []string{at + " 200", above + " 200", top + " 200"},
		},
		{
			name: "nowhere", web: web{at: "403", above: "410", top: "401"},
			want: []string{simple}, pages: []string{at + " 403", above + " 410", top + " 401"}, is: ErrNotFound,
		},
		{
			name: "only what can be rendered counts", web: web{
				at:  page("example.com/team/app https://example.com/{flavour}.{ext}"),
				top: page("example.com" + template),
			},
			want: []string{simple, rendered}, pages: []string{at + " 200", above + " 404", top + " 200"},
		},
		{
			name: "broken server", web: web{above: "503", top: page("example.com" + template)},
			want: []string{simple}, pages: []string{at + " 404", above + " 503"}, is: &httpclient.StatusError{},
		},
		{
			name: "no TLS", web: web{at: "TLS", top: page("example.com" + template)},
			want: []string{simple}, pages: []string{at + " TLS"}, is: httpclient.ErrTLS,
		},
		{
			name: "timeout", web: web{at: "timeout"},
			want: []string{simple}, pages: []string{at + " timeout"}, is: context.DeadlineExceeded,
		},
		{
			name: "slow", web: web{at: "slow"},
			want: []string{simple}, pages: []string{at + " timeout"}, is: httpclient.ErrTooSlow,
		},
		{
			name: "private", c: Client{AllowHTTP: true, NoSimple: true}, web: web{at: "private"},
			pages: []string{at + " refused"}, is: httpclient.ErrPrivate,
		},
		{
			name: "redirects", web: web{at: "redirects"},
			want: []string{simple}, pages: []string{at + " refused"}, is: httpclient.ErrRedirects,
		},
		{
			name: "meta alone", c: Client{NoSimple: true}, web: web{at: page("example.com" + template)},
			want: []string{rendered}, pages: []string{at + " 200"},
		},
		{
			name: "no version", ref: "example.com/team/app,os=linux,arch=amd64", web: web{at: page("example.com" + template)},
			want: []string{"https://example.com/aci/example.com/team/app-latest-linux-amd64.aci"}, pages: []string{at + " 200"},
		},
		{
			name: "no architecture", ref: "example.com/team/app:1.0", web: web{at: page("example.com"+template) + page("example.com https://example.com/{name}.{ext}")},
			want: []string{"https://example.com/example.com/team/app.aci"}, pages: []string{at + " 200"},
		},
		{
			name: "a host alone", ref: "example.com:1.0,os=linux,arch=amd64", web: web{top: page("example.com" + template)},
			want: []string{"https://example.com/aci/example.com-1.0-linux-amd64.aci"}, pages: []string{top + " 200"},
		},
		{
			name: "port", c: Client{Port: 8443}, web: web{"https://example.com:8443/team/app?ac-discovery=1": page("example.com"+template) +
				page("example.com https://example.com:8443/{name}.{ext}") + page("example.com https://example.com:8444/{name}.{ext}")},
			want: []string{
				"simple https://example.com:8443/team/app-1.0-linux-amd64.aci", rendered,
				"https://example.com:8443/example.com/team/app.aci", "foreign https://example.com:8444/example.com/team/app.aci",
			},
			pages: []string{"https://example.com:8443/team/app?ac-discovery=1 200"},
		},
		{
			name: "http where https fails", c: Client{AllowHTTP: true}, web: web{at: "TLS", strings.Replace(at, "https", "http", 1): page("example.com" + template)},
			want:  []string{simple, strings.Replace(simple, "https", "http", 1), rendered},
			pages: []string{at + " TLS", strings.Replace(at, "https", "http", 1) + " 200"},
		},
		{
			name: "no http where https answers", c: Client{AllowHTTP: true, NoSimple: true}, web: web{at: "500"},
			pages: []string{at + " 500"}, is: &httpclient.StatusError{},
		},
		{
			name: "https templates first", c: Client{AllowHTTP: true, NoSimple: true}, web: web{at: page("example.com http://example.com/{name}.{ext}") + page("example.com"+template)},
			want: []string{rendered, "http://example.com/example.com/team/app.aci"}, pages: []string{at + " 200"},
		},
		{
			name: "templates of other schemes", c: Client{NoSimple: true}, web: web{at: page("example.com http://example.com/{name}.{ext}") +
				page("example.com hdfs://example.com/{name}.{ext}") + page("example.com file:///etc/{name}.{ext}") +
				page("example.com file://localhost/etc/{name}.{ext}") + page("example.com -.{ext}") + page("example.com /etc/{name}.{ext}") +
				page("example.com //example.com/{name}.{ext}")},
			pages: []string{at + " 200", above + " 404", top + " 404"}, is: ErrNotFound,
		},
		{
			name: "another host", c: Client{NoSimple: true}, web: web{at: page("example.com https://Storage.example.net/{name}.{ext}") + page("example.com https://10.0.0.1/{name}.{ext}")},
			want: []string{"foreign https://storage.example.net/example.com/team/app.aci", "foreign https://10.0.0.1/example.com/team/app.aci"}, pages: []string{at + " 200"},
		},
		{
			name: "a dependency", c: Client{Foreign: true}, ref: "dependency.org:1,os=linux,arch=amd64",
			web:  web{"https://dependency.org?ac-discovery=1": page("dependency.org https://{name}/{version}.{ext}")},
			want: []string{"foreign https://dependency.org/1.aci"}, pages: []string{"https://dependency.org?ac-discovery=1 200"},
		},
		{
			name: "prefix ends in a slash", c: Client{NoSimple: true}, web: web{at: page("example.com/team/" + template)},
			want: []string{rendered}, pages: []string{at + " 200"},
		},
		{
			name: "prefix of letters", c: Client{NoSimple: true}, web: web{at: page("example.com/te"+template) + page("example.co"+template) + page("example.com/team/app/x"+template)},
			pages: []string{at + " 200", above + " 404", top + " 404"}, is: ErrNotFound,
		},
		{
			name: "a flood of tags", c: Client{NoSimple: true}, web: web{at: strings.Repeat(page("example.com"+template), 1000)},
			want: slices.Repeat([]string{rendered}, maxTags), pages: []string{at + " 200"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.ref == "" {
				tt.ref = ref
			}
			tt.c.HTTP = tt.web
			endpoints, steps, err := tt.c.Endpoints(t.Context(), mustRef(t, tt.ref))
			if got := images(endpoints); !slices.Equal(got, tt.want) {
				t.Errorf("got %q", got)
			}
			var pages []string
			for _, s := range steps {
				if s.Status != "found" && s.Status != "left" {
					pages = append(pages, s.URL+" "+s.Status)
				}
				if s.Note == "" {
					t.Errorf("step without note: %+v", s)
				}
			}
			if !slices.Equal(pages, tt.pages) {
				t.Errorf("pages %q", pages)
			}
			var status *httpclient.StatusError
			if _, ok := tt.is.(*httpclient.StatusError); ok {
				if !errors.As(err, &status) {
					t.Errorf("error %v", err)
				}
			} else if !errors.Is(err, tt.is) {
				t.Errorf("error %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "discover "+strings.Split(tt.ref, ":")[0]) {
				t.Errorf("error without the name: %v", err)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	const (
		at    = "https://example.com/team/app?ac-discovery=1"
		above = "https://example.com/team?ac-discovery=1"
	)
	page := func(content string) string { return meta("ac-discovery-pubkeys", content) }
	for _, tt := range []struct {
		name string
		c    Client
		web  web
		want []string // prefix URL foreign
		is   error
	}{
		{name: "at the name", web: web{at: page("example.com/team/app https://example.com/k")}, want: []string{"example.com/team/app https://example.com/k false"}},
		{name: "at the parent, beside endpoints below", web: web{at: meta("ac-discovery", "example.com"+template), above: page("example.com/team https://example.com/k")}, want: []string{"example.com/team https://example.com/k false"}},
		{name: "a page speaks for nothing above it", web: web{above: page("example.com https://example.com/k")}, want: []string{"example.com/team https://example.com/k false"}},
		{name: "several", web: web{at: page("example.com/team/app https://example.com/k") + page("example.com/team/app https://keys.example.net/k#x")}, want: []string{"example.com/team/app https://example.com/k false", "example.com/team/app https://keys.example.net/k true"}},
		{name: "http allowed", c: Client{AllowHTTP: true}, web: web{at: page("example.com/team/app http://example.com/k")}, want: []string{"example.com/team/app http://example.com/k false"}},
		{name: "nothing to use", web: web{at: page("example.com http://example.com/k") + page("example.com file:///etc/passwd") + page("example.com https://u:p@example.com/k") +
			page("example.com /k") + page("example.org https://example.org/k") + page("example.com https://example.com/a b")}, is: ErrNotFound},
		{name: "broken server", web: web{at: "TLS", above: page("example.com https://example.com/k")}, is: httpclient.ErrTLS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.c.HTTP = tt.web
			keys, _, err := tt.c.Keys(t.Context(), "example.com/team/app")
			var got []string
			for _, k := range keys {
				got = append(got, fmt.Sprintf("%s %s %v", k.Prefix, k.URL, k.Foreign))
			}
			if !slices.Equal(got, tt.want) || !errors.Is(err, tt.is) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{
		"", "app", "app/x", "com/example", "a~b.com/x", "example.com/../x", "Example.com", "example.com:1", "example.com:443/x",
		"example.com/a,os=linux", "user@example.com/x", "localhosts/x", strings.Repeat("a.", 130) + "com/x", "example.com" + strings.Repeat("/a", 32),
	} {
		t.Run(name, func(t *testing.T) {
			c := Client{HTTP: web{}}
			if _, _, err := c.Keys(t.Context(), name); !errors.Is(err, ErrBadName) {
				t.Errorf("keys: error %v", err)
			}
			if _, _, err := c.Endpoints(t.Context(), manifest.Ref{Name: name}); !errors.Is(err, ErrBadName) {
				t.Errorf("endpoints: error %v", err)
			}
		})
	}
	for _, name := range []string{"localhost/app", "127.0.0.1/app", "example.com", "example.com" + strings.Repeat("/a", 31)} {
		if _, _, err := (&Client{HTTP: web{}}).Keys(t.Context(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestParseTags(t *testing.T) {
	const one = `<meta name="ac-discovery" content="example.com https://x/{ext}">`
	is := []tag{{tagEndpoint, "example.com", "https://x/{ext}"}}
	for _, tt := range []struct {
		name, page string
		want       []tag
	}{
		{"alone", one, is},
		{"in a head", "<!doctype html><html><head><title>x</title>" + one + "</head><body>", is},
		{"upper case", `<META NAME="AC-Discovery" CONTENT="example.com https://x/{ext}">`, is},
		{"closed in itself", `<meta name=ac-discovery content="example.com https://x/{ext}" />`, is},
		{"white space", "<meta content=' \n example.com\t\n https://x/{ext} ' name='ac-discovery'>", is},
		{"entities", `<meta name="ac-discovery" content="example.com https&#58;//x/&#x7b;ext}">`, is},
		{"the first of two attributes", `<meta name="ac-discovery" name="x" content="example.com https://x/{ext}" content="y z">`, is},
		{"keys", `<meta name="ac-discovery-pubkeys" content="example.com/a https://x/k">`, []tag{{tagKeys, "example.com/a", "https://x/k"}}},
		{"two", one + one, slices.Concat(is, is)},
		{"after a broken one", `<meta name="ac-discovery" content="x"><meta <meta name= content>` + one, is},
		{"in the body", "<body>" + one, nil},
		{"after the head", "<head></head>" + one, nil},
		{"in a comment", "<!-- " + one + " -->", nil},
		{"in a script", "<script>" + one + "</script>", nil},
		{"in a title", "<title>" + one + "</title>", nil},
		{"in a style", "<style>" + one, nil},
		{"as an attribute", `<link title='` + one + `'>`, nil},
		{"no content", `<meta name="ac-discovery">`, nil},
		{"no URL", `<meta name="ac-discovery" content="example.com ">`, nil},
		{"no prefix", `<meta name="ac-discovery" content="/ https://x">`, nil},
		{"other names", `<meta name="ac-discovery-imagetags" content="a b"><meta name="go-import" content="a b">`, nil},
		{"another tag", `<link name="ac-discovery" content="example.com https://x/{ext}">`, nil},
		{"unfinished", one[:len(one)-2], nil},
		{"empty", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTags(strings.NewReader(tt.page))
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	if _, err := parseTags(io.MultiReader(strings.NewReader(one), failing{})); !errors.Is(err, httpclient.ErrTruncated) {
		t.Errorf("truncated: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, httpclient.ErrTruncated }

func TestRender(t *testing.T) {
	for _, tt := range []struct {
		name, template string
		labels         string
		want           string
		message        string
	}{
		{name: "all", template: "https://h/{os}/{arch}/{name}-{version}.{ext}", want: "https://h/linux/amd64/example.com/app-1.0.aci"},
		{name: "the name as host", template: "https://{name}-{version}.{ext}", want: "https://example.com/app-1.0.aci"},
		{name: "in the query", template: "https://h/?n={name}&v={version}&e={ext}", want: "https://h/?n=example.com/app&v=1.0&e=aci"},
		{name: "any label", template: "https://h/{flavour}.{ext}", labels: "flavour=sweet & sour", want: "https://h/sweet%20%26%20sour.aci"},
		{name: "escaped", template: "https://h/{v}.{ext}", labels: "v=1+2?#%é@", want: "https://h/1%2B2%3F%23%25%C3%A9%40.aci"},
		{name: "a label called ext", template: "https://h/{ext}", labels: "ext=exe", want: "https://h/aci"},
		{name: "fragment", template: "https://h/{ext}#{name}", want: "https://h/aci"},
		{name: "case", template: "HTTPS://H/{ext}", want: "https://h/aci"},
		{name: "port", template: "https://h:8443/{ext}", want: "https://h:8443/aci"},

		{name: "template in a value", template: "https://h/{v}.{ext}", labels: "v={ext}", message: "cannot be in a URL"},
		{name: "slash in a value", template: "https://h/{v}.{ext}", labels: "v=a/b", message: "cannot be in a URL"},
		{name: "backslash in a value", template: "https://h/{v}.{ext}", labels: `v=a\b`, message: "cannot be in a URL"},
		{name: "dots", template: "https://h/a/{v}/{ext}", labels: "v=..", message: ". or .. in its path"},
		{name: "dots of two values", template: "https://h/a/{v}{v}/{ext}", labels: "v=.", message: ". or .. in its path"},
		{name: "dots, encoded", template: "https://h/%2e%2e%2f{ext}", message: ". or .. in its path"},
		{name: "no label", template: "https://h/{flavour}.{ext}", message: `no label "flavour"`},
		{name: "empty variable", template: "https://h/{}.{ext}", message: `no label ""`},
		{name: "open brace", template: "https://h/{ext}/{name", message: "open brace"},
		{name: "closing brace", template: "https://h/{ext}/}", message: "brace too many"},
		{name: "nested", template: "https://h/{{name}}.{ext}", message: `no label "{name"`},
		{name: "label in the host", template: "https://{os}.h/{ext}", message: "changes the host"},
		{name: "label as the host", template: "https://{v}/{ext}", labels: "v=h", message: "changes the host"},
		{name: "label in the port", template: "https://h:{v}/{ext}", labels: "v=22", message: "changes the host"},
		{name: "label after the name", template: "https://{name}{ext}", labels: "", want: "https://example.com/appaci"},
		{name: "domain after the name", template: "https://{name}.evil.org/{ext}", want: "https://example.com/app.evil.org/aci"},
		{name: "name in the middle", template: "https://x{name}/{ext}", message: "changes the host"},
		{name: "scheme of a label", template: "{v}://h/{ext}", labels: "v=https", message: "scheme of its own"},
		{name: "no scheme", template: "h/{ext}", message: "scheme of its own"},
		{name: "credentials", template: "https://u:p@h/{ext}", message: "credentials"},
		{name: "credentials of the name", template: "https://{name}@evil.org/{ext}", want: "https://example.com/app@evil.org/aci"},
		{name: "credentials of a label", template: "https://{v}@h/{ext}", labels: "v=u", message: "credentials"},
		{name: "no host", template: "https:///{ext}", message: "without a host"},
		{name: "port alone", template: "https://:443/{ext}", message: "without a host"},
		{name: "backslash", template: `https://h\@evil.org/{ext}`, message: "not a URL"},
		{name: "space", template: "https://h/ {ext}", message: "not a URL"},
		{name: "control character", template: "https://h/\x1b{ext}", message: "not a URL"},
		{name: "encoded host", template: "https://%68/{ext}", message: "not a URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			labels := map[string]string{"version": "1.0", "os": "linux", "arch": "amd64"}
			if key, value, ok := strings.Cut(tt.labels, "="); ok {
				labels[key] = value
			}
			u, err := render(tt.template, "example.com/app", labels, "aci")
			if tt.message != "" {
				if err == nil || !strings.Contains(err.Error(), tt.message) {
					t.Fatalf("%v, %v", u, err)
				}
				return
			}
			if err != nil || u.String() != tt.want {
				t.Fatalf("%v, %v", u, err)
			}
		})
	}
}

func TestRenderNameAlone(t *testing.T) {
	labels := map[string]string{"version": "1"}
	for _, template := range []string{"https://{name}.evil.org/{ext}", "https://{name}-{version}.{ext}", "https://{name}@evil.org/{ext}", "https://{name}:22/{ext}"} {
		if u, err := render(template, "example.com", labels, "aci"); err == nil {
			t.Errorf("%s: %v", template, u)
		}
	}
}

func TestTemplateWithoutExtension(t *testing.T) {
	for _, template := range []string{"https://h/{name}.aci", "https://h/x#{ext}"} {
		if e, err := renderPair(template, mustRef(t, "example.com/app")); err == nil || !strings.Contains(err.Error(), "{ext}") {
			t.Errorf("%s: %+v, %v", template, e, err)
		}
	}
}

func TestRefIsNotChanged(t *testing.T) {
	ref := mustRef(t, "example.com/app")
	if _, err := renderPair("https://h/{version}.{ext}", ref); err != nil || len(ref.Labels) != 0 {
		t.Errorf("%v, %v", ref, err)
	}
	if _, err := renderPair("https://h/{version}.{ext}", manifest.Ref{Name: "example.com/app"}); err != nil {
		t.Error(err)
	}
}

func TestStepsArePrintable(t *testing.T) {
	c := Client{HTTP: web{"https://example.com?ac-discovery=1": meta("ac-discovery", "example.com https://h/\x1b]0;x\a\u202e{ext}") +
		meta("ac-discovery", "example.com https://h/"+strings.Repeat("é", 9999))}}
	_, steps, err := c.Endpoints(t.Context(), mustRef(t, "example.com"))
	if !errors.Is(err, ErrNotFound) || len(steps) != 4 {
		t.Fatalf("%+v, %v", steps, err)
	}
	for _, s := range steps {
		if text := s.URL + s.Note; printable(s.URL) != s.URL || printable(s.Note) != s.Note || len(text) > 1100 {
			t.Errorf("step %q", text)
		}
	}
}

func FuzzEndpoints(f *testing.F) {
	f.Add(meta("ac-discovery", "example.com"+template), "1.0")
	f.Add(meta("ac-discovery", "example.com https://{name}{v}.{ext}")+"<script><meta", "..")
	f.Add(meta("ac-discovery", "example.com https://{v}@h:{v}/{ext}?{v}#{v}"), "{ext}")
	f.Add(meta("ac-discovery-pubkeys", "example.com https://h/k")+meta("ac-discovery", "example.com file:///{ext}"), "@evil.org")
	f.Fuzz(func(t *testing.T, page, value string) {
		c := Client{HTTP: web{"https://example.com/app?ac-discovery=1": page}}
		endpoints, _, _ := c.Endpoints(t.Context(), manifest.Ref{Name: "example.com/app", Labels: map[string]string{"version": "1", "v": value}})
		keys, _, _ := c.Keys(t.Context(), "example.com/app")
		var found []*url.URL
		for _, e := range endpoints {
			if e.Image.String() == e.Signature.String() || e.Image.Host != e.Signature.Host {
				t.Fatalf("%v, %v", e.Image, e.Signature)
			}
			found = append(found, e.Image, e.Signature)
		}
		for _, k := range keys {
			found = append(found, k.URL)
		}
		for _, u := range found {
			again, err := url.Parse(u.String())
			if err != nil || again.Scheme != "https" || again.Host != u.Host || again.Hostname() == "" || again.User != nil || again.Fragment != "" {
				t.Fatalf("%v: %+v, %v", u, again, err)
			}
			if strings.Contains(again.Path+"/", "/../") {
				t.Fatalf("%v leads upwards", u)
			}
		}
	})
}

func FuzzRender(f *testing.F) {
	f.Add("https://h/{name}-{version}.{ext}", "1.0")
	f.Add("https://{name}{version}/{ext}", "@evil.org")
	f.Add("https://h:4{version}/{ext}", "43")
	f.Fuzz(func(t *testing.T, template, version string) {
		const name = "example.com/app"
		u, err := render(template, name, map[string]string{"version": version}, "aci")
		if err != nil {
			return
		}
		// Without the value, scheme and host are the same: it decided about neither.
		other, err := render(template, name, map[string]string{"version": "x"}, "aci")
		if err != nil || other.Scheme != u.Scheme || other.Host != u.Host || u.User != nil {
			t.Fatalf("%v, %v, %v", u, other, err)
		}
	})
}

// serve starts a server over TLS on loopback, and gives a client that trusts it
// and the host of its names.
func serve(t *testing.T, h http.HandlerFunc) (*Client, string) {
	t.Helper()
	srv, options := startTLS(t, h)
	client, err := httpclient.New(options)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(srv)
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{HTTP: client, NoSimple: true}
	if _, err := fmt.Sscan(u.Port(), &c.Port); err != nil {
		t.Fatal(err)
	}
	return c, u.Hostname()
}

func TestServers(t *testing.T) {
	defer func(d time.Duration) { pageTimeout = d }(pageTimeout)
	head := "<html><head>" + meta("ac-discovery", "127.0.0.1 https://127.0.0.1/{name}.{ext}")
	endless := func(w http.ResponseWriter, first string) {
		_, err := io.WriteString(w, first)
		for err == nil {
			_, err = io.WriteString(w, strings.Repeat("<p>", 10000))
		}
	}
	for _, tt := range []struct {
		name   string
		serve  http.HandlerFunc
		found  bool
		is     error
		status string // of the first step
	}{
		{name: "good", serve: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RequestURI() != "/app?ac-discovery=1" {
				t.Errorf("asked for %s", r.URL)
			}
			fmt.Fprint(w, head)
		}, found: true, status: "200"},
		{name: "redirect", serve: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/app" {
				http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
				return
			}
			fmt.Fprint(w, head)
		}, found: true, status: "200"},
		{name: "endless after the head", serve: func(w http.ResponseWriter, _ *http.Request) { endless(w, head+"</head>") }, found: true, status: "200"},
		{name: "endless head", serve: func(w http.ResponseWriter, _ *http.Request) { endless(w, head) }, is: httpclient.ErrTooLarge, status: "refused"},
		{name: "endless tag", serve: func(w http.ResponseWriter, _ *http.Request) { endless(w, head+"<meta name='") }, is: httpclient.ErrTooLarge, status: "refused"},
		{name: "announced too large", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1048577")
			fmt.Fprint(w, head)
		}, is: httpclient.ErrTooLarge, status: "refused"},
		{name: "drips", serve: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				fmt.Fprint(w, "x")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}, is: context.DeadlineExceeded, status: "timeout"},
		{name: "truncated", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			fmt.Fprint(w, head)
		}, is: httpclient.ErrTruncated, status: "error"},
		{name: "encoded", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, head)
		}, is: httpclient.ErrEncoded, status: "refused"},
		{name: "loop", serve: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		}, is: httpclient.ErrRedirects, status: "refused"},
		{name: "downgrade", serve: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+"/", http.StatusFound)
		}, is: httpclient.ErrInsecure, status: "refused"},
		{name: "file", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		}, is: httpclient.ErrInsecure, status: "refused"},
		{name: "inwards", serve: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://169.254.169.254/latest", http.StatusFound)
		}, is: httpclient.ErrPrivate, status: "refused"},
		{name: "gone", serve: http.NotFound, is: ErrNotFound, status: "404"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pageTimeout = 30 * time.Second
			if tt.status == "timeout" {
				pageTimeout = 500 * time.Millisecond
			}
			c, host := serve(t, tt.serve)
			endpoints, steps, err := c.Endpoints(t.Context(), mustRef(t, host+"/app"))
			if !errors.Is(err, tt.is) || (len(endpoints) == 1) != tt.found {
				t.Errorf("%v, %v", images(endpoints), err)
			}
			if steps[0].Status != tt.status {
				t.Errorf("steps %+v", steps)
			}
		})
	}
}

func TestServerOfPlainHTTP(t *testing.T) {
	c, host := serve(t, http.NotFound)
	c.Port = startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, meta("ac-discovery", "127.0.0.1 http://"+r.Host+"/{name}.{ext}"))
	})
	ref := mustRef(t, host+"/app")
	if _, _, err := c.Endpoints(t.Context(), ref); !errors.Is(err, httpclient.ErrTLS) {
		t.Errorf("not allowed: error %v", err)
	}
	client, err := httpclient.New(httpclient.Options{HTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	c.HTTP, c.AllowHTTP = client, true
	endpoints, steps, err := c.Endpoints(t.Context(), ref)
	if err != nil || len(endpoints) != 1 || endpoints[0].Foreign || steps[0].Status != "TLS" || steps[1].Status != "200" {
		t.Errorf("%v, %+v, %v", images(endpoints), steps, err)
	}
}

// A name that came out of an image does not reach what is near us.
func TestDependencyOnLoopback(t *testing.T) {
	c, host := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("it was asked") })
	c.Foreign = true
	_, steps, err := c.Endpoints(t.Context(), mustRef(t, host+"/app"))
	if !errors.Is(err, httpclient.ErrPrivate) || steps[0].Status != "refused" {
		t.Errorf("%+v, %v", steps, err)
	}
}
