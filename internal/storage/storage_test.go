package storage_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/internal/storage"
)

func TestCheckName(t *testing.T) {
	for _, tt := range []struct {
		name string
		ok   bool
	}{
		{"images/sha512-0123abcdef", true},
		{"pods/6733c088-a507-4694-aabf-ef64e2a1ee3b.web", true},
		{"volumes/A", false},
		{"volumes/a_B.c-D", true},
		{"a/" + strings.Repeat("x", 200), true},
		{"a/" + strings.Repeat("x", 201), false},
		{"", false},
		{"images", false},
		{"images/", false},
		{"/images/x", false},
		{"images/x/y", false},
		{"images/..", false},
		{"images/.hidden", false},
		{"images/-rf", false},
		{"../x", false},
		{"Images/x", false},
		{"images/x@y", false},
		{"images/x:y", false},
		{"images/x,y", false},
		{"images/x y", false},
		{"images/x\n", false},
		{"images/x\x00", false},
		{"images/é", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := storage.CheckName(tt.name)
			if tt.ok && err != nil {
				t.Fatal(err)
			}
			if !tt.ok && !errors.Is(err, storage.ErrBadName) {
				t.Fatalf("error is %v, want ErrBadName", err)
			}
		})
	}
}

func TestCheckMeta(t *testing.T) {
	for _, tt := range []struct {
		name, key, value string
		ok               bool
	}{
		{"plain", "pod", "6733c088-a507", true},
		{"blanks and signs", "image.name", `example.com/a b="c"`, true},
		{"one character", "k", "v", true},
		{"longest value", "k", strings.Repeat("v", 1024), true},
		{"value too long", "k", strings.Repeat("v", 1025), false},
		{"empty value", "k", "", false},
		{"lone hyphen", "k", "-", false},
		{"newline", "k", "a\nb", false},
		{"newline at the end", "k", "a\n", false},
		{"tab", "k", "a\tb", false},
		{"blank at the end", "k", "a ", false},
		{"not ASCII", "k", "é", false},
		{"empty key", "", "v", false},
		{"colon in key", "a:b", "v", false},
		{"equals in key", "a=b", "v", false},
		{"upper case key", "A", "v", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := storage.CheckMeta(map[string]string{tt.key: tt.value})
			if (err == nil) != tt.ok {
				t.Fatalf("error is %v, want ok=%t", err, tt.ok)
			}
		})
	}
}

// An accepted name is a path of exactly two components that stays where it is
// put.
func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"images/x", "a/..", "a/b/c", "a/b\n", "../a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if storage.CheckName(name) != nil {
			return
		}
		if filepath.Clean(name) != name || !filepath.IsLocal(name) || strings.Count(name, "/") != 1 {
			t.Fatalf("accepted %q", name)
		}
		if strings.ContainsAny(name, ":,@# \n\x00\\") {
			t.Fatalf("accepted %q", name)
		}
	})
}
