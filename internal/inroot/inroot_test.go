//go:build unix

package inroot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// host is a directory with a root and, beside it, a canary that nothing may touch.
type host struct {
	dir, root, canary string
}

func newHost(t testing.TB) host {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := host{dir, filepath.Join(dir, "root"), filepath.Join(dir, "canary")}
	mkdir(t, h.root)
	mkdir(t, h.canary)
	write(t, filepath.Join(h.canary, "secret"), "canary")
	t.Cleanup(func() {
		entries, err := os.ReadDir(h.dir)
		if err != nil || len(entries) < 2 {
			t.Errorf("beside the root: %v, %v", entries, err)
		}
		entries, err = os.ReadDir(h.canary)
		data, readErr := os.ReadFile(filepath.Join(h.canary, "secret"))
		if err != nil || readErr != nil || len(entries) != 1 || string(data) != "canary" {
			t.Errorf("canary touched: %v, %q, %v, %v", entries, data, err, readErr)
		}
	})
	return h
}

func (h host) open(t testing.TB) *Root {
	t.Helper()
	r, err := Open(h.root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, file, data string) {
	t.Helper()
	mkdir(t, filepath.Dir(file))
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func symlink(t testing.TB, target, file string) {
	t.Helper()
	mkdir(t, filepath.Dir(file))
	if err := os.Symlink(target, file); err != nil {
		t.Fatal(err)
	}
}

func readHost(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// fill makes the tree that the tables below are about.
func (h host) fill(t testing.TB) {
	in := func(p string) string { return filepath.Join(h.root, p) }
	write(t, in("etc/passwd"), "inside")
	write(t, in("usr/lib/libc"), "libc")
	write(t, in("a/b/c/file"), "deep")
	write(t, in("secret"), "the root's")
	symlink(t, "usr/lib", in("lib"))
	symlink(t, "/usr/lib", in("lib64"))
	symlink(t, "/etc/passwd", in("abs"))
	symlink(t, "../../../../../../etc/passwd", in("a/up"))
	symlink(t, "/../../..", in("top"))
	symlink(t, h.canary, in("out"))
	symlink(t, "../canary", in("out2"))
	symlink(t, "..", in("out3"))
	symlink(t, "self", in("self"))
	symlink(t, "pong", in("ping"))
	symlink(t, "ping", in("pong"))
	symlink(t, "lib64", in("link2"))
	symlink(t, "/link2", in("link3"))
	symlink(t, "b/c/", in("a/slash"))
	symlink(t, "/etc/passwd/", in("notdir"))
	symlink(t, "gone", in("dangling"))
	symlink(t, "a/./b//c/../c", in("messy"))
	symlink(t, "c/..", in("a/b/self"))
	symlink(t, ".", in("dot"))
	symlink(t, strings.Repeat("../", unix.PathMax/4)+"etc", in("storm"))
	symlink(t, "/etc/passwd", in("chain0"))
	for i := 1; i <= maxLinks; i++ {
		symlink(t, "chain"+strconv.Itoa(i-1), in("chain"+strconv.Itoa(i)))
	}
}

func TestResolve(t *testing.T) {
	h := newHost(t)
	h.fill(t)
	r := h.open(t)
	for _, tt := range []struct {
		name, path, want string
		err              error
	}{
		{"root", "/", "/", nil},
		{"empty is the root", "", "/", nil},
		{"dot", ".", "/", nil},
		{"dot dot at the root", "..", "/", nil},
		{"storm of dot dots", strings.Repeat("../", 1300) + "etc", "/etc", nil},
		{"plain", "/etc/passwd", "/etc/passwd", nil},
		{"relative", "etc/passwd", "/etc/passwd", nil},
		{"doubled slashes", "//etc///passwd", "/etc/passwd", nil},
		{"dots within", "/./etc/./passwd", "/etc/passwd", nil},
		{"dot dot within", "/a/b/../b/c/../../../etc", "/etc", nil},
		{"trailing slash", "/etc/", "/etc", nil},
		{"trailing dot", "/etc/.", "/etc", nil},
		{"trailing slash on a file", "/etc/passwd/", "", unix.ENOTDIR},
		{"trailing dot on a file", "/etc/passwd/.", "", unix.ENOTDIR},
		{"dot dot from a file", "/etc/passwd/../passwd", "", unix.ENOTDIR},
		{"below a file", "/etc/passwd/x", "", unix.ENOTDIR},
		{"missing", "/gone", "", fs.ErrNotExist},
		{"missing parent", "/gone/x", "", fs.ErrNotExist},
		{"dot dot from a missing one", "/gone/..", "", fs.ErrNotExist},
		{"relative link", "/lib", "/usr/lib", nil},
		{"absolute link", "/lib64", "/usr/lib", nil},
		{"link in the middle", "/lib/libc", "/usr/lib/libc", nil},
		{"absolute link in the middle", "/lib64/libc", "/usr/lib/libc", nil},
		{"link with trailing slash", "/lib64/", "/usr/lib", nil},
		{"dot dot goes where the link led", "/lib/..", "/usr", nil},
		{"absolute link to a file", "/abs", "/etc/passwd", nil},
		{"relative link above the root", "/a/up", "/etc/passwd", nil},
		{"absolute link above the root", "/top/etc", "/etc", nil},
		{"link to a link", "/link2", "/usr/lib", nil},
		{"link to a link to a link", "/link3/libc", "/usr/lib/libc", nil},
		{"link with a trailing slash in it", "/a/slash/file", "/a/b/c/file", nil},
		{"link to file with a trailing slash", "/notdir", "", unix.ENOTDIR},
		{"dangling", "/dangling", "", fs.ErrNotExist},
		{"messy link", "/messy/file", "/a/b/c/file", nil},
		{"link to its own directory", "/a/b/self/self/self/c", "/a/b/c", nil},
		{"link to dot", "/dot/dot/dot/etc", "/etc", nil},
		{"storm in a link", "/storm/passwd", "/etc/passwd", nil},
		{"absolute link to the host", "/out", "", fs.ErrNotExist},
		{"absolute link to the host in the middle", "/out/secret", "", fs.ErrNotExist},
		{"relative link to the host", "/out2/secret", "", fs.ErrNotExist},
		{"link to the parent of the root", "/out3/secret", "/secret", nil},
		{"link to itself", "/self", "", ErrLoop},
		{"two links to each other", "/ping", "", ErrLoop},
		{"loop in the middle", "/ping/x", "", ErrLoop},
		{"most links", "/chain" + strconv.Itoa(maxLinks-1), "/etc/passwd", nil},
		{"one link more", "/chain" + strconv.Itoa(maxLinks), "", ErrLoop},
		{"NUL", "/etc\x00/passwd", "", unix.EINVAL},
		{"path too long", "/" + strings.Repeat("x/", 2048), "", unix.ENAMETOOLONG},
		{"component too long", "/" + strings.Repeat("x", 256), "", unix.ENAMETOOLONG},
		{"newline and escape are names", "/\n\x1b", "", fs.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := r.Resolve(tt.path)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("Resolve(%.60q) = %q, %v, want %q, %v", tt.path, got, err, tt.want, tt.err)
			}
		})
	}
}

func TestStat(t *testing.T) {
	h := newHost(t)
	h.fill(t)
	r := h.open(t)
	for _, tt := range []struct {
		path        string
		stat, lstat uint32
	}{
		{"/", unix.S_IFDIR, unix.S_IFDIR},
		{"/etc/passwd", unix.S_IFREG, unix.S_IFREG},
		{"/abs", unix.S_IFREG, unix.S_IFLNK},
		{"/lib", unix.S_IFDIR, unix.S_IFLNK},
		{"/lib/", unix.S_IFDIR, unix.S_IFDIR},
		{"/lib/.", unix.S_IFDIR, unix.S_IFDIR},
		{"/lib64/libc", unix.S_IFREG, unix.S_IFREG},
		{"/dangling", 0, unix.S_IFLNK},
		{"/self", 0, unix.S_IFLNK},
	} {
		t.Run(tt.path, func(t *testing.T) {
			st, err := r.Stat(tt.path)
			if fileType(&st) != tt.stat || (err == nil) != (tt.stat != 0) {
				t.Errorf("Stat: type %o, %v, want %o", fileType(&st), err, tt.stat)
			}
			st, err = r.Lstat(tt.path)
			if fileType(&st) != tt.lstat || err != nil {
				t.Errorf("Lstat: type %o, %v, want %o", fileType(&st), err, tt.lstat)
			}
		})
	}
}

func TestReadFile(t *testing.T) {
	h := newHost(t)
	h.fill(t)
	write(t, filepath.Join(h.root, "empty"), "")
	if err := unix.Mkfifo(filepath.Join(h.root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	symlink(t, "fifo", filepath.Join(h.root, "tofifo"))
	r := h.open(t)
	for _, tt := range []struct {
		path string
		max  int64
		want string
		err  error
	}{
		{"/etc/passwd", 100, "inside", nil},
		{"/abs", 6, "inside", nil},
		{"/abs", 5, "", ErrTooLarge},
		{"/a/up", 0, "", ErrTooLarge},
		{"/empty", 0, "", nil},
		{"/fifo", 100, "", ErrNotRegular},
		{"/tofifo", 100, "", ErrNotRegular},
		{"/etc", 100, "", ErrNotRegular},
		{"/", 100, "", ErrNotRegular},
		{"/gone", 100, "", fs.ErrNotExist},
		{"/out/secret", 100, "", fs.ErrNotExist},
		{"/out3/secret", 100, "the root's", nil},
		{"/etc/passwd/", 100, "", unix.ENOTDIR},
	} {
		t.Run(tt.path, func(t *testing.T) {
			got, err := r.ReadFile(tt.path, tt.max)
			if string(got) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %q, %v, want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
	t.Run("device", func(t *testing.T) {
		testenv.Root(t)
		r, err := Open("/dev")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.ReadFile("/null", 10); !errors.Is(err, ErrNotRegular) {
			t.Errorf("got %v, want %v", err, ErrNotRegular)
		}
	})
	t.Run("size is a lie", func(t *testing.T) {
		r, err := Open(fmt.Sprintf("/proc/%d", os.Getpid())) // /proc/self is a link
		if err != nil {
			t.Skip("needs a procfs: ", err)
		}
		defer r.Close()
		if _, err := r.ReadFile("/status", 10); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v, want %v", err, ErrTooLarge)
		}
		if data, err := r.ReadFile("/status", 1<<20); err != nil || len(data) == 0 {
			t.Errorf("got %q, %v", data, err)
		}
	})
}

func TestOpen(t *testing.T) {
	h := newHost(t)
	h.fill(t)
	for _, p := range []string{"lib", "lib/", "lib/.", "etc/passwd", "gone"} {
		if r, err := Open(h.root + "/" + p); err == nil {
			r.Close()
			t.Errorf("Open(%q) succeeded", p)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	testenv.Root(t)
	// A umask that would take everything away.
	defer unix.Umask(unix.Umask(0o777))
	for _, tt := range []struct {
		name, path string
		made       []string // in the root
		err        error
	}{
		{"the root", "/", nil, nil},
		{"existing", "/etc", nil, nil},
		{"one", "/new", []string{"new"}, nil},
		{"several", "/new/x/y/", []string{"new", "new/x", "new/x/y"}, nil},
		{"through a link", "/lib64/new/x", []string{"usr/lib/new", "usr/lib/new/x"}, nil},
		{"through a link above the root", "/top/new", []string{"new"}, nil},
		{"through a dangling link", "/dangling/x", []string{"gone", "gone/x"}, nil},
		{"dot dot", "/new/../../other", []string{"new", "other"}, nil},
		{"through a link to the host stays inside", "/out2/x", []string{"canary", "canary/x"}, nil},
		{"final link to a directory", "/lib64", nil, unix.ENOTDIR},
		{"final link to a directory with slash", "/lib64/", nil, unix.ENOTDIR},
		{"final dangling link", "/dangling", nil, unix.ENOTDIR},
		{"final file", "/etc/passwd", nil, unix.ENOTDIR},
		{"file in the middle", "/etc/passwd/x", nil, unix.ENOTDIR},
		{"loop", "/ping/x", nil, ErrLoop},
		{"NUL", "/x\x00", nil, unix.EINVAL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			unix.Umask(0o022)
			h.fill(t)
			unix.Umask(0o777)
			before := countDirs(t, h.root)
			r := h.open(t)
			if err := r.MkdirAll(tt.path, 0o2751); !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			for _, p := range tt.made {
				st, err := r.Lstat(p)
				if err != nil || st.Mode != unix.S_IFDIR|0o2751 || st.Uid != 0 || st.Gid != 0 {
					t.Errorf("%s: mode %o, owner %d:%d, %v", p, st.Mode, st.Uid, st.Gid, err)
				}
			}
			if n := countDirs(t, h.root); n != before+len(tt.made) {
				t.Errorf("%d directories made, want %d", n-before, len(tt.made))
			}
		})
	}
}

func countDirs(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWriteFile(t *testing.T) {
	testenv.Root(t)
	for _, tt := range []struct {
		name, path, at string // at: where the file must then be
		err            error
	}{
		{"new", "/etc/hosts", "etc/hosts", nil},
		{"over a file", "/etc/passwd", "etc/passwd", nil},
		{"over a link to a file", "/abs", "abs", nil},
		{"over a link to the host", "/out", "out", nil},
		{"over a dangling link", "/dangling", "dangling", nil},
		{"over a fifo", "/fifo", "fifo", nil},
		{"in a linked directory", "/lib64/new", "usr/lib/new", nil},
		{"in the root above itself", "/../../new", "new", nil},
		{"through the host's parent", "/out3/new", "new", nil},
		{"directory", "/etc", "", unix.EISDIR},
		{"the root", "/", "", unix.EINVAL},
		{"dot dot", "/a/..", "", unix.EINVAL},
		{"missing parent", "/gone/x", "", fs.ErrNotExist},
		{"parent on the host", "/out/x", "", fs.ErrNotExist},
		{"parent is a file", "/etc/passwd/x", "", unix.ENOTDIR},
		{"NUL", "/x\x00y", "", unix.EINVAL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.fill(t)
			if err := unix.Mkfifo(filepath.Join(h.root, "fifo"), 0o644); err != nil {
				t.Fatal(err)
			}
			r := h.open(t)
			if err := r.WriteFile(tt.path, []byte("new"), 0o4640); !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if tt.err != nil {
				return
			}
			st, err := r.Lstat(tt.at)
			if err != nil || st.Mode != unix.S_IFREG|0o4640 || st.Uid != 0 || st.Gid != 0 {
				t.Errorf("mode %o, owner %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
			}
			if got := readHost(t, filepath.Join(h.root, tt.at)); got != "new" {
				t.Errorf("content %q", got)
			}
			if tt.at != "etc/passwd" && readHost(t, filepath.Join(h.root, "etc/passwd")) != "inside" {
				t.Error("wrote through a link")
			}
		})
	}
}

func TestRemove(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		err        error
	}{
		{"file", "/etc/passwd", nil},
		{"link", "/lib64", nil},
		{"link with slash is still the link", "/lib64/", nil},
		{"link to the host", "/out", nil},
		{"in a linked directory", "/lib64/libc", nil},
		{"empty directory", "/void", nil},
		{"full directory", "/etc", unix.ENOTEMPTY},
		{"the root", "/", unix.EINVAL},
		{"missing", "/gone", fs.ErrNotExist},
		{"on the host", "/out/secret", fs.ErrNotExist},
		{"below a file", "/etc/passwd/x", unix.ENOTDIR},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.fill(t)
			mkdir(t, filepath.Join(h.root, "void"))
			r := h.open(t)
			if err := r.Remove(tt.path); !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if tt.err != nil {
				return
			}
			if _, err := r.Lstat(strings.TrimRight(tt.path, "/")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("still there: %v", err)
			}
			if _, err := r.Stat("/usr/lib"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBind(t *testing.T) {
	h := newHost(t)
	h.fill(t)
	vol := filepath.Join(h.dir, "vol")
	write(t, filepath.Join(vol, "data"), "volume")
	symlink(t, "/etc/passwd", filepath.Join(vol, "abs"))
	symlink(t, "../etc/passwd", filepath.Join(vol, "rel"))
	mkdir(t, filepath.Join(vol, "sub"))
	inner := filepath.Join(h.dir, "inner")
	write(t, filepath.Join(inner, "data"), "inner")
	file := filepath.Join(h.dir, "hosts")
	write(t, file, "localhost")
	symlink(t, "/vol", filepath.Join(h.root, "tovol"))

	r := h.open(t)
	for _, b := range [][2]string{
		{"/vol", vol},                  // not in the root
		{"/a/b", vol},                  // hides what is there
		{"/a/b/sub", inner},            // nested, in the volume
		{"/vol/deep/down", inner},      // nested, not in the volume
		{"/usr/lib/vol", inner},        // below what links lead to
		{"/etc/passwd", file},          // file over file
		{"/var/db/virtual", vol},       // parents missing
		{"/usr/lib/stale", vol},        // replaced by the next
		{"/usr/lib/stale", inner},      //
		{"/hidden/below", vol},         // hidden by the next
		{"/hidden", inner},             //
		{"/usr/lib/null", "/dev/null"}, // a device, never opened
	} {
		if err := r.Bind(b[0], b[1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, path, want, data string
		err                    error
	}{
		{"directory", "/vol", "/vol", "", nil},
		{"file in it", "/vol/data", "/vol/data", "volume", nil},
		{"through a link", "/tovol/data", "/vol/data", "volume", nil},
		{"through a link above the root", "/top/vol/data", "/vol/data", "volume", nil},
		{"absolute link in a volume is the root's", "/vol/abs", "/etc/passwd", "localhost", nil},
		{"relative link out of a volume", "/vol/rel", "/etc/passwd", "localhost", nil},
		{"relative link out of a nested place", "/a/b/rel", "", "", fs.ErrNotExist},
		{"dot dot out of a volume", "/vol/../etc/passwd", "/etc/passwd", "localhost", nil},
		{"dot dot within", "/vol/sub/../data", "/vol/data", "volume", nil},
		{"hides the image", "/a/b/c/file", "", "", fs.ErrNotExist},
		{"over an existing directory", "/a/b/data", "/a/b/data", "volume", nil},
		{"nested", "/a/b/sub/data", "/a/b/sub/data", "inner", nil},
		{"dot dot out of nested", "/a/b/sub/../data", "/a/b/data", "volume", nil},
		{"nested and missing below", "/vol/deep/down/data", "/vol/deep/down/data", "inner", nil},
		{"missing parent in a volume", "/vol/deep", "/vol/deep", "", nil},
		{"below links", "/lib64/vol/data", "/usr/lib/vol/data", "inner", nil},
		{"dot dot to what is beside", "/lib/vol/../libc", "/usr/lib/libc", "libc", nil},
		{"file", "/etc/passwd", "/etc/passwd", "localhost", nil},
		{"file through a link", "/abs", "/etc/passwd", "localhost", nil},
		{"below a file", "/etc/passwd/x", "", "", unix.ENOTDIR},
		{"virtual parents", "/var/db", "/var/db", "", nil},
		{"below virtual parents", "/var/db/virtual/data", "/var/db/virtual/data", "volume", nil},
		{"missing in a virtual parent", "/var/db/other", "", "", fs.ErrNotExist},
		{"up from a virtual parent", "/var/db/../../etc/passwd", "/etc/passwd", "localhost", nil},
		{"bound twice", "/usr/lib/stale/data", "/usr/lib/stale/data", "inner", nil},
		{"bound over a bind", "/hidden/below", "", "", fs.ErrNotExist},
		{"only a prefix of a target", "/vo", "", "", fs.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := r.Resolve(tt.path)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("Resolve = %q, %v, want %q, %v", got, err, tt.want, tt.err)
			}
			if tt.data == "" {
				return
			}
			if data, err := r.ReadFile(tt.path, 100); string(data) != tt.data || err != nil {
				t.Errorf("ReadFile = %q, %v, want %q", data, err, tt.data)
			}
		})
	}
	t.Run("virtual parents are directories", func(t *testing.T) {
		st, err := r.Stat("/var/db")
		if err != nil || st.Mode != unix.S_IFDIR|0o755 || st.Uid != 0 {
			t.Errorf("mode %o, %v", st.Mode, err)
		}
		if _, err := r.ReadFile("/var/db", 1); !errors.Is(err, ErrNotRegular) {
			t.Error(err)
		}
		if err := r.WriteFile("/var/db/x", nil, 0o644); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	t.Run("device is described and not opened", func(t *testing.T) {
		st, err := r.Stat("/usr/lib/null")
		if err != nil || fileType(&st) != unix.S_IFCHR {
			t.Errorf("mode %o, %v", st.Mode, err)
		}
		if _, err := r.ReadFile("/usr/lib/null", 1); !errors.Is(err, ErrNotRegular) {
			t.Error(err)
		}
	})
	t.Run("targets are busy", func(t *testing.T) {
		for _, p := range []string{"/vol", "/etc/passwd", "/var", "/tovol/deep", "/usr/lib"} {
			if err := r.Remove(p); !errors.Is(err, unix.EBUSY) {
				t.Errorf("Remove(%s): %v", p, err)
			}
			if err := r.WriteFile(p, nil, 0o644); !errors.Is(err, unix.EBUSY) {
				t.Errorf("WriteFile(%s): %v", p, err)
			}
		}
	})
	t.Run("changes go to the volume", func(t *testing.T) {
		testenv.Root(t)
		if err := errors.Join(
			r.MkdirAll("/tovol/made/by", 0o755),
			r.WriteFile("/tovol/made/by/me", []byte("x"), 0o644),
			r.MkdirAll("/var/db/new", 0o755), // makes the virtual parents real
			r.Remove("/a/b/data"),
		); err != nil {
			t.Fatal(err)
		}
		if got := readHost(t, filepath.Join(vol, "made/by/me")); got != "x" {
			t.Errorf("content %q", got)
		}
		if _, err := os.Stat(filepath.Join(h.root, "var/db/new")); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(vol, "data")); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	t.Run("file that goes away or becomes a link", func(t *testing.T) {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if st, err := r.Stat("/etc/passwd"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got mode %o, %v", st.Mode, err)
		}
		symlink(t, filepath.Join(h.canary, "secret"), file)
		if data, err := r.ReadFile("/etc/passwd", 100); !errors.Is(err, unix.ELOOP) {
			t.Errorf("got %q, %v", data, err)
		}
	})
}

func TestBindRefuses(t *testing.T) {
	h := newHost(t)
	h.fill(t)
	r := h.open(t)
	for _, tt := range []struct {
		name, target, source string
		err                  error
	}{
		{"root", "/", h.canary, unix.EINVAL},
		{"relative", "etc", h.canary, unix.EINVAL},
		{"not clean", "/etc/../x", h.canary, unix.EINVAL},
		{"trailing slash", "/etc/", h.canary, unix.EINVAL},
		{"empty", "", h.canary, unix.EINVAL},
		{"NUL", "/x\x00", h.canary, unix.EINVAL},
		{"link", "/lib", h.canary, unix.EINVAL},
		{"link in the middle", "/lib/x", h.canary, unix.EINVAL},
		{"below a file", "/etc/passwd/x", h.canary, unix.ENOTDIR},
		{"source missing", "/x", h.dir + "/gone", fs.ErrNotExist},
		{"source is a link", "/x", h.root + "/out", unix.ELOOP},
		{"source is a link with slash", "/x", h.root + "/out/", unix.ELOOP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := r.Bind(tt.target, tt.source); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
		})
	}
}

// Somebody keeps swapping a directory for a link to the canary: lookups may fail,
// but never see or touch the canary.
func TestSwapper(t *testing.T) {
	testenv.Root(t)
	h := newHost(t)
	dir := filepath.Join(h.root, "a/b")
	aside := filepath.Join(h.root, "aside")
	write(t, filepath.Join(dir, "secret"), "inside")
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if err := errors.Join(os.Rename(dir, aside), os.Symlink(h.canary, dir), os.Remove(dir), os.Rename(aside, dir)); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	defer close(done)
	r := h.open(t)
	seen := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		data, err := r.ReadFile("/a/b/secret", 100)
		switch {
		case err == nil && string(data) == "inside":
			seen++
		case err == nil:
			t.Fatalf("read %q", data)
		}
		_ = r.WriteFile("/a/b/new", []byte("x"), 0o644)
		_ = r.Remove("/a/b/new")
	}
	if seen == 0 {
		t.Error("never read anything")
	}
}

// A lookup must leave no descriptor behind, whatever its outcome.
func TestNoDescriptorLeaks(t *testing.T) {
	h := newHost(t)
	h.fill(t)
	r := h.open(t)
	count := func() int {
		entries, err := os.ReadDir("/dev/fd")
		if err != nil {
			t.Skip("needs /dev/fd: ", err)
		}
		return len(entries)
	}
	before := count()
	for _, p := range []string{"/", "/lib64/libc", "/ping", "/gone", "/etc/passwd/x", "/a/b/c"} {
		_, _ = r.Resolve(p)
		_, _ = r.ReadFile(p, 1)
		_ = r.MkdirAll(p, 0o755)
		_ = r.WriteFile(p+"/x", []byte("x"), 0o644)
		_ = r.Remove(p + "/x")
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestErrorsQuotePaths(t *testing.T) {
	r := newHost(t).open(t)
	_, err := r.Resolve("/\x1b[31m")
	if err == nil || bytes.ContainsRune([]byte(err.Error()), '\x1b') {
		t.Errorf("got %q", err)
	}
}

func TestMade(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "real"), 0o755),
		os.Symlink("real", filepath.Join(dir, "link")),
		os.Symlink("/missing/deep", filepath.Join(dir, "dangling")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, err := range []error{
		r.MkdirAll("/link/a/b", 0o755), r.MkdirAll("/real", 0o755), r.MkdirAll("/dangling/x", 0o755),
		r.WriteFile("/link/a/f", nil, 0o644), r.WriteFile("real/../real/f", nil, 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := r.WriteFile("/none/f", nil, 0o644); err == nil {
		t.Error("a file without parent was written")
	}
	want := []string{"/real/a", "/real/a/b", "/missing", "/missing/deep", "/missing/deep/x", "/real/a/f", "/real/f"}
	if got := r.Made(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIsEmpty(t *testing.T) {
	dir, source := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "full", "empty"), 0o755),
		os.Symlink("/full/empty", filepath.Join(dir, "link")),
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o644),
		os.Mkdir(filepath.Join(source, "x"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, target := range []string{"/bound", "/virtual/bound"} {
		if err := r.Bind(target, source); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"/": "full", "/full": "full", "/full/empty": "empty", "/link": "empty", "/bound": "full", "/bound/x": "empty",
		"/virtual": "full", "/file": "error", "/none": "error",
	} {
		got := "full"
		switch empty, err := r.IsEmpty(path); {
		case err != nil:
			got = "error"
		case empty:
			got = "empty"
		}
		if got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}
