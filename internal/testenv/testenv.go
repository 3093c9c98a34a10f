// Package testenv tells tests what the machine under them permits, so that what
// is skipped is skipped aloud.
//
// Not for: anything outside _test.go files.
package testenv

import (
	"os"
	"testing"
)

// Loopback is the environment variable with the name of the interface that tests
// give pods addresses of on FreeBSD. WithLoopback sets it, and keeps one that is set.
const Loopback = "JETPACK_TEST_LO"

// Root skips a test that needs root when run by somebody else.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}
