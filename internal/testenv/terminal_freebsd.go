package testenv

import (
	"fmt"
	"os"
	"testing"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// Terminal makes a terminal: ours is the side of who shows it, name the file of the
// side of programs. Package console needs cgo for that here.
func Terminal(tb testing.TB) (ours console.Console, name string) {
	tb.Helper()
	fd, _, errno := unix.Syscall(unix.SYS_POSIX_OPENPT, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		tb.Fatal("posix_openpt: ", errno)
	}
	n, err := unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
	if err == nil {
		err = unix.SetNonblock(int(fd), true) // so that closing it ends a Read
	}
	if err == nil {
		ours, err = console.ConsoleFromFile(os.NewFile(fd, "terminal"))
	}
	if err != nil {
		tb.Fatal(err)
	}
	return ours, fmt.Sprintf("/dev/pts/%d", n)
}
