//go:build unix

package treecmp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
	"github.com/jetpack-run/jetpack/internal/treecmp"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }

var mtime = time.Unix(1700000000, 123456789)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func setTime(t testing.TB, path string, at time.Time) {
	t.Helper()
	ts := unix.NsecToTimespec(at.UnixNano())
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	must(t, os.WriteFile(path, data, 0o644))
	setTime(t, path, mtime)
}

// big is longer than what is read at a time.
var big = bytes.Repeat([]byte("0123456789abcdef"), 20_000)

// fill makes the tree that all cases start from.
func fill(t testing.TB, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir+"/dir/sub", 0o755))
	must(t, os.Mkdir(dir+"/empty", 0o755))
	for _, name := range []string{"/file", "/dir/a", "/dir/sub/c", "/with blank"} {
		write(t, dir+name, []byte("content"))
	}
	write(t, dir+"/big", big)
	must(t, os.Symlink("file", dir+"/link"))
	setTime(t, dir+"/link", mtime)
	must(t, unix.Mkfifo(dir+"/fifo", 0o644))
	setTime(t, dir+"/fifo", mtime)
}

func TestCompare(t *testing.T) {
	flip := func(at int) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			data := slices.Clone(big)
			data[at] ^= 1
			write(t, dir+"/big", data)
		}
	}
	tests := []struct {
		name   string
		change func(t *testing.T, dir string)
		want   string // "+", "-" or "M", and path
	}{
		{"nothing", func(*testing.T, string) {}, ""},
		{"first byte, size and time restored", flip(0), "M/big"},
		{"a byte in the middle", flip(150_000), "M/big"},
		{"last byte", flip(len(big) - 1), "M/big"},
		{"longer", func(t *testing.T, dir string) { write(t, dir+"/big", append(slices.Clone(big), 'x')) }, "M/big"},
		{"time", func(t *testing.T, dir string) { setTime(t, dir+"/file", mtime.Add(1)) }, "M/file"},
		{"time of a link", func(t *testing.T, dir string) { setTime(t, dir+"/link", mtime.Add(time.Second)) }, "M/link"},
		{"time of a directory", func(t *testing.T, dir string) { setTime(t, dir+"/dir", mtime) }, ""},
		{"mode", func(t *testing.T, dir string) { must(t, os.Chmod(dir+"/file", 0o4644|os.ModeSetuid)) }, "M/file"},
		{"mode of the top", func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o700)) }, "M/"},
		{"mode of a directory", func(t *testing.T, dir string) { must(t, os.Chmod(dir+"/dir", 0o700)) }, "M/dir"},
		{"owner", func(t *testing.T, dir string) { testenv.Root(t); must(t, os.Chown(dir+"/file", 1, 0)) }, "M/file"},
		{"group of a link", func(t *testing.T, dir string) { testenv.Root(t); must(t, os.Lchown(dir+"/link", 0, 2)) }, "M/link"},
		{"link target of the same length", func(t *testing.T, dir string) {
			must(t, os.Remove(dir+"/link"))
			must(t, os.Symlink("elif", dir+"/link"))
			setTime(t, dir+"/link", mtime)
		}, "M/link"},
		{"added", func(t *testing.T, dir string) { write(t, dir+"/dir/new", nil) }, "+/dir/new"},
		{"added directory", func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/new/sub", 0o755))
			write(t, dir+"/new/sub/x", nil)
			write(t, dir+"/new-x", nil)
		}, "+/new +/new-x +/new/sub +/new/sub/x"},
		{"deleted", func(t *testing.T, dir string) { must(t, os.Remove(dir+"/fifo")) }, "-/fifo"},
		{"deleted directory", func(t *testing.T, dir string) { must(t, os.RemoveAll(dir+"/dir")) }, "-/dir"},
		{"directory to link", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(dir+"/dir"))
			must(t, os.Symlink("/etc", dir+"/dir"))
		}, "M/dir"},
		{"file to directory", func(t *testing.T, dir string) {
			must(t, os.Remove(dir+"/file"))
			must(t, os.Mkdir(dir+"/file", 0o755))
			write(t, dir+"/file/x", nil)
		}, "M/file +/file/x"},
		{"file to fifo", func(t *testing.T, dir string) {
			must(t, os.Remove(dir+"/file"))
			must(t, unix.Mkfifo(dir+"/file", 0o644))
		}, "M/file"},
		{"first and last name", func(t *testing.T, dir string) {
			write(t, dir+"/\x01", nil)
			write(t, dir+"/\xff", nil)
			must(t, os.Remove(dir+"/big"))
			must(t, os.Remove(dir+"/with blank"))
		}, "+/\x01 -/big -/with%blank +/\xff"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := t.TempDir(), t.TempDir()
			fill(t, a)
			fill(t, b)
			tt.change(t, b)
			got, err := treecmp.Compare(t.Context(), a, b)
			must(t, err)
			if s := text(got); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
			back, err := treecmp.Compare(t.Context(), b, a)
			must(t, err)
			if (len(back) == 0) != (tt.want == "") {
				t.Errorf("the other way round: %q", text(back))
			}
		})
	}
}

var letters = map[storage.ChangeKind]string{storage.Added: "+", storage.Deleted: "-", storage.Modified: "M"}

func text(changes []storage.Change) string {
	var words []string
	for _, c := range changes {
		words = append(words, letters[c.Kind]+strings.ReplaceAll(c.Path, " ", "%"))
	}
	return strings.Join(words, " ")
}

func TestIgnoreTimes(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	fill(t, a)
	fill(t, b)
	setTime(t, b+"/file", mtime.Add(time.Hour))
	setTime(t, b+"/link", mtime.Add(time.Hour))
	write(t, b+"/dir/a", []byte("CONTENT"))
	got, err := treecmp.Compare(t.Context(), a, b, treecmp.IgnoreTimes)
	must(t, err)
	if s := text(got); s != "M/dir/a" {
		t.Errorf("got %q", s)
	}
}

func TestAttributes(t *testing.T) {
	tests := []struct {
		name, path, attr, a, b, want string
	}{
		{"equal", "/file", "user.x", "1", "1", ""},
		{"value", "/file", "user.x", "1", "2", "M/file"},
		{"longer value", "/file", "user.x", "1", strings.Repeat("1", 1000), "M/file"},
		{"only one has it", "/dir", "user.x", "", "2", "M/dir"},
		{"of the top", "", "user.x", "1", "2", "M/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := t.TempDir(), t.TempDir()
			for dir, value := range map[string]string{a: tt.a, b: tt.b} {
				fill(t, dir)
				if value == "" {
					continue
				}
				if err := unix.Lsetxattr(dir+tt.path, tt.attr, []byte(value), 0); errors.Is(err, unix.ENOTSUP) {
					t.Skip("file system without extended attributes")
				} else {
					must(t, err)
				}
			}
			got, err := treecmp.Compare(t.Context(), a, b)
			must(t, err)
			if s := text(got); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	if _, err := treecmp.Compare(t.Context(), dir, dir+"/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing tree: %v", err)
	}
	if _, err := treecmp.Compare(t.Context(), dir+"/none", dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing tree: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := treecmp.Compare(ctx, dir, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestDeep: as deep as the names of an archive can lead.
func TestDeep(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	deep := strings.Repeat("/d", 500)
	for _, dir := range []string{a, b} { // step by step: FreeBSD takes no such paths
		root, err := os.OpenRoot(dir)
		must(t, err)
		must(t, root.MkdirAll(deep[1:], 0o755))
		if dir == b {
			must(t, root.WriteFile(deep[1:]+"/x", nil, 0o644))
		}
		must(t, root.Close())
	}
	got, err := treecmp.Compare(t.Context(), a, b)
	must(t, err)
	if s := text(got); s != "+"+deep+"/x" {
		t.Errorf("got %q", s)
	}
}

// TestRandom changes one thing in one of two equal random trees, puts size and time
// back, and wants just that found.
func TestRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	source := rand.NewChaCha8(key)
	rnd := rand.New(source)
	for range 10 {
		a, b := t.TempDir(), t.TempDir()
		files := random(t, source, a, b)
		got, err := treecmp.Compare(t.Context(), a, b)
		must(t, err)
		if len(got) > 0 {
			t.Fatalf("seed %d: equal trees differ: %q", seed, text(got))
		}
		victim := files[rnd.IntN(len(files))]
		data, err := os.ReadFile(b + victim)
		must(t, err)
		data[rnd.IntN(len(data))] ^= 1 << rnd.IntN(8)
		write(t, b+victim, data)
		got, err = treecmp.Compare(t.Context(), a, b)
		must(t, err)
		if s := text(got); s != "M"+victim {
			t.Fatalf("seed %d: got %q, want %q", seed, s, "M"+victim)
		}
	}
}

// random fills both directories alike and gives the files, none of which is empty.
func random(t *testing.T, source *rand.ChaCha8, roots ...string) (files []string) {
	t.Helper()
	rnd := rand.New(source)
	dirs := []string{""}
	for i := range 60 {
		p := filepath.Join("/", dirs[rnd.IntN(len(dirs))], fmt.Sprintf("%c%d", 'a'+rnd.IntN(26), i))
		kind := rnd.IntN(4)
		data := make([]byte, 1+rnd.IntN(300_000))
		_, err := source.Read(data)
		must(t, err)
		for _, root := range roots {
			switch kind {
			case 0:
				must(t, os.Mkdir(root+p, 0o755))
			case 1:
				must(t, os.Symlink(p, root+p))
				setTime(t, root+p, mtime)
			default:
				write(t, root+p, data)
			}
		}
		switch kind {
		case 0:
			dirs = append(dirs, p)
		case 2, 3:
			files = append(files, p)
		}
	}
	return files
}
