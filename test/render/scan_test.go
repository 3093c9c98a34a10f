package render_test

import (
	"fmt"
	"hash/crc64"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree describes every path of a root, in words.
type tree map[string]string

// inode identifies a file while others may have its content.
type inode struct{ dev, ino uint64 }

// scan describes what is in dir: type, mode, owner, link target, content, and,
// except for directories, modification time; with links also which paths are
// one file. Modification times of directories are not compared: the
// specification does not say when an unpacker sets them.
func scan(dir string, links bool) (tree, error) {
	names, err := paths(dir)
	if err != nil {
		return nil, err
	}
	found := tree{}
	same := map[inode][]string{}
	for _, name := range names {
		at := filepath.Join(dir, name)
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		description, err := describe(at, &st)
		if err != nil {
			return nil, err
		}
		found[name] = description
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			id := inode{uint64(st.Dev), st.Ino}
			same[id] = append(same[id], name)
		}
	}
	for _, group := range same {
		if links && len(group) > 1 {
			for _, name := range group {
				found[name] += " one file: " + strings.Join(group, " ")
			}
		}
	}
	return found, nil
}

var crc = crc64.MakeTable(crc64.ISO)

func describe(at string, st *unix.Stat_t) (string, error) {
	owner := fmt.Sprintf("%04o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
	mtime := time.Unix(st.Mtim.Unix()).UTC().Format(time.RFC3339Nano)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory " + owner, nil
	case unix.S_IFREG:
		data, err := os.ReadFile(at)
		return fmt.Sprintf("file %s %s %d bytes %.20q %x", owner, mtime, len(data), data, crc64.Checksum(data, crc)), err
	case unix.S_IFLNK: // its mode means nothing
		target, err := os.Readlink(at)
		return fmt.Sprintf("symlink %d:%d %s to %q", st.Uid, st.Gid, mtime, target), err
	case unix.S_IFIFO:
		return fmt.Sprintf("fifo %s %s", owner, mtime), nil
	}
	return fmt.Sprintf("something of mode %o", st.Mode), nil
}

// compare tells what differs, a line for each path, "" for nothing.
func compare(got, want tree) string {
	all := maps.Clone(got)
	maps.Copy(all, want)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if got[name] != want[name] {
			fmt.Fprintf(&b, "%s\n\tgot:  %s\n\twant: %s\n", name, got[name], want[name])
		}
	}
	return b.String()
}
