package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/inroot"
)

const resolvConf = "/etc/resolv.conf"

// resolver is the resolv.conf of a base, while the host's is in its place: a build on the
// host's network asks the host's name servers, and the image keeps the base's. (Where the base has
// none the pod gets the host's and loses it again, as any pod does.)
type resolver struct {
	base  bytes.Buffer // an archive of it; empty when nothing was replaced
	hosts unix.Stat_t
}

// replace puts the host's into a root.
func (r *resolver) replace(ctx context.Context, dir string) (err error) {
	data, err := os.ReadFile(resolvConf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if !isOf(root, path.Dir(resolvConf), unix.S_IFDIR) || !isOf(root, resolvConf, unix.S_IFREG, unix.S_IFLNK) {
		return nil
	}
	w := tar.NewWriter(&r.base)
	if err := layer.Pack(ctx, w, dir, []string{resolvConf[1:]}, layer.PackOptions{}); err != nil {
		return err
	}
	if err := errors.Join(w.Close(), root.WriteFile(resolvConf, data, 0o644)); err != nil {
		return err
	}
	r.hosts, err = root.Lstat(resolvConf)
	return err
}

// restore brings the base's back, unless the build has put another one there, or none.
func (r *resolver) restore(dir string, l layer.Limits) (err error) {
	if r.base.Len() == 0 {
		return nil
	}
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	is, err := root.Lstat(resolvConf)
	if err != nil || is.Mode != r.hosts.Mode || is.Ctim != r.hosts.Ctim {
		return nil // what cannot be looked at is the build's, too
	}
	etc, err := root.Resolve(path.Dir(resolvConf)) // which the build may have moved
	if err != nil {
		return err
	}
	return unpack(dir, &r.base, l, func(hdr *tar.Header) { hdr.Name = path.Join(etc, path.Base(resolvConf))[1:] })
}

// isOf tells whether path is of one of some types of files, itself and not where it leads to.
func isOf(root *inroot.Root, path string, types ...uint32) bool {
	st, err := root.Lstat(path)
	for _, t := range types {
		if err == nil && uint32(st.Mode)&unix.S_IFMT == t {
			return true
		}
	}
	return false
}
