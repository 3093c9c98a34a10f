package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

const isPrivate = "JETPACK_TEST_PRIVATE"

// PrivateMounts runs the tests of m in a mount namespace of their own, so that
// what they mount is seen by nobody else and ends with them, and returns the
// exit code for os.Exit. Somebody who is not root gets no namespace; tests that
// mount call Root.
func PrivateMounts(m *testing.M) int { return private(m, syscall.CLONE_NEWNS) }

// PrivateNetwork is PrivateMounts with a network namespace beside, in which there is a
// loopback interface and nothing else: what the tests do to interfaces and packet
// filters is seen by nobody else, and they reach nobody.
func PrivateNetwork(m *testing.M) int { return private(m, syscall.CLONE_NEWNS|syscall.CLONE_NEWNET) }

func private(m *testing.M, namespaces uintptr) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	if os.Getenv(isPrivate) != "" {
		if err := loopbackUp(); err != nil {
			fmt.Fprintln(os.Stderr, "turn the loopback interface on:", err)
			return 1
		}
		return m.Run()
	}
	// Pdeathsig is sent when the thread that started the process ends.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), isPrivate+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// With CLONE_NEWNS, os/exec makes all mounts private as well (MS_REC|MS_PRIVATE).
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: namespaces, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run tests in private namespaces:", err)
		return 1
	}
	return 0
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
