//go:build unix

package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// applyOCI applies an OCI layer to what is there.
func (s sandbox) applyOCI(t testing.TB, entries ...entry) error {
	t.Helper()
	c, err := NewOCIChecker(roomy)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewOCIApplier(s.open(t, s.top), roomy)
	if err != nil {
		t.Fatal(err)
	}
	var checkErr error
	for _, e := range entries {
		err := a.Apply(&e.Header, strings.TrimSuffix(e.Name, "/"), strings.NewReader(e.data))
		if checkErr == nil {
			checkErr = c.Check(&e.Header, strings.TrimSuffix(e.Name, "/"), strings.NewReader(e.data))
		}
		if err != nil {
			if closeErr := a.Close(); closeErr != nil {
				t.Error(closeErr)
			}
			return err
		}
	}
	if checkErr != nil {
		t.Errorf("the Checker refuses what the Applier does not: %v", checkErr)
	}
	return a.Close()
}

// paths lists what is in the tree but for directories, with contents and link targets.
func (s sandbox) paths(t testing.TB) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(s.top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == s.top {
			return err
		}
		name := strings.TrimPrefix(path, s.top+"/")
		switch {
		case d.IsDir():
			name += "/"
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			name += "->" + target
		default:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name += "=" + string(data)
		}
		lines = append(lines, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, " ")
}

func TestOCILayer(t *testing.T) {
	lower := []entry{
		dir("a"), file("a/x", "low"), dir("a/d"), file("a/d/y", "low"), dir("b"), file("b/z", "low"),
		link("out", "../canary"), link("in", "a"), file("f", "low"), hard("g", "f"),
	}
	all := "a/ a/d/ a/d/y=low a/x=low b/ b/z=low f=low g=low in->a out->../canary"
	rest := " b/ b/z=low f=low g=low in->a out->../canary"
	opq := func(dir string) entry { return file(dir+".wh..wh..opq", "") }
	for _, tt := range []struct {
		name  string
		layer []entry
		want  string
		err   error
	}{
		{"nothing", nil, all, nil},
		{"a file is hidden", []entry{file("a/.wh.x", "")}, "a/ a/d/ a/d/y=low" + rest, nil},
		{"a directory is hidden", []entry{file(".wh.a", "")}, rest[1:], nil},
		{"a link is hidden, not its target", []entry{file(".wh.in", ""), file(".wh.out", "")}, "a/ a/d/ a/d/y=low a/x=low b/ b/z=low f=low g=low", nil},
		{"what is not there", []entry{file(".wh.nope", ""), file("no/.wh.pe", ""), opq("none/")}, all, nil},
		{"opaque first", []entry{dir("a"), opq("a/"), file("a/n", "new")}, "a/ a/n=new" + rest, nil},
		{"opaque last", []entry{dir("a"), file("a/n", "new"), opq("a/")}, "a/ a/n=new" + rest, nil},
		{"opaque last, below what was made", []entry{dir("a/d"), file("a/d/n", "new"), opq("a/")}, "a/ a/d/ a/d/n=new" + rest, nil},
		{"opaque without a directory's entry", []entry{opq("a/")}, "a/" + rest, nil},
		{"opaque top", []entry{file("n", "new"), opq("")}, "n=new", nil},
		{"whiteout before its successor", []entry{file(".wh.a", ""), dir("a"), file("a/n", "new")}, "a/ a/n=new" + rest, nil},
		{"whiteout after its successor", []entry{dir("a"), file("a/n", "new"), file(".wh.a", "")}, "a/ a/n=new" + rest, nil},
		{"whiteout after a file", []entry{file("f", "new"), file(".wh.f", "")}, "a/ a/d/ a/d/y=low a/x=low b/ b/z=low f=new g=low in->a out->../canary", nil},
		{"AUFS's own", []entry{file(".wh..wh.aufs", "x"), dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "x"), hard(".wh.f", ".wh..wh.aufs")}, "a/ a/d/ a/d/y=low a/x=low b/ b/z=low g=low in->a out->../canary", nil},
		{"hard link to a lower file", []entry{hard("h", "f")}, "a/ a/d/ a/d/y=low a/x=low b/ b/z=low f=low g=low h=low in->a out->../canary", nil},
		{"hard link to a lower link", []entry{hard("h", "out")}, "a/ a/d/ a/d/y=low a/x=low b/ b/z=low f=low g=low h->../canary in->a out->../canary", nil},
		{"the last of several", []entry{dir("a"), file("f", "1"), dir("a"), link("f", "2")}, "a/ a/d/ a/d/y=low a/x=low b/ b/z=low f->2 g=low in->a out->../canary", nil},
		{"a directory in place of a link", []entry{dir("in"), file("in/n", "new")}, "a/ a/d/ a/d/y=low a/x=low b/ b/z=low f=low g=low in/ in/n=new out->../canary", nil},

		{"below a lower link", []entry{file("in/n", "new")}, "a/ a/d/ a/d/y=low a/n=new a/x=low b/ b/z=low f=low g=low in->a out->../canary", nil},
		{"below a lower link that leads out", []entry{file("out/n", "new")}, all[:len(all)-len(" f=low g=low in->a out->../canary")] + " canary/ canary/n=new f=low g=low in->a out->../canary", nil},
		{"below a lower file", []entry{file("f/n", "new")}, "", ErrThroughLink},
		{"whiteout below a lower link", []entry{file("out/.wh.secret", ""), file("in/.wh.x", "")}, "a/ a/d/ a/d/y=low" + rest, nil},
		{"whiteout deep below a lower link", []entry{file("out/sub/.wh.secret", "")}, all, nil},
		{"opaque lower link", []entry{opq("out/"), opq("in/")}, "a/" + rest, nil},
		{"a link whose name comes twice", []entry{file("in/n", "new"), dir("in"), file("in/n", "other")}, "a/ a/d/ a/d/y=low a/n=new a/x=low b/ b/z=low f=low g=low in/ in/n=other out->../canary", nil},
		{"hard link below a lower link", []entry{hard("in/h", "in/x"), file("h/.wh.x", "")}, "a/ a/d/ a/d/y=low a/h=low a/x=low" + rest, nil},
		{"opaque link of the layer", []entry{link("l", "../canary"), opq("l/")}, "", ErrThroughLink},
		{"whiteout below a link of the layer", []entry{link("l", "../canary"), file("l/.wh.secret", "")}, "", ErrThroughLink},
		{"a link of the layer that a lower one leads to", []entry{file(".wh.a", ""), link("a", "../canary"), file("in/n", "new")}, "", ErrThroughLink},
		{"whiteout of ..", []entry{file("a/.wh...", "")}, "", ErrName},
		{"whiteout of .", []entry{file("a/.wh..", "")}, "", ErrName},
		{"whiteout of nothing", []entry{file("a/.wh.", "")}, "", ErrName},
		{"below a whiteout", []entry{file(".wh.a/x", "")}, "", ErrName},
		{"directory as whiteout", []entry{dir(".wh.a")}, "", ErrType},
		{"overlayfs whiteout", []entry{device(tar.TypeChar, "a/x", 0, 0)}, "", ErrWhiteout},
		{"hard link to a lower directory", []entry{hard("h", "a")}, "", ErrHardLink},
		{"hard link to what is hidden", []entry{file(".wh.f", ""), hard("h", "f")}, "", ErrHardLink},
		{"hard link through a lower link", []entry{hard("h", "out/secret")}, "", ErrHardLink},
		{"hard link to itself", []entry{hard("f", "f")}, "", ErrHardLink},
		{"a file, then a directory", []entry{file("n", ""), dir("n")}, "", ErrDuplicate},
		{"a directory, then a link", []entry{dir("n"), link("n", "a")}, "", ErrDuplicate},
		{"a parent, then a link", []entry{file("n/x", ""), link("n", "../canary")}, "", ErrDuplicate},
		{"a link, then below it", []entry{link("n", "../canary"), file("n/x", "")}, "", ErrThroughLink},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSandbox(t)
			if err := s.applyOCI(t, lower...); err != nil {
				t.Fatal(err)
			}
			if err := s.applyOCI(t, tt.layer...); !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if got := s.paths(t); tt.err == nil && got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// What a whiteout counts for is bounded as entries are.
func TestOCILimits(t *testing.T) {
	c, err := NewOCIChecker(Limits{MaxBytes: 10, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	check := func(e entry) error { return c.Check(&e.Header, e.Name, strings.NewReader(e.data)) }
	if err := check(file(".wh..wh.aufs", "12345678901")); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if err := errors.Join(check(file(".wh.a", "")), check(file(".wh.b", ""))); err != nil {
		t.Error(err)
	}
	if err := check(file(".wh.c", "")); !errors.Is(err, ErrTooManyEntries) {
		t.Error(err)
	}
}

// Links are followed inside the top directory as a kernel would do whose root it is.
func TestOCIThroughLinks(t *testing.T) {
	lower := []entry{
		file("a/b/f", ""), link("abs", "/a"), link("a/up", "../../a/b"), link("chain", "./abs//up/."), link("gone", "new/dir/.."),
		link("loop", "loop"), link("far", "0"), link("file", "a/b/f"), link("over", "a/gone/../../../../x"),
	}
	for i := range 50 {
		lower = append(lower, link(strconv.Itoa(i), strconv.Itoa(i+1)))
	}
	for i := range 20 { // as long as a path may be together, and longer
		lower = append(lower, link(fmt.Sprintf("long%d", i), strings.Repeat("./", 400)+fmt.Sprintf("long%d", i+1)))
	}
	for _, tt := range []struct {
		name, made string // "" if it is ErrThroughLink
	}{
		{"abs/n", "a/n"},
		{"abs/b/n", "a/b/n"},
		{"a/up/n", "a/b/n"},
		{"chain/n", "a/b/n"},
		{"chain/deep/n", "a/b/deep/n"},
		{"gone/n", "new/n"},
		{"over/n", "x/n"},
		{"20/n", "50/n"},
		{"far/n", ""},
		{"long17/n", "long20/n"},
		{"long1/n", ""},
		{"loop/n", ""},
		{"file/n", ""},
		{"a/b/f/n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSandbox(t)
			if err := s.applyOCI(t, lower...); err != nil {
				t.Fatal(err)
			}
			err := s.applyOCI(t, file(tt.name, "new"), file(path.Dir(tt.name)+"/m", "new"))
			if errors.Is(err, ErrThroughLink) != (tt.made == "") {
				t.Fatal(err)
			}
			if got := s.paths(t); tt.made != "" && (!strings.Contains(got, tt.made+"=new") || !strings.Contains(got, path.Dir(tt.made)+"/m=new")) {
				t.Errorf("no %s in %s", tt.made, got)
			}
		})
	}
}
