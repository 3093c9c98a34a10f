package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

// A pod's supervisor survives whatever is said to its socket.
func TestControlSocket(t *testing.T) {
	h := newHost(t)
	run, c := h.up(t, h.probes(t, "trap 15"), noNetwork)
	c.wait(1, "ready")
	tests := []struct{ name, say, answer string }{
		{"bad JSON", "{", `{"error":"bad request"}`},
		{"not an object", "[]\n", `{"error":"bad request"}`},
		{"bad type", `{"op":1}`, `{"error":"bad request"}`},
		{"nothing", "", `{"error":"bad request"}`},
		{"unknown request", `{"op":"dance"}`, `{"error":"unknown request dance"}`},
		{"no request", `{}`, `{"error":"unknown request "}`},
		{"signal", `{"op":"signal","signal":15}`, `{}`},
		{"signal that is none", `{"op":"signal","signal":0}`, `{}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn := dialPod(t, h, run.UUID())
			if _, err := io.WriteString(conn, tt.say); err != nil {
				t.Fatal(err)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn)
			if err != nil || strings.TrimSpace(string(got)) != tt.answer {
				t.Errorf("answer %q, %v; want %q", got, err, tt.answer)
			}
		})
	}
	t.Run("peer hangs up", func(t *testing.T) {
		for range 20 {
			conn := dialPod(t, h, run.UUID())
			if _, err := io.WriteString(conn, `{"op":"sig`); err != nil {
				t.Fatal(err)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("peer says nothing", func(t *testing.T) {
		dialPod(t, h, run.UUID()) // and hangs while others are served
		if err := h.Kill(t.Context(), run.UUID(), syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	if phase := h.phase(t, run.UUID()); phase != Running {
		t.Fatalf("it is %s", phase)
	}
	stopped := make(chan error)
	go func() { stopped <- h.Stop(t.Context(), run.UUID(), 0) }()
	ended(t, run)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func dialPod(t *testing.T, h *host, id string) *net.UnixConn {
	t.Helper()
	conn, err := h.dial(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UnixConn)
}

func TestControlOfWhatDoesNotRun(t *testing.T) {
	h := newHost(t)
	prepared := h.prepared(t, h.probes(t, "exit 0"), noNetwork)
	exited := h.prepared(t, h.probes(t, "exit 0"), noNetwork)
	h.restart(t, exited)
	tests := []struct {
		name, id string
		want     error
	}{
		{"no such pod", uuid.NewString(), ErrNotFound},
		{"prepared", prepared, ErrNotRunning},
		{"exited", exited, ErrNotRunning},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := h.Stop(t.Context(), tt.id, 0); !errors.Is(err, tt.want) {
				t.Errorf("stop: %v", err)
			}
			if err := h.Kill(t.Context(), tt.id, syscall.SIGTERM); !errors.Is(err, tt.want) {
				t.Errorf("kill: %v", err)
			}
		})
	}
}

// A supervisor that is busy coming up is waited for, but not for ever.
func TestControlWaits(t *testing.T) {
	h := newHost(t)
	p, err := h.Prepare(t.Context(), h.probes(t, "sleep"), noNetwork, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("not for ever", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := h.Stop(ctx, p.UUID, 0); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
	})
	stopped := make(chan error)
	go func() { stopped <- h.Stop(t.Context(), p.UUID, 0) }()
	time.Sleep(2 * waitPoll)
	run, err := p.Start(t.Context(), newCapture(t).io())
	if err != nil {
		t.Fatal(err)
	}
	ended(t, run)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// Whoever asks a pod to stop while it ends by itself gets an answer that is true.
func TestStopRacesWithEnd(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := h.probes(t, "exit 0")
	for range 15 {
		run, _ := h.up(t, m, noNetwork)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := h.Stop(t.Context(), run.UUID(), 0); err != nil && !errors.Is(err, ErrNotRunning) && !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			})
		}
		if _, err := run.Wait(); err != nil {
			t.Error(err)
		}
		if err := run.Remove(t.Context()); err != nil { // as with --rm
			t.Error(err)
		}
		wg.Wait()
	}
	h.isClean(t)
}

// The answer is out before the request is carried out, since the supervisor's
// process may be over with its apps.
func TestAnswerComesFirst(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	r := &Run{pod: &Pod{}, stopping: make(chan struct{})}
	go r.answer(theirs)
	if err := json.NewEncoder(ours).Encode(request{Op: "stop"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	if r.isStopping() {
		t.Error("it stops before it has answered") // a pipe has no buffer: nobody has read yet
	}
	var reply answer
	if err := json.NewDecoder(ours).Decode(&reply); err != nil || reply.Error != "" {
		t.Errorf("%+v, %v", reply, err)
	}
	eventually(t, "the stop", r.isStopping)
}

func TestWait(t *testing.T) {
	h := newHost(t)
	t.Run("until the end", func(t *testing.T) {
		run, c := h.up(t, h.probes(t, "sleep"), noNetwork)
		c.wait(1, "ready")
		type result struct {
			info Info
			err  error
		}
		got := make(chan result, 4)
		for range cap(got) {
			go func() {
				info, err := h.Wait(t.Context(), run.UUID())
				got <- result{info, err}
			}()
		}
		select {
		case r := <-got:
			t.Errorf("it has ended: %+v, %v", r.info.State, r.err)
		case <-time.After(3 * waitPoll):
		}
		run.Kill()
		ended(t, run)
		for range cap(got) {
			if r := <-got; r.err != nil || r.info.State.Phase != Exited || r.info.Status() != 137 {
				t.Errorf("%+v, %v", r.info.State, r.err)
			}
		}
	})
	t.Run("until ctx ends", func(t *testing.T) {
		run, _ := h.up(t, h.probes(t, "sleep"), noNetwork)
		ctx, cancel := context.WithTimeout(t.Context(), 2*waitPoll)
		defer cancel()
		if _, err := h.Wait(ctx, run.UUID()); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		run.Kill()
		ended(t, run)
	})
	t.Run("removed with its end", func(t *testing.T) {
		run, _ := h.up(t, h.probes(t, "sleep"), noNetwork)
		got := make(chan error)
		go func() {
			_, err := h.Wait(t.Context(), run.UUID())
			got <- err
		}()
		time.Sleep(waitPoll)
		run.Kill()
		if _, err := run.Wait(); err != nil {
			t.Error(err)
		}
		if err := run.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-got; !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
	t.Run("prepared", func(t *testing.T) {
		id := h.prepared(t, h.probes(t, "exit 0"), noNetwork)
		if info, err := h.Wait(t.Context(), id); err != nil || info.State.Phase != Prepared {
			t.Errorf("%+v, %v", info.State, err)
		}
	})
	t.Run("no such pod", func(t *testing.T) {
		if _, err := h.Wait(t.Context(), uuid.NewString()); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

// A root may lie deeper than a socket's address is long.
func TestDeepRoot(t *testing.T) {
	h := newHost(t)
	deep := filepath.Join(h.Dir, strings.Repeat("d", 60), strings.Repeat("e", 60))
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Listen("unix", filepath.Join(deep, "s")); err == nil {
		t.Fatal("it is not deep enough")
	}
	h.Dir = deep
	run, c := h.up(t, h.probes(t, "sleep"), noNetwork)
	c.wait(1, "ready")
	done := make(chan error)
	go func() { done <- h.Stop(t.Context(), run.UUID(), patience) }()
	if got := ended(t, run).State.Apps["probe"]; got != (AppStatus{Status: 143, Signal: 15}) {
		t.Error(fmt.Sprint(got))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
