//go:build unix

package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What one name may lead through: as many links as the kernel goes, and of all their targets so
// many bytes, for each costs what a name of that length does.
const (
	maxFollowed = 40
	maxTargets  = 4096
)

// resolved is what a directory's name has led to.
type resolved struct{ name, to string }

// resolve gives what an entry of an OCI layer means: its name and the target of a hard link
// without the symbolic links of lower layers on the way there. They are followed inside the top
// directory, as Docker and containerd do, for layers of tools that do not look at the base: they
// have lib/x where the base has lib as a link to usr/lib. The result is only a name, in which
// whoever opens it follows no link.
func (a *Applier) resolve(hdr *tar.Header, name string) (*tar.Header, string, error) {
	name, err := a.resolveName(name)
	if err != nil || hdr.Typeflag != tar.TypeLink {
		return hdr, name, err
	}
	h := *hdr
	if h.Linkname, err = a.resolveName(hdr.Linkname); err != nil {
		return nil, "", fmt.Errorf("%w: %q: %w", ErrHardLink, hdr.Linkname, err)
	}
	return &h, name, nil
}

// resolveName resolves the directory of a name; what is no clean name the checker refuses.
func (a *Applier) resolveName(name string) (string, error) {
	if clean, err := CleanName(name); err != nil || clean != name {
		return name, nil //nolint:nilerr // the checker says it
	}
	// Only the last one is remembered: entries in other places may change where a name leads to.
	if dir := path.Dir(name); a.resolved.name != dir {
		to, err := a.resolveDir(dir)
		if err != nil {
			return "", err
		}
		a.resolved = resolved{dir, to}
	}
	return path.Join(a.resolved.to, path.Base(name)), nil
}

// resolveDir follows the links on the way to a directory, which need not be there. Errors:
// ErrThroughLink for what is neither a directory nor a link of a lower layer.
func (a *Applier) resolveDir(name string) (string, error) {
	if name == "." || a.parent.fd >= 0 && a.parent.name == name {
		return name, nil // it is open
	}
	if fd, err := openBeneath(a.root, name); err == nil {
		closeDir(fd)
		return name, nil
	}
	d, err := a.openTop()
	defer func() { closeDir(d.fd) }()
	links, length := 0, 0
	for rest := strings.Split(name, "/"); len(rest) > 0 && err == nil; {
		base := rest[0]
		rest = rest[1:]
		if base == ".." {
			err = a.reopen(&d, path.Dir(d.name))
			continue
		}
		at := path.Join(d.name, base)
		var fd int
		fd, err = openat(d.fd, base, dirFlags, 0)
		switch {
		case err == nil:
			closeDir(d.fd)
			d = directory{fd, at}
		case errors.Is(err, unix.ENOENT): // it is to be made; .. does not lead out
			return path.Join("/", at, path.Join(rest...))[1:], nil
		case isNoDirectory(err) && links < maxFollowed && length < maxTargets && a.checker.known[keyOf(at)] == 0:
			var target string
			target, err = a.follow(&d, base)
			links, length = links+1, length+len(target)
			rest = append(names(target), rest...)
		}
	}
	if isNoDirectory(err) {
		err = fmt.Errorf("%w: %q", ErrThroughLink, name)
	}
	return d.name, err
}

// follow gives the target of the link base in d; an absolute one begins at the top, where d is
// then.
func (a *Applier) follow(d *directory, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.fd, base, buf)
	if errors.Is(err, unix.EINVAL) {
		return "", unix.ENOTDIR // it is none
	}
	if err == nil && n > 0 && buf[0] == '/' {
		err = a.reopen(d, ".")
	}
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// names gives the components of a path that matter.
func names(target string) []string {
	all := strings.Split(target, "/")
	return slices.DeleteFunc(all, func(s string) bool { return s == "" || s == "." })
}

// reopen has d be another directory, to which no link leads.
func (a *Applier) reopen(d *directory, name string) error {
	fd, err := a.openExisting(name)
	if err != nil {
		return err
	}
	closeDir(d.fd)
	*d = directory{fd, name}
	return nil
}
