package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// The service can answer whom it listens for, and nothing else.
func TestConfineMDS(t *testing.T) {
	const child = "JETPACK_TEST_CONFINED"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestConfineMDS$")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("no filter for this architecture")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := confineMDS(); err != nil {
		t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	for name, try := range map[string]func() error{
		"open":    func() error { _, err := os.Open("/etc/passwd"); return err },
		"run":     func() error { return exec.Command("/bin/true").Run() },
		"connect": func() error { _, err := net.Dial("tcp", l.Addr().String()); return err },
	} {
		// A thread that was there before, and one that is new.
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // it ends with the goroutine
			done <- try()
		}()
		for _, err := range []error{try(), <-done} {
			if !errors.Is(err, syscall.EPERM) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
