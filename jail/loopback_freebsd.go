package jail

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/network"
	"github.com/jetpack-run/jetpack/internal/self"
)

// loopbackName is the program's name as the process that turns a jail's loopback
// interface on: only a process in the jail sees it.
const loopbackName = "jetpack-loopback"

func init() {
	reexec.Register(loopbackName, func() {
		if err := loopback(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	})
}

func loopback(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want a jail, not %q", args)
	}
	jid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_JAIL_ATTACH, uintptr(jid), 0, 0); errno != 0 {
		return fmt.Errorf("attach to jail %d: %w", jid, errno)
	}
	return network.UpLoopback()
}

// upLoopback turns on the loopback interface of a jail with its own network. The
// program must call reexec.Init first thing in its main.
func upLoopback(jid int) error {
	program, err := self.Path(loopbackName)
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd := exec.Command(program) //nolint:noctx // it ends by itself
	cmd.Args = []string{loopbackName, strconv.Itoa(jid)}
	cmd.Env, cmd.Dir, cmd.Stderr = []string{}, "/", &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("turn loopback interface on: %s (%w)", strings.TrimSpace(stderr.String()), err)
	}
	return nil
}
