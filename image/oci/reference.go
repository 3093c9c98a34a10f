package oci

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/lazyregexp"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// The transports of locations.
const (
	registryTransport = "docker://"
	layoutTransport   = "oci:"
	layoutArchive     = "oci-archive:"
	dockerArchive     = "docker-archive:"
)

var transports = []string{registryTransport, layoutTransport, layoutArchive, dockerArchive}

// Location is where an OCI image is, as a user names it.
type Location struct {
	transport  string
	repository name.Repository // of docker://
	path       string          // of the others, absolute
	tag        string          // "" if none is named
	Digest     string          // "" if none is named
}

// IsLocation tells whether s has the form of a location that ParseLocation reads.
func IsLocation(s string) bool { return transportOf(s) != "" }

func transportOf(s string) string {
	for _, t := range transports {
		if strings.HasPrefix(s, t) {
			return t
		}
	}
	return ""
}

// ParseLocation reads docker://REGISTRY/NAME[:TAG][@DIGEST], oci:DIR, oci-archive:FILE
// or docker-archive:FILE, the last three with [:TAG] or [@DIGEST] behind them. A digest
// is that of a manifest or an index, of a docker-archive that of a configuration; it
// decides where there is a tag as well. With plain, the registry may speak plain http.
func ParseLocation(s string, plain bool) (Location, error) {
	l := Location{transport: transportOf(s)}
	rest := strings.TrimPrefix(s, l.transport)
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if err := image.CheckDigest(rest[at+1:]); err == nil {
			rest, l.Digest = rest[:at], rest[at+1:]
		} else if l.transport == registryTransport {
			return Location{}, fmt.Errorf("%s: %w", s, err)
		}
	}
	if l.transport == registryTransport {
		return l.parseRegistry(s, rest, plain)
	}
	rest, l.tag, _ = strings.Cut(rest, ":")
	if rest == "" {
		return Location{}, fmt.Errorf("%s: no path", s)
	}
	var err error
	l.path, err = filepath.Abs(rest)
	return l, err
}

func (l Location) parseRegistry(s, rest string, plain bool) (Location, error) {
	var options []name.Option
	if plain {
		options = append(options, name.Insecure)
	}
	tag, err := name.NewTag(rest, options...)
	if err != nil {
		return Location{}, fmt.Errorf("%s: %w", s, err)
	}
	l.repository = tag.Repository
	if l.Digest == "" || strings.HasSuffix(rest, ":"+tag.TagStr()) {
		l.tag = tag.TagStr()
	}
	return l, nil
}

// IsRegistry tells whether the image is in a registry.
func (l Location) IsRegistry() bool { return l.transport == registryTransport }

// String is the location in full, as it is recorded.
func (l Location) String() string {
	s := l.transport + l.path
	if l.IsRegistry() {
		s += l.repository.Name()
	}
	if l.tag != "" {
		s += ":" + l.tag
	}
	if l.Digest != "" {
		s += "@" + l.Digest
	}
	return s
}

// at is the location of the same image by its digest.
func (l Location) at(digest string) Location {
	l.Digest = digest
	if !l.IsRegistry() {
		l.tag = ""
	}
	return l
}

// reference is the reference to give a registry.
func (l Location) reference() name.Reference {
	if l.Digest != "" {
		return l.repository.Digest(l.Digest)
	}
	return l.repository.Tag(l.tag)
}

// Ref is how the image is called here: the name that manifests and tags have it under.
// Of a registry's it is the whole name, written as an AC Identifier (see identifier),
// its tag being the version.
func (l Location) Ref() manifest.Ref {
	if l.IsRegistry() {
		return newRef(l.repository.Name(), l.tag)
	}
	base := filepath.Base(l.path)
	for _, suffix := range []string{".gz", ".tar", ".oci"} {
		base = strings.TrimSuffix(base, suffix)
	}
	return newRef(base, l.tag)
}

// named is Ref for a name that the image has inside a file or directory: a whole
// reference, or only a tag.
func (l Location) named(inside string) manifest.Ref {
	if l.IsRegistry() || !strings.ContainsAny(inside, ":/") {
		if l.tag == "" && !l.IsRegistry() {
			l.tag = inside
		}
		return l.Ref()
	}
	ref, err := name.ParseReference(inside)
	if err != nil {
		return l.Ref()
	}
	tag, ok := ref.(name.Tag)
	if !ok {
		return newRef(ref.Context().Name(), l.tag)
	}
	return newRef(ref.Context().Name(), tag.TagStr())
}

func newRef(name, tag string) manifest.Ref {
	// Hosts have no case, and repositories no upper one.
	ref := manifest.Ref{Name: identifier(strings.ToLower(name)), Labels: map[string]string{}}
	if badVersion().ReplaceAllString(tag, "") != "" {
		ref.Labels["version"] = badVersion().ReplaceAllString(tag, "-")
	}
	return ref
}

// badVersion is what the version of a manifest.Ref cannot have.
var badVersion = lazyregexp.New(`[^A-Za-z0-9._+-]`)

// identifier writes a name as an AC Identifier (appc spec, types.md): what has no place
// there is written as ~ and the two hexadecimal digits of its byte, as in ~5f for an
// underscore and ~3a for a colon, and 0 stands before what cannot begin there. Names of
// images in registries stay different from each other.
func identifier(s string) string {
	var b strings.Builder
	alnum := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	after := false // a letter or digit
	for i := range len(s) {
		c := s[i]
		switch {
		case alnum(c):
			b.WriteByte(c)
			after = true
		case strings.IndexByte("-._/", c) >= 0 && c != '_' && after && i+1 < len(s) && alnum(s[i+1]):
			b.WriteByte(c)
			after = false
		default:
			if !after {
				b.WriteByte('0')
			}
			fmt.Fprintf(&b, "~%02x", c)
			after = true
		}
	}
	if b.Len() == 0 {
		return "0"
	}
	return b.String()
}
