//go:build unix

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Listen opens a socket for Engine.Listen, in the network of the calling thread: at an
// address, or when that is not valid at all of both families.
func Listen(ctx context.Context, protocol string, at netip.Addr, port uint16) (_ *os.File, err error) {
	host := ""
	if at.IsValid() {
		host = at.String()
	}
	address := net.JoinHostPort(host, strconv.Itoa(int(port)))
	var cfg net.ListenConfig
	cfg.SetMultipathTCP(false) // programs may ask what they were given (getsockopt(2))
	var socket interface {
		File() (*os.File, error)
		Close() error
	}
	switch protocol {
	case "tcp":
		l, err := cfg.Listen(ctx, protocol, address)
		if err != nil {
			return nil, err
		}
		socket = l.(*net.TCPListener)
	case "udp":
		c, err := cfg.ListenPacket(ctx, protocol, address)
		if err != nil {
			return nil, err
		}
		socket = c.(*net.UDPConn)
	default:
		return nil, fmt.Errorf("protocol %q: %w", protocol, ErrUnsupported)
	}
	defer func() { err = errors.Join(err, socket.Close()) }()
	f, err := socket.File()
	if err != nil {
		return nil, err
	}
	return f, unix.SetNonblock(int(f.Fd()), false)
}
