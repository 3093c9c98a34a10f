//go:build unix

package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/treecmp"
)

func pack(t *testing.T, top string, names []string, o PackOptions) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := Pack(t.Context(), w, top, names, o); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// needAttributes skips a test where the file system of temporary directories has no
// extended attributes for users, as tmpfs and UFS1 on FreeBSD.
func needAttributes(t *testing.T) {
	t.Helper()
	if err := unix.Lsetxattr(t.TempDir(), "user.probe", nil, 0); err != nil {
		t.Skip("needs a file system with extended attributes: ", err)
	}
}

// headers reads an archive's entries, by name in their order.
func headers(t *testing.T, data []byte) (names []string, byName map[string]*tar.Header) {
	t.Helper()
	byName = map[string]*tar.Header{}
	for tr := tar.NewReader(bytes.NewReader(data)); ; {
		hdr, err := tr.Next()
		if err == io.EOF {
			return names, byName
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, hdr.Name)
		byName[hdr.Name] = hdr
	}
}

// What is packed of a random tree and applied is the same tree, as a whole and
// when it is packed in any order of its names; packing it again gives the same bytes.
func TestPackRoundTrip(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testPackRoundTrip(t, false) })
	t.Run("attributes", func(t *testing.T) {
		needAttributes(t)
		testPackRoundTrip(t, true)
	})
}

func testPackRoundTrip(t *testing.T, attributes bool) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		tree := randomTree(rnd)
		for name, e := range tree {
			if attributes && e.Typeflag != tar.TypeSymlink && e.Typeflag != tar.TypeFifo && e.Typeflag != tar.TypeLink && rnd.IntN(3) == 0 {
				tree[name] = e.xattr("user.é", name).xattr("user.empty", "").xattr("user.binary", "\x00\n=\xff")
			}
		}
		names := slices.SortedFunc(maps.Keys(tree), func(a, b string) int { return rank(tree[a]) - rank(tree[b]) })
		original := newSandbox(t)
		var entries []entry
		for _, name := range names {
			entries = append(entries, tree[name])
		}
		if w := original.mustApply(t, entries...).Warnings(); len(w) > 0 {
			t.Fatalf("seed %d: %q", seed, w)
		}
		whole := pack(t, original.top, nil, PackOptions{})
		rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for what, data := range map[string][]byte{"all": whole, "names": pack(t, original.top, append(names, names[0]), PackOptions{})} {
			if !bytes.Equal(data, whole) {
				t.Errorf("seed %d: %s: the bytes differ", seed, what)
			}
			s := newSandbox(t)
			s.applyTar(t, data)
			changes, err := treecmp.Compare(t.Context(), original.top, s.top)
			if err != nil || len(changes) > 0 {
				t.Fatalf("seed %d: %s: %v, %v", seed, what, changes, err)
			}
			for name, e := range tree {
				if e.Typeflag == tar.TypeLink && s.lstat(t, name).Ino != s.lstat(t, e.Linkname).Ino {
					t.Errorf("seed %d: %s: %q is not linked to %q", seed, what, name, e.Linkname)
				}
			}
		}
	}
}

func TestPackNames(t *testing.T) {
	s := newSandbox(t)
	s.mustApply(t, dir("."), dir("a"), file("a/x", "1"), hard("a/y", "a/x"), hard("z", "a/x"), dir("a-b"), file("a-b/x", ""), file("a.c", ""), file(".a", ""))
	for _, tt := range []struct {
		name  string
		names []string
		want  []string
	}{
		{"all", nil, []string{"./", ".a", "a/", "a/x", "a/y", "a-b/", "a-b/x", "a.c", "z"}},
		{"none", []string{}, nil},
		{"without parents", []string{"a/y", "z", "a-b"}, []string{"a/y", "a-b/", "z"}},
		{"top", []string{".a", "."}, []string{"./", ".a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := headers(t, pack(t, s.top, tt.names, PackOptions{})); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	_, got := headers(t, pack(t, s.top, []string{"a/y", "z"}, PackOptions{Below: "rootfs"}))
	if h := got["rootfs/z"]; h == nil || h.Typeflag != tar.TypeLink || h.Linkname != "rootfs/a/y" {
		t.Errorf("z is %+v, want a link to rootfs/a/y, which was written first", h)
	}
	if _, got := headers(t, pack(t, s.top, nil, PackOptions{Below: "rootfs"})); got["rootfs/"] == nil {
		t.Error("no entry for rootfs/")
	}
}

func TestPackRefuses(t *testing.T) {
	s := newSandbox(t)
	s.mustApply(t, dir("d"), file("d/x", ""), link("l", "d"), link("out", s.canary), file("f", ""), dir("dev"))
	for _, n := range []struct {
		name string
		mode uint32
		dev  uint64
	}{{"null", unix.S_IFCHR, unix.Mkdev(1, 3)}, {"dev/null", unix.S_IFCHR, unix.Mkdev(1, 3)}, {"dev/whiteout", unix.S_IFCHR, 0}} {
		if err := mknod(filepath.Join(s.top, n.name), n.mode|0o600, n.dev); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"l/x", ErrThroughLink}, {"out/secret", ErrThroughLink}, {"f/x", ErrThroughLink}, {"gone", unix.ENOENT}, {"gone/x", unix.ENOENT},
		{"../canary/secret", ErrName}, {"d/", ErrName}, {"./d", ErrName}, {"/etc", ErrName}, {"", ErrName},
		{"null", ErrDevice}, {"dev/whiteout", ErrWhiteout},
		{"dev/null", nil}, {"l", nil}, {"out", nil}, {"d/x", nil},
	} {
		t.Run(path.Base(tt.name), func(t *testing.T) {
			err := Pack(t.Context(), tar.NewWriter(io.Discard), s.top, []string{tt.name}, PackOptions{})
			if !errors.Is(err, tt.err) {
				t.Errorf("%q: got %v, want %v", tt.name, err, tt.err)
			}
		})
	}
	if err := Pack(t.Context(), tar.NewWriter(io.Discard), s.top, nil, PackOptions{}); !errors.Is(err, ErrDevice) && !errors.Is(err, ErrWhiteout) {
		t.Errorf("all: got %v", err)
	}
}

func TestPackLeavesOut(t *testing.T) {
	s := newSandbox(t)
	s.mustApply(t, file("f", "x"), dir("d").at(testTime.Add(time.Hour)), file("g", "").at(testTime.Add(-time.Hour)))
	t.Chdir(s.top) // names of sockets are short
	l, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	latest := time.Unix(testTime.Unix(), 0)
	names, got := headers(t, pack(t, s.top, []string{"d", "f", "g", "socket"}, PackOptions{Latest: latest}))
	if !slices.Equal(names, []string{"d/", "f", "g"}) {
		t.Errorf("names %q", names)
	}
	for name, want := range map[string]time.Time{"d/": latest, "f": latest, "g": testTime.Add(-time.Hour)} {
		if !got[name].ModTime.Equal(want) {
			t.Errorf("%s: %v, want %v", name, got[name].ModTime, want)
		}
		if h := got[name]; h.Uname+h.Gname != "" || !h.AccessTime.IsZero() || !h.ChangeTime.IsZero() {
			t.Errorf("%s: more than belongs in it: %+v", name, h)
		}
	}
}

func TestPackLeavesOutAttributes(t *testing.T) {
	needAttributes(t)
	s := newSandbox(t)
	s.mustApply(t, file("f", "x").xattr("user.kept", "1"))
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque", "trusted.x", "system.x"} {
		_ = unix.Lsetxattr(filepath.Join(s.top, "f"), name, []byte("y"), 0) // those that the file system takes
	}
	_, got := headers(t, pack(t, s.top, []string{"f"}, PackOptions{}))
	for record := range got["f"].PAXRecords {
		if strings.HasPrefix(record, xattrPrefix) && record != xattrPrefix+"user.kept" {
			t.Errorf("f has %s", record)
		}
	}
	if v := got["f"].PAXRecords[xattrPrefix+"user.kept"]; v != "1" {
		t.Errorf("user.kept is %q", v)
	}
}

// A file that grows or shrinks meanwhile does not make a broken archive.
func TestPackShrinking(t *testing.T) {
	s := newSandbox(t)
	s.mustApply(t, file("f", "12345"))
	w := tar.NewWriter(writerFunc(func(p []byte) (int, error) {
		return len(p), os.Truncate(filepath.Join(s.top, "f"), 2)
	}))
	if err := Pack(t.Context(), w, s.top, []string{"f"}, PackOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
