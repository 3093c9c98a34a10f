//go:build unix

package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// xattrPrefix is what the PAX records that hold extended attributes begin with,
// in the archives of all common tar programs.
const xattrPrefix = "SCHILY.xattr."

// maxXattr is the largest value that Linux permits (xattr(7)).
const maxXattr = 64 << 10

// checkXattrs refuses attributes of overlayfs, in whatever namespace: they would
// make a directory hide or show what the archive does not contain.
func checkXattrs(hdr *tar.Header) error {
	for record, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(record, xattrPrefix)
		if !ok {
			continue
		}
		if name == "" || len(name) > 255 || strings.IndexByte(name, 0) >= 0 || strings.Contains(name, ".overlay.") {
			return fmt.Errorf("%w: %.255q", ErrXattr, name)
		}
		if len(value) > maxXattr {
			return fmt.Errorf("%w: %q of %d bytes", ErrXattr, name, len(value))
		}
	}
	return nil
}

// warnXattrs warns of what setXattrs never sets.
func (c *Checker) warnXattrs(hdr *tar.Header) {
	for _, record := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		switch record {
		case "SCHILY.fflags":
			c.warn(record, "file flags are not restored")
		case "SCHILY.acl.access", "SCHILY.acl.default", "SCHILY.acl.ace":
			c.warn("SCHILY.acl", "access control lists are not restored")
		}
	}
}

func hasXattrs(hdr *tar.Header) bool {
	for record := range hdr.PAXRecords {
		if strings.HasPrefix(record, xattrPrefix) {
			return true
		}
	}
	return false
}

// setXattr sets an attribute of a file.
type setXattr func(name string, value []byte) error

// setXattrs sets the attributes of an entry with set. Those that the file system
// has no place for give a warning.
func (a *Applier) setXattrs(hdr *tar.Header, set setXattr) error {
	size := 0
	for _, record := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		name, ok := strings.CutPrefix(record, xattrPrefix)
		if !ok {
			continue
		}
		size += len(name) + len(hdr.PAXRecords[record])
		if why := xattrUnfit(name, size); why != "" {
			a.checker.warn(record, "extended attribute %q is not kept: %s", name, why)
			continue
		}
		err := set(name, []byte(hdr.PAXRecords[record]))
		switch {
		case err == nil:
		case xattrRefused(err):
			a.checker.warn(record, "extended attribute %q is not kept: %v", name, err)
		case errors.Is(err, unix.EINVAL): // not of the form that attributes of this name have
			return fmt.Errorf("%w: %q: %w", ErrXattr, name, err)
		default:
			return fmt.Errorf("extended attribute %q: %w", name, err)
		}
	}
	return nil
}
