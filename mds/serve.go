package mds

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Bounds on what one address can hold or ask for. A pod that asks for more waits, or is
// cut off; the others do not notice.
const (
	maxConnections = 64 // at a time
	timeout        = 5 * time.Second
	idleTimeout    = 30 * time.Second
	maxHeader      = 8 << 10
	stopTimeout    = 2 * time.Second
)

// Serve answers on a listener until ctx ends. Each request is a record of log, without
// its token. The error is the listener's.
func (s *Service) Serve(ctx context.Context, l net.Listener, log *slog.Logger) error {
	server := &http.Server{
		Handler:           s.logged(log),
		ReadHeaderTimeout: timeout, ReadTimeout: timeout, WriteTimeout: timeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		wait, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		_ = server.Shutdown(wait) // who is still there then is cut off
	})
	err := server.Serve(&bounded{
		Listener: l, open: map[netip.Addr]int{},
		refused: s.metrics.GetOrCreateCounter("jetpack_mds_connections_refused_total"),
	})
	if !stop() {
		<-stopped
		return nil
	}
	return err
}

// bounded is a listener that has at most maxConnections of an address open.
type bounded struct {
	net.Listener
	refused *metrics.Counter

	mu   sync.Mutex
	open map[netip.Addr]int
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err == nil && b.enter(from.Addr()) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { b.leave(from.Addr()) })}, nil
		}
		b.refused.Inc()
		_ = c.Close() // it gets nothing
	}
}

func (b *bounded) enter(a netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[a] == maxConnections {
		return false
	}
	b.open[a]++
	return true
}

func (b *bounded) leave(a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[a]--; b.open[a] == 0 {
		delete(b.open, a)
	}
}

type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

// logged answers, logs that, and counts it.
func (s *Service) logged(log *slog.Logger) http.Handler {
	durations := s.metrics.GetOrCreateSummary("jetpack_mds_request_duration_seconds")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		watched := &watched{ResponseWriter: w, status: http.StatusOK}
		s.ServeHTTP(watched, r)
		_, path := split(r.URL.Path)
		log.Info("request", "from", r.RemoteAddr, "method", r.Method, "path", path,
			"status", watched.status, "bytes", watched.bytes, "duration", time.Since(began))
		durations.UpdateDuration(began)
		s.metrics.GetOrCreateCounter(fmt.Sprintf(`jetpack_mds_requests_total{status="%d"}`, watched.status)).Inc()
	})
}

type watched struct {
	http.ResponseWriter
	status, bytes int
}

func (w *watched) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += n
	return n, err
}
