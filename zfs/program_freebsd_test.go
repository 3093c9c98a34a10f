package zfs

import (
	"os"
	"path/filepath"
	"testing"
)

// The base system's commands are run from /rescue, and no others.
func TestProgram(t *testing.T) {
	if _, err := os.Stat("/rescue/zfs"); err != nil {
		t.Skip(err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "zfs"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/sbin:/bin":                      "/rescue/zfs",
		other + ":/sbin":                  "zfs",
		"/sbin:" + other:                  "/rescue/zfs",
		filepath.Join(other, "not there"): "zfs",
	} {
		t.Setenv("PATH", path)
		if got := program("zfs"); got != want {
			t.Errorf("PATH=%s: %s, want %s", path, got, want)
		}
	}
}
