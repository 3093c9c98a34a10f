package zfs

import (
	"os"
	"os/exec"
	"path/filepath"
)

// program is the file of a command. What is the base system's /sbin/zfs stands in /rescue
// once more, statically linked (rescue(8)), and comes to life there in a fraction of the
// time, which is most of what a clone takes.
func program(command string) string {
	if found, err := exec.LookPath(command); err != nil || filepath.Dir(found) != "/sbin" {
		return command
	}
	static := filepath.Join("/rescue", command)
	if _, err := os.Stat(static); err != nil {
		return command
	}
	return static
}
