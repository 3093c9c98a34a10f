//go:build !linux

package runtime

import "path/filepath"

// holdSource gives the source of a host volume, free of symbolic links. nmount(2)
// takes paths only: between the check and the mount the operator's directories have
// to stay as they are.
func (*Runtime) holdSource(_, _, source string, symlinks, _ bool) (string, error) {
	if symlinks {
		return filepath.EvalSymlinks(source)
	}
	return source, nil
}

func (*Runtime) releaseSources(string) error { return nil }
