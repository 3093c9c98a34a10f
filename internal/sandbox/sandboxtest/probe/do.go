//go:build unix

package probe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// steps are what a file for do may have, each with the number of its arguments.
var steps = map[string]struct {
	args int
	run  func(args []string) error
}{
	"write":   {2, func(a []string) error { return os.WriteFile(a[0], []byte(a[1]), 0o644) }},
	"copy":    {2, copyFile},
	"mkdir":   {1, func(a []string) error { return os.Mkdir(a[0], 0o755) }},
	"link":    {2, func(a []string) error { return os.Link(a[0], a[1]) }},
	"symlink": {2, func(a []string) error { return os.Symlink(a[0], a[1]) }},
	"fifo":    {1, func(a []string) error { return unix.Mkfifo(a[0], 0o600) }},
	"socket":  {1, socket},
	"remove":  {1, func(a []string) error { return os.RemoveAll(a[0]) }},
	"rename":  {2, func(a []string) error { return os.Rename(a[0], a[1]) }},
	"chmod":   {2, chmod},
	"chown":   {2, chown},
	"xattr":   {3, func(a []string) error { return unix.Setxattr(a[0], a[1], []byte(a[2]), 0) }},
}

// do changes files as the lines of a file say, each a list of words in JSON, where
// there is no shell: ["write", "/etc/motd", "hello"].
func do(_ System, args []string) error {
	script, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	for line := range bytes.Lines(script) {
		var words []string
		if err := json.Unmarshal(line, &words); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		step, ok := steps[words[0]]
		if !ok || len(words) != 1+step.args {
			return fmt.Errorf("bad step %s", line)
		}
		if err := step.run(words[1:]); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(args []string) error {
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	return os.WriteFile(args[1], data, 0o644)
}

// socket leaves a socket that nobody listens on.
func socket(args []string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

func chmod(args []string) error {
	mode, err := strconv.ParseUint(args[0], 8, 12)
	if err != nil {
		return err
	}
	return unix.Chmod(args[1], uint32(mode)) // os.Chmod has other bits for set-uid
}

func chown(args []string) error {
	id, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return os.Lchown(args[1], id, id)
}
