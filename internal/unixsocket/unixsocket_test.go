package unixsocket

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDeep(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("d", 120), strings.Repeat("e", 120))
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := Dial(t.Context(), dir, "socket"); err == nil {
		t.Error("a socket that is not there answers")
	}
	l, err := Listen(dir, "socket")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "here")
		c.Close()
	}()
	c, err := Dial(t.Context(), dir, "socket")
	if err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(c); err != nil || string(said) != "here" {
		t.Errorf("said %q, %v", said, err)
	}
	c.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(filepath.Join(path, "socket")); err != nil || fi.Mode().Type() != os.ModeSocket {
		t.Errorf("the socket is not there any more: %v, %v", fi, err)
	}
	if _, err := Listen(dir, "socket"); err == nil {
		t.Error("two at one name")
	}
	if _, err := Listen(dir, strings.Repeat("x", 200)); err == nil {
		t.Error("a name that has no room")
	}
}
