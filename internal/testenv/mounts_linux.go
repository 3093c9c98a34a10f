package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

const inPrivateMounts = "JETPACK_TEST_PRIVATE_MOUNTS"

// PrivateMounts runs the tests of m in a mount namespace of their own, so that
// what they mount is seen by nobody else and ends with them, and returns the
// exit code for os.Exit. Somebody who is not root gets no namespace; tests that
// mount call Root.
func PrivateMounts(m *testing.M) int {
	if os.Geteuid() != 0 || os.Getenv(inPrivateMounts) != "" {
		return m.Run()
	}
	// Pdeathsig is sent when the thread that started the process ends.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inPrivateMounts+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// With CLONE_NEWNS, os/exec makes all mounts private as well (MS_REC|MS_PRIVATE).
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run tests in a private mount namespace:", err)
		return 1
	}
	return 0
}
