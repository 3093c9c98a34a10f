package runtime

import (
	"fmt"
	"os"
)

// socketPath names a socket in dir by its descriptor: sun_path holds 108 bytes
// (unix(7)), and a root may lie deeper.
func socketPath(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}
