//go:build unix

package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// NewOCIChecker prepares to check one OCI layer, as NewOCIApplier would apply it. What
// only the layers below could tell it takes for right.
func NewOCIChecker(l Limits) (*Checker, error) {
	c, err := NewChecker(l)
	if err == nil {
		c.oci = true
	}
	return c, err
}

// NewOCIApplier prepares to apply one layer of an OCI image (OCI image-spec, layer.md) to
// dir, which has what the layers below made. In such a layer
//
//   - an entry DIR/.wh.NAME hides what lower layers have as DIR/NAME, and
//     DIR/.wh..wh..opq all that they have in DIR, wherever in the archive it stands:
//     what the same layer makes stays. Other names that begin with .wh..wh. are AUFS's
//     own and ignored;
//   - a hard link may have a target of a lower layer, and one that is no regular file,
//     such as a symbolic link;
//   - a name may be there several times, always as a directory or never: the last wins;
//   - parents are not replaced: an entry below what lower layers have as a symbolic link
//     is made where that leads to inside dir, as Docker and containerd do; below a file it is
//     ErrThroughLink; unless an entry of the layer makes it a directory before.
//
// All else is as NewApplier has it.
func NewOCIApplier(dir *os.File, l Limits) (*Applier, error) {
	a, err := NewApplier(dir, l, nil)
	if err == nil {
		a.checker.oci = true
	}
	return a, err
}

// mark is what the name of an entry of an OCI layer stands for.
type mark uint8

const (
	noMark      mark = iota // the entry itself
	whiteout                // what lower layers have under another name is hidden
	opaque                  // what they have in the directory is hidden
	meaningless             // nothing
)

// WhiteoutPrefix begins the name of an entry that hides (OCI image-spec, layer.md,
// "Whiteouts").
const WhiteoutPrefix = ".wh."

const (
	aufsPrefix = ".wh..wh."
	opaqueName = ".wh..wh..opq"
)

// markOf tells what a clean name stands for, and what is hidden. Errors: ErrName.
func markOf(name string) (m mark, hidden string, err error) {
	if !strings.Contains(name, WhiteoutPrefix) {
		return noMark, "", nil
	}
	dir, base := path.Split(name)
	for component := range strings.SplitSeq(path.Clean(dir), "/") {
		switch {
		case strings.HasPrefix(component, aufsPrefix):
			return meaningless, "", nil
		case strings.HasPrefix(component, WhiteoutPrefix):
			return noMark, "", fmt.Errorf("%w: below a whiteout", ErrName)
		}
	}
	rest, ok := strings.CutPrefix(base, WhiteoutPrefix)
	switch {
	case !ok:
		return noMark, "", nil
	case base == opaqueName:
		return opaque, path.Clean(dir), nil
	case strings.HasPrefix(base, aufsPrefix):
		return meaningless, "", nil
	case rest == "" || rest == "." || rest == "..":
		return noMark, "", fmt.Errorf("%w: whiteout of %q", ErrName, rest)
	}
	return whiteout, dir + rest, nil
}

// admitMark checks an entry that stands for something else, and counts it.
func (c *Checker) admitMark(hdr *tar.Header, name string, m mark, hidden string) error {
	// AUFS has hard links as whiteouts.
	if m != meaningless && hdr.Typeflag != tar.TypeReg && hdr.Typeflag != tar.TypeLink {
		return fmt.Errorf("%w %q for a whiteout", ErrType, hdr.Typeflag)
	}
	if err := c.checkSize(hdr); err != nil {
		return err
	}
	if hasContent(hdr) {
		c.bytes += hdr.Size
	}
	if m != meaningless {
		for p := path.Dir(path.Join(hidden, "x")); p != "."; p = path.Dir(p) {
			k := c.known[keyOf(p)]
			if (p != hidden || m == opaque) && (k == regular || k == leaf) {
				return fmt.Errorf("%w: %q", ErrThroughLink, p)
			}
		}
	}
	return c.mark(keyOf(name), leaf)
}

// applyMark hides what an entry says.
func (a *Applier) applyMark(hdr *tar.Header, m mark, hidden string, r io.Reader) error {
	if err := skipContent(hdr, r); err != nil || m == meaningless {
		return err
	}
	if m == opaque || a.checker.isDir(hidden) {
		return a.inExisting(hidden, func(d directory) error { return a.clear(d) })
	}
	if a.checker.known[keyOf(hidden)] != 0 {
		return nil // what lower layers had has been replaced
	}
	return a.inExisting(path.Dir(hidden), func(d directory) error {
		return a.removeExisting(d, path.Base(hidden))
	})
}

// isDir tells whether the archive has a directory of a name so far.
func (c *Checker) isDir(name string) bool {
	k := c.known[keyOf(name)]
	return k == implicitDir || k == explicitDir || name == "."
}

// inExisting changes a directory, if it is there, and restores its times.
func (a *Applier) inExisting(name string, change func(directory) error) error {
	fd, err := a.openExisting(name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil // lower layers have nothing there
	case isNoDirectory(err):
		return fmt.Errorf("%w: %q", ErrThroughLink, name)
	case err != nil:
		return err
	}
	d := directory{fd, name}
	defer closeDir(fd)
	if err := change(d); err != nil {
		return err
	}
	return a.restoreTimes(d)
}

// clear removes what is in a directory and below it, but what the archive made.
func (a *Applier) clear(d directory) (err error) {
	fd, err := openat(d.fd, ".", dirFlags, 0) // to be read on its own
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "directory") // the name is hostile
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		names, err := f.Readdirnames(1000)
		if err == io.EOF { //nolint:errorlint // of a directory nothing wraps it
			return nil
		}
		if err != nil {
			return err
		}
		for _, base := range names {
			name := path.Join(d.name, base)
			switch {
			case a.checker.isDir(name):
				err = a.inExisting(name, a.clear)
			case a.checker.known[keyOf(name)] == 0:
				err = a.removeExisting(d, base)
			}
			if err != nil {
				return err
			}
		}
	}
}
