// Package unixsocket makes and opens Unix sockets by their directory: an address has
// room for a path of some hundred bytes (unix(7), unix(4)), and a root may lie deeper.
//
// Not for: what is said through them.
package unixsocket

import (
	"context"
	"net"
	"os"
)

// Listen makes a socket in a directory and listens on it. It stays when the listener is
// closed, whose address is not a path that lasts.
func Listen(dir *os.File, name string) (*net.UnixListener, error) {
	l, err := listen(dir, name)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// Dial connects to a socket in a directory.
func Dial(ctx context.Context, dir *os.File, name string) (net.Conn, error) {
	return dial(ctx, dir, name)
}
