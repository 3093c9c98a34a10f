package storagetest

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
)

var destroyCases = map[string]func(*suite){
	"destroy frees the name":          caseDestroy,
	"destroy of a tree with clones":   caseDestroyOrigin,
	"destroy of a mounted tree":       caseDestroyMounted,
	"destroy does not follow links":   caseDestroyLinks,
	"destroy of files hard to remove": caseDestroyStubborn,
	"partial trees are listed only":   casePartial,
	"partial trees are replaced":      casePartialReplaced,
	"partial trees can be destroyed":  casePartialDestroyed,
	"rename replaces a partial tree":  casePartialRenamed,
	"a damaged tree harms no other":   caseDamaged,
	"a damaged tree that is mounted":  caseDamagedMounted,
	"a damaged origin of a mounted":   caseDamagedOrigin,
}

func caseDestroy(s *suite) {
	s.image("images/a", s.special)
	s.destroy("images/a")
	s.wantNames("")
	s.fails(s.d.Destroy(s.Context(), "images/a"), storage.ErrNotFound)
	s.create("images/a")
	tree := s.stat("images/a")
	if tree.Sealed {
		s.Error("the new tree is sealed")
	}
	s.in("images/a", func(dir string) {
		entries, err := os.ReadDir(dir)
		s.ok(err)
		if len(entries) > 0 {
			s.Errorf("the new tree has %v", entries)
		}
	})
}

func caseDestroyOrigin(s *suite) {
	s.image("images/a", s.special)
	s.clone("images/a", "pods/a")
	var want map[string]string
	s.in("pods/a", func(dir string) { want = s.describe(dir) })
	before := s.stat("images/a")
	s.fails(s.d.Destroy(s.Context(), "images/a"), storage.ErrBusy)
	s.wantNames("", "images/a", "pods/a")
	if after := s.stat("images/a"); after.Sealed != before.Sealed || !after.Created.Equal(before.Created) {
		s.Errorf("origin was %+v, is %+v", before, after)
	}
	for _, name := range []string{"images/a", "pods/a"} {
		s.in(name, func(dir string) { s.wantSame(s.describe(dir), want) })
	}
	s.clone("images/a", "pods/b") // it still can be cloned
	s.destroy("pods/a")
	s.fails(s.d.Destroy(s.Context(), "images/a"), storage.ErrBusy)
	s.destroy("pods/b")
	s.destroy("images/a")
	s.wantNames("")
}

func caseDestroyMounted(s *suite) {
	s.need(s.info.MountsTrees, "MountsTrees")
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.clone("images/a", "pods/a")
	s.create("volumes/a")
	s.in("volumes/a", func(dir string) { s.write(dir+"/file", "x") })
	for _, name := range []string{"pods/a", "volumes/a"} {
		dir := s.mount(name)
		s.fails(s.d.Destroy(s.Context(), name), storage.ErrBusy)
		if tree := s.stat(name); !tree.Mounted || tree.Partial {
			s.Errorf("Stat is %+v", tree)
		}
		s.wantContent(dir+"/file", "x")
		s.write(dir+"/file", "still writable")
		s.unmount(name)
		s.destroy(name)
	}
	s.wantNames("", "images/a")
}

func caseDestroyLinks(s *suite) {
	canary := s.TempDir()
	s.write(canary+"/file", "precious")
	s.create("volumes/a")
	s.in("volumes/a", func(dir string) {
		s.ok(os.Symlink(canary, dir+"/link"))
		s.ok(os.Symlink(canary+"/file", dir+"/file"))
	})
	s.destroy("volumes/a")
	s.wantContent(canary+"/file", "precious")
}

func caseDestroyStubborn(s *suite) {
	s.create("volumes/a")
	s.in("volumes/a", func(dir string) {
		const name = "/directory-with-a-longish-name-to-exceed-the-limit-of-a-path"
		deep := dir
		for len(deep) < unix.PathMax-8*len(name) { // the test itself makes it by its path
			deep += name
		}
		s.mkdir(deep)
		s.write(deep+"/file", "x")
		for _, name := range oddNames {
			s.write(dir+"/"+name, "x")
			s.ok(os.Chmod(dir+"/"+name, 0))
		}
	})
	s.destroy("volumes/a")
	s.wantNames("")
}

func (s *suite) makePartial(name string) {
	s.Helper()
	p, ok := s.d.(PartialMaker)
	if !ok {
		s.Skipf("driver %s cannot make a partial tree for the test", s.info.Name)
	}
	p.MakePartial(s.T, name)
}

func casePartial(s *suite) {
	s.makePartial("images/p")
	s.wantNames("", "images/p (partial)")
	s.wantNames("images", "images/p (partial)")
	calls := s.calls("images/p")
	delete(calls, "Destroy")
	for method, call := range calls {
		s.Log(method)
		s.fails(call(), storage.ErrNotFound)
	}
	s.unmount("images/p")
	s.wantNames("", "images/p (partial)")
}

func casePartialReplaced(s *suite) {
	s.makePartial("images/p")
	s.makePartial("images/q")
	s.create("images/p")
	s.in("images/p", func(dir string) {
		entries, err := os.ReadDir(dir)
		s.ok(err)
		if len(entries) > 0 {
			s.Errorf("the debris is still there: %v", entries)
		}
	})
	s.seal("images/p")
	s.clone("images/p", "images/q")
	s.in("images/q", func(dir string) {
		entries, err := os.ReadDir(dir)
		s.ok(err)
		if len(entries) > 0 {
			s.Errorf("the debris is still there: %v", entries)
		}
	})
	s.wantNames("", "images/p", "images/q")
}

func casePartialDestroyed(s *suite) {
	s.makePartial("images/p")
	s.destroy("images/p")
	s.wantNames("")
	s.fails(s.d.Destroy(s.Context(), "images/p"), storage.ErrNotFound)
}

func casePartialRenamed(s *suite) {
	s.makePartial("images/p")
	s.create("images/a")
	s.in("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.ok(s.d.Rename(s.Context(), "images/a", "images/p"))
	s.wantNames("", "images/p")
	s.in("images/p", func(dir string) { s.wantContent(dir+"/file", "x") })
}

func (s *suite) damage(name string) {
	s.Helper()
	d, ok := s.d.(Damager)
	if !ok {
		s.Skipf("driver %s cannot damage a tree for the test", s.info.Name)
	}
	d.Damage(s.T, name)
}

func caseDamaged(s *suite) {
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.image("images/b", func(string) {})
	s.clone("images/a", "pods/a")
	s.clone("images/b", "pods/b")
	s.damage("pods/b")
	s.wantNames("", "images/a", "images/b", "pods/a", "pods/b (partial)")
	calls := s.calls("pods/b")
	delete(calls, "Destroy")
	for method, call := range calls {
		s.Log(method)
		s.fails(call(), storage.ErrNotFound)
	}
	s.in("pods/a", func(dir string) { s.wantContent(dir+"/file", "x") })
	s.ok(s.d.Rename(s.Context(), "images/b", "images/c"))
	s.destroy("images/c")
	s.fails(s.d.Destroy(s.Context(), "images/a"), storage.ErrBusy)
	s.destroy("pods/b")
	s.wantNames("", "images/a", "pods/a")
}

// Nobody knows any more which origin it stands on.
func caseDamagedMounted(s *suite) {
	s.need(s.info.MountsTrees, "MountsTrees")
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.clone("images/a", "pods/a")
	dir := s.mount("pods/a")
	s.damage("pods/a")
	s.fails(s.d.Destroy(s.Context(), "images/a"), storage.ErrBusy)
	s.fails(s.d.Destroy(s.Context(), "pods/a"), storage.ErrBusy)
	s.wantContent(dir+"/file", "x")
	s.create("volumes/a") // what is no origin is nobody's
	s.destroy("volumes/a")
	s.unmount("pods/a")
	s.destroy("images/a")
	s.destroy("pods/a")
	s.wantNames("")
}

func caseDamagedOrigin(s *suite) {
	s.need(s.info.MountsTrees, "MountsTrees")
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.clone("images/a", "images/b")
	s.seal("images/b")
	s.clone("images/b", "pods/a")
	dir := s.mount("pods/a")
	s.damage("images/a")
	s.create("imports/a")
	s.fails(s.d.Destroy(s.Context(), "images/a"), storage.ErrBusy)
	s.fails(s.d.Rename(s.Context(), "imports/a", "images/a"), storage.ErrBusy)
	s.fails(s.d.Create(s.Context(), "images/a", storage.Options{}), storage.ErrBusy)
	s.wantContent(dir+"/file", "x")
	s.unmount("pods/a")
	// Putting the same in its place mends what stands on it.
	s.in("imports/a", func(dir string) { s.write(dir+"/file", "x") })
	s.seal("imports/a")
	s.ok(s.d.Rename(s.Context(), "imports/a", "images/a"))
	s.in("pods/a", func(dir string) { s.wantContent(dir+"/file", "x") })
}
