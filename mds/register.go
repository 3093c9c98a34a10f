package mds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Who may connect to the registration socket may make itself any pod: it is root's. A
// connection is one pod, in a JSON object, and is answered with a reply; the pod is known
// as long as the connection lasts.

type reply struct {
	Error string `json:"error,omitempty"`
}

// maxRegistration is the time that a connection may take to say what pod it is.
const maxRegistration = 10 * time.Second

// AcceptPods takes registrations from a listener until that is closed, and then ends
// those that there are. The error is the listener's.
func (s *Service) AcceptPods(l net.Listener) error {
	var (
		mu     sync.Mutex
		open   = map[net.Conn]bool{}
		closed bool
		group  sync.WaitGroup
	)
	defer group.Wait()
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		closed = true
		for c := range open {
			_ = c.Close() // its owner sees that
		}
	}()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		mu.Lock()
		open[c] = true
		mu.Unlock()
		group.Go(func() {
			s.register(c)
			mu.Lock()
			defer mu.Unlock()
			delete(open, c)
			if !closed {
				_ = c.Close() // there is nothing to lose
			}
		})
	}
}

// register makes the pod of a connection known until that ends.
func (s *Service) register(c net.Conn) {
	if err := c.SetDeadline(time.Now().Add(maxRegistration)); err != nil {
		return
	}
	var p Pod
	if err := json.NewDecoder(c).Decode(&p); err != nil {
		return // its owner has gone, or is no jetpack
	}
	remove, err := s.Add(p)
	var r reply
	if err != nil {
		r.Error = err.Error()
	} else {
		defer remove()
	}
	if json.NewEncoder(c).Encode(r) != nil || err != nil || c.SetDeadline(time.Time{}) != nil {
		return
	}
	_, _ = c.Read(make([]byte, 1)) // until it ends
}

// ErrRefused means that the service is there, and does not take the pod.
var ErrRefused = errors.New("the metadata service refuses the pod")

// Registration keeps a pod known to the service that has a socket, also after that was
// started anew.
type Registration struct {
	stop context.CancelFunc
	done chan struct{}
}

// Register makes a pod known until Close. Errors: ErrRefused, those of the socket.
func Register(ctx context.Context, socket string, p Pod) (*Registration, error) {
	c, err := connect(ctx, socket, p)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &Registration{stop: stop, done: make(chan struct{})}
	go r.keep(ctx, socket, p, c)
	return r, nil
}

// Close ends the registration.
func (r *Registration) Close() {
	r.stop()
	<-r.done
}

// keep connects again whenever the connection ends.
func (r *Registration) keep(ctx context.Context, socket string, p Pod, c net.Conn) {
	defer close(r.done)
	for {
		stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // Read tells
		_, _ = c.Read(make([]byte, 1))
		stop()
		_ = c.Close()
		if c = again(ctx, socket, p); c == nil {
			return
		}
	}
}

// again tries to connect until it can, or ctx ends; then it gives nil.
func again(ctx context.Context, socket string, p Pod) net.Conn {
	const least, most = 50 * time.Millisecond, 5 * time.Second
	for wait := least; ; wait = min(2*wait, most) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if c, err := connect(ctx, socket, p); err == nil {
			return c
		}
	}
}

func connect(ctx context.Context, socket string, p Pod) (_ net.Conn, err error) {
	c, err := (&net.Dialer{Timeout: maxRegistration}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := c.SetDeadline(time.Now().Add(maxRegistration)); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(c).Encode(p); err != nil {
		return nil, fmt.Errorf("register pod %s: %w", p.UUID, err)
	}
	var r reply
	if err := json.NewDecoder(c).Decode(&r); err != nil {
		return nil, fmt.Errorf("register pod %s: %w", p.UUID, err)
	}
	if r.Error != "" {
		return nil, fmt.Errorf("%w: %s", ErrRefused, r.Error)
	}
	return c, c.SetDeadline(time.Time{})
}
