package descriptors

import (
	"os"
	"strconv"
)

// open gives the open descriptors (proc_pid_fd(5)), and perhaps one that was closed
// since.
func open() ([]int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}
