//go:build unix

package layer

import (
	"archive/tar"
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
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// applyKept applies entries through a whitelist.
func (s sandbox) applyKept(t testing.TB, keep *Whitelist, l Limits, entries ...entry) error {
	t.Helper()
	survey, err := NewSurvey(keep, l)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, err := CleanName(e.Name)
		if err == nil {
			err = survey.Add(&e.Header, name, strings.NewReader(e.data))
		}
		if err != nil {
			return err
		}
	}
	a, err := NewApplier(s.open(t, s.top), l, survey.Filter())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, _ := CleanName(e.Name)
		if err = a.Apply(&e.Header, name, strings.NewReader(e.data)); err != nil {
			break
		}
	}
	return errors.Join(err, a.Close())
}

// list gives what is below the top directory, a line each: name, type and
// permissions, owner, content. Hard links of each other show the first of them.
func (s sandbox) list(t testing.TB) []string {
	t.Helper()
	var lines []string
	first := map[uint64]string{}
	err := filepath.WalkDir(s.top, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == s.top {
			return err
		}
		rel, _ := filepath.Rel(s.top, p)
		st := s.lstat(t, rel)
		line := fmt.Sprintf("%s %o %d", rel, st.Mode&0o7777, st.Uid)
		switch d.Type() {
		case fs.ModeDir:
			line = "d " + line
		case fs.ModeSymlink:
			target, _ := os.Readlink(p)
			line = "l " + rel + " " + target
		case fs.ModeNamedPipe:
			line = "p " + line
		default:
			if other := first[st.Ino]; other != "" {
				line = "h " + rel + " " + other
				break
			}
			first[st.Ino] = rel
			line = "f " + line + " " + s.read(t, rel)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestFilter(t *testing.T) {
	for _, tt := range []struct {
		name         string
		lower, upper []entry
		keep         []string
		want         []string
	}{
		{"only members", nil, []entry{file("a", "1"), file("b", "2"), link("l", "x"), link("m", "y"), fifo("p"), fifo("q")},
			[]string{"/b", "/m", "/q"}, []string{"f b 644 0 2", "l m y", "p q 644 0"}},
		{"no member", []entry{file("a", "old")}, []entry{file("a", "new"), dir("d"), file("d/x", "")}, []string{"/y"}, []string{"f a 644 0 old"}},
		{"prefix of a member is none", nil, []entry{file("a", "1"), file("ab", "2")}, []string{"/abc", "/a/"}, []string{"f a 644 0 1"}},
		{"non-member does not change what is there", []entry{file("a", "old"), dir("d").mode(0o700), file("e", "old"), file("dir/kept", "")},
			[]entry{file("a/x", "new"), file("d", "new"), dir("e"), link("dir", "x"), file("b", "b")}, []string{"/b"},
			[]string{"f a 644 0 old", "f b 644 0 b", "d d 700 0", "d dir 755 0", "f dir/kept 644 0 ", "f e 644 0 old"}},
		{"directory does not make its content", nil, []entry{dir("d").mode(0o711), file("d/x", "")}, []string{"/d"}, []string{"d d 711 0"}},
		{"parent with its entry before", nil, []entry{dir("d").mode(0o700).owned(5, 5), dir("d/e").mode(0o701), file("d/e/x", "x")}, []string{"/d/e/x"},
			[]string{"d d 700 5", "d d/e 701 0", "f d/e/x 644 0 x"}},
		{"parent with its entry after", nil, []entry{file("d/e/x", "x"), dir("d/e").mode(0o701), dir("d").mode(0o700).owned(5, 5)}, []string{"/d/e/x"},
			[]string{"d d 700 5", "d d/e 701 0", "f d/e/x 644 0 x"}},
		{"parent without an entry", nil, []entry{file("d/e/x", "x")}, []string{"/d/e/x"},
			[]string{"d d 755 0", "d d/e 755 0", "f d/e/x 644 0 x"}},
		{"old parent without an entry is left alone", []entry{dir("d").mode(0o700).owned(7, 7)}, []entry{file("d/x", "x")}, []string{"/d/x"},
			[]string{"d d 700 7", "f d/x 644 0 x"}},
		{"old parent gets the entry's metadata", []entry{dir("d").mode(0o700).owned(7, 7), file("d/old", "")}, []entry{file("d/x", "x"), dir("d").mode(0o711).owned(8, 8)},
			[]string{"/d/x"}, []string{"d d 711 8", "f d/old 644 0 ", "f d/x 644 0 x"}},
		{"ancestor of a member that is not in the archive", []entry{dir("d").mode(0o700).owned(7, 7)}, []entry{dir("d").mode(0o711), file("d/x", ""), dir("e")},
			[]string{"/d/y", "/e/y"}, []string{"d d 700 7"}},
		{"ancestor of a device", nil, []entry{dir("dev").mode(0o711), device(tar.TypeChar, "dev/null", 1, 3)}, []string{"/dev/null"}, nil},
		{"what stands where a parent is needed", []entry{link("l", "CANARY"), file("f", "old"), fifo("p"), link("m", "x")},
			[]entry{file("l/secret", "1"), file("f/x", "2"), dir("p").mode(0o700), file("p/x", "3"), file("m/x", "")}, []string{"/l/secret", "/f/x", "/p/x"},
			[]string{"d f 755 0", "f f/x 644 0 2", "d l 755 0", "f l/secret 644 0 1", "l m x", "d p 700 0", "f p/x 644 0 3"}},
		{"member replaces an old directory", []entry{file("d/x/y", "old")}, []entry{file("d", "new")}, []string{"/d"}, []string{"f d 644 0 new"}},
		{"hard link of members", nil, []entry{file("a", "1"), hard("b", "a")}, []string{"/a", "/b"}, []string{"f a 644 0 1", "h b a"}},
		{"hard link to a non-member", nil, []entry{file("a", "1").mode(0o640).owned(5, 6), hard("b", "a").mode(0o777)}, []string{"/b"}, []string{"f b 640 5 1"}},
		{"hard links to a non-member", nil, []entry{file("a", "1"), hard("x/b", "a"), hard("c", "./a"), hard("d", "a")}, []string{"/x/b", "/c"},
			[]string{"f c 644 0 1", "d x 755 0", "h x/b c"}},
		{"chain of hard links", nil, []entry{file("a", "1"), hard("b", "a"), hard("c", "b"), hard("d", "c"), hard("e", "b")}, []string{"/d", "/e"},
			[]string{"f d 644 0 1", "h e d"}},
		{"chain to a member", nil, []entry{file("a", "1"), hard("b", "a"), hard("c", "b")}, []string{"/a", "/c"}, []string{"f a 644 0 1", "h c a"}},
		{"hard link of nobody", []entry{file("b", "old")}, []entry{file("a", "1"), hard("b", "a")}, []string{"/c"}, []string{"f b 644 0 old"}},
		{"hard link's parent with its entry last", nil, []entry{file("a", "1"), hard("d/b", "a"), dir("d").mode(0o700)}, []string{"/d/b"},
			[]string{"d d 700 0", "f d/b 644 0 1"}},
		{"hard link to a non-member, over what is old", []entry{file("a", "old"), file("b/x", "old"), link("c", "CANARY")},
			[]entry{file("a", "1"), hard("b", "a"), hard("c/secret", "a")}, []string{"/b", "/c/secret"},
			[]string{"f a 644 0 old", "f b 644 0 1", "d c 755 0", "h c/secret b"}},
		{"root", nil, []entry{file("a", "1")}, []string{"/"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSandbox(t)
			s.mustApply(t, s.aim(tt.lower)...)
			if err := s.applyKept(t, NewWhitelist(tt.keep), roomy, s.aim(tt.upper)...); err != nil {
				t.Fatal(err)
			}
			if got := s.list(t); !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestFilterAlwaysAppliesTop(t *testing.T) {
	s := newSandbox(t)
	if err := s.applyKept(t, NewWhitelist([]string{"/x"}), roomy, dir(".").mode(0o711).owned(3, 3), dir("d")); err != nil {
		t.Fatal(err)
	}
	if st := s.lstat(t, "."); st.Mode != unix.S_IFDIR|0o711 || st.Uid != 3 || st.Mtim.Nano() != testTime.UnixNano() {
		t.Errorf("mode %o, owner %d, time %v", st.Mode, st.Uid, st.Mtim)
	}
}

// What is refused is refused whatever the whitelist, before anything is made.
func TestFilterRefusesAll(t *testing.T) {
	small := Limits{MaxBytes: 10, MaxEntries: 3}
	for _, tt := range []struct {
		name    string
		entries []entry
		err     error
	}{
		{"duplicate", []entry{file("x", ""), file("x", "")}, ErrDuplicate},
		{"name", []entry{file("../x", "")}, ErrName},
		{"through a link", []entry{link("l", "/"), file("l/x", "")}, ErrThroughLink},
		{"hard link to nothing", []entry{hard("x", "y")}, ErrHardLink},
		{"hard link to what is old", []entry{hard("x", "member")}, ErrHardLink},
		{"device", []entry{device(tar.TypeChar, "x", 1, 3)}, ErrDevice},
		{"type", []entry{typed('Z', "x")}, ErrType},
		{"owner", []entry{file("x", "").owned(-1, 0)}, ErrOwner},
		{"attribute", []entry{dir("x").xattr("trusted.overlay.opaque", "y")}, ErrXattr},
		{"bytes", []entry{file("x", "12345678901")}, ErrTooLarge},
		{"entries", []entry{file("1/2/3/4", "")}, ErrTooManyEntries},
		{"content", []entry{file("x", "12").sized(3)}, io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSandbox(t)
			s.mustApply(t, file("member", "old"))
			err := s.applyKept(t, NewWhitelist([]string{"/member"}), small, append(tt.entries, file("member", "new"))...)
			if !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
			if s.read(t, "member") != "old" {
				t.Error("made something")
			}
		})
	}
}

func TestFilterBoundsLinks(t *testing.T) {
	s, err := NewSurvey(NewWhitelist([]string{"/x"}), roomy)
	if err != nil {
		t.Fatal(err)
	}
	s.filter.room = 100 * bytesPerLink
	target := file("f", "")
	if err := s.Add(&target.Header, "f", strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	for i := 0; err == nil && i < 100; i++ {
		e := hard(fmt.Sprint("h", i), "f")
		err = s.Add(&e.Header, e.Name, nil)
	}
	if !errors.Is(err, ErrTooManyLinks) {
		t.Errorf("got %v", err)
	}
}

func TestWhitelist(t *testing.T) {
	var everything *Whitelist
	if NewWhitelist(nil) != nil || NewWhitelist([]string{}) != nil {
		t.Error("an empty list is a whitelist")
	}
	a, b := NewWhitelist([]string{"/a", "/b//c/", "/b/./d", "/a"}), NewWhitelist([]string{"/b/c", "/x"})
	none := NewWhitelist([]string{"/q"}).Intersect(b)
	for _, tt := range []struct {
		name string
		list *Whitelist
		has  []string
		not  []string
	}{
		{"nil", everything, []string{".", "a", "x/y"}, nil},
		{"cleaned", a, []string{".", "a", "b/c", "b/d"}, []string{"b", "a/x", "c", ""}},
		{"root", NewWhitelist([]string{"/"}), []string{"."}, []string{"a"}},
		{"intersection", a.Intersect(b), []string{".", "b/c"}, []string{"a", "x", "b/d"}},
		{"empty intersection", none, []string{"."}, []string{"q", "x", "b/c"}},
		{"nil with a list", everything.Intersect(b), []string{"x"}, []string{"a"}},
		{"list with nil", b.Intersect(nil), []string{"x"}, []string{"a"}},
	} {
		for _, name := range tt.has {
			if !tt.list.Has(name) {
				t.Errorf("%s: has no %q", tt.name, name)
			}
		}
		for _, name := range tt.not {
			if tt.list.Has(name) {
				t.Errorf("%s: has %q", tt.name, name)
			}
		}
	}
	if everything.Intersect(nil) != nil || none == nil {
		t.Error("nothing and everything confused")
	}
	data, err := a.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var back Whitelist
	if err := back.UnmarshalBinary(data); err != nil || !slices.Equal(back.keys, a.keys) {
		t.Errorf("got %v, %v", back, err)
	}
	if err := back.UnmarshalBinary(data[1:]); err == nil {
		t.Error("half a name accepted")
	}
}

func TestMemoryOfWhitelist(t *testing.T) {
	prefix := "/" + strings.Repeat("x/", 40)
	paths := make([]string, 1_000_000)
	for i := range paths {
		paths[i] = prefix // long, and without taking memory itself
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := NewWhitelist(paths)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 32<<20 {
		t.Errorf("%d MiB for a million names", used>>20)
	}
	runtime.KeepAlive(w)
}

func TestPrune(t *testing.T) {
	tree := []entry{
		dir("d").mode(0o700).owned(5, 5), file("d/keep", "1"), file("d/gone", ""), file("d/sub/gone", ""), fifo("d/p"),
		dir("empty"), file("e/f/g", ""), link("out", "CANARY"), link("out2", "CANARY"), file("a", "a"), hard("b", "a"),
		dir("late"), dir("d/sub").at(testTime.Add(time.Hour)),
	}
	for _, tt := range []struct {
		name       string
		keep, want []string
	}{
		{"everything goes", []string{"/zzz"}, nil},
		{"directory without its content", []string{"/d", "/empty", "/e"}, []string{"d d 700 5", "d e 755 0", "d empty 755 0"}},
		{"directory above a member", []string{"/d/keep"}, []string{"d d 700 5", "f d/keep 644 0 1"}},
		{"directory above a member that is missing", []string{"/d/nothing", "/e/f/nothing", "/a"}, []string{"f a 644 0 a"}},
		{"below a file", []string{"/a/x"}, nil},
		{"links are not followed", []string{"/out", "/out/secret", "/out2/sub/secret"}, []string{"l out CANARY"}},
		{"one of two hard links", []string{"/b"}, []string{"f b 644 0 a"}},
		{"pipe", []string{"/d/p"}, []string{"d d 700 5", "p d/p 644 0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSandbox(t)
			s.mustApply(t, s.aim(append(tree, dir(".")))...)
			if err := Prune(s.open(t, s.top), NewWhitelist(tt.keep)); err != nil {
				t.Fatal(err)
			}
			want := make([]string, len(tt.want))
			for i, line := range tt.want {
				want[i] = strings.ReplaceAll(line, "CANARY", s.canary)
			}
			if got := s.list(t); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			for _, name := range []string{".", "d"} {
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(s.top, name), &st); err == nil && st.Mtim.Nano() != testTime.UnixNano() {
					t.Errorf("%s: time %v", name, st.Mtim)
				}
			}
		})
	}
	t.Run("nil keeps all", func(t *testing.T) {
		s := newSandbox(t)
		s.mustApply(t, file("a", ""))
		if err := Prune(s.open(t, s.top), nil); err != nil || len(s.list(t)) != 1 {
			t.Error(err, s.list(t))
		}
	})
	t.Run("large directory", func(t *testing.T) {
		s := newSandbox(t)
		var entries []entry
		var keep []string
		for i := range 5000 {
			entries = append(entries, file(fmt.Sprintf("d/%d", i), ""))
			if i%3 == 0 {
				keep = append(keep, fmt.Sprintf("/d/%d", i))
			}
		}
		s.mustApply(t, entries...)
		if err := Prune(s.open(t, s.top), NewWhitelist(keep)); err != nil {
			t.Fatal(err)
		}
		if got := len(s.list(t)); got != len(keep)+1 {
			t.Errorf("%d left, want %d", got, len(keep)+1)
		}
	})
}

// node is a file of the model: names that share a node are hard links.
type node struct {
	typ      byte
	mode     int64
	uid, gid int
	data     string    // or target
	time     time.Time // zero for unknown
}

// model is a tree as the rules say that it must be, without any file system.
type model map[string]*node

func (m model) removeBelow(name string) {
	maps.DeleteFunc(m, func(n string, _ *node) bool { return strings.HasPrefix(n, name+"/") })
}

func (m model) touch(name string) {
	if d := m[path.Dir(name)]; d != nil {
		d.time = time.Time{}
	}
}

func (m model) needParent(name string) {
	p := path.Dir(name)
	if p == "." {
		return
	}
	m.needParent(p)
	if d := m[p]; d == nil || d.typ != tar.TypeDir {
		m[p] = &node{typ: tar.TypeDir, mode: 0o755}
		m.touch(p)
	}
}

func (m model) apply(entries []entry, keep func(string) bool) {
	nodes := map[string]*node{}
	made := map[string]bool{}
	for _, e := range entries {
		n := &node{e.Typeflag, e.Mode, e.Uid, e.Gid, e.data, e.ModTime}
		switch e.Typeflag {
		case tar.TypeSymlink:
			n.data, n.mode = e.Linkname, 0
		case tar.TypeLink:
			n = nodes[e.Linkname]
		}
		nodes[e.Name] = n
		below := false // of something that is made
		for p := e.Name; p != "."; p = path.Dir(p) {
			if below = below || keep(p); below {
				made[p] = true
			}
		}
	}
	for name := range made {
		n := nodes[name]
		if n == nil { // a directory without an entry
			m.needParent(name + "/any")
			continue
		}
		if n.typ != tar.TypeDir && !keep(name) {
			continue
		}
		m.needParent(name)
		if old := m[name]; n.typ != tar.TypeDir {
			m.removeBelow(name)
			m[name] = n
			m.touch(name)
		} else if old == nil || old.typ != tar.TypeDir {
			m[name] = n
			m.touch(name)
		}
	}
	for name := range made { // when all is there
		if n := nodes[name]; n != nil && n.typ == tar.TypeDir {
			own := *n
			m[name] = &own
		}
	}
}

func (m model) prune(keep func(string) bool) {
	stays := map[string]bool{}
	for name := range m {
		if keep(name) {
			for p := name; p != "."; p = path.Dir(p) {
				stays[p] = true
			}
		}
	}
	maps.DeleteFunc(m, func(name string, _ *node) bool { return !stays[name] })
}

// compare reports what of the tree differs from the model.
func (m model) compare(t *testing.T, s sandbox) {
	t.Helper()
	found := walk(t, s.top)
	delete(found, ".")
	inodes := map[uint64]*node{}
	for name, n := range m {
		types := map[byte]uint32{tar.TypeDir: unix.S_IFDIR, tar.TypeReg: unix.S_IFREG, tar.TypeSymlink: unix.S_IFLNK, tar.TypeFifo: unix.S_IFIFO}
		data, target := n.data, ""
		if n.typ == tar.TypeSymlink {
			data, target = "", n.data
		}
		want := fmt.Sprintf("%o %d:%d T %q %q", types[n.typ]|uint32(n.mode), n.uid, n.gid, data, target)
		got := found[name]
		delete(found, name)
		if got == "" {
			t.Errorf("%q is missing", name)
			continue
		}
		fields := strings.SplitN(got, " ", 4)
		if at := fmt.Sprintf("%d.%d", n.time.Unix(), n.time.Nanosecond()); !n.time.IsZero() && fields[2] != at {
			t.Errorf("%q: time %s, want %s", name, fields[2], at)
		}
		fields[2] = "T"
		if got := strings.Join(fields, " "); got != want {
			t.Errorf("%q is %s, want %s", name, got, want)
		}
		if n.typ == tar.TypeReg {
			ino := s.lstat(t, name).Ino
			if other := inodes[ino]; other != nil && other != n {
				t.Errorf("%q is linked to another file", name)
			}
			for i, other := range inodes {
				if other == n && i != ino {
					t.Errorf("%q is not linked to its other names", name)
				}
			}
			inodes[ino] = n
		}
	}
	for name := range found {
		t.Errorf("%q should not be there", name)
	}
}

// randomArchive makes entries in an order that a Checker accepts; every name is
// one of a few, so that archives meet in a tree.
func randomArchive(rnd *rand.Rand) []entry {
	checker, _ := NewChecker(roomy)
	var entries []entry
	var files []string
	for range 40 {
		name := randomName(rnd)
		var e entry
		switch n := rnd.IntN(10); {
		case n < 3:
			e = dir(name)
		case n < 6:
			e = file(name, fmt.Sprint(rnd.IntN(1000)))
		case n < 7:
			e = link(name, "../../canary")
		case n < 8:
			e = fifo(name)
		default:
			if len(files) == 0 {
				continue
			}
			e = hard(name, files[rnd.IntN(len(files))])
		}
		e = e.mode(rnd.Int64N(0o1000)).owned(rnd.IntN(1000), rnd.IntN(1000)).at(time.Unix(rnd.Int64N(1<<31), rnd.Int64N(1e9)))
		if checker.Check(&e.Header, name, strings.NewReader(e.data)) != nil {
			continue
		}
		entries = append(entries, e)
		if e.Typeflag == tar.TypeReg || e.Typeflag == tar.TypeLink {
			files = append(files, name)
		}
	}
	return entries
}

func randomName(rnd *rand.Rand) string {
	parts := make([]string, 1+rnd.IntN(4))
	for i := range parts {
		parts[i] = string(rune('a' + rnd.IntN(3)))
	}
	return strings.Join(parts, "/")
}

func randomList(rnd *rand.Rand) (list *Whitelist, keep func(string) bool) {
	if rnd.IntN(4) == 0 {
		return nil, func(string) bool { return true }
	}
	names := map[string]bool{}
	var paths []string
	for range 1 + rnd.IntN(40) {
		name := randomName(rnd)
		names[name] = true
		paths = append(paths, "/"+name)
	}
	return NewWhitelist(paths), func(name string) bool { return names[name] }
}

// Random archives, each through a random whitelist, one over the other, and a
// pruning at the end, do what the model says.
func TestFilterModel(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		s := newSandbox(t)
		m := model{}
		for range 1 + rnd.IntN(3) {
			entries := randomArchive(rnd)
			list, keep := randomList(rnd)
			var err error
			if list == nil {
				_, err = s.apply(t, roomy, entries...)
			} else {
				err = s.applyKept(t, list, roomy, entries...)
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			m.apply(entries, keep)
			m.compare(t, s)
		}
		list, keep := randomList(rnd)
		if err := Prune(s.open(t, s.top), list); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		m.prune(keep)
		m.compare(t, s)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
