package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jetpack-run/jetpack/internal/unixsocket"
)

// request is what a command asks of a pod's supervisor, over the socket in the
// pod's directory: one request and one answer per connection, both JSON.
type request struct {
	Op     string         `json:"op"` // "stop" or "signal"
	Grace  time.Duration  `json:"grace,omitempty"`
	Signal syscall.Signal `json:"signal,omitempty"`
}

type answer struct {
	Error string `json:"error,omitempty"`
}

// controlTimeout bounds one exchange. The supervisor answers before it acts: its
// process may be over as soon as the apps are.
const controlTimeout = 10 * time.Second

func (p *Pod) listen() (net.Listener, error) {
	path := filepath.Join(p.dir(), controlFile)
	err := p.rt.step("remove control socket", func() error { return os.Remove(path) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pod %s: control socket: %w", p.UUID, err)
	}
	dir, err := os.Open(p.dir())
	if err != nil {
		return nil, fmt.Errorf("pod %s: control socket: %w", p.UUID, err)
	}
	var l *net.UnixListener
	err = p.rt.step("make control socket", func() (err error) {
		l, err = unixsocket.Listen(dir, controlFile)
		return err
	})
	if err := errors.Join(err, dir.Close()); err != nil {
		return nil, fmt.Errorf("pod %s: control socket: %w", p.UUID, err)
	}
	return l, nil
}

// serve answers until the listener is closed.
func (r *Run) serve() {
	for {
		conn, err := r.control.Accept()
		if err != nil {
			return
		}
		go r.answer(conn)
	}
}

func (r *Run) answer(conn net.Conn) {
	// A peer that hangs or has gone is no concern of the pod.
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	var req request
	act, reply := func() {}, answer{}
	switch err := json.NewDecoder(conn).Decode(&req); {
	case err != nil:
		reply.Error = "bad request"
	case req.Op == "stop":
		act = func() { r.Stop(req.Grace) }
	case req.Op == "signal":
		act = func() { r.Signal(req.Signal) }
	default:
		reply.Error = "unknown request " + req.Op
	}
	_ = json.NewEncoder(conn).Encode(reply)
	act()
}

// ask sends a request to a pod's supervisor. Errors: ErrNotRunning.
func (r *Runtime) ask(ctx context.Context, id string, req request) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	for {
		conn, err := r.dial(ctx, id)
		if err != nil {
			return err
		}
		reply, err := exchange(conn, req)
		if hungUp(err) {
			continue // it is about to be gone, and dial tells when it is
		}
		if err != nil {
			return fmt.Errorf("pod %s: %w", id, err)
		}
		if reply.Error != "" {
			return fmt.Errorf("pod %s: %s", id, reply.Error)
		}
		return nil
	}
}

func exchange(conn net.Conn, req request) (reply answer, err error) {
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(controlTimeout)); err != nil {
		return reply, err
	}
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return reply, err
	}
	return reply, json.NewDecoder(conn).Decode(&reply)
}

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// dial connects to a pod's supervisor. One that is just coming up, or about to end,
// holds the lock and does not listen: it is waited for, until ctx ends.
func (r *Runtime) dial(ctx context.Context, id string) (conn net.Conn, err error) {
	dir, err := os.Open(r.podDir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", id, err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	for {
		held, err := r.held(id)
		if err != nil {
			return nil, err
		}
		if !held {
			return nil, fmt.Errorf("%s: %w", id, ErrNotRunning)
		}
		conn, err := unixsocket.Dial(ctx, dir, controlFile)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w: its supervisor does not answer: %w", id, ErrBusy, err)
		case <-time.After(waitPoll):
		}
	}
}

// Stop asks a running pod to end and waits until it has: SIGTERM, and SIGKILL
// after grace. Errors: ErrNotRunning.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	if err := r.ask(ctx, id, request{Op: "stop", Grace: grace}); err != nil {
		return err
	}
	_, err := r.Wait(ctx, id)
	if errors.Is(err, ErrDamaged) {
		return nil // it has stopped, whatever its files say
	}
	return err
}

// Kill sends a signal to every app of a running pod. Errors: ErrNotRunning.
func (r *Runtime) Kill(ctx context.Context, id string, sig syscall.Signal) error {
	return r.ask(ctx, id, request{Op: "signal", Signal: sig})
}

// waitPoll is how often a waiting command looks at the lock.
const waitPoll = 20 * time.Millisecond

// Wait returns when no process supervises the pod any more, and how it is then. A
// pod that was removed with its end (--rm) is ErrNotFound.
func (r *Runtime) Wait(ctx context.Context, id string) (Info, error) {
	for {
		held, err := r.held(id)
		if err != nil {
			return Info{}, err
		}
		if !held {
			return r.Inspect(ctx, id)
		}
		select {
		case <-ctx.Done():
			return Info{}, ctx.Err()
		case <-time.After(waitPoll):
		}
	}
}
