//go:build unix && !linux

package hostile

import "syscall"

// memoryOfChildren: nothing says what the children took alone.
const memoryOfChildren = false

// memory finds out how much of it this process takes at most.
type memory struct{}

func watchMemory() *memory { return &memory{} }

// end gives the peak of this process, in KiB.
func (*memory) end() (self, child int64, err error) {
	var u syscall.Rusage
	err = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return int64(u.Maxrss), 0, err
}
