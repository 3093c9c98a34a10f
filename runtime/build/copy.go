package build

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/jetpack-run/jetpack/image/layer"
)

// copyDir copies what is in a directory to another one.
func copyDir(ctx context.Context, from, to string, l layer.Limits) error {
	return copyPacked(to, "", l, func(w *tar.Writer) error { return layer.Pack(ctx, w, from, nil, layer.PackOptions{}) })
}

// copyFile copies a file, or a directory with all that is in it, by its own name; where a
// symbolic link leads to, by the link's.
func copyFile(ctx context.Context, file, to string, l layer.Limits) error {
	abs, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	target, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return err
	}
	fi, err := os.Stat(target)
	if err != nil {
		return err
	}
	as := filepath.Base(abs)
	if fi.IsDir() {
		return copyPacked(to, "", l, func(w *tar.Writer) error {
			return layer.Pack(ctx, w, target, nil, layer.PackOptions{Below: as})
		})
	}
	return copyPacked(to, as, l, func(w *tar.Writer) error {
		return layer.Pack(ctx, w, filepath.Dir(target), []string{filepath.Base(target)}, layer.PackOptions{})
	})
}

// copyPacked makes in a directory what pack writes: with its times, which make(1) goes by, and
// root's, as everything is that a command as root finds its own. as is what the only entry is
// called here; "" leaves names as they are.
func copyPacked(to, as string, l layer.Limits, pack func(*tar.Writer) error) (err error) {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		err := pack(tw)
		if err == nil {
			err = tw.Close() // which makes it whole
		}
		w.CloseWithError(err)
	}()
	defer func() { err = errors.Join(err, r.Close()) }()
	return unpack(to, r, l, func(hdr *tar.Header) { hdr.Uid, hdr.Gid, hdr.Name = 0, 0, cmp.Or(as, hdr.Name) })
}

// unpack makes in a directory what an archive holds, each entry as change leaves it.
func unpack(to string, archive io.Reader, l layer.Limits, change func(*tar.Header)) (err error) {
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
	in := tar.NewReader(archive)
	for {
		hdr, err := in.Next()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF is a failure to read
			return nil
		}
		if err != nil {
			return err
		}
		change(hdr)
		name, err := layer.CleanName(hdr.Name)
		if err != nil {
			return err
		}
		if err := applier.Apply(hdr, name, in); err != nil {
			return err
		}
	}
}
