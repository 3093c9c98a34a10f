package testenv

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// PrivateMounts runs the tests of m, on a system without mount namespaces, with what
// pods need of a host: see WithLoopback.
func PrivateMounts(m *testing.M) int { return WithLoopback(m) }

// PrivateNetwork is PrivateMounts.
func PrivateNetwork(m *testing.M) int { return WithLoopback(m) }

// WithLoopback runs the tests of m with a loopback interface of their own, which has
// a network of both families, and returns the exit code for os.Exit. Without root
// there is none; tests that need it call Root.
func WithLoopback(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	name, made := os.Getenv(Loopback), false
	if name == "" {
		out, err := exec.Command("ifconfig", "lo", "create").Output()
		if err != nil {
			fmt.Fprintln(os.Stderr, "create a loopback interface:", err)
			return 1
		}
		name, made = strings.TrimSpace(string(out)), true
	}
	code := 1
	err := configure(name)
	if err == nil {
		err = os.Setenv(Loopback, name)
	}
	if err == nil {
		code = m.Run()
	}
	if made {
		if e := exec.Command("ifconfig", name, "destroy").Run(); e != nil && err == nil {
			err = e
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "loopback interface %s: %v\n", name, err)
		return 1
	}
	return code
}

// configure gives the interface networks that nothing else on the host has.
func configure(name string) error {
	out, err := exec.Command("ifconfig", name, "inet").Output()
	if err != nil || strings.Contains(string(out), "inet ") {
		return err
	}
	n := rand.IntN(256)
	for _, args := range [][]string{
		{name, "inet", fmt.Sprintf("10.213.%d.1/24", n)},
		{name, "inet6", fmt.Sprintf("fd6a:6574:7061:%x::1/64", n)},
	} {
		if out, err := exec.Command("ifconfig", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ifconfig %q: %w: %s", args, err, out)
		}
	}
	return nil
}
