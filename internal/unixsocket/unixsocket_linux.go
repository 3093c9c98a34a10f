package unixsocket

import (
	"context"
	"fmt"
	"net"
	"os"
)

func socketPath(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

func listen(dir *os.File, name string) (*net.UnixListener, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(dir, name), Net: "unix"})
}

func dial(ctx context.Context, dir *os.File, name string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", socketPath(dir, name))
}
