package extract

import "golang.org/x/sys/unix"

// dropPrivileges enters capability mode (capsicum(4)), for ever: from then on nothing
// can be reached but what is below an open directory. Root stays root there.
func dropPrivileges() error { return unix.CapEnter() }
