// Command greeter is the app of the demo: it waits for a guest's name in a
// shared volume, greets, and leaves its answer beside it.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

func main() {
	if err := greet("/shared", 10*time.Second); err != nil {
		fmt.Fprintln(os.Stderr, "greeter:", err)
		os.Exit(1)
	}
}

// greet answers the file "guest" in dir with the file "answer".
func greet(dir string, patience time.Duration) error {
	guest, err := waitFor(filepath.Join(dir, "guest"), patience)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	answer := fmt.Sprintf("hello %s, from %s on %s/%s in pod %.8s\n", strings.TrimSpace(guest), runtime.Version(), runtime.GOOS, runtime.GOARCH, host)
	fmt.Print(answer)
	// Written aside and renamed, so that the guest never reads half of it.
	part := filepath.Join(dir, ".answer")
	if err := os.WriteFile(part, []byte(answer), 0o644); err != nil {
		return err
	}
	return os.Rename(part, filepath.Join(dir, "answer"))
}

func waitFor(path string, patience time.Duration) (string, error) {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		data, err := os.ReadFile(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) || time.Now().After(end) {
			return string(data), err
		}
	}
}
