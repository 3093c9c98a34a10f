package aci_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

func TestValidateLayout(t *testing.T) {
	body := acitest.Manifest("example.com/a")
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(t *testing.T, path, data string) { must(t, os.WriteFile(path, []byte(data), 0o600)) }
	remove := func(t *testing.T, path string) { must(t, os.RemoveAll(path)) }
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  error
	}{
		{"good", func(*testing.T, string) {}, nil},
		{"good with a tree", func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/rootfs/a/b", 0o700))
			write(t, dir+"/rootfs/a/b/c", strings.Repeat("x", 1000))
			must(t, os.Symlink("/etc", dir+"/rootfs/l"))
			must(t, unix.Mkfifo(dir+"/rootfs/p", 0o600))
		}, nil},
		{"missing", func(t *testing.T, dir string) { remove(t, dir) }, fs.ErrNotExist},
		{"no manifest", func(t *testing.T, dir string) { remove(t, dir+"/manifest") }, aci.ErrNoManifest},
		{"no rootfs", func(t *testing.T, dir string) { remove(t, dir+"/rootfs") }, aci.ErrNoRootfs},
		{"third entry", func(t *testing.T, dir string) { write(t, dir+"/README", "") }, aci.ErrLayout},
		{"bad manifest", func(t *testing.T, dir string) { write(t, dir+"/manifest", "{}") }, manifest.ErrInvalid},
		{"large manifest", func(t *testing.T, dir string) { write(t, dir+"/manifest", strings.Repeat(" ", manifest.MaxSize+1)) }, aci.ErrLayout},
		{"manifest a directory", func(t *testing.T, dir string) {
			remove(t, dir+"/manifest")
			must(t, os.Mkdir(dir+"/manifest", 0o700))
		}, aci.ErrLayout},
		{"manifest a fifo", func(t *testing.T, dir string) {
			remove(t, dir+"/manifest")
			must(t, unix.Mkfifo(dir+"/manifest", 0o600))
		}, aci.ErrLayout},
		{"manifest a link", func(t *testing.T, dir string) {
			must(t, os.Rename(dir+"/manifest", dir+"/rootfs/m"))
			must(t, os.Symlink("rootfs/m", dir+"/manifest"))
		}, aci.ErrLayout},
		{"rootfs a link", func(t *testing.T, dir string) {
			remove(t, dir+"/rootfs")
			must(t, os.Symlink("/", dir+"/rootfs"))
		}, aci.ErrLayout},
		{"rootfs a file", func(t *testing.T, dir string) {
			remove(t, dir+"/rootfs")
			write(t, dir+"/rootfs", "")
		}, aci.ErrLayout},
		{"socket", func(t *testing.T, dir string) {
			t.Chdir(dir + "/rootfs") // the path of a socket is short
			l, err := net.Listen("unix", "s")
			must(t, err)
			t.Cleanup(func() { l.Close() })
		}, layer.ErrType},
		{"too many files", func(t *testing.T, dir string) {
			for i := range small.MaxEntries {
				write(t, filepath.Join(dir, "rootfs", strings.Repeat("x", int(i)+1)), "")
			}
		}, layer.ErrTooManyEntries},
		{"too large", func(t *testing.T, dir string) { must(t, os.Truncate(mustCreate(t, dir+"/rootfs/x"), small.MaxBytes+1)) }, layer.ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "layout")
			must(t, os.MkdirAll(dir+"/rootfs", 0o755))
			write(t, dir+"/manifest", body)
			tt.spoil(t, dir)
			m, err := aci.ValidateLayout(t.Context(), dir, small)
			if !errors.Is(err, tt.want) || (err == nil && (m.Image == nil || string(m.Raw) != body)) {
				t.Errorf("got %+v, %v, want %v", m, err, tt.want)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.Mkdir(dir+"/rootfs", 0o755))
		write(t, dir+"/manifest", body)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := aci.ValidateLayout(ctx, dir, small); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func mustCreate(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
