package storagetest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

var mountCases = map[string]func(*suite){
	"mount is idempotent":              caseMount,
	"unmount is idempotent":            caseUnmount,
	"unmount of a tree in use":         caseUnmountBusy,
	"mount after a reboot":             caseReboot,
	"mounted trees have no devices":    caseNodev,
	"trees are hidden from host users": caseHidden,
	"usage":                            caseUsage,
	"usage of a mounted volume":        caseUsageMounted,
}

// kinds makes a tree of each kind there is: empty, sealed, clone, sealed clone.
func (s *suite) kinds() []string {
	s.Helper()
	s.create("volumes/a")
	s.in("volumes/a", func(dir string) { s.write(dir+"/file", "x") })
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.clone("images/a", "pods/a")
	s.clone("images/a", "images/b")
	s.seal("images/b")
	return []string{"volumes/a", "images/a", "pods/a", "images/b"}
}

func caseMount(s *suite) {
	for _, name := range s.kinds() {
		first := s.mount(name)
		if !filepath.IsAbs(first) {
			s.Errorf("%s is not absolute", first)
		}
		if again := s.mount(name); again != first {
			s.Errorf("%s is mounted on %s, then %s", name, first, again)
		}
		if got := s.stat(name).Mounted; got != s.info.MountsTrees {
			s.Errorf("Mounted of %s is %t", name, got)
		}
		s.wantContent(first+"/file", "x")
		s.unmount(name) // once is enough
		if s.stat(name).Mounted {
			s.Errorf("%s is still mounted", name)
		}
		if again := s.mount(name); again != first {
			s.Errorf("%s is mounted on %s, then %s", name, first, again)
		}
		s.wantContent(first+"/file", "x")
		s.unmount(name)
	}
}

func caseUnmount(s *suite) {
	s.unmount("volumes/none")
	for _, name := range s.kinds() {
		s.unmount(name)
		dir := s.mount(name)
		s.unmount(name)
		s.unmount(name)
		if s.info.MountsTrees {
			s.wantAbsent(dir + "/file")
		}
	}
}

func caseUnmountBusy(s *suite) {
	s.need(s.info.MountsTrees, "MountsTrees")
	for _, name := range s.kinds() {
		f, err := os.Open(s.mount(name) + "/file")
		s.ok(err)
		err = s.d.Unmount(s.Context(), name)
		s.ok(f.Close())
		s.fails(err, storage.ErrBusy)
		if !s.stat(name).Mounted {
			s.Errorf("%s is no longer mounted", name)
		}
		s.unmount(name)
	}
}

func caseReboot(s *suite) {
	s.need(s.info.MountsTrees, "MountsTrees")
	for _, name := range s.kinds() {
		dir := s.mount(name)
		if !s.stat(name).Sealed {
			s.write(dir+"/new", "kept")
		}
		s.ok(unix.Unmount(dir, 0))
		if s.stat(name).Mounted {
			s.Errorf("%s is still mounted", name)
		}
		s.unmount(name)
		if again := s.mount(name); again != dir {
			s.Errorf("%s is mounted on %s, then %s", name, dir, again)
		}
		s.wantContent(dir+"/file", "x")
		if !s.stat(name).Sealed {
			s.wantContent(dir+"/new", "kept")
		}
		s.ok(unix.Unmount(dir, 0))
	}
	s.destroy("pods/a")
	s.clone("images/a", "pods/a")
}

func caseNodev(s *suite) {
	s.need(s.info.MountsTrees, "MountsTrees")
	testenv.Root(s.T)
	zero, err := os.Stat("/dev/zero")
	s.ok(err)
	st := *zero.Sys().(*syscall.Stat_t)
	s.create("images/a")
	err = mknod(unix.Mknod, s.mount("images/a")+"/zero", &st)
	if err != nil {
		s.Skipf("the file system makes no device nodes: %v", err)
	}
	s.unmount("images/a")
	s.seal("images/a")
	s.clone("images/a", "pods/a")
	for _, name := range []string{"images/a", "pods/a"} {
		if deviceWorks(s.mount(name) + "/zero") {
			s.Errorf("a device in %s works", name)
		}
	}
	dir := s.mount("pods/a")
	if err := mknod(unix.Mknod, dir+"/own", &st); err != nil {
		return
	}
	if deviceWorks(dir + "/own") {
		s.Error("a device made in the mounted tree works")
	}
}

// deviceWorks tells whether path is the device of zeros. To open it may be permitted:
// on FreeBSD such a file is an empty one, except in devfs(5).
func deviceWorks(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	n, _ := f.Read(make([]byte, 1))
	return n > 0
}

// mknod makes a device like the one described by st. The type of a device number
// depends on the system.
func mknod[D int | uint64](call func(path string, mode uint32, dev D) error, path string, st *syscall.Stat_t) error {
	return call(path, uint32(st.Mode), D(st.Rdev))
}

// A setuid program in an image must not be reachable for users of the host.
func caseHidden(s *suite) {
	for _, name := range s.kinds() {
		hidden := false
		for dir := filepath.Dir(s.mount(name)); dir != "/"; dir = filepath.Dir(dir) {
			info, err := os.Stat(dir)
			s.ok(err)
			hidden = hidden || info.Mode().Perm()&0o077 == 0
		}
		if !hidden {
			s.Errorf("everybody can reach %s", name)
		}
	}
}

func (s *suite) usage(name string) storage.Usage {
	s.Helper()
	u, err := s.d.Usage(s.Context(), name)
	s.ok(err)
	return u
}

// random is data that a file system cannot compress away.
func (s *suite) random(path string, size int) {
	s.Helper()
	s.ok(os.WriteFile(path, randomBytes(size), 0o644))
}

const mib = 1 << 20

func (s *suite) wantBetween(what string, got, low, high int64) {
	s.Helper()
	if got < low || got > high {
		s.Errorf("%s is %d, want %d to %d", what, got, low, high)
	}
}

func caseUsage(s *suite) {
	s.image("images/a", func(dir string) {
		s.random(dir+"/data", 4*mib)
		s.ok(os.Link(dir+"/data", dir+"/same"))
		s.sparse(dir + "/sparse")
	})
	u := s.usage("images/a")
	s.wantBetween("Own of the origin", u.Own, 4*mib, 6*mib)
	s.wantBetween("Logical of the origin", u.Logical, 4*mib, 6*mib)

	s.clone("images/a", "images/b")
	if s.info.SharedClones {
		s.wantBetween("Own of a new clone", s.usage("images/b").Own, 0, mib)
	}
	s.wantBetween("Logical of a new clone", s.usage("images/b").Logical, 4*mib, 6*mib)
	s.in("images/b", func(dir string) {
		s.ok(os.Remove(dir + "/data"))
		s.ok(os.Remove(dir + "/same"))
		s.random(dir+"/more", 2*mib)
	})
	s.seal("images/b") // everything is written
	u = s.usage("images/b")
	s.wantBetween("Own of a changed clone", u.Own, 2*mib, 4*mib)
	s.wantBetween("Logical of a changed clone", u.Logical, 2*mib, 4*mib)
}

func caseUsageMounted(s *suite) {
	s.create("volumes/a")
	s.mount("volumes/a")
	s.wantBetween("Own of an empty tree", s.usage("volumes/a").Own, 0, mib)
	s.in("volumes/a", func(dir string) { s.random(dir+"/data", 4*mib) })
	s.mount("volumes/a")
	s.ok(syncDir(s.mount("volumes/a")))
	s.wantBetween("Own of a mounted tree", s.usage("volumes/a").Own, 4*mib, 6*mib)
}

func syncDir(dir string) (err error) {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
