package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
)

// The sample says nothing as it is, and the defaults when its settings are uncommented.
func TestSample(t *testing.T) {
	for _, goos := range []string{"freebsd", "linux"} {
		t.Run(goos, func(t *testing.T) {
			var b bytes.Buffer
			if err := Sample(&b, goos); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				if line != "\n" && !strings.HasPrefix(line, "#") {
					t.Errorf("not a comment: %q", line)
				}
				if strings.HasPrefix(line, "# ") && len(line) > 81 {
					t.Errorf("long line: %q", line)
				}
			}
			text := regexp.MustCompile(`(?m)^#([^ ])`).ReplaceAllString(b.String(), "$1")
			for _, k := range Keys() {
				if !strings.Contains(text, "\n"+k.Name+" = ") {
					t.Errorf("no %s", k.Name)
				}
			}
			other := map[string]string{"freebsd": "linux", "linux": "freebsd"}[goos]
			got, err := Load(writeFile(t, text), true, nil, other)
			if err != nil {
				t.Fatal(err)
			}
			want := defaults(goos)
			want.goos = other
			if *got != want {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
		})
	}
	if !errors.Is(Sample(brokenWriter{}, "freebsd"), io.ErrClosedPipe) {
		t.Error("a failed write was not reported")
	}
}

// A key without default is named, and is no setting.
func TestSampleWithoutDefault(t *testing.T) {
	var b bytes.Buffer
	if err := sample(&b, secretTable(new(string)), "freebsd"); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(b.String(), "\n# A token.\n# test.token has no default.\n") {
		t.Errorf("sample:\n%s", b.String())
	}
}

func TestLiteral(t *testing.T) {
	for value, want := range map[string]string{`/a`: `"/a"`, `a\b"c`: `"a\\b\"c"`} {
		if got := (Key{Type: String}).literal(value); got != want {
			t.Errorf("literal(%q) = %s, want %s", value, got, want)
		}
	}
}
