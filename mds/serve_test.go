package mds

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestServe(t *testing.T) {
	s := New(keys(t))
	p := podA()
	if _, err := s.Add(p); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log buffer
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, l, slog.New(slog.NewTextHandler(&log, nil))) }()
	base := "http://" + l.Addr().String()
	c := &http.Client{Transport: &http.Transport{}}
	get := func(url string) (int, string) {
		t.Helper()
		resp, err := c.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if status, body := get(base + Path(p.Token) + prefix + "/pod/uuid"); status != 200 || body != uuidA {
		t.Errorf("got %d %s", status, body)
	}
	get(base + "/~" + strings.Repeat("5", 64) + prefix + "/pod/manifest")
	get(base + "/" + p.Token)
	for _, want := range []string{`path=/pod/uuid status=200 bytes=36`, `path=/pod/manifest status=401`, `path="" status=401`} {
		until(t, want, func() bool { return strings.Contains(log.String(), want) })
	}
	if strings.Contains(log.String(), p.Token) || strings.Contains(log.String(), "5555") {
		t.Errorf("a token is logged: %s", log.String())
	}

	// One that takes every connection it can get keeps nobody else out for long.
	c.CloseIdleConnections()
	var idle []net.Conn
	for range maxConnections + 20 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	var cut atomic.Int32
	var group sync.WaitGroup
	deadline := time.Now().Add(time.Second) // before the server gives up
	for _, conn := range idle {
		if err := conn.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				cut.Add(1)
			}
		})
	}
	group.Wait()
	if cut.Load() != 20 {
		t.Errorf("%d connections beyond the bound were cut off, of 20", cut.Load())
	}
	for _, conn := range idle {
		conn.Close()
	}
	until(t, "room again", func() bool {
		resp, err := c.Get(base)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusUnauthorized
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
