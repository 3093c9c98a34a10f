package mds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Who may connect to the registration socket may make itself any pod: it is root's. A
// connection is one pod, in a JSON object, and is answered with a reply; the pod is known
// as long as the connection lasts.

type reply struct {
	Error  string           `json:"error,omitempty"`
	Listen []netip.AddrPort `json:"listen,omitempty"` // where the service answers
}

// maxRegistration is the time that it may take to say what pod a connection is, and to be
// answered: hosts that start dozens of pods at once have kept others waiting for 10 s.
const maxRegistration = time.Minute

// AcceptPods takes registrations from a listener until that is closed, and then ends
// those that there are. It says that the service answers at the addresses of listen. The
// error is the listener's.
func (s *Service) AcceptPods(l net.Listener, listen []netip.AddrPort) error {
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
			s.register(c, listen)
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
func (s *Service) register(c net.Conn, listen []netip.AddrPort) {
	if err := c.SetDeadline(time.Now().Add(maxRegistration)); err != nil {
		return
	}
	var p Pod
	if err := json.NewDecoder(c).Decode(&p); err != nil {
		return // its owner has gone, or is no jetpack
	}
	remove, err := s.Add(p)
	r := reply{Listen: listen}
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

// Registration keeps a pod known to the service, also after that was started anew.
type Registration struct {
	URL  string // for the pod, which is AC_METADATA_URL to its apps
	stop context.CancelFunc
	done chan struct{}
}

// Dial connects to the socket of the service.
type Dial func(ctx context.Context) (net.Conn, error)

// Register makes a pod known until Close. Errors: ErrRefused, those of dial and ctx.
func Register(ctx context.Context, dial Dial, p Pod) (*Registration, error) {
	c, listen, err := connect(ctx, dial, p)
	if err != nil {
		return nil, err
	}
	at, ok := reachable(p.Addresses, listen)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%w: it answers at %v, and nothing of that is near %v", ErrRefused, listen, p.Addresses), c.Close())
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &Registration{URL: "http://" + at.String() + Path(p.Token), stop: stop, done: make(chan struct{})}
	go r.keep(ctx, dial, p, c)
	return r, nil
}

// reachable gives the first address that is the same kind as one of the pod's: a request
// from a loopback address does not leave the host, and one to such an address does not
// leave a pod that has others.
func reachable(pod []netip.Addr, listen []netip.AddrPort) (netip.AddrPort, bool) {
	for _, a := range pod {
		for _, l := range listen {
			if l.Addr().IsLoopback() == a.IsLoopback() && l.Addr().Is4() == a.Is4() {
				return l, true
			}
		}
	}
	return netip.AddrPort{}, false
}

// Close ends the registration.
func (r *Registration) Close() {
	r.stop()
	<-r.done
}

// keep connects again whenever the connection ends.
func (r *Registration) keep(ctx context.Context, dial Dial, p Pod, c net.Conn) {
	defer close(r.done)
	for c != nil {
		last(ctx, c)
		c = again(ctx, dial, p)
	}
}

// last returns when a connection, or ctx, has ended, and closes it.
func last(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // Read tells
	defer stop()
	_, _ = c.Read(make([]byte, 1))
	_ = c.Close()
}

// again tries to connect until it can, or ctx ends; then it gives nil.
func again(ctx context.Context, dial Dial, p Pod) net.Conn {
	const least, most = 50 * time.Millisecond, 5 * time.Second
	for wait := least; ; wait = min(2*wait, most) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if c, _, err := connect(ctx, dial, p); err == nil {
			return c
		}
	}
}

func connect(ctx context.Context, dial Dial, p Pod) (_ net.Conn, listen []netip.AddrPort, err error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := c.SetDeadline(time.Now().Add(maxRegistration)); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(0, 0)) }) // Decode tells
	defer func() {
		if !stop() {
			err = ctx.Err()
		}
	}()
	if err := json.NewEncoder(c).Encode(p); err != nil {
		return nil, nil, fmt.Errorf("register pod %s: %w", p.UUID, err)
	}
	var r reply
	if err := json.NewDecoder(c).Decode(&r); err != nil {
		return nil, nil, fmt.Errorf("register pod %s: %w", p.UUID, err)
	}
	if r.Error != "" {
		return nil, nil, fmt.Errorf("%w: %s", ErrRefused, r.Error)
	}
	return c, r.Listen, c.SetDeadline(time.Time{})
}
