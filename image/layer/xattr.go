//go:build unix

package layer

import (
	"archive/tar"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// xattrPrefix is what the PAX records that hold extended attributes begin with,
// in the archives of all common tar programs.
const xattrPrefix = "SCHILY.xattr."

// checkXattrs refuses attributes of overlayfs, in whatever namespace: they would
// make a directory hide or show what the archive does not contain.
func checkXattrs(hdr *tar.Header) error {
	for record := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(record, xattrPrefix)
		if !ok {
			continue
		}
		if name == "" || len(name) > 255 || strings.IndexByte(name, 0) >= 0 || strings.Contains(name, ".overlay.") {
			return fmt.Errorf("%w: %q", ErrXattr, name)
		}
	}
	return nil
}

// setXattrs sets the attributes of an entry with set. Those that the file system
// has no place for give a warning.
func (a *Applier) setXattrs(hdr *tar.Header, set func(name string, value []byte) error) error {
	for _, record := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		switch record {
		case "SCHILY.fflags":
			a.warn(record, "file flags are not restored")
		case "SCHILY.acl.access", "SCHILY.acl.default", "SCHILY.acl.ace":
			a.warn("SCHILY.acl", "access control lists are not restored")
		}
		name, ok := strings.CutPrefix(record, xattrPrefix)
		if !ok {
			continue
		}
		err := set(name, []byte(hdr.PAXRecords[record]))
		switch {
		case err == nil:
		case xattrRefused(err):
			a.warn(record, "extended attribute %q is not kept: %v", name, err)
		default:
			return fmt.Errorf("extended attribute %q: %w", name, err)
		}
	}
	return nil
}
