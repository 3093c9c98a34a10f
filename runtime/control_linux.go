package runtime

import (
	"context"
	"fmt"
	"net"
	"os"
)

// socketPath names a socket in dir by its descriptor: sun_path holds 108 bytes
// (unix(7)), and a root may lie deeper.
func socketPath(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

// listenAt makes a socket in a directory and listens on it.
func listenAt(dir *os.File, name string) (*net.UnixListener, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(dir, name), Net: "unix"})
}

// dialAt connects to a socket in a directory.
func dialAt(ctx context.Context, dir *os.File, name string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", socketPath(dir, name))
}
