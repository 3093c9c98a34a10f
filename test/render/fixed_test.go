package render_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/image"
)

var when = time.Date(2015, 10, 18, 12, 0, 0, 0, time.UTC)

func file(path, body string) entry {
	return entry{path: path, kind: tar.TypeReg, mode: 0o644, mtime: when, body: body}
}

func directory(path string, mode int64) entry {
	return entry{path: path, kind: tar.TypeDir, mode: mode, mtime: when}
}

func symlink(path, target string) entry {
	return entry{path: path, kind: tar.TypeSymlink, mode: 0o777, mtime: when, target: target}
}

// hardlink needs the same metadata as its target: both are one file.
func hardlink(path, target string) entry {
	return entry{path: path, kind: tar.TypeLink, mode: 0o644, mtime: when, target: target}
}

// newSpec is an image whose top directory has a mode that no other default has.
func newSpec(name string, entries ...entry) *spec {
	return &spec{name: name, entries: append([]entry{directory("/", 0o711)}, entries...)}
}

func (s *spec) dependsOn(others ...*spec) *spec {
	for _, o := range others {
		s.deps = append(s.deps, dependency{on: o})
	}
	return s
}

func (s *spec) only(whitelist ...string) *spec {
	s.whitelist = whitelist
	return s
}

func (s *spec) labelled(name, value string) *spec {
	if s.labels == nil {
		s.labels = map[string]string{}
	}
	s.labels[name] = value
	return s
}

// contents is what a test expects: path → content of a file, "-> target" of a
// symbolic link, "dir MODE" of a directory. The top directory is left out.
type contents map[string]string

func (w *world) contents(s *spec) contents {
	w.Helper()
	name := image.Tree(w.imported[s].ID)
	dir, err := w.driver.Mount(w.Context(), name)
	if err != nil {
		w.Fatal(err)
	}
	found, err := readContents(dir)
	if err != nil {
		w.Fatal(err)
	}
	if err := w.driver.Unmount(w.Context(), name); err != nil {
		w.Fatal(err)
	}
	return found
}

func readContents(dir string) (contents, error) {
	names, err := paths(dir)
	if err != nil {
		return nil, err
	}
	found := contents{}
	for _, name := range names[1:] {
		at := filepath.Join(dir, name)
		fi, err := os.Lstat(at)
		if err != nil {
			return nil, err
		}
		switch fi.Mode().Type() {
		case os.ModeDir:
			found[name] = fmt.Sprintf("dir %04o", fi.Mode().Perm())
		case os.ModeSymlink:
			target, err := os.Readlink(at)
			if err != nil {
				return nil, err
			}
			found[name] = "-> " + target
		default:
			data, err := os.ReadFile(at)
			if err != nil {
				return nil, err
			}
			found[name] = string(data)
		}
	}
	return found, nil
}

// wantRoot checks the last image of a list against an expectation written by
// hand, the naive renderer against the same, and all images of the list against
// the naive renderer.
func wantRoot(t *testing.T, b backend, want contents, specs ...*spec) {
	t.Helper()
	top := specs[len(specs)-1]
	dir := scratch(t)
	if err := render(dir, top); err != nil {
		t.Fatal(err)
	}
	oracle, err := readContents(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(oracle, want) {
		t.Fatalf("the naive renderer itself is wrong:\n\tgot:  %v\n\twant: %v", oracle, want)
	}
	w := newWorld(t, b)
	w.mustLoad(specs...)
	if got := w.contents(top); !maps.Equal(got, want) {
		t.Errorf("%s:\n\tgot:  %v\n\twant: %v", top.name, got, want)
	}
	for _, s := range specs {
		if diff := w.differs(s); diff != "" {
			t.Errorf("%s:\n%s", s.name, diff)
		}
	}
}

// marked is an image that says of each path that it was the one to write it.
func marked(name string, paths ...string) *spec {
	s := newSpec("example.com/" + name)
	for _, p := range paths {
		s.entries = append(s.entries, file(p, name))
	}
	return s
}

func TestRoots(t *testing.T) {
	for _, c := range []struct {
		name  string
		specs func() []*spec // in order of import; the last one is looked at
		want  contents
	}{
		{"chain of the specification", func() []*spec {
			// A -> [B, C], C -> [D]: B, D, C, A.
			d := marked("d", "/bd", "/dc", "/da", "/bdca")
			c := marked("c", "/bc", "/dc", "/ca", "/bdca").dependsOn(d)
			b := marked("b", "/bc", "/bd", "/ba", "/bdca")
			a := marked("a", "/ba", "/ca", "/da", "/bdca").dependsOn(b, c)
			return []*spec{d, c, b, a}
		}, contents{"/bd": "d", "/dc": "c", "/da": "a", "/bc": "c", "/ca": "a", "/ba": "a", "/bdca": "a"}},

		{"diamond of the specification", func() []*spec {
			// A -> [B, C], B -> [D], C -> [D]: D, B, D, C, A.
			d := marked("d", "/d", "/bd", "/cd", "/bcd", "/abcd")
			b := marked("b", "/b", "/bd", "/bc", "/bcd", "/abcd").dependsOn(d)
			c := marked("c", "/c", "/cd", "/bc", "/bcd", "/abcd").dependsOn(d)
			a := marked("a", "/abcd").dependsOn(b, c)
			return []*spec{d, b, c, a}
		}, contents{"/d": "d", "/b": "b", "/c": "c", "/bd": "d", "/cd": "c", "/bc": "c", "/bcd": "c", "/abcd": "a"}},

		{"diamond with different whitelists", func() []*spec {
			d := marked("d", "/1", "/2", "/3", "/4")
			b := marked("b", "/1", "/2", "/3", "/5").dependsOn(d).only("/1", "/2", "/4", "/5")
			c := marked("c", "/6", "/7").dependsOn(d).only("/2", "/6")
			a := marked("a").dependsOn(b, c)
			return []*spec{d, b, c, a}
		}, contents{"/1": "b", "/2": "d", "/4": "d", "/5": "b", "/6": "c"}},

		{"five levels with whitelists", func() []*spec {
			e := marked("e", "/1", "/2", "/3", "/4", "/5", "/d/e").only("/1", "/2", "/3", "/4", "/d/e")
			d := marked("d", "/5", "/d/d").dependsOn(e).only("/1", "/2", "/3", "/5", "/d/d", "/d/e")
			c := marked("c", "/4").dependsOn(d).only("/1", "/2", "/4", "/5", "/d/d", "/d/e")
			b := marked("b", "/3").dependsOn(c).only("/1", "/3", "/4", "/5", "/d/e")
			a := marked("a", "/6").dependsOn(b).only("/1", "/3", "/5", "/d/e")
			return []*spec{e, d, c, b, a}
		}, contents{"/1": "e", "/3": "b", "/5": "d", "/d": "dir 0755", "/d/e": "e"}},

		{"same image twice in a row", func() []*spec {
			b := marked("b", "/1")
			return []*spec{b, marked("a", "/2").dependsOn(b, b)}
		}, contents{"/1": "b", "/2": "a"}},

		{"same image again", func() []*spec {
			b, c := marked("b", "/1", "/2"), marked("c", "/1", "/3")
			return []*spec{b, c, marked("a").dependsOn(b, c, b)}
		}, contents{"/1": "b", "/2": "b", "/3": "c"}},

		{"a link to a directory is replaced by a directory", func() []*spec {
			b := newSpec("b", directory("/real", 0o700), file("/real/old", "b"), symlink("/l", "real"))
			a := newSpec("a", directory("/l", 0o750), file("/l/new", "a")).dependsOn(b)
			return []*spec{b, a}
		}, contents{"/real": "dir 0700", "/real/old": "b", "/l": "dir 0750", "/l/new": "a"}},

		{"a link to a directory is replaced by a file", func() []*spec {
			b := newSpec("b", directory("/real", 0o700), file("/real/old", "b"), symlink("/l", "/real"))
			return []*spec{b, newSpec("a", file("/l", "a")).dependsOn(b)}
		}, contents{"/real": "dir 0700", "/real/old": "b", "/l": "a"}},

		{"a link to a file is replaced by a file", func() []*spec {
			b := newSpec("b", file("/f", "b"), symlink("/l", "f"))
			return []*spec{b, newSpec("a", file("/l", "a")).dependsOn(b)}
		}, contents{"/f": "b", "/l": "a"}},

		{"a link in the place of a parent", func() []*spec {
			b := newSpec("b", directory("/real", 0o700), directory("/real/sub", 0o700), symlink("/l", "/real"), symlink("/real/sub/up", "../.."))
			a := newSpec("a", file("/l/sub/new", "a"), file("/real/sub/up/x", "a")).dependsOn(b)
			return []*spec{b, a}
		}, contents{
			"/real": "dir 0700", "/real/sub": "dir 0700", "/real/sub/up": "dir 0755", "/real/sub/up/x": "a",
			"/l": "dir 0755", "/l/sub": "dir 0755", "/l/sub/new": "a",
		}},

		{"a dangling link in the place of a parent", func() []*spec {
			b := newSpec("b", symlink("/l", "nowhere"))
			return []*spec{b, newSpec("a", file("/l/new", "a")).dependsOn(b)}
		}, contents{"/l": "dir 0755", "/l/new": "a"}},

		{"a directory is replaced by a link", func() []*spec {
			b := newSpec("b", directory("/d", 0o700), file("/d/x", "b"), file("/e/x", "b"))
			return []*spec{b, newSpec("a", symlink("/d", "e")).dependsOn(b)}
		}, contents{"/d": "-> e", "/e": "dir 0755", "/e/x": "b"}},

		{"directory, file, directory", func() []*spec {
			c := newSpec("c", directory("/p", 0o700), directory("/p/q", 0o700), file("/p/q/old", "c"))
			b := newSpec("b", file("/p", "b")).dependsOn(c)
			a := newSpec("a", directory("/p", 0o750), file("/p/new", "a")).dependsOn(b)
			return []*spec{c, b, a}
		}, contents{"/p": "dir 0750", "/p/new": "a"}},

		{"directory, file, directory between siblings", func() []*spec {
			d := newSpec("d", directory("/p", 0o700), file("/p/old", "d"))
			c := newSpec("c", file("/p", "c"))
			b := newSpec("b", file("/p/new", "b"))
			return []*spec{d, c, b, newSpec("a").dependsOn(d, c, b)}
		}, contents{"/p": "dir 0755", "/p/new": "b"}},

		// What C does to D's directory it does to B's as well: D's file comes between.
		{"a flip inside of a dependency", func() []*spec {
			d := newSpec("d", file("/p", "d"))
			c := newSpec("c", directory("/p", 0o700), file("/p/c", "c")).dependsOn(d)
			b := newSpec("b", directory("/p", 0o750), file("/p/b", "b"))
			return []*spec{d, c, b, newSpec("a").dependsOn(b, c)}
		}, contents{"/p": "dir 0700", "/p/c": "c"}},

		{"a filtered flip inside of a dependency", func() []*spec {
			d := newSpec("d", file("/p", "d"))
			c := newSpec("c", directory("/p", 0o700), file("/p/c", "c")).dependsOn(d).only("/p/c")
			b := newSpec("b", directory("/p", 0o750), file("/p/b", "b"))
			return []*spec{d, c, b, newSpec("a").dependsOn(b, c)}
		}, contents{"/p": "dir 0700", "/p/b": "b", "/p/c": "c"}},

		{"an existing directory keeps its content", func() []*spec {
			b := newSpec("b", directory("/d", 0o700), file("/d/x", "b"))
			return []*spec{b, newSpec("a", directory("/d", 0o750)).dependsOn(b)}
		}, contents{"/d": "dir 0750", "/d/x": "b"}},

		{"an implicit parent leaves a directory as it is", func() []*spec {
			b := newSpec("b", directory("/d", 0o700))
			return []*spec{b, newSpec("a", file("/d/x", "a")).dependsOn(b)}
		}, contents{"/d": "dir 0700", "/d/x": "a"}},

		{"an implicit parent of a dependency leaves a directory as it is", func() []*spec {
			b, c := newSpec("b", directory("/d", 0o700)), newSpec("c", file("/d/x", "c"))
			return []*spec{b, c, newSpec("a").dependsOn(b, c)}
		}, contents{"/d": "dir 0700", "/d/x": "c"}},

		{"a listed directory does not list its content", func() []*spec {
			b := newSpec("b", directory("/d", 0o700), file("/d/x", "b"), file("/y", "b"))
			return []*spec{b, newSpec("a", file("/d/z", "a")).dependsOn(b).only("/d/")}
		}, contents{"/d": "dir 0700"}},

		{"an unlisted directory is kept for what is in it", func() []*spec {
			b := newSpec("b", directory("/d", 0o700), file("/d/x", "b"), file("/d/y", "b"))
			return []*spec{b, newSpec("a").dependsOn(b).only("/d/x", "/nothing/there")}
		}, contents{"/d": "dir 0700", "/d/x": "b"}},

		{"an unlisted directory of a dependency", func() []*spec {
			c := newSpec("c", directory("/d", 0o700), file("/d/x", "c"), directory("/e", 0o700), file("/e/x", "c"))
			b := newSpec("b").dependsOn(c).only("/d/x")
			return []*spec{c, b, newSpec("a").dependsOn(b)}
		}, contents{"/d": "dir 0700", "/d/x": "c"}},

		{"what is filtered overrides nothing", func() []*spec {
			b := newSpec("b", file("/x", "b"), file("/y", "b"))
			c := newSpec("c", directory("/x", 0o700), file("/y", "c")).only("/y")
			return []*spec{b, c, newSpec("a").dependsOn(b, c)}
		}, contents{"/x": "b", "/y": "c"}},

		{"nothing that is listed is there", func() []*spec {
			b := newSpec("b", file("/x", "b"))
			return []*spec{b, newSpec("a", file("/y/z", "a")).dependsOn(b).only("/other")}
		}, contents{}},

		{"an empty whitelist is none", func() []*spec {
			b := newSpec("b", file("/x", "b")).only()
			b.whitelist = []string{}
			a := newSpec("a", file("/y", "a")).dependsOn(b)
			a.whitelist = []string{}
			return []*spec{b, a}
		}, contents{"/x": "b", "/y": "a"}},

		{"a whitelist without dependencies", func() []*spec {
			return []*spec{newSpec("a", file("/x", "a"), file("/y", "a")).only("/x")}
		}, contents{"/x": "a"}},

		{"a listed hard link to an unlisted file", func() []*spec {
			b := newSpec("b", file("/x", "b"), hardlink("/y", "/x"), hardlink("/z", "/x"))
			c := newSpec("c").dependsOn(b).only("/y", "/z")
			return []*spec{b, c, newSpec("a").dependsOn(c)}
		}, contents{"/y": "b", "/z": "b"}},

		{"a hard link of a dependency is overridden alone", func() []*spec {
			b := newSpec("b", file("/x", "b"), hardlink("/y", "/x"))
			return []*spec{b, newSpec("a", file("/x", "a")).dependsOn(b)}
		}, contents{"/x": "a", "/y": "b"}},

		{"names that other formats take for deletions", func() []*spec {
			b := newSpec("b", file("/d/x", "b"), file("/y", "b"))
			a := newSpec("a", file("/d/.wh..wh..opq", "a"), file("/.wh.y", "a")).dependsOn(b)
			return []*spec{b, a}
		}, contents{"/d": "dir 0755", "/d/x": "b", "/d/.wh..wh..opq": "a", "/y": "b", "/.wh.y": "a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEachBackend(t, func(t *testing.T, b backend) { wantRoot(t, b, c.want, c.specs()...) })
		})
	}
}

// An image that has nothing changes nothing: what a dependency gives does not
// depend on whether it comes first. Owner and mode of directories that no whitelist
// lists may, and so may what a whitelist lists although its own image removes it:
// there the specification is silent, and the first dependency is a clone.
func TestPositionOfDependency(t *testing.T) {
	for name, images := range map[string]func() []*spec{
		"a listed directory without an entry": func() []*spec {
			return []*spec{newSpec("dep", file("/d/e/f", "dep")).only("/d/e")}
		},
		"a listed directory above a file that stays under another name": func() []*spec {
			return []*spec{newSpec("dep", file("/d/e/f", "dep"), hardlink("/g", "/d/e/f")).only("/d/e", "/g")}
		},
		"an unlisted directory of both": func() []*spec {
			low := newSpec("low", directory("/d", 0o750), file("/d/x", "low"))
			return []*spec{low, newSpec("dep", directory("/d", 0o700), file("/d/y", "dep")).dependsOn(low).only("/d/x", "/d/y")}
		},
		"a listed file in the place of a directory without an entry": func() []*spec {
			low := newSpec("low", file("/d", "low"))
			return []*spec{low, newSpec("dep", file("/d/x", "dep")).dependsOn(low).only("/d")}
		},
		"hard links": func() []*spec {
			low := newSpec("low", file("/x", "low"), hardlink("/y", "/x"), hardlink("/z", "/x"))
			return []*spec{low, newSpec("dep", file("/y", "dep")).dependsOn(low).only("/y", "/z")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEachBackend(t, func(t *testing.T, b backend) {
				w := newWorld(t, b)
				specs, nothing := images(), newSpec("nothing")
				w.mustLoad(append(specs, nothing)...)
				dep := specs[len(specs)-1]
				first, second := newSpec("first").dependsOn(dep), newSpec("second").dependsOn(nothing, dep)
				w.mustLoad(first, second)
				if diff := compare(w.root(first), w.root(second)); diff != "" {
					t.Errorf("got: the dependency comes first; want: after one that has nothing\n%s", diff)
				}
				for _, s := range []*spec{first, second} {
					if diff := w.differs(s); diff != "" {
						t.Errorf("%s:\n%s", s.name, diff)
					}
				}
			})
		})
	}
}

// What a symbolic link of a dependency points to outside of the root stays as it is.
func TestOutsideIsUntouched(t *testing.T) {
	onEachBackend(t, func(t *testing.T, b backend) {
		outside := t.TempDir()
		if err := os.WriteFile(filepath.Join(outside, "canary"), []byte("alive"), 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := scan(outside, true)
		if err != nil {
			t.Fatal(err)
		}
		far := strings.Repeat("../", 30) + outside
		low := newSpec("low", symlink("/abs", outside), symlink("/rel", far), symlink("/file", outside+"/canary"), symlink("/etc", outside))
		high := newSpec("high",
			file("/abs/canary", "dead"), directory("/rel", 0o700), file("/rel/canary", "dead"), file("/rel/more", ""),
			file("/file", "dead"), file("/etc/canary/deep", "dead")).dependsOn(low)
		twice := newSpec("twice").dependsOn(high, low, high).only("/abs/canary", "/rel/canary", "/etc/canary")
		wantRoot(t, b, contents{
			"/abs": "dir 0755", "/abs/canary": "dead", "/rel": "dir 0700", "/rel/canary": "dead", "/etc": "dir 0755", "/etc/canary": "dir 0755",
		}, low, high, twice)
		after, err := scan(outside, true)
		if err != nil {
			t.Fatal(err)
		}
		if diff := compare(after, before); diff != "" {
			t.Error("outside of the root:\n" + diff)
		}
	})
}

// "Execution details specified in image dependencies are ignored." (aci.md)
func TestAppOfDependencyIsIgnored(t *testing.T) {
	onEachBackend(t, func(t *testing.T, b backend) {
		w := newWorld(t, b)
		low := newSpec("low", file("/x", "low"))
		low.app = `{"exec":["/low"],"user":"7","group":"7","mountPoints":[{"name":"data","path":"/data"}],"workingDirectory":"/made/by/nobody"}`
		bare := newSpec("bare").dependsOn(low)
		own := newSpec("own").dependsOn(low)
		own.app = `{"exec":["/own"],"user":"0","group":"0"}`
		w.mustLoad(low, bare, own)
		if app := w.imported[bare].Parsed().App; app != nil {
			t.Errorf("an image without app got %+v", app)
		}
		app := w.imported[own].Parsed().App
		if app == nil || !slices.Equal(app.Exec, []string{"/own"}) || app.User != "0" || app.MountPoints != nil || app.WorkingDirectory != "" {
			t.Errorf("own app is %+v", app)
		}
		for _, s := range []*spec{bare, own} {
			if got := w.contents(s); !maps.Equal(got, contents{"/x": "low"}) {
				t.Errorf("%s: %v", s.name, got)
			}
		}
	})
}

// "Dependency Matching" (aci.md).
func TestDependencyMatching(t *testing.T) {
	version := func(v string) *spec { return marked("base", "/"+v).labelled("version", v) }
	for _, c := range []struct {
		name   string
		have   []*spec
		labels map[string]string
		want   string // the path of the one that is meant
	}{
		{"highest version wins", []*spec{version("1.2.0"), version("1.10.0"), version("1.9.0")}, nil, "/1.10.0"},
		{"a version asked for", []*spec{version("1.2.0"), version("1.10.0")}, map[string]string{"version": "1.2.0"}, "/1.2.0"},
		// "an ACI containing a set of bash scripts might omit both "os" and "arch",
		// and hence could be used as a dependency by a variety of different ACIs"
		{"without os and arch", []*spec{marked("base", "/noarch")}, nil, "/noarch"},
		{"for another system", []*spec{marked("base", "/foreign").labelled("os", "freebsd").labelled("arch", "arm")}, nil, "/foreign"},
		{"by a label of its own", []*spec{
			marked("base", "/canary").labelled("env", "canary"), marked("base", "/live").labelled("env", "live"),
		}, map[string]string{"env": "canary"}, "/canary"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEachBackend(t, func(t *testing.T, b backend) {
				w := newWorld(t, b)
				w.mustLoad(c.have...)
				top := newSpec("top")
				top.deps = []dependency{{on: c.have[0], labels: c.labels}}
				w.mustLoad(top)
				if got, want := w.contents(top), (contents{c.want: "base"}); !maps.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
			})
		})
	}
}

func TestRefusedDependencies(t *testing.T) {
	base := func() *spec { return marked("base", "/x").labelled("version", "1.0.0") }
	other := func() *spec { return marked("other", "/y") }
	for _, c := range []struct {
		name string
		make func(w *world) *spec
		want error
		says string
	}{
		{"missing", func(*world) *spec { return newSpec("top").dependsOn(base()) }, image.ErrNotFound, "example.com/base"},
		{"second one missing", func(w *world) *spec {
			o := other()
			w.mustLoad(o)
			return newSpec("top").dependsOn(o, base())
		}, image.ErrNotFound, "example.com/base"},
		{"itself", func(*world) *spec {
			s := newSpec("example.com/base")
			return s.dependsOn(s)
		}, image.ErrNotFound, "example.com/base"},
		{"another version", func(w *world) *spec {
			s, top := base(), newSpec("top")
			w.mustLoad(s)
			top.deps = []dependency{{on: s, labels: map[string]string{"version": "2.0.0"}}}
			return top
		}, image.ErrNotFound, "example.com/base"},
		{"a label that it lacks", func(w *world) *spec {
			s, top := base(), newSpec("top")
			w.mustLoad(s)
			top.deps = []dependency{{on: s, labels: map[string]string{"os": "linux"}}}
			return top
		}, image.ErrNotFound, "example.com/base"},
		{"ID of another name", func(w *world) *spec {
			s, o, top := base(), other(), newSpec("top")
			w.mustLoad(s, o)
			renamed := &spec{name: s.name}
			w.imported[renamed] = w.imported[o]
			top.deps = []dependency{{on: renamed, byID: true}}
			return top
		}, image.ErrMismatch, "example.com/base"},
		{"ID with other labels", func(w *world) *spec {
			s, top := base(), newSpec("top")
			w.mustLoad(s)
			top.deps = []dependency{{on: s, byID: true, labels: map[string]string{"version": "2.0.0"}}}
			return top
		}, image.ErrMismatch, "example.com/base"},
		{"ID that is not there", func(w *world) *spec {
			s, top := base(), newSpec("top")
			w.mustLoad(s)
			gone := &spec{name: s.name}
			w.imported[gone] = &image.Image{ID: image.ID("sha512-" + strings.Repeat("0", 128))}
			top.deps = []dependency{{on: gone, byID: true}}
			return top
		}, image.ErrNotFound, "example.com/base"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEachBackend(t, func(t *testing.T, b backend) {
				w := newWorld(t, b)
				top := c.make(w)
				before := w.state()
				_, err := w.load(top)
				if !errors.Is(err, c.want) {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				if !strings.Contains(err.Error(), c.says) {
					t.Errorf("%q does not name %s", err, c.says)
				}
				if after := w.state(); !slices.Equal(after, before) {
					t.Errorf("left behind: %v, before %v", after, before)
				}
			})
		})
	}
}

// state is what the store and the driver hold.
func (w *world) state() []string {
	w.Helper()
	images, err := w.store.List(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	trees, err := w.driver.List(w.Context(), "")
	if err != nil {
		w.Fatal(err)
	}
	debris, err := w.store.Debris(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	var all []string
	for _, img := range images {
		all = append(all, string(img.ID))
	}
	for _, tr := range trees {
		all = append(all, tr.Name)
	}
	for _, d := range debris {
		all = append(all, d.What)
	}
	return all
}

func TestOlderVersionOfItself(t *testing.T) {
	onEachBackend(t, func(t *testing.T, b backend) {
		v1 := newSpec("self", file("/x", "1"), file("/y", "1")).labelled("version", "1.0.0")
		v2 := newSpec("self", file("/y", "2")).labelled("version", "2.0.0").dependsOn(v1)
		v3 := newSpec("self", file("/z", "3")).labelled("version", "3.0.0").dependsOn(v2)
		wantRoot(t, b, contents{"/x": "1", "/y": "2", "/z": "3"}, v1, v2, v3)
	})
}

// What a dependency's name means is decided at import: a later version changes
// nothing, and neither does one that was removed.
func TestImageStaysAsItIs(t *testing.T) {
	onEachBackend(t, func(t *testing.T, b backend) {
		w := newWorld(t, b)
		v1 := marked("base", "/1").labelled("version", "1.0.0")
		v2 := marked("base", "/2").labelled("version", "2.0.0")
		middle := newSpec("middle").dependsOn(v1)
		top := newSpec("top").dependsOn(middle)
		w.mustLoad(v1, middle, v2, top)
		for _, s := range []*spec{middle, top} {
			if got := w.contents(s); !maps.Equal(got, contents{"/1": "base"}) {
				t.Errorf("%s: %v", s.name, got)
			}
		}
		again := newSpec("again").dependsOn(v2)
		w.mustLoad(again)
		if got := w.contents(again); !maps.Equal(got, contents{"/2": "base"}) {
			t.Errorf("again: %v", got)
		}
	})
}

func TestRemoveUsedImage(t *testing.T) {
	onEachBackend(t, func(t *testing.T, b backend) {
		w := newWorld(t, b)
		first, second := marked("first", "/1"), marked("second", "/2")
		middle := newSpec("middle").dependsOn(first, second)
		top := newSpec("top").dependsOn(middle)
		w.mustLoad(first, second, middle, top)
		for _, s := range []*spec{first, second, middle} {
			if err := w.store.Remove(t.Context(), w.imported[s].ID); !errors.Is(err, image.ErrInUse) {
				t.Errorf("remove %s: %v, want %v", s.name, err, image.ErrInUse)
			}
		}
		if diff := w.differs(top); diff != "" {
			t.Errorf("after refused removals:\n%s", diff)
		}
		for _, s := range []*spec{top, middle, second, first} { // nobody needs them any more
			if err := w.store.Remove(t.Context(), w.imported[s].ID); err != nil {
				t.Errorf("remove %s: %v", s.name, err)
			}
		}
		if left := w.state(); left != nil {
			t.Errorf("left behind: %v", left)
		}
	})
}

// An image may be made of 64 levels.
func TestDepth(t *testing.T) {
	onEachBackend(t, func(t *testing.T, b backend) {
		w := newWorld(t, b)
		level := newSpec("level1", file("/1", ""))
		w.mustLoad(level)
		for i := 2; i <= 64; i++ {
			level = newSpec(fmt.Sprintf("level%d", i), file(fmt.Sprintf("/%d", i), "")).dependsOn(level)
			w.mustLoad(level)
		}
		if diff := w.differs(level); diff != "" {
			t.Error(diff)
		}
		before := w.state()
		if _, err := w.load(newSpec("level65").dependsOn(level)); !errors.Is(err, image.ErrTooDeep) {
			t.Errorf("65 levels: %v, want %v", err, image.ErrTooDeep)
		}
		if after := w.state(); !slices.Equal(after, before) {
			t.Errorf("left behind: %v, before %v", after, before)
		}
	})
}

// An image may be made of 256 images, each counted as often as it is reached:
// a few that double each time would otherwise take for ever.
func TestBreadth(t *testing.T) {
	onEachBackend(t, func(t *testing.T, b backend) {
		w := newWorld(t, b)
		one := newSpec("one", file("/1", "one"))
		w.mustLoad(one)
		double := one
		for i := range 7 { // 3, 7, … 255
			double = newSpec(fmt.Sprintf("double%d", i), file(fmt.Sprintf("/double%d", i), "")).dependsOn(double, double)
			w.mustLoad(double)
		}
		full := newSpec("full", file("/full", "")).dependsOn(double)
		if n := len(passes(full)); n != 256 {
			t.Fatalf("the test is wrong: %d", n)
		}
		w.mustLoad(full)
		if diff := w.differs(full); diff != "" {
			t.Error(diff)
		}
		for _, s := range []*spec{newSpec("over").dependsOn(double, one), newSpec("far").dependsOn(double, double)} {
			if _, err := w.load(s); !errors.Is(err, image.ErrTooDeep) {
				t.Errorf("%s, of %d: %v, want %v", s.name, len(passes(s)), err, image.ErrTooDeep)
			}
		}
	})
}
