package discovery

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/jetpack-run/jetpack/internal/manifest"
)

// renderPair renders a template for an image and for its signature.
func renderPair(template string, ref manifest.Ref) (Endpoint, error) {
	labels := ref.Labels
	if labels["version"] == "" {
		labels = maps.Clone(labels)
		if labels == nil {
			labels = map[string]string{}
		}
		labels["version"] = "latest"
	}
	image, err := render(template, ref.Name, labels, "aci")
	if err != nil {
		return Endpoint{}, err
	}
	signature, err := render(template, ref.Name, labels, "aci.asc")
	if err != nil {
		return Endpoint{}, err
	}
	if image.String() == signature.String() {
		return Endpoint{}, errors.New("the template has no {ext}")
	}
	return Endpoint{Image: image, Signature: signature}, nil
}

// render puts name, labels and extension into a template, in one pass: a value is
// never read as a template. The host is what the template says, or the name's if
// it says {name} there; no value moves it.
func render(template, name string, labels map[string]string, ext string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(template, "://")
	if !ok || strings.Contains(scheme, "{") {
		return nil, errors.New("the template is no URL with a scheme of its own")
	}
	host := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		host = rest[:i]
	}
	if strings.HasPrefix(host, "{name}") {
		host, _, _ = strings.Cut(name, "/")
	}
	text, err := substitute(template, func(variable string) (string, error) {
		switch variable {
		case "name":
			return name, nil // an AC Identifier: all of it is path
		case "ext":
			return ext, nil
		}
		value, ok := labels[variable]
		if !ok {
			return "", fmt.Errorf("no label %q was asked for", variable)
		}
		return escape(variable, value)
	})
	if err != nil {
		return nil, err
	}
	u, err := parseURL(text)
	if err != nil {
		return nil, err
	}
	if u.Host != strings.ToLower(host) {
		return nil, errors.New("a variable changes the host")
	}
	return u, nil
}

// substitute replaces every {variable}.
func substitute(template string, value func(string) (string, error)) (string, error) {
	var out strings.Builder
	for {
		literal, rest, ok := strings.Cut(template, "{")
		if strings.Contains(literal, "}") {
			return "", errors.New("the template has a brace too many")
		}
		out.WriteString(literal)
		if !ok {
			return out.String(), nil
		}
		variable, after, ok := strings.Cut(rest, "}")
		if !ok {
			return "", errors.New("the template has an open brace")
		}
		v, err := value(variable)
		if err != nil {
			return "", err
		}
		out.WriteString(v)
		template = after
	}
}

// escape makes a label's value one piece of a URL.
func escape(label, value string) (string, error) {
	if value == "" || strings.ContainsAny(value, `{}/\`) || strings.ContainsFunc(value, unicode.IsControl) {
		return "", fmt.Errorf("the value of label %s cannot be in a URL: %q", label, value)
	}
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~" // RFC 3986, section 2.3
	var out strings.Builder
	for _, b := range []byte(value) {
		if strings.IndexByte(unreserved, b) >= 0 {
			out.WriteByte(b)
		} else {
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String(), nil
}

// parseURL reads a URL that a server chose: with a host, without credentials, and
// with no step that leads out of its directory.
func parseURL(s string) (*url.URL, error) {
	if strings.ContainsFunc(s, unicode.IsSpace) || strings.Contains(s, `\`) {
		return nil, errors.New("not a URL")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Hostname() == "":
		return nil, errors.New("a URL without a host")
	case u.User != nil:
		return nil, errors.New("a URL with credentials")
	case slices.ContainsFunc(strings.Split(u.Path, "/"), func(s string) bool { return s == "." || s == ".." }):
		return nil, errors.New("a URL with . or .. in its path")
	}
	u.Host = strings.ToLower(u.Host)
	u.Fragment, u.RawFragment = "", "" // it is not sent
	return u, nil
}

// printable is a text from a page as it may be shown.
func printable(s string) string {
	const most = 500
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
