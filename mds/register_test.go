package mds

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// here is where the services of these tests say that they answer.
var here = []netip.AddrPort{
	netip.MustParseAddrPort("[::1]:1104"), netip.MustParseAddrPort("127.0.0.1:1104"), netip.MustParseAddrPort("10.0.0.1:1105"),
}

func dialing(socket string) Dial {
	return func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "unix", socket) }
}

// listening is a service that takes registrations from a socket until stop is called.
func listening(t *testing.T, socket string) (s *Service, stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s = New(keys(t))
	ended := make(chan error)
	go func() { ended <- s.AcceptPods(l, here) }()
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
	if _, err := Register(t.Context(), dialing(socket), p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a service: %v", err)
	}
	s, stop := listening(t, socket)
	known := func() bool { return knows(s, p) }
	r, err := Register(t.Context(), dialing(socket), p)
	if err != nil {
		t.Fatal(err)
	}
	if !known() {
		t.Error("registered, and not known")
	}
	if want := "http://127.0.0.1:1104/~" + p.Token; r.URL != want {
		t.Errorf("its URL is %s, not %s", r.URL, want)
	}
	other := another()
	r2, err := Register(t.Context(), dialing(socket), other)
	if err != nil {
		t.Fatal(err)
	}
	r2.Close()
	until(t, "forgotten", func() bool { return !knows(s, other) })

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
	r, err := Register(t.Context(), dialing(socket), podA())
	if err != nil {
		t.Fatal(err)
	}
	stop()
	r.Close() // with nobody there
}

// A service that hangs holds nobody up who does not want to wait.
func TestInterruptedRegistration(t *testing.T) {
	socket := socketPath(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	began := time.Now()
	if _, err := Register(ctx, dialing(socket), podA()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > maxRegistration/2 {
		t.Errorf("it took %v", took)
	}
}

func TestRefusedRegistration(t *testing.T) {
	socket := socketPath(t)
	s, stop := listening(t, socket)
	defer stop()
	p := podA()
	p.Token = "x"
	if _, err := Register(t.Context(), dialing(socket), p); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	p = podA()
	for address, want := range map[string]string{"10.1.2.3": "http://10.0.0.1:1105/", "::1": "http://[::1]:1104/", "fd00::7": ""} {
		p.Addresses = []netip.Addr{netip.MustParseAddr(address)}
		r, err := Register(t.Context(), dialing(socket), p)
		if want == "" {
			if !errors.Is(err, ErrRefused) {
				t.Errorf("%s: %v", address, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(r.URL, want) {
			t.Errorf("%s: %s", address, r.URL)
		}
		r.Close()
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
	until(t, "nobody is known", func() bool { return s.Pods() == 0 })
}
