package storagetest

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func (s *suite) wantDiff(name string, want ...storage.Change) {
	s.Helper()
	got, err := s.d.Diff(s.Context(), name)
	s.ok(err)
	if !slices.Equal(got, want) {
		s.Fatalf("Diff of %s is %q, want %q", name, got, want)
	}
}

var diffTime = time.Unix(1700000000, 123456789)

// diffBase fills the origin of all cases of Diff.
func diffBase(s *suite, dir string) {
	s.mkdir(dir + "/dir/sub")
	s.mkdir(dir + "/empty")
	for _, name := range []string{"/file", "/dir/a", "/dir/b", "/dir/sub/c", "/with blank"} {
		s.write(dir+name, "content")
		s.setTime(dir+name, diffTime)
	}
	s.ok(os.Symlink("file", dir+"/link"))
}

// diffCases change a clone of diffBase; want are lines of "+", "-" or "M" and path.
var diffCases = []struct {
	name   string
	change func(s *suite, dir string)
	want   string
}{
	{"nothing", func(*suite, string) {}, ""},
	{"added file", func(s *suite, dir string) { s.write(dir+"/new", "") }, "+/new"},
	{"added in a directory", func(s *suite, dir string) { s.write(dir+"/dir/sub/new", "") }, "+/dir/sub/new"},
	{"added directory", func(s *suite, dir string) {
		s.mkdir(dir + "/new/sub")
		s.write(dir+"/new/sub/file", "")
	}, "+/new +/new/sub +/new/sub/file"},
	{"added link", func(s *suite, dir string) { s.ok(os.Symlink("dir", dir+"/new")) }, "+/new"},
	{"added hard link", func(s *suite, dir string) { s.ok(os.Link(dir+"/file", dir+"/new")) }, "+/new"},
	{"added and deleted", func(s *suite, dir string) {
		s.mkdir(dir + "/dir/new")
		s.ok(os.Remove(dir + "/dir/new"))
	}, ""},
	{"order is byte by byte", func(s *suite, dir string) {
		s.mkdir(dir + "/new")
		s.write(dir+"/new/x", "")
		s.write(dir+"/new-x", "")
		s.write(dir+"/new x", "")
	}, "+/new +/new%x +/new-x +/new/x"},
	{"content", func(s *suite, dir string) { s.write(dir+"/dir/a", "CONTENT") }, "M/dir/a"},
	{"content of a file with a blank in its name", func(s *suite, dir string) { s.write(dir+"/with blank", "") }, "M/with%blank"},
	{"time", func(s *suite, dir string) { s.setTime(dir+"/file", diffTime.Add(1)) }, "M/file"},
	{"mode", func(s *suite, dir string) { s.ok(os.Chmod(dir+"/file", 0o600)) }, "M/file"},
	{"mode of a directory", func(s *suite, dir string) { s.ok(os.Chmod(dir+"/dir", 0o700)) }, "M/dir"},
	{"mode of the top directory", func(s *suite, dir string) { s.ok(os.Chmod(dir, 0o700)) }, "M/"},
	{"time of a directory", func(s *suite, dir string) { s.setTime(dir+"/dir", diffTime) }, ""},
	{"owner", func(s *suite, dir string) {
		testenv.Root(s.T)
		s.ok(os.Chown(dir+"/file", 1, 2))
	}, "M/file"},
	{"owner of a link", func(s *suite, dir string) {
		testenv.Root(s.T)
		s.ok(os.Lchown(dir+"/link", 1, 2))
	}, "M/link"},
	{"attribute", func(s *suite, dir string) {
		if !s.setAttr(dir+"/file", "x") {
			s.Skip("file system without extended attributes")
		}
	}, "M/file"},
	{"link target", func(s *suite, dir string) {
		s.ok(os.Remove(dir + "/link"))
		s.ok(os.Symlink("elif", dir+"/link"))
	}, "M/link"},
	{"touched without a change", func(s *suite, dir string) {
		f, err := os.OpenFile(dir+"/file", os.O_RDWR, 0)
		s.ok(err)
		s.ok(f.Close())
		s.ok(os.Chmod(dir+"/dir/sub", 0o755))
		s.ok(os.Chmod(dir, 0o755))
	}, ""},
	{"deleted file", func(s *suite, dir string) { s.ok(os.Remove(dir + "/dir/a")) }, "-/dir/a"},
	{"deleted link", func(s *suite, dir string) { s.ok(os.Remove(dir + "/link")) }, "-/link"},
	{"deleted empty directory", func(s *suite, dir string) { s.ok(os.Remove(dir + "/empty")) }, "-/empty"},
	{"deleted directory", func(s *suite, dir string) { s.ok(os.RemoveAll(dir + "/dir")) }, "-/dir"},
	{"renamed file", func(s *suite, dir string) { s.ok(os.Rename(dir+"/file", dir+"/renamed")) }, "-/file +/renamed"},
	{"renamed over a file", func(s *suite, dir string) {
		s.ok(os.Chmod(dir+"/file", 0o600))
		s.ok(os.Rename(dir+"/file", dir+"/dir/a"))
	}, "M/dir/a -/file"},
	{"recreated, other time", func(s *suite, dir string) {
		s.ok(os.Remove(dir + "/file"))
		s.write(dir+"/file", "content")
	}, "M/file"},
	{"recreated, same time", func(s *suite, dir string) {
		s.ok(os.Remove(dir + "/file"))
		s.write(dir+"/file", "content")
		s.setTime(dir+"/file", diffTime)
	}, ""},
	{"directory to file", func(s *suite, dir string) {
		s.ok(os.RemoveAll(dir + "/dir"))
		s.write(dir+"/dir", "")
	}, "M/dir"},
	{"directory to file and back", func(s *suite, dir string) {
		s.ok(os.RemoveAll(dir + "/dir"))
		s.write(dir+"/dir", "")
		s.ok(os.Remove(dir + "/dir"))
		s.mkdir(dir + "/dir")
	}, "-/dir/a -/dir/b -/dir/sub"},
	{"file to directory", func(s *suite, dir string) {
		s.ok(os.Remove(dir + "/file"))
		s.mkdir(dir + "/file")
		s.write(dir+"/file/x", "")
	}, "M/file +/file/x"},
	{"file to link", func(s *suite, dir string) {
		s.ok(os.Remove(dir + "/file"))
		s.ok(os.Symlink("x", dir+"/file"))
	}, "M/file"},
	{"directory to link", func(s *suite, dir string) {
		s.ok(os.RemoveAll(dir + "/dir"))
		s.ok(os.Symlink("empty", dir+"/dir"))
	}, "M/dir"},
	{"recreated directory", func(s *suite, dir string) {
		s.ok(os.RemoveAll(dir + "/dir"))
		s.mkdir(dir + "/dir/sub")
		s.write(dir+"/dir/a", "content")
		s.setTime(dir+"/dir/a", diffTime)
		s.write(dir+"/dir/new", "")
	}, "-/dir/b +/dir/new -/dir/sub/c"},
	{"recreated directory with another mode", func(s *suite, dir string) {
		s.ok(os.RemoveAll(dir + "/dir"))
		s.ok(os.Mkdir(dir+"/dir", 0o700))
	}, "M/dir -/dir/a -/dir/b -/dir/sub"},
	{"several at once", func(s *suite, dir string) {
		s.write(dir+"/file", "x")
		s.ok(os.Remove(dir + "/dir/sub/c"))
		s.write(dir+"/dir/sub/d", "x")
		s.write(dir+"/größe\n", "x")
	}, "-/dir/sub/c +/dir/sub/d M/file +/größe\n"},
}

func runDiff(t *testing.T, open func(t *testing.T) storage.Driver) {
	// One origin for all: sealing is the slow part.
	s := start(t, open)
	s.image("images/a", func(dir string) { diffBase(s, dir) })
	for _, tt := range diffCases {
		t.Run(tt.name, func(t *testing.T) {
			c := &suite{T: t, d: s.d, info: s.info}
			c.clone("images/a", "pods/a")
			t.Cleanup(func() {
				if err := errors.Join(s.d.Unmount(s.Context(), "pods/a"), s.d.Destroy(s.Context(), "pods/a")); err != nil {
					t.Error(err)
				}
			})
			tt.change(c, c.mount("pods/a"))
			c.wantDiff("pods/a", parseChanges(tt.want)...)
			c.unmount("pods/a")
			c.wantDiff("pods/a", parseChanges(tt.want)...)
		})
	}
	t.Run("of a tree without origin", func(t *testing.T) {
		c := &suite{T: t, d: s.d, info: s.info}
		c.wantDiff("images/a", parseChanges("+/dir +/dir/a +/dir/b +/dir/sub +/dir/sub/c +/empty +/file +/link +/with%blank")...)
		c.create("volumes/a")
		c.wantDiff("volumes/a")
	})
	t.Run("against the nearest origin", func(t *testing.T) {
		c := &suite{T: t, d: s.d, info: s.info}
		c.clone("images/a", "images/b")
		c.in("images/b", func(dir string) {
			c.write(dir+"/second", "")
			c.ok(os.RemoveAll(dir + "/dir"))
			c.mkdir(dir + "/dir")
		})
		c.seal("images/b")
		want := parseChanges("-/dir/a -/dir/b -/dir/sub +/second")
		c.wantDiff("images/b", want...)
		c.clone("images/b", "images/c")
		c.wantDiff("images/c")
		c.in("images/c", func(dir string) {
			c.write(dir+"/dir/a", "again")
			c.ok(os.Remove(dir + "/second"))
			c.ok(os.Remove(dir + "/file"))
		})
		c.wantDiff("images/c", parseChanges("+/dir/a -/file -/second")...)
		c.wantDiff("images/b", want...)
	})
}

// parseChanges reads what diffCases want; "%" is a blank.
func parseChanges(list string) []storage.Change {
	kinds := map[byte]storage.ChangeKind{'+': storage.Added, '-': storage.Deleted, 'M': storage.Modified}
	var changes []storage.Change
	for item := range strings.SplitSeq(list, " ") {
		if item != "" {
			changes = append(changes, storage.Change{Path: strings.ReplaceAll(item[1:], "%", " "), Kind: kinds[item[0]]})
		}
	}
	return changes
}
