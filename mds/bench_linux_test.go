package mds

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// benchPods is how many pods there are, each with an address of its own: Linux has all
// of 127/8.
const benchPods = 200

// BenchmarkLoad asks the service, and a server that does nothing else, from every pod in
// turn; "slow clients" has each pod keep five connections on which it says nothing.
func BenchmarkLoad(b *testing.B) {
	bare := func(_ context.Context, l net.Listener) error {
		return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, uuidA)
		}))
	}
	service := New(keys(b))
	pods := make([]Pod, benchPods)
	for i := range pods {
		pods[i] = podA()
		pods[i].UUID, pods[i].Token = uuid.NewString(), NewToken()
		pods[i].Addresses = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)})}
		if _, err := service.Add(pods[i]); err != nil {
			b.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	whole := func(ctx context.Context, l net.Listener) error { return service.Serve(ctx, l, log) }
	b.Run("bare", func(b *testing.B) { benchLoad(b, bare, pods, 0) })
	b.Run("service", func(b *testing.B) { benchLoad(b, whole, pods, 0) })
	b.Run("service, slow clients", func(b *testing.B) { benchLoad(b, whole, pods, 5) })
}

func benchLoad(b *testing.B, serve func(context.Context, net.Listener) error, pods []Pod, slow int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	defer l.Close()
	defer stop()
	go func() { _ = serve(ctx, l) }()

	var clients []*http.Client
	for _, p := range pods {
		from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: p.Addresses[0].AsSlice()}}
		transport := &http.Transport{DialContext: from.DialContext}
		defer transport.CloseIdleConnections()
		clients = append(clients, &http.Client{Transport: transport})
		for range slow {
			conn, err := from.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "GET / HTTP/1.1\r\n") // and no more
		}
	}
	const workers = 8
	var (
		mu    sync.Mutex
		times []time.Duration
		group sync.WaitGroup
	)
	b.ResetTimer()
	for w := range workers {
		group.Go(func() {
			var own []time.Duration
			for i := w; i < b.N; i += workers {
				p := pods[i%len(pods)]
				began := time.Now()
				if err := get(clients[i%len(pods)], "http://"+l.Addr().String()+Path(p.Token)+prefix+"/pod/uuid"); err != nil {
					b.Error(err)
					return
				}
				own = append(own, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, own...)
		})
	}
	group.Wait()
	b.StopTimer()
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	b.ReportMetric(float64(len(times))/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(times[len(times)-1].Microseconds()), "max-µs")
}

func get(c *http.Client, url string) error {
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
