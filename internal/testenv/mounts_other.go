//go:build !linux

package testenv

import "testing"

// PrivateMounts runs the tests of m and returns the exit code for os.Exit. This
// system has no mount namespaces.
func PrivateMounts(m *testing.M) int { return m.Run() }
