//go:build unix

package layer

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Limits bound what an archive may make. Both must be positive.
type Limits struct {
	// MaxBytes is the sum of the sizes of all files, holes included.
	MaxBytes int64
	// MaxEntries counts entries, and directories of which the archive has none but
	// that are parents of entries. Memory is at most about 100 bytes for each.
	MaxEntries int64
}

// Checker checks the entries of one archive against each other, against limits
// and for what no tree may have. What it refuses an Applier refuses, too, with
// the same error; what it accepts, only the file system can refuse.
type Checker struct {
	limits   Limits
	oci      bool // it is an OCI layer: see NewOCIApplier
	bytes    int64
	known    map[key]kind        // entries, and directories that are their parents
	warned   map[string]struct{} // what there is a warning for
	warnings []string
}

// key is a hash of a clean name: names themselves would let an archive of a
// million long names take a gigabyte.
type key [16]byte

func keyOf(name string) key {
	sum := sha256.Sum256([]byte(name))
	return key(sum[:16])
}

// kind is what is known of a name.
type kind uint8

const (
	implicitDir kind = iota + 1 // a parent without an entry so far
	explicitDir                 // a directory with an entry
	regular                     // a regular file, under whichever of its names
	leaf                        // anything else with an entry, skipped devices included
)

// NewChecker prepares to check one archive.
func NewChecker(l Limits) (*Checker, error) {
	if l.MaxBytes <= 0 || l.MaxEntries <= 0 {
		return nil, fmt.Errorf("limits must be positive, not %+v", l)
	}
	return &Checker{limits: l, known: map[key]kind{}, warned: map[string]struct{}{}}, nil
}

// Check checks one entry and reads its content. The parameters are those of
// Applier.Apply.
func (c *Checker) Check(hdr *tar.Header, name string, r io.Reader) error {
	if name == "" {
		name = "."
	}
	err := c.admit(hdr, name)
	if err == nil {
		err = skipContent(hdr, r)
	}
	if err != nil {
		return fmt.Errorf("entry %q: %w", name, err)
	}
	return nil
}

// Warnings are what an Applier leaves out on any file system, in lines fit for
// printing.
func (c *Checker) Warnings() []string { return slices.Clone(c.warnings) }

// maxWarnings bounds what an archive can make us print and remember.
const maxWarnings = 50

// warn adds a warning, once for each subject.
func (c *Checker) warn(subject, format string, args ...any) {
	_, done := c.warned[subject]
	if done || len(c.warned) > maxWarnings {
		return
	}
	c.warned[subject] = struct{}{}
	if len(c.warned) > maxWarnings {
		c.warnings = append(c.warnings, "further warnings are left out")
		return
	}
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// admit checks an entry all but its content and remembers it.
func (c *Checker) admit(hdr *tar.Header, name string) error {
	if m, hidden, err := c.markOf(name); err != nil {
		return err
	} else if m != noMark {
		return c.admitMark(hdr, name, m, hidden)
	}
	if err := c.checkEntry(hdr, name); err != nil {
		return err
	}
	if err := c.admitParents(name); err != nil {
		return err
	}
	k := leaf
	switch hdr.Typeflag {
	case tar.TypeDir:
		k = explicitDir
	case tar.TypeReg, tar.TypeGNUSparse:
		c.bytes += hdr.Size
		k = regular
	case tar.TypeLink:
		if err := c.checkHardLink(hdr.Linkname); err != nil {
			return err
		}
		k = regular
	case tar.TypeChar, tar.TypeBlock:
		c.warn("device", "device nodes in dev/ are skipped (%q is the first)", name)
	}
	c.warnXattrs(hdr)
	return c.mark(keyOf(name), k)
}

// checkEntry refuses an entry for what it is by itself, for being there already
// and for what it adds to the sum of all sizes.
func (c *Checker) checkEntry(hdr *tar.Header, name string) error {
	if err := checkType(hdr, name); err != nil {
		return err
	}
	if clean, err := CleanName(name); err != nil || clean != name {
		return ErrName
	}
	if known := c.known[keyOf(name)]; known != 0 && !c.mayRepeat(known, hdr.Typeflag == tar.TypeDir) {
		return ErrDuplicate
	}
	for _, id := range []int{hdr.Uid, hdr.Gid} {
		if id < 0 || int64(id) > maxID {
			return fmt.Errorf("%w: %d", ErrOwner, id)
		}
	}
	if err := c.checkSize(hdr); err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeSymlink {
		if n := len(hdr.Linkname); n == 0 || n > maxName || strings.IndexByte(hdr.Linkname, 0) >= 0 {
			return fmt.Errorf("%w: %.64q of %d bytes", ErrSymlink, hdr.Linkname, n)
		}
	}
	return checkXattrs(hdr)
}

// mayRepeat tells whether there may be one more entry of a name.
func (c *Checker) mayRepeat(known kind, isDir bool) bool {
	if c.oci {
		return isDir == (known == implicitDir || known == explicitDir)
	}
	return isDir && known == implicitDir
}

func (c *Checker) checkSize(hdr *tar.Header) error {
	if left := c.limits.MaxBytes - c.bytes; hasContent(hdr) && (hdr.Size < 0 || hdr.Size > left) {
		return fmt.Errorf("%w: %d bytes, %d left of %d", ErrTooLarge, hdr.Size, left, c.limits.MaxBytes)
	}
	return nil
}

// markOf is markOf for OCI layers; elsewhere names mean themselves.
func (c *Checker) markOf(name string) (mark, string, error) {
	if !c.oci {
		return noMark, "", nil
	}
	return markOf(name)
}

// admitParents refuses an entry below what is no directory. It looks upwards, to
// the first that is known: all above it is known, too.
func (c *Checker) admitParents(name string) error {
	var missing []key
search:
	for p := path.Dir(name); p != "."; p = path.Dir(p) {
		id := keyOf(p)
		switch c.known[id] {
		case implicitDir, explicitDir:
			break search
		case regular, leaf:
			return fmt.Errorf("%w: %q", ErrThroughLink, p)
		}
		missing = append(missing, id)
	}
	for _, id := range missing {
		if err := c.mark(id, implicitDir); err != nil {
			return err
		}
	}
	return nil
}

// checkHardLink wants the target to be a file that the archive has made: then none
// of its parents is a link, and it is no file of a lower layer, which would
// change owner and mode with the layer. In an OCI layer it may be one: the metadata of
// a hard link's entry is not applied.
func (c *Checker) checkHardLink(target string) error {
	clean, err := CleanName(target)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHardLink, err)
	}
	if c.oci {
		if c.isDir(clean) {
			return fmt.Errorf("%w: %q is a directory", ErrHardLink, clean)
		}
		return nil
	}
	if c.known[keyOf(clean)] != regular {
		return fmt.Errorf("%w: the archive has no regular file %q before it", ErrHardLink, clean)
	}
	return nil
}

// mark remembers what is under a name.
func (c *Checker) mark(id key, k kind) error {
	if _, known := c.known[id]; !known && int64(len(c.known)) >= c.limits.MaxEntries {
		return fmt.Errorf("%w: at most %d", ErrTooManyEntries, c.limits.MaxEntries)
	}
	c.known[id] = k
	return nil
}

// maxID is the highest user or group id: 2^32-1 means "unchanged" to chown(2).
const maxID = 1<<32 - 2

func hasContent(hdr *tar.Header) bool {
	return hdr.Typeflag == tar.TypeReg || hdr.Typeflag == tar.TypeGNUSparse
}

func isDevice(hdr *tar.Header) bool {
	return hdr.Typeflag == tar.TypeChar || hdr.Typeflag == tar.TypeBlock
}

func checkType(hdr *tar.Header, name string) error {
	switch hdr.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeLink, tar.TypeSymlink, tar.TypeFifo:
		if name == "." {
			return fmt.Errorf("%w: the top directory must be a directory", ErrType)
		}
		return nil
	case tar.TypeChar, tar.TypeBlock:
		if hdr.Typeflag == tar.TypeChar && hdr.Devmajor == 0 && hdr.Devminor == 0 {
			return ErrWhiteout
		}
		if !strings.HasPrefix(name, "dev/") {
			return ErrDevice
		}
		return nil
	}
	return fmt.Errorf("%w %q", ErrType, hdr.Typeflag)
}

// skipContent reads the content of an entry that is not made.
func skipContent(hdr *tar.Header, r io.Reader) error {
	if !hasContent(hdr) {
		return nil
	}
	if _, err := io.CopyN(io.Discard, r, hdr.Size); err != nil {
		return contentError(err)
	}
	return nil
}

// contentError tells what is wrong with the content of an entry; fewer bytes than
// announced are io.ErrUnexpectedEOF.
func contentError(err error) error {
	if err == io.EOF { //nolint:errorlint // a wrapped EOF is a failure to read
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read content: %w", err)
}

// maxName is the longest name or link target, in bytes: FreeBSD's PATH_MAX less
// the NUL.
const maxName = 1023

// CleanName turns an entry's name into the form that Apply wants: it strips
// leading "./" and trailing slashes and drops "." and empty components; the top
// directory is ".". Refused as ErrName are the empty name, absolute ones, those
// with a ".." component or a NUL, more than 1023 bytes, or a component of more
// than 255. Other control characters are legal: quote names on output.
func CleanName(name string) (string, error) {
	if name == "" || strings.HasPrefix(name, "/") || strings.IndexByte(name, 0) >= 0 {
		return "", nameError(name)
	}
	for component := range strings.SplitSeq(name, "/") {
		if component == ".." || len(component) > 255 {
			return "", nameError(name)
		}
	}
	clean := path.Clean(name)
	if len(clean) > maxName {
		return "", nameError(name)
	}
	return clean, nil
}

// nameError quotes no more of a name than is fit for a message: PAX permits a
// megabyte.
func nameError(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("%w: %d bytes that begin with %q", ErrName, len(name), name[:64])
	}
	return fmt.Errorf("%w: %q", ErrName, name)
}

// Below gives what follows the directory dir (a clean name) in an entry's name or
// the target of a hard link, in the form that Apply wants: Below("rootfs",
// "./rootfs/bin/") is "bin", Below("rootfs", "rootfs") is ".". Names that are not
// dir or below it, "rootfsX/bin" for one, are refused as ErrName.
func Below(dir, name string) (string, error) {
	clean, err := CleanName(name)
	if err != nil {
		return "", err
	}
	if clean == dir {
		return ".", nil
	}
	rel, ok := strings.CutPrefix(clean, dir+"/")
	if !ok {
		return "", fmt.Errorf("%w: %q is not below %q", ErrName, clean, dir)
	}
	return rel, nil
}
