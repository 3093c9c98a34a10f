package testenv

import "testing"

// LinuxABI has the host run Linux programs.
func LinuxABI(testing.TB) {}
