package hostile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// memoryOfChildren: children are seen.
const memoryOfChildren = true

// memory finds out how much of it this process and each of its children take at
// most. What getrusage(2) says of a child includes what its parent took when it
// forked, so the children are looked at while they live: that misses what
// they take in their last milliseconds.
type memory struct {
	stop  chan struct{}
	child chan int64
}

func watchMemory() *memory {
	m := &memory{make(chan struct{}), make(chan int64)}
	go m.run()
	return m
}

func (m *memory) run() {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	most := int64(0)
	for {
		select {
		case <-m.stop:
			m.child <- most
			return
		case <-tick.C:
			most = max(most, childPeak())
		}
	}
}

// end gives the peaks of this process and of the largest child, in KiB.
func (m *memory) end() (self, child int64, err error) {
	close(m.stop)
	self, err = peak("/proc/self")
	return self, <-m.child, err
}

// childPeak is the peak of the extracting process, 0 if there is none.
func childPeak() (most int64) {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		pids, _ := os.ReadFile(list)
		for _, pid := range strings.Fields(string(pids)) {
			// Before execve(2) it is its parent in all respects.
			command, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			if !bytes.HasPrefix(command, []byte("jetpack-extract\x00")) {
				continue
			}
			if p, err := peak(filepath.Join("/proc", pid)); err == nil { // else it has just ended
				most = max(most, p)
			}
		}
	}
	return most
}

// peak reads the most resident memory that a process had since execve(2), in KiB.
func peak(proc string) (int64, error) {
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return 0, err
	}
	_, after, ok := strings.Cut(string(status), "VmHWM:")
	if !ok {
		return 0, fmt.Errorf("%s/status has no VmHWM", proc)
	}
	var kib int64
	_, err = fmt.Sscan(after, &kib)
	return kib, err
}
