//go:build !linux

package render_test

import (
	"testing"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// scratch gives a directory that lasts as long as the test.
func scratch(t testing.TB) string {
	t.Helper()
	testenv.Root(t)
	return t.TempDir()
}
