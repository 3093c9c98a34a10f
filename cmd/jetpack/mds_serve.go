package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"github.com/jetpack-run/jetpack/internal/config"
	"github.com/jetpack-run/jetpack/internal/platform"
	"github.com/jetpack-run/jetpack/internal/unixsocket"
	"github.com/jetpack-run/jetpack/mds"
)

// mdsServing is how the service runs; by itself, until interrupted.
type mdsServing struct {
	anyPort bool          // when the configured one is taken
	idle    time.Duration // ends this long after the last pod; 0 is never
	ready   func()        // is called when pods can come; may be nil
}

// serveMDS runs the metadata service. Errors: errMDSRuns.
func (c *cli) serveMDS(ctx context.Context, o mdsServing) (err error) {
	if _, err := c.open(); err != nil {
		return err
	}
	uid, gid, err := unprivileged(c.cfg.MDSUser)
	if err != nil {
		return err
	}
	lock, err := c.lockMDS()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	keys, err := mds.OpenKeys(mdsKeys(c.cfg.Root))
	if err != nil {
		return err
	}
	var l mdsListeners
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.open(ctx, c, o.anyPort); err != nil {
		return err
	}
	if err := become(uid, gid); err != nil {
		return fmt.Errorf("become user %s: %w", c.cfg.MDSUser, err)
	}

	service := mds.New(keys)
	ctx, end := context.WithCancel(ctx)
	defer end()
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = l.register.Close() })
	defer stop()
	group.Go(func() error { return service.AcceptPods(l.register, l.at) })
	log := c.requestLog()
	for _, tcp := range l.pods {
		group.Go(func() error { return service.Serve(ctx, tcp, log) })
	}
	group.Go(func() error { return serveControl(ctx, l.control, service.Control(end)) })
	if o.idle > 0 {
		group.Go(func() error { return endUnused(ctx, end, service, lock, o.idle) })
	}
	c.notice(fmt.Sprintf("the metadata service answers pods at %s", list(l.at)))
	if o.ready != nil {
		o.ready()
	}
	return group.Wait()
}

// requestLog is where requests are logged.
func (c *cli) requestLog() *slog.Logger {
	if c.cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(c.stdout, nil))
	}
	return slog.New(slog.NewTextHandler(c.stdout, nil))
}

func list(at []netip.AddrPort) string {
	var all []string
	for _, a := range at {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}

// mdsListeners are where the service listens.
type mdsListeners struct {
	pods              []net.Listener
	at                []netip.AddrPort // likewise
	register, control net.Listener
}

func (l *mdsListeners) open(ctx context.Context, c *cli, anyPort bool) (err error) {
	addresses := append(platform.HostAddresses(c.engineConfig()), netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	for _, a := range addresses {
		tcp, err := platform.Listen(ctx, netip.AddrPortFrom(a, uint16(c.cfg.MDSPort)))
		if anyPort && errors.Is(err, syscall.EADDRINUSE) {
			tcp, err = platform.Listen(ctx, netip.AddrPortFrom(a, 0))
		}
		if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
			continue // a host without IPv6
		}
		if err != nil {
			return err
		}
		l.pods, l.at = append(l.pods, tcp), append(l.at, tcp.Addr().(*net.TCPAddr).AddrPort())
	}
	if l.register, err = listenMDS(c.cfg.Root, mdsRegister); err != nil {
		return err
	}
	l.control, err = listenMDS(c.cfg.Root, mdsControl)
	return err
}

// listenMDS makes a socket in place of one that a crash left.
func listenMDS(root, name string) (_ net.Listener, err error) {
	dir, err := os.Open(mdsDir(root))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := os.Remove(filepath.Join(dir.Name(), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return unixsocket.Listen(dir, name)
}

func (l *mdsListeners) close() (err error) {
	for _, one := range append(l.pods, l.register, l.control) {
		if one == nil {
			continue
		}
		if closeErr := one.Close(); !errors.Is(closeErr, net.ErrClosed) {
			err = errors.Join(err, closeErr)
		}
	}
	return err
}

// serveControl answers root until ctx ends, and to the end who has asked by then.
func serveControl(ctx context.Context, l net.Listener, h http.Handler) error {
	const timeout = 10 * time.Second
	server := &http.Server{Handler: h, ReadTimeout: timeout, WriteTimeout: timeout}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		wait, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		_ = server.Shutdown(wait)
	})
	err := server.Serve(l)
	if !stop() {
		<-stopped
		return nil
	}
	return err
}

// endUnused calls end when there was no pod for so long, or the root is gone.
func endUnused(ctx context.Context, end func(), s *mds.Service, lock *flock.Flock, idle time.Duration) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	used := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.Pods() > 0 {
			used = time.Now()
		}
		info, err := lock.Stat()
		if err != nil || info.Sys().(*syscall.Stat_t).Nlink == 0 || time.Since(used) > idle {
			end()
			return nil
		}
	}
}

// unprivileged looks up a user that is not root. The default one need not be there.
func unprivileged(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil && name == config.MDSUser {
		u, err = user.Lookup("nobody")
	}
	if err == nil {
		uid, err = strconv.Atoi(u.Uid)
	}
	if err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil || uid == 0 || gid == 0 {
		return 0, 0, fmt.Errorf("mds.user: %q is not a user of this host other than root; --set mds.user=NAME says another", name)
	}
	return uid, gid, nil
}

// become gives up root for good.
func become(uid, gid int) error {
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return err
	}
	if err := syscall.Setgid(gid); err != nil {
		return err
	}
	if err := syscall.Setuid(uid); err != nil {
		return err
	}
	return confineMDS()
}
