package storagetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/jetpack-run/jetpack/internal/storage"
)

var cloneCases = map[string]func(*suite){
	"clone keeps every kind of file":        caseCloneSpecial,
	"clone of a changed clone":              caseCloneOfClone,
	"clone keeps holes":                     caseCloneSparse,
	"clone of an unsealed tree":             caseCloneUnsealed,
	"clone to an existing name":             caseCloneExists,
	"clone from a mounted origin":           caseCloneMounted,
	"origin is unchanged by its clone":      caseOriginUnchanged,
	"clones are unchanged by each other":    caseSiblings,
	"renaming a directory of the origin":    caseRenameDirectory,
	"hard links made in a clone":            caseLinksInClone,
	"chain of 20 clones":                    caseChain,
	"top directory changed in a clone":      caseTopOfClone,
	"replaced directories in a clone chain": caseReplacedDirectories,
}

func caseCloneSpecial(s *suite) {
	s.create("images/a")
	s.in("images/a", s.special)
	var want map[string]string
	s.in("images/a", func(dir string) { want = s.describe(dir) })
	s.seal("images/a")
	s.in("images/a", func(dir string) { s.wantSame(s.describe(dir), want) })
	s.clone("images/a", "pods/a")
	s.in("pods/a", func(dir string) { s.wantSame(s.describe(dir), want) })
	s.in("pods/a", func(dir string) { s.wantSame(s.describe(dir), want) }) // and again
	if tree := s.stat("pods/a"); tree.Origin != "images/a" || tree.Sealed || tree.Mounted {
		s.Errorf("Stat is %+v", tree)
	}
}

func caseCloneOfClone(s *suite) {
	s.image("images/a", s.special)
	s.clone("images/a", "images/b")
	var want map[string]string
	s.in("images/b", func(dir string) {
		s.write(dir+"/dir/new", "new")
		s.ok(os.Remove(dir + "/setuid"))
		s.ok(os.RemoveAll(dir + "/dir/sub"))
		s.ok(os.Chmod(dir+"/empty", 0o700))
		want = s.describe(dir)
	})
	s.seal("images/b")
	s.in("images/b", func(dir string) { s.wantSame(s.describe(dir), want) })
	s.clone("images/b", "images/c")
	s.in("images/c", func(dir string) { s.wantSame(s.describe(dir), want) })
	s.seal("images/c")
	s.in("images/c", func(dir string) { s.wantSame(s.describe(dir), want) })
}

func caseCloneSparse(s *suite) {
	s.image("images/a", func(dir string) { s.sparse(dir + "/sparse") })
	s.clone("images/a", "pods/a")
	info, err := os.Stat(s.mount("pods/a") + "/sparse")
	s.ok(err)
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() != 16<<20 || used > 1<<20 {
		s.Errorf("a file with 16 MiB of holes has size %d and takes %d", info.Size(), used)
	}
}

func caseCloneUnsealed(s *suite) {
	s.create("images/a")
	s.fails(s.d.Clone(s.Context(), "images/a", "pods/a", storage.Options{}), storage.ErrNotSealed)
	s.wantNames("", "images/a")
}

func caseCloneExists(s *suite) {
	s.image("images/a", func(string) {})
	s.create("pods/a")
	s.in("pods/a", func(dir string) { s.write(dir+"/file", "precious") })
	s.fails(s.d.Clone(s.Context(), "images/a", "pods/a", storage.Options{}), storage.ErrExists)
	s.in("pods/a", func(dir string) { s.wantContent(dir+"/file", "precious") })
	s.clone("images/a", "pods/b")
	s.fails(s.d.Clone(s.Context(), "images/a", "pods/b", storage.Options{}), storage.ErrExists)
}

func caseCloneMounted(s *suite) {
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.mount("images/a")
	for _, name := range []string{"pods/a", "pods/b"} {
		s.clone("images/a", name)
		s.wantContent(s.mount(name)+"/file", "x")
	}
}

func caseOriginUnchanged(s *suite) {
	s.image("images/a", s.special)
	origin := s.mount("images/a")
	want := s.describe(origin)
	s.clone("images/a", "pods/a")
	dir := s.mount("pods/a")
	at := func(name string) string { return filepath.Join(dir, name) }

	f, err := os.OpenFile(at("dir/file"), os.O_WRONLY|os.O_APPEND, 0)
	s.ok(err)
	_, err = f.WriteString(" appended")
	s.ok(errors.Join(err, f.Close()))
	s.wantContent(at("dir/file"), "content appended")
	f, err = os.OpenFile(at("sparse"), os.O_WRONLY, 0)
	s.ok(err)
	_, err = f.WriteAt([]byte("X"), 4<<20)
	s.ok(errors.Join(err, f.Close()))
	s.ok(os.Truncate(at("setuid"), 3))
	s.write(at("zero"), "no longer")
	s.ok(os.Chmod(at("empty"), 0o700))
	s.ok(os.Chmod(dir, 0o700))
	s.setAttr(at("dir"), "changed")
	s.ok(os.Remove(at("relative")))
	s.ok(os.Symlink("elsewhere", at("relative")))
	s.ok(os.Rename(at("fifo"), at("moved")))
	s.ok(os.Rename(at("with blank"), at("-rf")))
	s.ok(os.RemoveAll(at("dir/sub")))
	s.ok(os.Chmod(at("closed"), 0o700))
	s.ok(os.RemoveAll(at("closed")))
	s.mkdir(at("closed"))
	s.write(at("new"), "new")
	s.wantSame(s.describe(origin), want)

	s.ok(os.Remove(at("dir/file")))
	for _, name := range oddNames {
		s.ok(os.RemoveAll(at(name)))
	}
	changed := s.describe(dir)
	s.unmount("pods/a")
	s.wantSame(s.describe(origin), want)
	s.in("pods/a", func(dir string) { s.wantSame(s.describe(dir), changed) })
	s.destroy("pods/a")
	s.wantSame(s.describe(origin), want)
}

func caseSiblings(s *suite) {
	s.image("images/a", func(dir string) { s.write(dir+"/file", "origin") })
	s.clone("images/a", "pods/a")
	s.clone("images/a", "pods/b")
	a, b := s.mount("pods/a"), s.mount("pods/b")
	s.write(a+"/file", "a")
	s.wantContent(b+"/file", "origin")
	s.ok(os.Remove(b + "/file"))
	s.wantContent(a+"/file", "a")
	s.unmount("pods/a")
	s.destroy("pods/a")
	s.wantAbsent(b + "/file")
	s.write(b+"/file", "b")
	s.wantContent(b+"/file", "b")
}

func caseRenameDirectory(s *suite) {
	s.image("images/a", func(dir string) {
		s.mkdir(dir + "/dir/sub")
		s.write(dir+"/dir/sub/file", "x")
	})
	s.clone("images/a", "pods/a")
	dir := s.mount("pods/a")
	err := os.Rename(dir+"/dir", dir+"/moved")
	if errors.Is(err, syscall.EXDEV) {
		s.wantContent(dir+"/dir/sub/file", "x")
		s.wantAbsent(dir + "/moved")
	} else {
		s.ok(err)
		s.wantContent(dir+"/moved/sub/file", "x")
		s.wantAbsent(dir + "/dir")
	}
	s.in("images/a", func(dir string) { s.wantContent(dir+"/dir/sub/file", "x") })
	// The clone's own directories can always be renamed.
	s.mkdir(dir + "/own/sub")
	s.ok(os.Rename(dir+"/own", dir+"/renamed"))
	s.wantAbsent(dir + "/own")
}

func caseLinksInClone(s *suite) {
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.clone("images/a", "images/b")
	s.in("images/b", func(dir string) {
		s.ok(os.Link(dir+"/file", dir+"/hard"))
		s.write(dir+"/hard", "y")
		s.wantContent(dir+"/file", "y")
	})
	s.seal("images/b")
	s.clone("images/b", "pods/a")
	s.in("pods/a", func(dir string) {
		a, erra := os.Stat(dir + "/file")
		b, errb := os.Stat(dir + "/hard")
		s.ok(errors.Join(erra, errb))
		if !os.SameFile(a, b) {
			s.Error("the links have come apart")
		}
	})
}

func caseChain(s *suite) {
	const length = 20
	s.image("images/c0", func(dir string) { s.write(dir+"/file0", "0") })
	for i := 1; i <= length; i++ {
		name := fmt.Sprintf("images/c%d", i)
		s.clone(fmt.Sprintf("images/c%d", i-1), name)
		s.in(name, func(dir string) {
			s.write(fmt.Sprintf("%s/file%d", dir, i), fmt.Sprint(i))
			s.write(dir+"/last", fmt.Sprint(i))
			if i%2 == 0 {
				s.ok(os.Remove(fmt.Sprintf("%s/file%d", dir, i-1)))
			}
		})
		s.seal(name)
	}
	s.clone(fmt.Sprintf("images/c%d", length), "pods/a")
	for _, name := range []string{fmt.Sprintf("images/c%d", length), "pods/a"} {
		s.in(name, func(dir string) {
			s.wantContent(dir+"/last", fmt.Sprint(length))
			for i := 0; i <= length; i++ {
				file := fmt.Sprintf("%s/file%d", dir, i)
				if i%2 == 1 {
					s.wantAbsent(file)
				} else {
					s.wantContent(file, fmt.Sprint(i))
				}
			}
		})
	}
	s.fails(s.d.Destroy(s.Context(), "images/c7"), storage.ErrBusy)
	s.in("images/c7", func(dir string) { s.wantContent(dir+"/last", "7") })
}

func caseTopOfClone(s *suite) {
	s.image("images/a", func(string) {})
	s.clone("images/a", "images/b")
	var want map[string]string
	s.in("images/b", func(dir string) {
		s.ok(os.Chmod(dir, 0o1777))
		s.ok(os.Chmod(dir, 0o777|os.ModeSticky))
		s.setAttr(dir, "top")
		want = s.describe(dir)
	})
	s.seal("images/b")
	s.clone("images/b", "pods/a")
	for _, name := range []string{"images/b", "pods/a"} {
		s.in(name, func(dir string) { s.wantSame(s.describe(dir), want) })
	}
}

// A directory that was deleted and made again shows nothing of the old one, also
// through further clones.
func caseReplacedDirectories(s *suite) {
	s.image("images/a", func(dir string) {
		s.mkdir(dir + "/dir/sub")
		s.write(dir+"/dir/old", "old")
		s.write(dir+"/dir/sub/old", "old")
		s.mkdir(dir + "/to-file")
		s.write(dir+"/to-file/old", "old")
		s.write(dir+"/to-dir", "file")
	})
	s.clone("images/a", "images/b")
	s.in("images/b", func(dir string) {
		for _, name := range []string{"/dir", "/to-file", "/to-dir"} {
			s.ok(os.RemoveAll(dir + name))
		}
		s.mkdir(dir + "/dir/sub")
		s.mkdir(dir + "/to-dir")
		s.write(dir+"/dir/new", "new")
		s.write(dir+"/to-file", "file")
	})
	s.seal("images/b")
	s.clone("images/b", "images/c")
	s.in("images/c", func(dir string) {
		s.write(dir+"/dir/sub/newer", "newer")
		s.ok(os.Remove(dir + "/to-file"))
		s.mkdir(dir + "/to-file")
	})
	s.seal("images/c")
	s.clone("images/c", "pods/a")
	for _, name := range []string{"images/c", "pods/a"} {
		s.in(name, func(dir string) {
			for _, file := range []string{"/dir/old", "/dir/sub/old", "/to-file/old"} {
				s.wantAbsent(dir + file)
			}
			s.wantContent(dir+"/dir/new", "new")
			s.wantContent(dir+"/dir/sub/newer", "newer")
		})
	}
}
