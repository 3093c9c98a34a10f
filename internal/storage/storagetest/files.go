package storagetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Odd names of files that every driver must keep.
var oddNames = []string{"with blank", "new\nline", "back\\slash\\040", "tab\there", "größe-名前", "-rf", "a:b,c=d", ".wh.file", strings.Repeat("n", 255)}

const attr = "user.jetpack.test"

func (s *suite) write(path, content string) {
	s.Helper()
	s.ok(os.WriteFile(path, []byte(content), 0o644))
}

func (s *suite) mkdir(path string) {
	s.Helper()
	s.ok(os.MkdirAll(path, 0o755))
}

func (s *suite) read(path string) string {
	s.Helper()
	data, err := os.ReadFile(path)
	s.ok(err)
	return string(data)
}

func (s *suite) wantContent(path, want string) {
	s.Helper()
	if got := s.read(path); got != want {
		s.Fatalf("%s has %q, want %q", path, got, want)
	}
}

func (s *suite) wantAbsent(path string) {
	s.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		s.Fatalf("%s is there (error is %v)", path, err)
	}
}

// setTime sets the times of a file or link with nanoseconds.
func (s *suite) setTime(path string, when time.Time) {
	s.Helper()
	ts, err := unix.TimeToTimespec(when)
	s.ok(err)
	s.ok(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// setAttr sets an extended attribute, and tells whether the file system has any.
func (s *suite) setAttr(path, value string) bool {
	s.Helper()
	err := unix.Lsetxattr(path, attr, []byte(value), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return false
	}
	s.ok(err)
	return true
}

// special fills dir with a file of each kind that a driver must keep, and gives
// dir itself metadata that are not the usual ones.
func (s *suite) special(dir string) {
	s.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	s.mkdir(at("empty"))
	s.mkdir(at("dir/sub"))
	s.mkdir(at("closed"))
	s.write(at("dir/file"), "content")
	s.write(at("dir/sub/deep"), "deep")
	s.write(at("zero"), "")
	s.write(at("setuid"), "#!/bin/sh\n")
	s.write(at("closed/secret"), "secret")
	s.ok(os.Link(at("dir/file"), at("hard")))
	s.ok(os.Link(at("dir/file"), at("dir/sub/hard")))
	s.ok(os.Symlink("dir/file", at("relative")))
	s.ok(os.Symlink("/nowhere/at all", at("dangling")))
	s.ok(unix.Mkfifo(at("fifo"), 0o640))
	for _, name := range oddNames {
		s.write(at(name), name)
	}
	s.sparse(at("sparse"))
	s.owners(dir)
	for name, mode := range map[string]fs.FileMode{
		"setuid": 0o755 | fs.ModeSetuid, "dir": 0o775 | fs.ModeSetgid, "empty": 0o777 | fs.ModeSticky,
		"closed/secret": 0o400, ".": 0o711,
	} {
		s.ok(os.Chmod(at(name), mode))
	}
	if os.Geteuid() == 0 { // others could not remove it
		s.ok(os.Chmod(at("closed"), 0o500))
	}
	for _, name := range []string{"dir/file", "dir", "."} {
		if !s.setAttr(at(name), "value of "+name) {
			s.Logf("file system without extended attributes: they are not checked")
			break
		}
	}
	s.setAttr(at("setuid"), strings.Repeat("long", 250))
	when := time.Unix(1234567890, 123456789)
	for _, name := range []string{"dir/sub/deep", "dir/sub", "dir/file", "dir", "relative", "fifo", "zero", "closed/secret", "closed", "empty", "."} {
		when = when.Add(time.Second + time.Nanosecond)
		s.setTime(at(name), when)
	}
	s.setTime(at("dangling"), time.Unix(-1000, 0)) // before 1970
	s.setTime(dir, when)
}

func (s *suite) sparse(path string) {
	s.Helper()
	f, err := os.Create(path)
	s.ok(err)
	_, err = f.WriteAt([]byte("island"), 4<<20)
	s.ok(errors.Join(err, f.Truncate(16<<20), f.Close()))
}

// owners gives files to users who need not exist.
func (s *suite) owners(dir string) {
	s.Helper()
	if os.Geteuid() != 0 {
		s.Logf("not root: owners are not checked")
		return
	}
	for i, name := range []string{"dir", "dir/file", "setuid", "relative", "fifo", "closed", "empty", "."} {
		s.ok(os.Lchown(filepath.Join(dir, name), 1000+i, 4000000000-i))
	}
}

// describe gives all that a driver must keep of the files in dir, "." included,
// by path. Files with the same inode have the same group of names.
func (s *suite) describe(dir string) map[string]string {
	s.Helper()
	files := make(map[string]string)
	links := make(map[uint64][]string)
	s.ok(filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if !info.IsDir() && st.Nlink > 1 {
			links[st.Ino] = append(links[st.Ino], rel)
		}
		files[rel], err = describeFile(path, info)
		return err
	}))
	for _, names := range links {
		for _, name := range names {
			files[name] += fmt.Sprintf(" links=%q", names)
		}
	}
	return files
}

func describeFile(path string, info fs.FileInfo) (string, error) {
	st := info.Sys().(*syscall.Stat_t)
	desc := fmt.Sprintf("%v %d:%d %d", info.Mode(), st.Uid, st.Gid, info.ModTime().UnixNano())
	switch info.Mode().Type() {
	case 0:
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		desc += fmt.Sprintf(" size=%d sha256=%.8x", len(data), sha256.Sum256(data))
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s target=%q", desc, target), nil
	}
	buf := make([]byte, 4096)
	// An attribute that is not there has another errno on each system.
	if n, err := unix.Lgetxattr(path, attr, buf); err == nil {
		desc += fmt.Sprintf(" attr=%q", buf[:n])
	}
	return desc, nil
}

func (s *suite) wantSame(got, want map[string]string) {
	s.Helper()
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			s.Errorf("%q is  %s\n\twant %s", path, got[path], want[path])
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			s.Errorf("%q should not be there", path)
		}
	}
	if s.Failed() {
		s.FailNow()
	}
}
