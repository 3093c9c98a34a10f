//go:build !linux

package runtime

import (
	"os"
	"path/filepath"
)

// socketPath is the plain path: sun_path holds 104 bytes on FreeBSD (unix(4)), and
// a root whose sockets do not fit is refused by bind(2).
func socketPath(dir *os.File, name string) string {
	return filepath.Join(dir.Name(), name)
}
