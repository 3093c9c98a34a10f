package manifest

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/appc/spec/schema/types"
)

func TestParseRef(t *testing.T) {
	for _, tt := range []struct {
		in     string
		labels map[string]string
		out    string // if not in
	}{
		{"example.com/a", map[string]string{}, ""},
		{"example.com/a:1.0", map[string]string{"version": "1.0"}, ""},
		{"example.com/a,version=1.0", map[string]string{"version": "1.0"}, "example.com/a:1.0"},
		{"a:1,os=linux,arch=amd64", map[string]string{"version": "1", "os": "linux", "arch": "amd64"}, "a:1,arch=amd64,os=linux"},
		{"a,arch=arm64", map[string]string{"arch": "aarch64"}, "a,arch=aarch64"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			ref, err := ParseRef(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(ref.Labels, tt.labels) {
				t.Errorf("labels %q", ref.Labels)
			}
			if want := tt.out; ref.String() != want && ref.String() != tt.in {
				t.Errorf("String %q", ref.String())
			}
		})
	}
}

func TestParseRefRefuses(t *testing.T) {
	for _, s := range []string{
		"", ":1", ",os=linux", "A", "a/../b", "a//b", "/a", "a/", "./a", "a:", "a:1:2", "localhost:5000/a:1", "a,", "a,os",
		"a,os=", "a,=linux", "a,os=a=b", "a:b=c", "a,os=linux,os=linux", "a:1,version=1", "a,name=b", "a,OS=linux",
		"a,os=x\ny", "a:\x1b[2J", "a,os=b:c", "a b", "sha512-" + strings.Repeat("A", 128),
	} {
		t.Run(s, func(t *testing.T) {
			if ref, err := ParseRef(s); !errors.Is(err, ErrBadRef) {
				t.Errorf("got %+v, %v", ref, err)
			}
		})
	}
}

func TestMatches(t *testing.T) {
	labelled, _, err := ParseImage([]byte(image(`"labels":[{"name":"version","value":"1"},{"name":"os","value":"linux"},{"name":"arch","value":"arm64"}]`)))
	if err != nil {
		t.Fatal(err)
	}
	bare, _, err := ParseImage([]byte(image("")))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		ref            string
		labelled, bare bool
	}{
		{"example.com/a", true, true},
		{"example.com/a:1", true, false},
		{"example.com/a:2", false, false},
		{"example.com/a,os=linux", true, false},
		{"example.com/a,arch=arm64", true, false},
		{"example.com/a,arch=aarch64", true, false},
		{"example.com/a:1,x=y", false, false},
		{"example.com/ab", false, false},
		{"example.com", false, false},
	} {
		t.Run(tt.ref, func(t *testing.T) {
			ref, err := ParseRef(tt.ref)
			if err != nil {
				t.Fatal(err)
			}
			if got := ref.Matches(labelled); got != tt.labelled {
				t.Errorf("image with labels: %v", got)
			}
			if got := ref.Matches(bare); got != tt.bare {
				t.Errorf("image without labels: %v", got)
			}
		})
	}
}

// ordered is ascending; its second group is the example of semver.org, item 11.
var ordered = []string{
	"", "0.9", "0.10",
	"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.0+1", "1.0.0+10",
	"1.0.1", "1.2.0", "1.10.0", "9.2", "10.1.0", "10.3-RELEASE", "10.3-RELEASE-p2", "10.3-RELEASE-p10", "10.3", "11", "20151018", "99999999999999999999999", "latest", "trusty",
}

func TestLessVersion(t *testing.T) {
	for i, a := range ordered {
		for j, b := range ordered {
			if got := LessVersion(a, b); got != (i < j) {
				t.Errorf("LessVersion(%q, %q) = %v", a, b, got)
			}
		}
	}
}

func TestArch(t *testing.T) {
	for _, tt := range []struct {
		goos, goarch, want string
		ok                 bool
	}{
		{"linux", "amd64", "amd64", true},
		{"linux", "arm64", "aarch64", true},
		{"freebsd", "arm64", "aarch64", true},
		{"freebsd", "386", "i386", true},
		{"plan9", "amd64", "", false},
	} {
		if got, ok := Arch(tt.goos, tt.goarch); got != tt.want || ok != tt.ok {
			t.Errorf("Arch(%s, %s) = %q, %v", tt.goos, tt.goarch, got, ok)
		}
	}
	for pair, arch := range architectures {
		if !slices.Contains(types.ValidOSArch[pair[0]], arch) {
			t.Errorf("%s on %s is not a legal label", arch, pair[0])
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"", "a", "a:1", "example.com/a:1,os=linux,arch=arm64", "a,b=c,b=d", "a:,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseRef(s)
		if err != nil {
			return
		}
		again, err := ParseRef(ref.String())
		if err != nil || again.Name != ref.Name || !maps.Equal(again.Labels, ref.Labels) {
			t.Fatalf("%q: %+v, %+v, %v", s, ref, again, err)
		}
	})
}

func FuzzLessVersion(f *testing.F) {
	f.Add("1.0-rc1", "1.0", "1.0+x")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if LessVersion(a, b) && LessVersion(b, a) {
			t.Fatal("not asymmetric")
		}
		if a != b && !LessVersion(a, b) && !LessVersion(b, a) {
			t.Fatal("not total")
		}
		if LessVersion(a, b) && LessVersion(b, c) && !LessVersion(a, c) {
			t.Fatal("not transitive")
		}
	})
}
