package mds

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// listening is a service that takes registrations from a socket until stop is called.
func listening(t *testing.T, socket string) (s *Service, stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s = New(keys(t))
	ended := make(chan error)
	go func() { ended <- s.AcceptPods(l) }()
	return s, func() {
		t.Helper()
		_ = l.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// until waits for something that comes soon.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// socketPath is short: the kernel bounds it.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mds") //nolint:usetesting // its own are long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "sock")
}

func TestRegister(t *testing.T) {
	socket := socketPath(t)
	p := podA()
	if _, err := Register(t.Context(), socket, p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a service: %v", err)
	}
	s, stop := listening(t, socket)
	known := func() bool { return s.find(p.Addresses[0], p.Token) != nil }
	r, err := Register(t.Context(), socket, p)
	if err != nil {
		t.Fatal(err)
	}
	if !known() {
		t.Error("registered, and not known")
	}
	other := another()
	r2, err := Register(t.Context(), socket, other)
	if err != nil {
		t.Fatal(err)
	}
	r2.Close()
	until(t, "forgotten", func() bool { return s.find(other.Addresses[0], other.Token) == nil })

	stop() // and another one comes
	if known() {
		t.Error("known to a service that ended")
	}
	s, stop = listening(t, socket)
	until(t, "registered again", known)
	r.Close()
	until(t, "forgotten", func() bool { return !known() })
	stop()
}

func TestRegisterAfterEnd(t *testing.T) {
	socket := socketPath(t)
	_, stop := listening(t, socket)
	r, err := Register(t.Context(), socket, podA())
	if err != nil {
		t.Fatal(err)
	}
	stop()
	r.Close() // with nobody there
}

func TestRefusedRegistration(t *testing.T) {
	socket := socketPath(t)
	s, stop := listening(t, socket)
	defer stop()
	p := podA()
	p.Token = "x"
	if _, err := Register(t.Context(), socket, p); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("{]")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("garbage is answered: %d, %v", n, err)
	}
	c.Close()
	if len(s.pods) > 0 {
		t.Errorf("known: %v", s.pods)
	}
}
