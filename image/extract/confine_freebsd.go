package extract

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropPrivileges enters capability mode (capsicum(4)), for ever: from then on nothing
// can be reached but what is below an open directory. Root stays root there.
func dropPrivileges() error { return unix.CapEnter() }

// executable is what this process runs.
func executable() (string, error) { return os.Executable() }
