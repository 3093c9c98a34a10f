package aci

// maxInherited is a descriptor above those that a parent has open: /dev/fd shows
// only three without fdescfs(5).
const maxInherited = 1 << 16

// closeInherited closes all descriptors from first on that were not opened here.
func closeInherited(first int) error {
	for fd := first; fd < maxInherited; fd++ {
		if err := closeIfInherited(fd); err != nil {
			return err
		}
	}
	return nil
}

// dropPrivileges has nothing to give up: root is all or nothing, but for jails.
func dropPrivileges() error { return nil }
