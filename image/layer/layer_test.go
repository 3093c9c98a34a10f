//go:build unix

package layer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// roomy limits bound nothing that a test makes.
var roomy = Limits{MaxBytes: 32 << 30, MaxEntries: 1_000_000}

// sandbox is a directory with a top directory to extract to and, beside it, a
// canary that must look the same before and after.
type sandbox struct {
	dir, top, canary string
}

func newSandbox(t testing.TB) sandbox {
	t.Helper()
	testenv.Root(t)
	dir := t.TempDir()
	s := sandbox{dir, filepath.Join(dir, "top"), filepath.Join(dir, "canary")}
	for _, d := range []string{s.top, s.canary, filepath.Join(s.canary, "sub")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"secret", "sub/secret"} {
		if err := os.WriteFile(filepath.Join(s.canary, f), []byte("canary"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot(t, s.canary)
	t.Cleanup(func() {
		if after := snapshot(t, s.canary); after != before {
			t.Errorf("canary touched:\n%s\nbefore:\n%s", after, before)
		}
		entries, err := os.ReadDir(s.dir)
		if err != nil || len(entries) != 2 {
			t.Errorf("beside the top directory: %v, %v", entries, err)
		}
	})
	return s
}

// snapshot describes a tree, change times and link counts included.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fmt.Fprintf(&b, "%q %o %d:%d ino %d links %d times %v %v", rel, st.Mode, st.Uid, st.Gid, st.Ino, st.Nlink, st.Mtim, st.Ctim)
		if d.Type().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", sha256.Sum256(data))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// entry is a tar entry with its content.
type entry struct {
	tar.Header
	data string
}

var testTime = time.Unix(1234567890, 123456789)

func header(typ byte, name string, mode int64) tar.Header {
	return tar.Header{Typeflag: typ, Name: name, Mode: mode, ModTime: testTime}
}

func dir(name string) entry { return entry{header(tar.TypeDir, name, 0o755), ""} }

func file(name, data string) entry {
	e := entry{header(tar.TypeReg, name, 0o644), data}
	e.Size = int64(len(data))
	return e
}

func link(name, target string) entry {
	e := entry{header(tar.TypeSymlink, name, 0o777), ""}
	e.Linkname = target
	return e
}

func hard(name, target string) entry {
	e := entry{header(tar.TypeLink, name, 0o644), ""}
	e.Linkname = target
	return e
}

func fifo(name string) entry { return entry{header(tar.TypeFifo, name, 0o644), ""} }

func device(typ byte, name string, major, minor int64) entry {
	e := entry{header(typ, name, 0o666), ""}
	e.Devmajor, e.Devminor = major, minor
	return e
}

func typed(typ byte, name string) entry { return entry{header(typ, name, 0o644), ""} }

func (e entry) owned(uid, gid int) entry {
	e.Uid, e.Gid = uid, gid
	return e
}

func (e entry) mode(m int64) entry {
	e.Mode = m
	return e
}

func (e entry) at(t time.Time) entry {
	e.ModTime = t
	return e
}

func (e entry) xattr(name, value string) entry {
	return e.record(xattrPrefix+name, value)
}

func (e entry) record(key, value string) entry {
	records := map[string]string{key: value}
	for k, v := range e.PAXRecords {
		records[k] = v
	}
	e.PAXRecords = records
	return e
}

func (e entry) sized(n int64) entry {
	e.Size = n
	return e
}

func (s sandbox) open(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// apply applies entries, cleaning their names as an image format would.
func (s sandbox) apply(t testing.TB, l Limits, entries ...entry) (*Applier, error) {
	t.Helper()
	dir, err := os.Open(s.top)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	a, err := NewApplier(dir, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var name string
		if name, err = CleanName(e.Name); err != nil {
			break
		}
		if err = a.Apply(&e.Header, name, strings.NewReader(e.data)); err != nil {
			break
		}
	}
	return a, errors.Join(err, a.Close())
}

func (s sandbox) mustApply(t testing.TB, entries ...entry) *Applier {
	t.Helper()
	a, err := s.apply(t, roomy, entries...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s sandbox) lstat(t testing.TB, name string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(s.top, name), &st); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return st
}

func (s sandbox) read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Every hostile case has a benign twin that differs in what makes it hostile.
func TestHostile(t *testing.T) {
	long := strings.Repeat("x", 256)
	deep := strings.Repeat("d/", 512)
	small := Limits{MaxBytes: 10, MaxEntries: 3}
	const etc = "/etc"
	for _, tt := range []struct {
		name    string
		hostile []entry
		err     error
		benign  []entry
	}{
		{"absolute name", []entry{file("/x", "")}, ErrName, []entry{file("x", "")}},
		{"dot dot", []entry{file("../x", "")}, ErrName, []entry{file("./x", "")}},
		{"dot dot within", []entry{dir("a"), file("a/../x", "")}, ErrName, []entry{dir("a"), file("a/./x", "")}},
		{"dot dot at the end", []entry{dir("a/..")}, ErrName, []entry{dir("a/...")}},
		{"only dot dot", []entry{dir("..")}, ErrName, []entry{dir(".")}},
		{"empty name", []entry{file("", "")}, ErrName, []entry{file(" ", "")}},
		{"NUL", []entry{file("x\x00y", "")}, ErrName, []entry{file("x\ny\x1b", "")}},
		{"long component", []entry{file(long, "")}, ErrName, []entry{file(long[1:], "")}},
		{"long name", []entry{dir(deep + "x")}, ErrName, []entry{dir(deep)}},
		{"file twice", []entry{file("x", "1"), file("x", "2")}, ErrDuplicate, []entry{file("x", "1"), file("X", "2")}},
		{"file twice, spelled differently", []entry{file("a/x", "1"), file("./a//x", "2")}, ErrDuplicate, []entry{file("a/x", ""), file("a/y", "")}},
		{"directory twice", []entry{dir("a"), dir("a/")}, ErrDuplicate, []entry{dir("a"), dir("b/")}},
		{"late directory twice", []entry{file("a/x", ""), dir("a"), dir("a")}, ErrDuplicate, []entry{file("a/x", ""), dir("a")}},
		{"top directory twice", []entry{dir("."), dir("./")}, ErrDuplicate, []entry{dir("./")}},
		{"top directory is a link", []entry{link(".", etc)}, ErrType, []entry{dir(".")}},
		{"top directory is a file", []entry{file("./", "")}, ErrType, []entry{file("./x", "")}},
		{"top directory is a hard link", []entry{file("x", ""), hard(".", "x")}, ErrType, []entry{file("x", ""), hard("y", "x")}},
		{"file over directory", []entry{dir("a"), file("a", "")}, ErrDuplicate, []entry{dir("a"), file("b", "")}},
		{"file over implicit directory", []entry{file("a/x", ""), file("a", "")}, ErrDuplicate, []entry{file("a/x", ""), dir("a")}},
		{"link over implicit directory", []entry{file("a/x", ""), link("a", etc), file("a/y", "")}, ErrDuplicate, []entry{file("a/x", ""), file("a/y", "")}},
		{"directory over link", []entry{link("a", "CANARY"), dir("a")}, ErrDuplicate, []entry{link("a", "CANARY"), dir("b")}},
		{"write over a link", []entry{link("a", "CANARY/secret"), file("a", "x")}, ErrDuplicate, []entry{link("a", "CANARY/secret")}},
		{"write through an absolute link", []entry{link("l", "CANARY"), file("l/secret", "x")}, ErrThroughLink, []entry{dir("l"), file("l/secret", "x")}},
		{"write through a relative link", []entry{link("l", "../canary"), file("l/secret", "x")}, ErrThroughLink, []entry{link("l", "../canary"), file("m/secret", "x")}},
		{"deep through a link", []entry{link("a/l", "CANARY"), file("a/l/sub/secret", "x")}, ErrThroughLink, []entry{link("a/l", "CANARY"), file("a/m/sub/secret", "x")}},
		{"link through a link", []entry{link("l", "CANARY"), link("l/new", "x")}, ErrThroughLink, []entry{link("l", "CANARY"), link("new", "x")}},
		{"directory through a link", []entry{link("l", "CANARY"), dir("l/sub").mode(0o777)}, ErrThroughLink, []entry{link("l", "CANARY"), dir("m/sub")}},
		{"fifo through a link", []entry{link("l", "CANARY"), fifo("l/p")}, ErrThroughLink, []entry{link("l", "CANARY"), fifo("p")}},
		{"through a link that stays inside", []entry{dir("d"), link("l", "d"), file("l/x", "")}, ErrThroughLink, []entry{dir("d"), link("l", "d"), file("d/x", "")}},
		{"through a link to dot", []entry{link("l", "."), file("l/l/x", "")}, ErrThroughLink, []entry{link("l", ".")}},
		{"file under file", []entry{file("f", ""), file("f/x", "")}, ErrThroughLink, []entry{file("f", ""), file("g/x", "")}},
		{"file under fifo", []entry{fifo("f"), file("f/x", "")}, ErrThroughLink, []entry{fifo("f"), file("g/x", "")}},
		{"file under a skipped device", []entry{device(tar.TypeChar, "dev/null", 1, 3), file("dev/null/x", "")}, ErrThroughLink, []entry{device(tar.TypeChar, "dev/null", 1, 3), file("dev/x", "")}},
		{"hard link to a missing file", []entry{hard("h", "x")}, ErrHardLink, []entry{file("x", ""), hard("h", "x")}},
		{"hard link to a later file", []entry{hard("h", "x"), file("x", "")}, ErrHardLink, []entry{file("x", ""), hard("h", "x")}},
		{"hard link to itself", []entry{hard("h", "h")}, ErrHardLink, []entry{file("x", ""), hard("h", "./x")}},
		{"hard link to an absolute name", []entry{hard("h", "CANARY/secret")}, ErrHardLink, []entry{file("x", ""), hard("h", "x")}},
		{"hard link above the top", []entry{hard("h", "../canary/secret")}, ErrHardLink, []entry{file("canary/secret", ""), hard("h", "canary/secret")}},
		{"hard link through a link", []entry{link("l", "CANARY"), hard("h", "l/secret")}, ErrHardLink, []entry{file("l/secret", ""), hard("h", "l/secret")}},
		{"hard link through a link inside", []entry{file("d/x", ""), link("l", "d"), hard("h", "l/x")}, ErrHardLink, []entry{file("d/x", ""), link("l", "d"), hard("h", "d/x")}},
		{"hard link to a link", []entry{link("l", "CANARY/secret"), hard("h", "l")}, ErrHardLink, []entry{file("l", ""), hard("h", "l")}},
		{"hard link to a directory", []entry{dir("d"), hard("h", "d")}, ErrHardLink, []entry{file("d/x", ""), hard("h", "d/x")}},
		{"hard link to a fifo", []entry{fifo("p"), hard("h", "p")}, ErrHardLink, []entry{file("p", ""), hard("h", "p")}},
		{"hard link below a file", []entry{file("f", ""), hard("h", "f/x")}, ErrHardLink, []entry{file("f", ""), hard("h", "f")}},
		{"hard link to the top", []entry{hard("h", ".")}, ErrHardLink, []entry{file("x", ""), hard("h", "x")}},
		{"hard link without target", []entry{hard("h", "")}, ErrHardLink, []entry{file("x", ""), hard("h", "x")}},
		{"hard link, then write to it", []entry{file("x", "1"), hard("h", "x"), file("h", "2")}, ErrDuplicate, []entry{file("x", "1"), hard("h", "x")}},
		{"write below a hard link", []entry{file("x", ""), hard("h", "x"), file("h/y", "")}, ErrThroughLink, []entry{file("x", ""), hard("h", "x"), file("i/y", "")}},
		{"character device", []entry{device(tar.TypeChar, "mem", 1, 1)}, ErrDevice, []entry{device(tar.TypeChar, "dev/mem", 1, 1)}},
		{"block device", []entry{device(tar.TypeBlock, "etc/sda", 8, 0)}, ErrDevice, []entry{device(tar.TypeBlock, "dev/sda", 8, 0)}},
		{"device beside dev", []entry{device(tar.TypeChar, "devX/null", 1, 3)}, ErrDevice, []entry{device(tar.TypeChar, "dev/d/null", 1, 3)}},
		{"device for dev itself", []entry{device(tar.TypeChar, "dev", 1, 3)}, ErrDevice, []entry{dir("dev")}},
		{"whiteout", []entry{device(tar.TypeChar, "x", 0, 0)}, ErrWhiteout, []entry{file(".wh.x", "")}},
		{"whiteout in dev", []entry{device(tar.TypeChar, "dev/x", 0, 0)}, ErrWhiteout, []entry{device(tar.TypeBlock, "dev/x", 0, 0)}},
		{"socket", []entry{typed('s', "x")}, ErrType, []entry{typed(tar.TypeReg, "x")}},
		{"contiguous file", []entry{typed(tar.TypeCont, "x")}, ErrType, []entry{typed(tar.TypeReg, "x")}},
		{"global header", []entry{typed(tar.TypeXGlobalHeader, "x")}, ErrType, []entry{typed(tar.TypeReg, "x")}},
		{"unknown type", []entry{typed('Z', "x")}, ErrType, []entry{typed(tar.TypeReg, "x")}},
		{"large file", []entry{file("x", "12345678901")}, ErrTooLarge, []entry{file("x", "1234567890")}},
		{"large together", []entry{file("x", "123456"), file("y", "12345")}, ErrTooLarge, []entry{file("x", "123456"), file("y", "1234")}},
		{"huge size", []entry{file("x", "1"), file("y", "").sized(1<<63 - 1)}, ErrTooLarge, []entry{file("x", "1"), file("y", "")}},
		{"negative size", []entry{file("x", "").sized(-1)}, ErrTooLarge, []entry{file("x", "").sized(0)}},
		{"content too short", []entry{file("x", "12").sized(3)}, io.ErrUnexpectedEOF, []entry{file("x", "12").sized(2)}},
		{"no content", []entry{file("x", "").sized(3)}, io.ErrUnexpectedEOF, []entry{file("x", "").sized(0)}},
		{"many entries", []entry{file("1", ""), dir("2"), link("3", "x"), file("4", "")}, ErrTooManyEntries, []entry{file("1", ""), dir("2"), link("3", "x")}},
		{"many implicit directories", []entry{file("1/2/3/4", "")}, ErrTooManyEntries, []entry{file("1/2/3", "")}},
		{"many skipped devices", []entry{device(tar.TypeChar, "dev/1", 1, 3), device(tar.TypeChar, "dev/2", 1, 3), device(tar.TypeChar, "dev/3", 1, 3), device(tar.TypeChar, "dev/4", 1, 3)},
			ErrTooManyEntries, []entry{device(tar.TypeChar, "dev/1", 1, 3), device(tar.TypeChar, "dev/2", 1, 3)}},
		{"overlay opaque", []entry{dir("d").xattr("trusted.overlay.opaque", "y")}, ErrXattr, []entry{dir("d").xattr("trusted.overlays", "y")}},
		{"overlay redirect in user", []entry{dir("d").xattr("user.overlay.redirect", "/etc")}, ErrXattr, []entry{file("d", "").xattr("user.overlay", "y")}},
		{"overlay elsewhere", []entry{dir("d").xattr("system.overlay.x", "")}, ErrXattr, []entry{dir("d").xattr("user.x", "")}},
		{"escaped overlay", []entry{dir("d").xattr("trusted.overlay.overlay.opaque", "y")}, ErrXattr, []entry{dir("d")}},
		{"overlay on the top directory", []entry{dir(".").xattr("trusted.overlay.opaque", "y")}, ErrXattr, []entry{dir(".").xattr("user.x", "y")}},
		{"overlay on a link", []entry{link("l", "x").xattr("trusted.overlay.metacopy", "")}, ErrXattr, []entry{link("l", "x")}},
		{"attribute without a name", []entry{file("x", "").xattr("", "y")}, ErrXattr, []entry{file("x", "").xattr("user.y", "")}},
		{"attribute with a long name", []entry{file("x", "").xattr("user."+long, "y")}, ErrXattr, []entry{file("x", "").xattr("user."+long[:200], "y")}},
		{"user id -1", []entry{file("x", "").owned(-1, 0)}, ErrOwner, []entry{file("x", "").owned(0, 0)}},
		{"user id 2^32-1", []entry{file("x", "").owned(1<<32-1, 0)}, ErrOwner, []entry{file("x", "").owned(1<<32-2, 0)}},
		{"group id 2^32-1", []entry{dir("x").owned(0, 1<<32-1)}, ErrOwner, []entry{dir("x").owned(0, 1<<32-2)}},
		{"group id 2^32 is not root", []entry{link("x", "y").owned(0, 1<<32)}, ErrOwner, []entry{link("x", "y").owned(0, 0)}},
		{"link without target", []entry{link("x", "")}, ErrSymlink, []entry{link("x", "\n")}},
		{"link with a long target", []entry{link("x", strings.Repeat("x", 1024))}, ErrSymlink, []entry{link("x", strings.Repeat("x", 1023))}},
		{"link with NUL", []entry{link("x", "a\x00b")}, ErrSymlink, []entry{link("x", "a\nb")}},
		{"attribute with a large value", []entry{file("x", "").xattr("user.x", strings.Repeat("x", 1<<16+1))}, ErrXattr, []entry{file("x", "").xattr("user.x", "y")}},
		{"link for the directory of a skipped device", []entry{device(tar.TypeChar, "dev/null", 1, 3), link("dev", "x")}, ErrDuplicate, []entry{device(tar.TypeChar, "dev/null", 1, 3), dir("dev")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := roomy
			if errors.Is(tt.err, ErrTooLarge) || errors.Is(tt.err, ErrTooManyEntries) {
				l = small
			}
			s := newSandbox(t)
			if _, err := s.apply(t, l, s.aim(tt.hostile)...); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
			s = newSandbox(t)
			if _, err := s.apply(t, l, s.aim(tt.benign)...); err != nil {
				t.Errorf("benign twin: %v", err)
			}
		})
	}
}

// aim puts the canary's directory in place of CANARY in link targets.
func (s sandbox) aim(entries []entry) []entry {
	aimed := slices.Clone(entries)
	for i := range aimed {
		aimed[i].Linkname = strings.Replace(aimed[i].Linkname, "CANARY", s.canary, 1)
	}
	return aimed
}

func TestRefusedBeforeWriting(t *testing.T) {
	s := newSandbox(t)
	if _, err := s.apply(t, Limits{10, 10}, file("x", strings.Repeat("x", 11))); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(s.top, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made in spite of the limit: %v", err)
	}
}

func TestErrorsNameTheEntry(t *testing.T) {
	s := newSandbox(t)
	_, err := s.apply(t, roomy, device(tar.TypeChar, "a\x1b[31m", 1, 1))
	if err == nil || !strings.Contains(err.Error(), `"a\x1b[31m"`) {
		t.Errorf("got %v", err)
	}
}

func TestNewApplierRefuses(t *testing.T) {
	s := newSandbox(t)
	for _, tt := range []struct {
		name, dir string
		limits    Limits
	}{
		{"no limits", s.top, Limits{}},
		{"no byte limit", s.top, Limits{MaxEntries: 1}},
		{"negative limit", s.top, Limits{MaxBytes: 1, MaxEntries: -1}},
		{"file", s.canary + "/secret", roomy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if a, err := NewApplier(s.open(t, tt.dir), tt.limits, nil); err == nil {
				a.Close()
				t.Error("accepted")
			}
		})
	}
}

// Apply must not rely on callers having cleaned names.
func TestApplyChecksNames(t *testing.T) {
	s := newSandbox(t)
	a, err := NewApplier(s.open(t, s.top), roomy, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, name := range []string{"/x", "../x", "a/../../x", "a//x", "./x", "x/", "a/.", "x\x00"} {
		e := file("x", "")
		if err := a.Apply(&e.Header, name, strings.NewReader("")); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestMetadata(t *testing.T) {
	s := newSandbox(t)
	early := testTime.Add(-1000 * time.Hour)
	old := time.Unix(-86400, 5) // before 1970
	defer unix.Umask(unix.Umask(0o077))
	a := s.mustApply(t,
		file("late/in/x", "x").at(early),
		dir("early").mode(0o1777).owned(3, 4).at(early),
		file("early/suid", "suid").mode(0o6755).owned(1, 2),
		file("early/huge", "").owned(1<<32-2, 1<<32-2).mode(0),
		link("early/link", "/etc/shadow").owned(5, 6).at(early),
		fifo("early/fifo").mode(0o4613).owned(7, 8).at(early),
		file("early/old", "").at(old),
		dir("early/sub/").mode(0o2700),
		file("early/sub/x", ""),
		hard("early/hard", "early/suid").mode(0o777).owned(99, 99).at(early),
		dir("late/in").mode(0o500).owned(9, 10).at(early),
		dir("late").at(early),
		file("late/in/y", "y"),
		file("late/other/z", "z"),
		dir(".").mode(0o711).owned(11, 12).at(early),
		file("last", ""),
	)
	for _, tt := range []struct {
		name     string
		mode     uint32
		uid, gid uint32
		time     time.Time
	}{
		{".", unix.S_IFDIR | 0o711, 11, 12, early},
		{"early", unix.S_IFDIR | 0o1777, 3, 4, early},
		{"early/suid", unix.S_IFREG | 0o6755, 1, 2, testTime},
		{"early/hard", unix.S_IFREG | 0o6755, 1, 2, testTime},
		{"early/huge", unix.S_IFREG, 1<<32 - 2, 1<<32 - 2, testTime},
		{"early/link", unix.S_IFLNK, 5, 6, early},
		{"early/fifo", unix.S_IFIFO | 0o4613, 7, 8, early},
		{"early/old", unix.S_IFREG | 0o644, 0, 0, old},
		{"early/sub", unix.S_IFDIR | 0o2700, 0, 0, testTime},
		{"late", unix.S_IFDIR | 0o755, 0, 0, early},
		{"late/in", unix.S_IFDIR | 0o500, 9, 10, early},
		{"late/in/y", unix.S_IFREG | 0o644, 0, 0, testTime},
		{"late/other", unix.S_IFDIR | 0o755, 0, 0, time.Time{}},
	} {
		st := s.lstat(t, tt.name)
		if tt.mode == unix.S_IFLNK { // whose permissions mean nothing
			st.Mode &^= 0o777
		}
		if uint32(st.Mode) != tt.mode || st.Uid != tt.uid || st.Gid != tt.gid {
			t.Errorf("%s: mode %o, owner %d:%d, want %o, %d:%d", tt.name, st.Mode, st.Uid, st.Gid, tt.mode, tt.uid, tt.gid)
		}
		if got := time.Unix(st.Mtim.Unix()); !tt.time.IsZero() && !got.Equal(tt.time) {
			t.Errorf("%s: time %v, want %v", tt.name, got, tt.time)
		}
	}
	if x, y := s.lstat(t, "early/suid"), s.lstat(t, "early/hard"); x.Ino != y.Ino {
		t.Error("hard link is a copy")
	}
	if w := a.Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
}

func TestNoTimeIsTheEpoch(t *testing.T) {
	s := newSandbox(t)
	s.mustApply(t, file("x", "").at(time.Time{}))
	if st := s.lstat(t, "x"); st.Mtim.Sec != 0 {
		t.Errorf("time %v", st.Mtim)
	}
}

func TestWarnings(t *testing.T) {
	s := newSandbox(t)
	many := make([]entry, 200)
	for i := range many {
		many[i] = link(fmt.Sprint("l", i), "x").xattr(fmt.Sprintf("user.\n%d", i), "y")
	}
	for _, tt := range []struct {
		name    string
		entries []entry
		want    int
	}{
		{"none", []entry{file("x", "")}, 0},
		{"devices once", []entry{device(tar.TypeChar, "dev/a", 1, 3), device(tar.TypeBlock, "dev/b", 1, 3), device(tar.TypeChar, "dev/x/c", 1, 3)}, 1},
		{"attribute once", []entry{link("l", "x").xattr("user.a", "y"), link("m", "x").xattr("user.a", "y"), fifo("f").xattr("user.b", "y")}, 2},
		{"file flags and access control lists", []entry{file("x2", "").record("SCHILY.fflags", "schg").record("SCHILY.acl.access", "").record("SCHILY.acl.default", "")}, 2},
		{"bounded", many, maxWarnings + 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := s.mustApply(t, tt.entries...).Warnings()
			if len(w) != tt.want {
				t.Errorf("got %d: %.10q", len(w), w)
			}
			for _, line := range w {
				if strings.ContainsAny(line, "\n\x1b") {
					t.Errorf("not fit for printing: %q", line)
				}
			}
		})
	}
	if _, err := os.Lstat(filepath.Join(s.top, "dev/a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("device made: %v", err)
	}
}

// What was there before the archive is replaced.
func TestReplace(t *testing.T) {
	lower := []entry{
		file("file", "old").mode(0o600),
		hard("other", "file"),
		dir("dir").mode(0o700).owned(1, 1),
		file("dir/kept", "kept"),
		file("dir/deep/x", "x"),
		link("dir/out", "CANARY"),
		link("todir", "dir"),
		link("out", "CANARY"),
		link("outfile", "CANARY/secret"),
		fifo("fifo"),
	}
	for _, tt := range []struct {
		name  string
		upper []entry
		check func(t *testing.T, s sandbox)
		err   error
	}{
		{"file by file", []entry{file("file", "new")}, func(t *testing.T, s sandbox) {
			if s.read(t, "file") != "new" || s.read(t, "other") != "old" {
				t.Error("the old file was written to")
			}
		}, nil},
		{"file by directory", []entry{dir("file"), file("file/x", "")}, nil, nil},
		{"file by implicit directory", []entry{file("file/x", "")}, nil, nil},
		{"file by link", []entry{link("file", "CANARY")}, nil, nil},
		{"fifo by file", []entry{file("fifo", "new")}, nil, nil},
		{"directory by directory keeps content", []entry{dir("dir").mode(0o711).owned(2, 2)}, func(t *testing.T, s sandbox) {
			if st := s.lstat(t, "dir"); st.Mode != unix.S_IFDIR|0o711 || st.Uid != 2 || s.read(t, "dir/kept") != "kept" {
				t.Errorf("mode %o, owner %d", st.Mode, st.Uid)
			}
		}, nil},
		{"directory as a parent is left alone", []entry{file("dir/new", "")}, func(t *testing.T, s sandbox) {
			if st := s.lstat(t, "dir"); st.Mode != unix.S_IFDIR|0o700 || st.Uid != 1 || s.read(t, "dir/kept") != "kept" {
				t.Errorf("mode %o, owner %d", st.Mode, st.Uid)
			}
		}, nil},
		{"directory by file", []entry{file("dir", "new")}, func(t *testing.T, s sandbox) {
			if s.read(t, "dir") != "new" {
				t.Error("not replaced")
			}
		}, nil},
		{"directory by link", []entry{link("dir", "CANARY")}, nil, nil},
		{"directory by fifo", []entry{fifo("dir")}, nil, nil},
		{"directory by hard link", []entry{file("new", "new"), hard("dir", "new")}, func(t *testing.T, s sandbox) {
			if s.read(t, "dir") != "new" {
				t.Error("not replaced")
			}
		}, nil},
		{"directory by hard link into it", []entry{hard("dir", "dir/kept")}, nil, ErrHardLink},
		{"link to directory by directory", []entry{dir("todir")}, func(t *testing.T, s sandbox) {
			if st := s.lstat(t, "todir"); fileType(&st) != unix.S_IFDIR || s.read(t, "dir/kept") != "kept" {
				t.Error("not replaced")
			}
		}, nil},
		{"link to directory as a parent", []entry{file("todir/x", "new")}, func(t *testing.T, s sandbox) {
			if st := s.lstat(t, "todir"); fileType(&st) != unix.S_IFDIR || s.read(t, "todir/x") != "new" {
				t.Error("not replaced")
			}
			if _, err := os.Lstat(filepath.Join(s.top, "dir/x")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("followed: %v", err)
			}
		}, nil},
		{"link to the host as a parent", []entry{file("out/secret", "new"), file("out/sub/secret", "new")}, nil, nil},
		{"link to the host in the middle", []entry{file("dir/out/sub/secret", "new")}, nil, nil},
		{"link to the host by file", []entry{file("outfile", "new").mode(0o777).owned(9, 9)}, nil, nil},
		{"link to the host by directory", []entry{dir("out").mode(0o777).owned(9, 9)}, nil, nil},
		{"hard link through an old link", []entry{hard("h", "out/secret")}, nil, ErrHardLink},
		{"hard link to an old link", []entry{hard("h", "outfile")}, nil, ErrHardLink},
		{"hard link to an old file", []entry{hard("h", "file").mode(0o777)}, nil, ErrHardLink},
		{"hard link to an old file below a directory of this archive", []entry{dir("dir"), hard("h", "dir/kept")}, nil, ErrHardLink},
		{"hard link over an old file", []entry{file("new", "new"), hard("file", "new")}, func(t *testing.T, s sandbox) {
			if s.read(t, "file") != "new" || s.read(t, "other") != "old" {
				t.Error("not replaced")
			}
		}, nil},
		{"old directory with new content by file", []entry{file("dir/new", ""), file("dir", "")}, nil, ErrDuplicate},
		{"old link made a parent by file", []entry{file("out/new", ""), link("out", "CANARY")}, nil, ErrDuplicate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSandbox(t)
			s.mustApply(t, s.aim(lower)...)
			if _, err := s.apply(t, roomy, s.aim(tt.upper)...); !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if tt.check != nil {
				tt.check(t, s)
			}
		})
	}
}

func TestReplaceLargeDirectory(t *testing.T) {
	s := newSandbox(t)
	entries := make([]entry, 3500)
	for i := range entries {
		entries[i] = file(fmt.Sprintf("d/%d/x", i), "")
	}
	s.mustApply(t, entries...)
	s.mustApply(t, file("d", "new"))
	if s.read(t, "d") != "new" {
		t.Error("not replaced")
	}
}

func TestTimesOfReplacedParents(t *testing.T) {
	s := newSandbox(t)
	s.mustApply(t, link("a/l", "x"), dir("a"))
	s.mustApply(t, dir("a"), dir("a/b"), file("a/l/x", ""), file("a/b/c/d/x", ""))
	for _, name := range []string{"a", "a/b"} {
		st := s.lstat(t, name)
		if got := time.Unix(st.Mtim.Unix()); !got.Equal(testTime) {
			t.Errorf("%s: time %v, want %v", name, got, testTime)
		}
	}
}

func TestSparse(t *testing.T) {
	s := newSandbox(t)
	data := func(parts ...int) string { // sizes of zeros and of data in turn
		var b strings.Builder
		for i, n := range parts {
			b.WriteString(strings.Repeat(string(rune(i%2*'x')), n))
		}
		return b.String()
	}
	for i, content := range []string{
		data(0, 1), data(1), data(blockSize), data(blockSize - 1), data(blockSize + 1), data(8 << 20),
		data(0, blockSize, blockSize, blockSize), data(blockSize, blockSize, blockSize), data(100, 1, 100),
		data(0, chunkSize, chunkSize, chunkSize), data(3*chunkSize+5, 7, 2*chunkSize, 1), data(0, chunkSize+1),
		data(blockSize-1, 1, blockSize, 1),
	} {
		name := strconv.Itoa(i)
		s.mustApply(t, file(name, content))
		if got := s.read(t, name); got != content {
			t.Errorf("%d: %d bytes, want %d, or content differs", i, len(got), len(content))
		}
		holes := strings.Count(content, "\x00") / blockSize * blockSize
		st := s.lstat(t, name)
		if used := st.Blocks * 512; holes > 1<<20 && used > 1<<20 {
			t.Errorf("%d: takes %d bytes of %d", i, used, len(content))
		}
	}
}

func TestLiteralWhiteoutNames(t *testing.T) {
	s := newSandbox(t)
	s.mustApply(t, file("a/x", "x"))
	s.mustApply(t, file("a/.wh.x", "1"), file("a/.wh..wh..opq", "2"))
	if s.read(t, "a/x") != "x" || s.read(t, "a/.wh.x") != "1" || s.read(t, "a/.wh..wh..opq") != "2" {
		t.Error("a whiteout was obeyed")
	}
}

func TestNoDescriptorLeaks(t *testing.T) {
	s := newSandbox(t)
	count := func() int {
		entries, err := os.ReadDir("/dev/fd")
		if err != nil {
			t.Skip("needs /dev/fd: ", err)
		}
		return len(entries)
	}
	before := count()
	for range 20 {
		_, _ = s.apply(t, roomy, file("a/b/c", ""), hard("x", "a/b/c"), hard("y", "a/c"))
		_, _ = s.apply(t, roomy, link("l", s.canary), file("l/x", ""))
		_, _ = s.apply(t, roomy, file("a", "").sized(5))
		_, _ = s.apply(t, Limits{1, 1}, file("a/b/c/d", ""))
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestCloseTwice(t *testing.T) {
	s := newSandbox(t)
	a := s.mustApply(t, file("a/x", ""))
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

func TestCleanName(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		err      error
	}{
		{"a", "a", nil},
		{"./a", "a", nil},
		{"././a//b/./c/", "a/b/c", nil},
		{"a/", "a", nil},
		{".", ".", nil},
		{"./", ".", nil},
		{"...", "...", nil},
		{"..a", "..a", nil},
		{"a\nb\x1b", "a\nb\x1b", nil},
		{"\xff\xfe", "\xff\xfe", nil},
		{strings.Repeat("a/", 512), strings.Repeat("a/", 511) + "a", nil},
		{"", "", ErrName},
		{"/", "", ErrName},
		{"/a", "", ErrName},
		{"//a", "", ErrName},
		{"..", "", ErrName},
		{"a/..", "", ErrName},
		{"a/../b", "", ErrName},
		{"../a", "", ErrName},
		{"./../a", "", ErrName},
		{"a\x00", "", ErrName},
		{strings.Repeat("a/", 512) + "a", "", ErrName},
		{strings.Repeat("a", 256), "", ErrName},
		{strings.Repeat("a", 1<<20), "", ErrName},
	} {
		got, err := CleanName(tt.in)
		if got != tt.want || !errors.Is(err, tt.err) || (err != nil && len(err.Error()) > 8192) {
			t.Errorf("CleanName(%.40q) = %.40q, %.80v", tt.in, got, err)
		}
	}
}

func TestBelow(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		err      error
	}{
		{"rootfs", ".", nil},
		{"./rootfs/", ".", nil},
		{"rootfs/etc/passwd", "etc/passwd", nil},
		{"rootfs//etc/", "etc", nil},
		{"rootfs/rootfs", "rootfs", nil},
		{"rootfsX/etc", "", ErrName},
		{"manifest", "", ErrName},
		{"/rootfs/etc", "", ErrName},
		{"rootfs/../etc", "", ErrName},
		{"../rootfs/etc", "", ErrName},
		{".", "", ErrName},
		{"", "", ErrName},
	} {
		got, err := Below("rootfs", tt.in)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Below(%q) = %q, %v", tt.in, got, err)
		}
	}
}

// FuzzApply feeds whole tar streams: whatever happens, it happens inside, and
// what was applied without error is found again.
func FuzzApply(f *testing.F) {
	testenv.Root(f)
	for _, entries := range [][]entry{
		{dir("a"), file("a/x", "x"), link("a/l", "../../canary"), hard("a/h", "a/x"), fifo("a/f")},
		{link("l", "../canary"), file("l/secret", "x")},
		{hard("h", "../canary/secret")},
		{device(tar.TypeChar, "dev/null", 1, 3), dir("d").xattr("user.x", "y")},
	} {
		f.Add(archive(f, entries))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newSandbox(t)
		s.mustApply(t, link("l", "../canary"), link("a/l", s.canary), file("x", "x"))
		a, err := NewApplier(s.open(t, s.top), Limits{MaxBytes: 1 << 20, MaxEntries: 100}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		tr := tar.NewReader(bytes.NewReader(data))
		for {
			hdr, err := tr.Next()
			if err != nil {
				return
			}
			name, err := CleanName(hdr.Name)
			if err != nil {
				continue
			}
			if err := a.Apply(hdr, name, tr); err != nil {
				continue // as no caller would: to get further
			}
			if _, err := os.Lstat(filepath.Join(s.top, name)); err != nil && !isDevice(hdr) {
				t.Errorf("applied, but %v", err)
			}
		}
	})
}

func archive(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Format = tar.FormatPAX
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
