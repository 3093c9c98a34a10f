package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestGreet(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "guest"), []byte("Debian 12\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := greet(dir, time.Second); err != nil {
		t.Fatal(err)
	}
	answer, err := os.ReadFile(filepath.Join(dir, "answer"))
	if err != nil || !strings.HasPrefix(string(answer), "hello Debian 12, from go") {
		t.Errorf("answer %q, %v", answer, err)
	}
}

func TestGreetNobody(t *testing.T) {
	if err := greet(t.TempDir(), 20*time.Millisecond); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
