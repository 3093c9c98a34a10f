package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/appc/spec/schema"
)

// ErrBadRef is wrapped by every refusal of what a user calls an image.
var ErrBadRef = errors.New("invalid image name")

// Ref is an image as a user names it.
type Ref struct {
	Name   string            // an AC Identifier
	Labels map[string]string // the version among them; never nil after ParseRef
}

// ParseRef reads NAME[:VERSION][,LABEL=VALUE]… (the "app string" of appc
// tools). Values are not empty and hold none of ",:=" and no control character.
// Errors: ErrBadRef.
func ParseRef(s string) (Ref, error) {
	refuse := func(format string, args ...any) (Ref, error) {
		return Ref{}, fmt.Errorf("%w %.200q: %s", ErrBadRef, s, fmt.Sprintf(format, args...))
	}
	parts := strings.Split(s, ",")
	name, version, versioned := strings.Cut(parts[0], ":")
	if err := checkIdentifier("name", name); err != nil {
		return refuse("not an AC Identifier (lower case, digits, - . _ ~ /)")
	}
	labels := parts[1:]
	if versioned {
		labels = append([]string{"version=" + version}, labels...)
	}
	ref := Ref{Name: name, Labels: map[string]string{}}
	for _, label := range labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok {
			return refuse("not LABEL=VALUE: %.200q", label)
		}
		if err := checkIdentifier("label", key); err != nil || key == "name" {
			return refuse("not a label name: %.200q", key)
		}
		if value == "" || strings.ContainsAny(value, ":=") || !plain(value) {
			return refuse("bad value of label %s: %.200q", key, value)
		}
		if _, ok := ref.Labels[key]; ok {
			return refuse("label %s is given twice", key)
		}
		ref.Labels[key] = normalLabel(key, value)
	}
	return ref, nil
}

// String writes the form that ParseRef reads, labels sorted.
func (r Ref) String() string {
	var b strings.Builder
	b.WriteString(r.Name)
	if v, ok := r.Labels["version"]; ok {
		b.WriteString(":" + v)
	}
	for _, key := range slices.Sorted(maps.Keys(r.Labels)) {
		if key != "version" {
			b.WriteString("," + key + "=" + r.Labels[key])
		}
	}
	return b.String()
}

// Matches says whether m is an image that r asks for: of that name, and having
// every label of r with the same value. Labels that r does not name
// may have any value or be absent (appc spec, aci.md, "Dependency Matching").
func (r Ref) Matches(m *schema.ImageManifest) bool {
	if string(m.Name) != r.Name {
		return false
	}
	for key, want := range r.Labels {
		if got, ok := m.GetLabel(key); !ok || got != want {
			return false
		}
	}
	return true
}

// LessVersion orders versions of any form totally: numbers by value, and as
// semantic versions demand, "1.0-rc1" before "1.0" and "1.0" before "1.0+5". No
// version ("") comes first.
func LessVersion(a, b string) bool {
	aBase, aPre, aBuild := splitVersion(a)
	bBase, bPre, bBuild := splitVersion(b)
	return cmp.Or(
		compareNatural(aBase, bBase),
		comparePreRelease(aPre, bPre),
		compareNatural(aBuild, bBuild),
		strings.Compare(a, b),
	) < 0
}

func splitVersion(v string) (base, pre, build string) {
	v, build, _ = strings.Cut(v, "+")
	base, pre, _ = strings.Cut(v, "-")
	return base, pre, build
}

// comparePreRelease: a version without pre-release comes after all that have one.
func comparePreRelease(a, b string) int {
	switch {
	case a == "" && b != "":
		return 1
	case a != "" && b == "":
		return -1
	}
	return compareNatural(a, b)
}

// compareNatural compares runs of digits by value, before any other character,
// and the rest byte by byte.
func compareNatural(a, b string) int {
	for a != "" && b != "" {
		aRun, bRun := digits(a), digits(b)
		switch {
		case aRun != "" && bRun != "":
			aNumber, bNumber := strings.TrimLeft(aRun, "0"), strings.TrimLeft(bRun, "0")
			if c := cmp.Or(cmp.Compare(len(aNumber), len(bNumber)), strings.Compare(aNumber, bNumber)); c != 0 {
				return c
			}
			a, b = a[len(aRun):], b[len(bRun):]
		case aRun != "":
			return -1
		case bRun != "":
			return 1
		default:
			if c := cmp.Compare(a[0], b[0]); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
		}
	}
	return cmp.Compare(len(a), len(b))
}

// digits is the run of digits that s starts with.
func digits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
