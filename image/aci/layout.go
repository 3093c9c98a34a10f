package aci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// ValidateLayout checks a directory that an archive is to be made of (appc spec,
// aci.md, "Image Layout"): it has exactly a manifest, a regular file, and rootfs,
// a directory in which there is nothing that no image may have. No symbolic link
// is followed but one to dir itself. Errors: ErrLayout, ErrNoManifest,
// ErrNoRootfs, manifest.ErrInvalid, those of image/layer about entries.
func ValidateLayout(ctx context.Context, dir string, l layer.Limits) (Manifest, error) {
	m, err := validateLayout(ctx, dir, l)
	if err != nil {
		return Manifest{}, fmt.Errorf("validate layout %q: %w", dir, err)
	}
	return m, nil
}

func validateLayout(ctx context.Context, dir string, l layer.Limits) (Manifest, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Manifest{}, err
	}
	types := map[string]fs.FileMode{}
	for _, e := range entries {
		if e.Name() != manifestName && e.Name() != rootfsName {
			return Manifest{}, fmt.Errorf("%w: unexpected %.100q", ErrLayout, e.Name())
		}
		types[e.Name()] = e.Type()
	}
	if _, ok := types[manifestName]; !ok {
		return Manifest{}, ErrNoManifest
	}
	if typ, ok := types[rootfsName]; !ok {
		return Manifest{}, ErrNoRootfs
	} else if typ != fs.ModeDir {
		return Manifest{}, fmt.Errorf("%w: rootfs is no directory", ErrLayout)
	}
	m, err := readLayoutManifest(filepath.Join(dir, manifestName))
	if err != nil {
		return Manifest{}, err
	}
	return m, checkTree(ctx, filepath.Join(dir, rootfsName), l)
}

// readLayoutManifest does not follow a link, nor wait for a writer to a fifo.
func readLayoutManifest(path string) (_ Manifest, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) { // FreeBSD says EMLINK
		return Manifest{}, fmt.Errorf("%w: the manifest is a symbolic link", ErrLayout)
	}
	if err != nil {
		return Manifest{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return Manifest{}, err
	}
	if !info.Mode().IsRegular() {
		return Manifest{}, fmt.Errorf("%w: the manifest is no regular file", ErrLayout)
	}
	raw, err := io.ReadAll(io.LimitReader(f, manifest.MaxSize+1))
	if err != nil {
		return Manifest{}, err
	}
	if len(raw) > manifest.MaxSize {
		return Manifest{}, fmt.Errorf("%w: manifest of more than %d bytes", ErrLayout, manifest.MaxSize)
	}
	return parseManifest(raw)
}

// checkTree checks the types, names and number of what is in a tree.
func checkTree(ctx context.Context, rootfs string, l layer.Limits) error {
	checker, err := layer.NewChecker(l)
	if err != nil {
		return err
	}
	return filepath.WalkDir(rootfs, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(rootfs, path)
		if err != nil {
			return err
		}
		hdr, err := layoutEntry(path, d)
		if err != nil {
			return err
		}
		return checker.Check(hdr, name, anything{})
	})
}

// layoutEntry is what an archive would have for a file, as far as it can be wrong.
func layoutEntry(path string, d fs.DirEntry) (*tar.Header, error) {
	info, err := d.Info()
	if err != nil {
		return nil, err
	}
	link := ""
	if d.Type() == fs.ModeSymlink {
		if link, err = os.Readlink(path); err != nil {
			return nil, err
		}
	}
	if d.Type() == fs.ModeSocket {
		return nil, fmt.Errorf("%q: %w: socket", path, layer.ErrType)
	}
	return tar.FileInfoHeader(plainInfo{info}, link)
}

// plainInfo keeps archive/tar from looking owners up by name.
type plainInfo struct{ fs.FileInfo }

func (plainInfo) Uname() (string, error) { return "", nil }
func (plainInfo) Gname() (string, error) { return "", nil }

// anything stands for content that does not matter.
type anything struct{}

func (anything) Read(p []byte) (int, error) { return len(p), nil }
