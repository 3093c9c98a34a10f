package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// By bindat(2) and connectat(2).

func listen(dir *os.File, name string) (*net.UnixListener, error) {
	f, err := socketAt(unix.SYS_BINDAT, dir, name)
	if err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	defer func() { _ = f.Close() }() // the listener has a copy
	if err := unix.Listen(int(f.Fd()), unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// dial needs no ctx: it takes no time.
func dial(_ context.Context, dir *os.File, name string) (net.Conn, error) {
	f, err := socketAt(unix.SYS_CONNECTAT, dir, name)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = f.Close() }() // the connection has a copy
	return net.FileConn(f)
}

// socketAt makes a socket and binds or connects it.
func socketAt(trap uintptr, dir *os.File, name string) (_ *os.File, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	addr := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	if len(name) >= len(addr.Path) {
		return nil, errors.Join(unix.ENAMETOOLONG, f.Close())
	}
	for i, c := range []byte(name) {
		addr.Path[i] = int8(c)
	}
	addr.Len = uint8(unsafe.Offsetof(addr.Path)) + uint8(len(name)) + 1
	_, _, errno := unix.Syscall6(trap, dir.Fd(), uintptr(fd), uintptr(unsafe.Pointer(&addr)), uintptr(addr.Len), 0, 0) //nolint:gosec // no wrapper in x/sys
	runtime.KeepAlive(dir)
	if errno != 0 {
		return nil, errors.Join(errno, f.Close())
	}
	return f, nil
}
