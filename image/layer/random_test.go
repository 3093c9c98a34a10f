//go:build unix

package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// randomTree makes entries of a tree, by name; hard links name files among them.
func randomTree(rnd *rand.Rand) map[string]entry {
	tree := map[string]entry{".": dir(".")}
	dirs := []string{"."}
	var files []string
	for i := range 60 {
		name := path.Join(dirs[rnd.IntN(len(dirs))], fmt.Sprintf("%d\n é", i))
		var e entry
		switch n := rnd.IntN(10); {
		case n < 3:
			e = dir(name)
			dirs = append(dirs, name)
		case n < 7:
			content := make([]byte, rnd.IntN(3*blockSize))
			for off := rnd.IntN(len(content) + 1); off < len(content); off += 1 + rnd.IntN(2*blockSize) {
				content[off] = 'x'
			}
			e = file(name, string(content))
			files = append(files, name)
		case n < 8:
			e = link(name, []string{"/etc/passwd", "../../canary", "gone", "."}[rnd.IntN(4)])
		case n < 9:
			e = fifo(name)
		case len(files) > 0:
			e = hard(name, files[rnd.IntN(len(files))])
		default:
			continue
		}
		e = e.mode(rnd.Int64N(0o10000)).owned(rnd.IntN(1<<31), rnd.IntN(1<<31))
		tree[name] = e.at(time.Unix(rnd.Int64N(1<<31), rnd.Int64N(1e9)))
	}
	return tree
}

// describe puts what a walk must find into comparable form.
func (e entry) describe(tree map[string]entry) string {
	if e.Typeflag == tar.TypeLink {
		e = tree[e.Linkname]
	}
	types := map[byte]uint32{tar.TypeDir: unix.S_IFDIR, tar.TypeReg: unix.S_IFREG, tar.TypeSymlink: unix.S_IFLNK, tar.TypeFifo: unix.S_IFIFO}
	mode := types[e.Typeflag] | uint32(e.Mode)
	if e.Typeflag == tar.TypeSymlink {
		mode = unix.S_IFLNK
	}
	return fmt.Sprintf("%o %d:%d %d.%d %q %q", mode, e.Uid, e.Gid, e.ModTime.Unix(), e.ModTime.Nanosecond(), e.data, linkTarget(e))
}

func linkTarget(e entry) string {
	if e.Typeflag == tar.TypeSymlink {
		return e.Linkname
	}
	return ""
}

// walk describes what is in a directory, by name.
func walk(t *testing.T, top string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		mode := uint32(st.Mode)
		var data []byte
		var target string
		switch d.Type() {
		case 0:
			data, err = os.ReadFile(p)
		case fs.ModeSymlink:
			mode = unix.S_IFLNK // permissions of links mean nothing
			target, err = os.Readlink(p)
		}
		rel, _ := filepath.Rel(top, p)
		sec, nsec := st.Mtim.Unix()
		found[rel] = fmt.Sprintf("%o %d:%d %d.%d %q %q", mode, st.Uid, st.Gid, sec, nsec, data, target)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A random tree, written by archive/tar in any order in which hard links come
// after their targets, is found again exactly; applying it twice changes nothing.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		tree := randomTree(rnd)
		names := slices.Sorted(maps.Keys(tree))
		rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		slices.SortStableFunc(names, func(a, b string) int {
			return rank(tree[a]) - rank(tree[b])
		})
		entries := make([]entry, len(names))
		for i, name := range names {
			entries[i] = tree[name]
		}
		data := archive(t, entries)
		want := map[string]string{}
		for name, e := range tree {
			want[name] = e.describe(tree)
		}
		s := newSandbox(t)
		for round := range 2 {
			s.applyTar(t, data)
			if got := walk(t, s.top); !maps.Equal(got, want) {
				for name := range want {
					if got[name] != want[name] {
						t.Errorf("seed %d, round %d: %q is\n%.300s, want\n%.300s", seed, round, name, got[name], want[name])
					}
				}
				t.Fatalf("seed %d, round %d: %d found, want %d", seed, round, len(got), len(want))
			}
		}
		for name, e := range tree {
			if e.Typeflag == tar.TypeLink && s.lstat(t, name).Ino != s.lstat(t, e.Linkname).Ino {
				t.Errorf("seed %d: %q is not linked to %q", seed, name, e.Linkname)
			}
		}
	}
}

func rank(e entry) int {
	if e.Typeflag == tar.TypeLink {
		return 1
	}
	return 0
}

func (s sandbox) applyTar(t *testing.T, data []byte) {
	t.Helper()
	a, err := NewApplier(s.open(t, s.top), roomy, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name, err := CleanName(hdr.Name)
		if err == nil {
			err = a.Apply(hdr, name, tr)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// While entries are applied, somebody keeps swapping directories of the tree for
// links to the canary. Entries may fail, but the canary stays as it is.
func TestSwapper(t *testing.T) {
	s := newSandbox(t)
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	// One at a time: a swapper's own paths must not lead through another's link.
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				swap(filepath.Join(s.top, []string{"a", "a/b", "a/b/c"}[i%3]), filepath.Join(s.top, "aside"), s.canary)
			}
		}
	})
	defer close(done)
	failed, applied := 0, 0
	disturbed := func() bool { return failed > 0 && applied > 0 }
	// Slow machines swap and apply so little that it takes longer until they meet.
	for began := time.Now(); time.Since(began) < 3*time.Second || !disturbed() && time.Since(began) < time.Minute; {
		a, err := NewApplier(s.open(t, s.top), roomy, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []entry{
			dir("a").mode(0o777).owned(1, 1), file("a/secret", "x").mode(0o777), dir("a/b"), file("a/b/secret", "x"),
			dir("a/sub").mode(0o777), file("a/sub/secret", "x"), fifo("a/b/fifo").mode(0o777), link("a/b/link", "x"),
			hard("a/hard", "a/b/secret"), hard("a/b/hard", "a/secret"), file("a/b/c/sub/secret", "x"), fifo("a/secret2"),
			dir("a/b/c").xattr("user.x", "y").mode(0o777), file("a/b/c/secret", "x"), hard("hard", "a/b/c/secret"),
			file("a/b/c/sub/d/e", "x"), dir("a/b/c/sub").mode(0o777).owned(1, 1),
		} {
			name, _ := CleanName(e.Name)
			// As no caller would, go on after errors.
			if err := a.Apply(&e.Header, name, strings.NewReader(e.data)); err != nil {
				failed++
			} else {
				applied++
			}
		}
		if err := a.Close(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	t.Logf("%d entries applied, %d refused", applied, failed)
	if !disturbed() {
		t.Error("nobody was disturbed")
	}
}

// swap puts a link to target in the place of the directory p for a moment.
func swap(p, aside, target string) {
	if os.Rename(p, aside) != nil {
		return
	}
	_ = os.Symlink(target, p)
	runtime.Gosched()
	_ = os.Remove(p)
	_ = os.Rename(aside, p)
	_ = os.RemoveAll(aside)
}

// Names are remembered by hash: a million must not take much, however long.
func TestMemoryOfNames(t *testing.T) {
	a, err := NewChecker(roomy)
	if err != nil {
		t.Fatal(err)
	}
	prefix := strings.Repeat("x", 1000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 1_000_000 {
		if err := a.mark(keyOf(fmt.Sprint(prefix, i)), leaf); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 64<<20 {
		t.Errorf("%d MiB for a million names", used>>20)
	}
	if err := a.mark(keyOf("one more"), leaf); !errors.Is(err, ErrTooManyEntries) {
		t.Errorf("got %v", err)
	}
}
