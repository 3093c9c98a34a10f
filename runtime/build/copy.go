package build

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"github.com/jetpack-run/jetpack/image/layer"
)

// copyTree copies what is in a directory, all or only names, to another one: with its times,
// which make(1) goes by, and root's, as everything is that a command as root finds its own.
// The names' first component becomes as, unless that is "".
func copyTree(ctx context.Context, from string, names []string, as, to string, l layer.Limits) (err error) {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		err := layer.Pack(ctx, tw, from, names, layer.PackOptions{})
		if err == nil {
			err = tw.Close() // which makes it whole
		}
		w.CloseWithError(err)
	}()
	defer func() { err = errors.Join(err, r.Close()) }()
	dir, err := os.Open(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	applier, err := layer.NewApplier(dir, l, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, applier.Close()) }()
	in := tar.NewReader(r)
	for {
		hdr, err := in.Next()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF is a failure to read
			return nil
		}
		if err != nil {
			return err
		}
		hdr.Uid, hdr.Gid = 0, 0
		name, err := layer.CleanName(hdr.Name)
		if err != nil {
			return err
		}
		if as != "" {
			name, hdr.Linkname = renamed(name, as), linkName(hdr, as)
		}
		if err := applier.Apply(hdr, name, in); err != nil {
			return err
		}
	}
}

func renamed(name, as string) string {
	_, rest, _ := strings.Cut(name, "/")
	return path.Join(as, rest)
}

// linkName is where a hard link leads to after the renaming, and a symbolic one as ever.
func linkName(hdr *tar.Header, as string) string {
	if hdr.Typeflag != tar.TypeLink {
		return hdr.Linkname
	}
	return renamed(hdr.Linkname, as)
}
