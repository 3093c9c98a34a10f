package treedir_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/storage/treedir"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// makeLayer makes a layer: "dir/" is a directory, "-name" a whiteout of name.
func makeLayer(t *testing.T, files ...string) string {
	t.Helper()
	layer := t.TempDir()
	for _, f := range files {
		path := filepath.Join(layer, f)
		var err error
		switch {
		case f[len(f)-1] == '/':
			err = os.Mkdir(path, 0o755)
		case filepath.Base(f)[0] == '-':
			err = unix.Mknod(filepath.Join(filepath.Dir(path), filepath.Base(f)[1:]), unix.S_IFCHR, 0)
		default:
			err = os.WriteFile(path, []byte(f), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return layer
}

func TestLayers(t *testing.T) {
	testenv.Root(t) // whiteouts are devices
	for _, tt := range []struct {
		name   string
		layers [][]string // the uppermost first
		want   []string
	}{
		{"one", [][]string{{"dir/", "dir/a", "file"}}, []string{"/dir", "/dir/a", "/file"}},
		{"merged directory", [][]string{{"dir/", "dir/b"}, {"dir/", "dir/a"}}, []string{"/dir", "/dir/a", "/dir/b"}},
		{"whiteout", [][]string{{"-a"}, {"a", "b"}}, []string{"/b"}},
		{"whiteout of a directory", [][]string{{"-dir"}, {"dir/", "dir/a"}}, nil},
		{"whiteout between", [][]string{{"dir/"}, {"-dir"}, {"dir/", "dir/a"}}, []string{"/dir"}},
		{"whiteout below a file", [][]string{{"a"}, {"-a"}, {"a"}}, []string{"/a"}},
		{"file over directory", [][]string{{"x"}, {"x/", "x/a"}}, []string{"/x"}},
		{"directory over file", [][]string{{"x/", "x/a"}, {"x"}}, []string{"/x", "/x/a"}},
		{"directory over file over directory", [][]string{{"x/", "x/a"}, {"x"}, {"x/", "x/b"}}, []string{"/x", "/x/a"}},
		{"a device in a single layer hides nothing", [][]string{{"-a"}}, []string{"/a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var layers treedir.Layers
			for _, files := range tt.layers {
				layers = append(layers, makeLayer(t, files...))
			}
			changes, err := treedir.Diff(t.Context(), nil, layers)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range changes {
				if c.Kind != storage.Added {
					t.Errorf("%s is %s", c.Path, c.Kind)
				}
				got = append(got, c.Path)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("sees %q, want %q", got, tt.want)
			}
		})
	}
}
