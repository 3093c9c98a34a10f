//go:build unix

package hostile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// host is what hostile archives aim at.
type host struct {
	// base is the directory of the whole test. The root of a draft is four levels
	// below a place, which is one below base.
	base string
}

// canary is the absolute name of something in the canary tree.
func (h host) canary(name string) string { return filepath.Join(h.base, "canary", name) }

// relative leads to the same from the root of a draft.
func (h host) relative(name string) string { return "../../../../../canary/" + name }

// index leads from the root of a draft to the index of its store.
const index = "../../../../store/index.db"

// marker is the name of everything that an archive tries to make outside.
const marker = "jetpack-hostile"

// makeCanary makes the canary tree.
func makeCanary(t *testing.T, h host) {
	t.Helper()
	for _, d := range []string{"", "dir", "dir/sub", "etc", "store"} {
		must(t, os.Mkdir(h.canary(d), 0o755))
	}
	for name, mode := range map[string]fs.FileMode{
		"file": 0o640, "dir/file": 0o644, "dir/sub/deep": 0o600, "dir/passwd": 0o644, "etc/passwd": 0o644, "etc/shadow": 0o600,
		"store/index.db": 0o600, "program": 0o755,
	} {
		must(t, os.WriteFile(h.canary(name), []byte("alive: "+name), 0o600))
		must(t, os.Chmod(h.canary(name), mode))
	}
	must(t, os.Chmod(h.canary("program"), 0o755|fs.ModeSetuid))
	must(t, os.Chown(h.canary("dir/file"), 12, 34))
	must(t, os.Symlink("dir/file", h.canary("link")))
	must(t, unix.Mkfifo(h.canary("fifo"), 0o600))
}

// watched are the files of the host itself that no test changes.
var watched = []string{"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/master.passwd", "/etc/hosts", "/bin/sh"}

// absent are names that only an escape can make.
func (h host) absent() []string {
	var names []string
	for _, d := range []string{"/", "/etc", "/tmp", "/root", "/dev", h.base, filepath.Dir(h.base), h.canary(""), h.canary("dir")} {
		names = append(names, filepath.Join(d, marker))
	}
	return names
}

// hash describes the canary tree and the watched files with all that a change
// leaves a trace in: link count and status change time, too.
func (h host) hash() (string, error) {
	var b strings.Builder
	add := func(path string) error {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		content, err := digest(path, uint32(st.Mode))
		fmt.Fprintf(&b, "%s %o %d:%d %d links %d %v %v %s\n", path, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim, st.Ctim, content)
		return err
	}
	err := filepath.WalkDir(h.canary(""), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return add(path)
	})
	if err != nil {
		return "", err
	}
	for _, path := range watched {
		if err := add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	for _, path := range h.absent() {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(&b, "%s is there: %v\n", path, err)
		}
	}
	return b.String(), nil
}

// digest is of a file's content or a link's target.
func digest(path string, mode uint32) (string, error) {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		return fmt.Sprintf("%x", sha256.Sum256(data)), err
	case unix.S_IFLNK:
		return os.Readlink(path)
	}
	return "", nil
}

// listing describes a place: all that is there, but for times, which a draft that
// came and went changes, and the index, which is given apart.
func listing(place string) (all, index string, err error) {
	var b strings.Builder
	err = filepath.WalkDir(place, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content, err := digest(path, uint32(st.Mode))
		if filepath.Base(path) == "index.db" {
			index, content = content, ""
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d links %s\n", path, st.Mode, st.Uid, st.Gid, st.Nlink, content)
		return err
	})
	return b.String(), index, err
}

// difference gives the first line in which two descriptions differ.
func difference(before, after string) string {
	a, b := bytes.Split([]byte(before), []byte("\n")), bytes.Split([]byte(after), []byte("\n"))
	for i := range max(len(a), len(b)) {
		var x, y []byte
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if !bytes.Equal(x, y) {
			return fmt.Sprintf("%q became %q", x, y)
		}
	}
	return ""
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
