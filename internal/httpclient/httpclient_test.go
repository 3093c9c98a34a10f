package httpclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// impatient and strict are defaultLimits for who cannot wait.
var (
	impatient = withLimits(func(l *limits) {
		l.connect, l.tls, l.header = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	})
	strict = withLimits(func(l *limits) { l.window = 500 * time.Millisecond })
)

func withLimits(change func(*limits)) limits {
	l := defaultLimits
	change(&l)
	return l
}

func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

// secure serves over TLS on loopback and gives the file with its authority.
func secure(t *testing.T, h http.Handler) (srv *httptest.Server, caFile string) {
	t.Helper()
	srv = httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(caFile, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return srv, caFile
}

func testClient(t *testing.T, o Options, l limits) *Client {
	t.Helper()
	return clientFor(t, o, l, net.DefaultResolver, noProxy)
}

func clientFor(t *testing.T, o Options, l limits, r *net.Resolver, proxy func(*http.Request) (*url.URL, error)) *Client {
	t.Helper()
	c, err := newClient(o, l, r, proxy)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// read gets a URL to its end.
func read(t *testing.T, c *Client, r Request) (string, *Response, error) {
	t.Helper()
	if r.MaxBytes == 0 {
		r.MaxBytes = 1 << 20
	}
	resp, err := c.Get(t.Context(), r)
	if err != nil {
		return "", nil, err
	}
	data, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); cerr != nil {
		t.Error(cerr)
	}
	return string(data), resp, err
}

func TestGet(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "plain")
	}))
	defer plain.Close()
	mux := http.NewServeMux()
	redirect := func(path, to string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		})
	}
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if e := r.Header.Get("Accept-Encoding"); e != "identity" {
			t.Errorf("Accept-Encoding %q", e)
		}
		if a := r.Header.Get("User-Agent"); a != "jetpack/test" {
			t.Errorf("User-Agent %q", a)
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
	})
	mux.HandleFunc("/tagged", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"a"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("x"))
	})
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscan(r.PathValue("code"), &code)
		w.WriteHeader(code)
	})
	mux.HandleFunc("/encoded", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		fmt.Fprint(w, "x")
	})
	mux.HandleFunc("/chunked", func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush() // no Content-Length
		fmt.Fprint(w, "0123456789")
	})
	mux.HandleFunc("/truncated", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "0123456789")
	})
	mux.HandleFunc("/wrong-range", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-9/10")
		w.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(w, "0123456789")
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 70<<10))
	})
	mux.HandleFunc("/maze/{n}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
	})
	redirect("/hop", "/ok")
	redirect("/hop5", "/hop4")
	redirect("/hop4", "/hop3")
	redirect("/hop3", "/hop2")
	redirect("/hop2", "/hop")
	redirect("/loop", "/pool")
	redirect("/pool", "/loop")
	redirect("/down", plain.URL)
	redirect("/file", "file:///etc/passwd")
	redirect("/nowhere", "")
	redirect("/nothing", "https://[")
	redirect("/private", "https://10.0.0.1/")
	srv, ca := secure(t, mux)
	trusting := Options{CAFile: ca, UserAgent: "jetpack/test"}
	srvURL, plainURL := srv.URL, plain.URL

	tests := []struct {
		name, url string
		o         *Options
		r         Request
		want      string
		status    int // of a StatusError, or of the answer
		is        error
		message   string
	}{
		{name: "https", url: srvURL + "/ok", want: "0123456789", status: 200},
		{name: "exactly as large as allowed", url: srvURL + "/ok", r: Request{MaxBytes: 10}, want: "0123456789", status: 200},
		{name: "larger than allowed", url: srvURL + "/ok", r: Request{MaxBytes: 9}, is: ErrTooLarge},
		{name: "without length, exactly as large as allowed", url: srvURL + "/chunked", r: Request{MaxBytes: 10}, want: "0123456789", status: 200},
		{name: "without length, larger", url: srvURL + "/chunked", r: Request{MaxBytes: 9}, want: "012345678", is: ErrTooLarge},
		{name: "unlimited", url: srvURL + "/chunked", r: Request{MaxBytes: 1<<63 - 1}, want: "0123456789", status: 200},
		{name: "range", url: srvURL + "/ok", r: Request{Header: http.Header{"Range": {"bytes=7-"}}}, want: "789", status: 206},
		{name: "range beyond", url: srvURL + "/ok", r: Request{Header: http.Header{"Range": {"bytes=70-"}}}, want: "invalid range: failed to overlap\n", status: 416},
		{name: "another range", url: srvURL + "/wrong-range", r: Request{Header: http.Header{"Range": {"bytes=5-"}}}, is: ErrRange},
		{name: "range unasked", url: srvURL + "/wrong-range", status: 206, message: "206 Partial Content"},
		{name: "unchanged", url: srvURL + "/tagged", r: Request{Header: http.Header{"If-None-Match": {`"a"`}}}, status: 304},
		{name: "unchanged, unasked", url: srvURL + "/status/304", status: 304, message: "304 Not Modified"},
		{name: "range beyond, unasked", url: srvURL + "/status/416", status: 416, message: "416"},
		{name: "not found", url: srvURL + "/status/404", status: 404, message: srvURL + "/status/404: 404 Not Found"},
		{name: "no content", url: srvURL + "/status/204", status: 204, message: "204"},
		{name: "unknown status", url: srvURL + "/status/599", status: 599, message: "599 unknown status"},
		{name: "encoded", url: srvURL + "/encoded", is: ErrEncoded, message: "gzip"},
		{name: "truncated", url: srvURL + "/truncated", want: "0123456789", is: ErrTruncated},
		{name: "endless headers", url: srvURL + "/headers", message: "headers exceeded"},
		{name: "redirect", url: srvURL + "/hop", want: "0123456789", status: 200},
		{name: "five redirects", url: srvURL + "/hop5", want: "0123456789", status: 200},
		{name: "more redirects", url: srvURL + "/maze/x", is: ErrRedirects, message: "more than 5"},
		{name: "redirect loop", url: srvURL + "/loop", is: ErrRedirects, message: "comes back"},
		{name: "redirect to no URL", url: srvURL + "/nothing", is: ErrRedirects},
		{name: "redirect without location", url: srvURL + "/nowhere", status: 302, message: "302"},
		{name: "redirect to http", url: srvURL + "/down", is: ErrInsecure},
		{name: "redirect to a file", url: srvURL + "/file", o: &Options{CAFile: ca, HTTP: true}, is: ErrInsecure},
		{name: "redirect to http, another port", url: srvURL + "/down", o: &Options{CAFile: ca, HTTP: true}, is: ErrPrivate},
		{name: "redirect to a private address", url: srvURL + "/private", is: ErrPrivate, message: "10.0.0.1"},
		{name: "http", url: plainURL, is: ErrInsecure},
		{name: "http permitted", url: plainURL, o: &Options{HTTP: true}, want: "plain", status: 200},
		{name: "file", url: "file:///etc/passwd", o: &Options{HTTP: true}, is: ErrInsecure},
		{name: "no host", url: "https:///x", is: ErrInsecure},
		{name: "unknown authority", url: srvURL + "/ok", o: &Options{}, is: ErrTLS, message: "unknown authority; discovery.ca-file names further authorities, --insecure=tls does without"},
		{name: "unknown authority permitted", url: srvURL + "/ok", o: &Options{TLS: true, UserAgent: "jetpack/test"}, want: "0123456789", status: 200},
		{name: "certificate of another name", url: strings.Replace(srvURL, "127.0.0.1", "localhost", 1), is: ErrTLS, message: "--insecure=tls"},
		{name: "not TLS", url: strings.Replace(plainURL, "http:", "https:", 1), is: ErrTLS, message: "does not speak TLS"},
		{name: "loopback, foreign", url: srvURL + "/ok", r: Request{Foreign: true}, is: ErrPrivate, message: "127.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := trusting
			if tt.o != nil {
				o = *tt.o
			}
			tt.r.URL = parse(t, tt.url)
			got, resp, err := read(t, testClient(t, o, defaultLimits), tt.r)
			if got != tt.want {
				t.Errorf("got %q", got)
			}
			if tt.is == nil && tt.message == "" {
				if err != nil || resp.Status != tt.status {
					t.Fatalf("%+v, %v", resp, err)
				}
				return
			}
			if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), tt.message) {
				t.Fatalf("error %v", err)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Fatalf("error %v", err)
			}
			var status *StatusError
			if tt.status != 0 && (!errors.As(err, &status) || status.Status != tt.status) {
				t.Fatalf("error %#v", err)
			}
		})
	}
}

func TestSize(t *testing.T) {
	srv, ca := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/unknown" {
			_ = http.NewResponseController(w).Flush()
		}
		fmt.Fprint(w, "12345")
	}))
	for path, want := range map[string]int64{"/known": 5, "/unknown": -1} {
		_, resp, err := read(t, testClient(t, Options{CAFile: ca}, defaultLimits), Request{URL: parse(t, srv.URL+path)})
		if err != nil || resp.Size != want || resp.URL.String() != srv.URL+path {
			t.Errorf("%s: %+v, %v", path, resp, err)
		}
	}
}

// raw listens and does with every connection what a test says.
func raw(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go serve(conn)
		}
	}()
	return "http://" + l.Addr().String()
}

// answer reads a request and writes s, at once.
func answer(s string) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = io.WriteString(conn, s)
		}
	}
}

// drip writes s, and then a byte at a time until the client had enough.
func drip(s string) func(net.Conn) {
	return func(conn net.Conn) {
		answer(s)(conn)
		for {
			time.Sleep(10 * time.Millisecond)
			if _, err := io.WriteString(conn, "x"); err != nil {
				return
			}
		}
	}
}

func TestSlowServers(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
	for _, tt := range []struct {
		name    string
		serve   func(net.Conn)
		limits  limits
		tls     bool
		timeout time.Duration
		is      error // nil is a net.Error
	}{
		{name: "no handshake", serve: func(net.Conn) {}, limits: impatient, tls: true},
		{name: "no answer", serve: func(net.Conn) {}, limits: impatient},
		{name: "header in drips", serve: drip("HTTP/1.1 200 OK\r\nX: "), limits: impatient},
		{name: "no body", serve: answer(head), limits: strict, is: ErrTooSlow},
		{name: "body in drips", serve: drip(head), limits: strict, is: ErrTooSlow},
		{name: "fast, then nothing", serve: answer(head + strings.Repeat("x", 50000)), limits: strict, is: ErrTooSlow},
		{name: "timeout in the body", serve: drip(head), limits: defaultLimits, timeout: 500 * time.Millisecond, is: context.DeadlineExceeded},
		{name: "timeout in the header", serve: func(net.Conn) {}, limits: defaultLimits, timeout: 50 * time.Millisecond, is: context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address := raw(t, tt.serve)
			if tt.tls {
				address = strings.Replace(address, "http:", "https:", 1)
			}
			start := time.Now()
			_, _, err := read(t, testClient(t, Options{HTTP: true}, tt.limits), Request{URL: parse(t, address), Timeout: tt.timeout})
			var timeout net.Error
			if tt.is == nil && (!errors.As(err, &timeout) || !timeout.Timeout()) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v", err)
			}
			if d := time.Since(start); d > 8*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

func TestSlowReaderIsNoSlowServer(t *testing.T) {
	srv, ca := secure(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 3000))
	}))
	resp, err := testClient(t, Options{CAFile: ca}, strict).Get(t.Context(), Request{URL: parse(t, srv.URL), MaxBytes: 3000})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p := make([]byte, 1000)
	for range 3 {
		time.Sleep(strict.window + 50*time.Millisecond)
		if _, err := io.ReadFull(resp.Body, p); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCancel(t *testing.T) {
	address := raw(t, drip("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"))
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := testClient(t, Options{HTTP: true}, defaultLimits).Get(ctx, Request{URL: parse(t, address), MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestCredentials(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		fmt.Fprint(w, r.Header.Get("Authorization"))
	})
	srv, ca := secure(t, echo)
	other, _ := secure(t, echo)
	plain := httptest.NewServer(echo)
	defer plain.Close()
	const basic = "Basic dTpw" // u:p
	typed := strings.Replace(srv.URL, "://", "://u:p@", 1)
	for _, tt := range []struct {
		name, url   string
		credentials map[string]Credentials
		foreign     bool
		want        string
	}{
		{name: "none", url: srv.URL},
		{name: "basic", url: srv.URL, credentials: map[string]Credentials{"127.0.0.1": {Username: "u", Password: "p"}}, want: basic},
		{name: "bearer", url: srv.URL, credentials: map[string]Credentials{"127.0.0.1": {Token: "t"}}, want: "Bearer t"},
		{name: "by port", url: srv.URL, credentials: map[string]Credentials{parse(t, srv.URL).Host: {Token: "t"}, "127.0.0.1": {Token: "x"}}, want: "Bearer t"},
		{name: "of another port", url: srv.URL, credentials: map[string]Credentials{"127.0.0.1:1": {Token: "t"}}},
		{name: "of another host", url: srv.URL, credentials: map[string]Credentials{"27.0.0.1": {Token: "t"}}},
		{name: "in the URL", url: typed, want: basic},
		{name: "redirect to itself", url: typed + "?to=/x", want: basic},
		{name: "redirect to another service", url: typed + "?to=" + other.URL},
		{name: "redirect, with credentials for both", url: typed + "?to=" + other.URL, credentials: map[string]Credentials{"127.0.0.1": {Token: "t"}}},
		{name: "redirect there and back", url: typed + "?to=" + url.QueryEscape(other.URL+"?to="+srv.URL)},
		{name: "redirect to a URL with credentials", url: srv.URL + "?to=" + url.QueryEscape(typed+"/x")},
		{name: "http", url: plain.URL, credentials: map[string]Credentials{"127.0.0.1": {Token: "t"}}},
		{name: "http, in the URL", url: strings.Replace(plain.URL, "://", "://u:p@", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testClient(t, Options{CAFile: ca, HTTP: true, Credentials: tt.credentials}, defaultLimits)
			c.guarded = c.open // redirects here lead to loopback
			got, resp, err := read(t, c, Request{URL: parse(t, tt.url), Foreign: tt.foreign})
			if err != nil || got != tt.want {
				t.Fatalf("%q, %v", got, err)
			}
			if resp.URL.User != nil {
				t.Errorf("the URL of the response shows the password: %v", resp.URL)
			}
		})
	}
}

func TestForeignURLWithCredentials(t *testing.T) {
	srv, ca := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Authorization"))
	}))
	c := testClient(t, Options{CAFile: ca}, defaultLimits)
	c.guarded = c.open
	got, _, err := read(t, c, Request{URL: parse(t, strings.Replace(srv.URL, "://", "://u:p@", 1)), Foreign: true})
	if err != nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestErrorsShowNoPassword(t *testing.T) {
	srv, ca := secure(t, http.NotFoundHandler())
	for _, o := range []Options{{CAFile: ca}, {}} {
		_, _, err := read(t, testClient(t, o, defaultLimits), Request{URL: parse(t, strings.Replace(srv.URL, "://", "://u:hunter2@", 1))})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	}
}

// nameServer answers every question with one address, and counts.
func nameServer(t *testing.T, address func() [4]byte) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		p := make([]byte, 1024)
		for {
			n, from, err := conn.ReadFrom(p)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(p[:n]) != nil {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class},
					Body:   &dnsmessage.AResource{A: address()},
				}}
			}
			out, err := m.Pack()
			if err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestNamesOfPrivateAddresses(t *testing.T) {
	srv, ca := secure(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "inside") }))
	resolver := nameServer(t, func() [4]byte { return [4]byte{127, 0, 0, 1} })
	c := clientFor(t, Options{CAFile: ca}, defaultLimits, resolver, noProxy)
	u := parse(t, "https://example.com:"+parse(t, srv.URL).Port())

	if _, _, err := read(t, c, Request{URL: u, Foreign: true}); !errors.Is(err, ErrPrivate) || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("foreign: error %v", err)
	}
	if got, _, err := read(t, c, Request{URL: u}); err != nil || got != "inside" {
		t.Errorf("typed: %q, %v", got, err)
	}
	// The connection that is open by now is not for URLs that servers choose.
	if _, _, err := read(t, c, Request{URL: u, Foreign: true}); !errors.Is(err, ErrPrivate) {
		t.Errorf("foreign, after typed: error %v", err)
	}
}

func TestRebinding(t *testing.T) {
	srv, ca := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Somebody's server sends us to itself under another name.
		http.Redirect(w, r, "https://www.example.com:"+parse(t, "https://"+r.Host).Port()+"/x", http.StatusFound)
	}))
	resolver := nameServer(t, func() [4]byte { return [4]byte{127, 0, 0, 1} })
	c := clientFor(t, Options{CAFile: ca}, defaultLimits, resolver, noProxy)
	_, _, err := read(t, c, Request{URL: parse(t, "https://example.com:"+parse(t, srv.URL).Port())})
	if !errors.Is(err, ErrPrivate) {
		t.Errorf("error %v", err)
	}
}

// tunnel is a proxy that connects every CONNECT to one address.
func tunnel(t *testing.T, to string) string {
	return raw(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer out.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(out, conn) }()
		_, _ = io.Copy(conn, out)
	})
}

func TestProxy(t *testing.T) {
	srv, ca := secure(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "far") }))
	proxy := parse(t, tunnel(t, srv.Listener.Addr().String()))
	nobody := nameServer(t, func() [4]byte { t.Error("the name was resolved here"); return [4]byte{} })
	c := clientFor(t, Options{CAFile: ca}, defaultLimits, nobody, func(*http.Request) (*url.URL, error) { return proxy, nil })
	for _, tt := range []struct {
		url string
		is  error
	}{
		{"https://example.com/", nil},
		{"https://10.0.0.1/", ErrPrivate},
		{"https://127.1/", ErrPrivate},
		{"https://0x7f000001/", ErrPrivate},
		{"https://2130706433/", ErrPrivate},
		{"https://localhost/", ErrPrivate},
		{"https://x.localhost./", ErrPrivate},
		{"https://[::1]/", ErrPrivate},
	} {
		t.Run(tt.url, func(t *testing.T) {
			got, _, err := read(t, c, Request{URL: parse(t, tt.url), Foreign: true})
			if !errors.Is(err, tt.is) || tt.is == nil && got != "far" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	broken := clientFor(t, Options{}, defaultLimits, nobody, func(*http.Request) (*url.URL, error) {
		return nil, errors.New("http://u:hunter2@ is no proxy")
	})
	if _, _, err := read(t, broken, Request{URL: parse(t, "https://example.com/")}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}

func TestPublic(t *testing.T) {
	for address, want := range map[string]bool{
		"1.1.1.1": true, "8.8.8.8": true, "172.32.0.1": true, "2606:4700::1111": true, "2a00:1450::1": true,
		"64:ff9b::808:808": true, "::ffff:8.8.8.8": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "127.0.0.1": false, "127.255.255.255": false,
		"100.64.0.1": false, "169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false,
		"192.0.0.1": false, "192.0.2.1": false, "198.18.0.1": false, "198.51.100.1": false, "203.0.113.1": false,
		"224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false,
		"::": false, "::1": false, "::7f00:1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false,
		"64:ff9b::a00:1": false, "64:ff9b::7f00:1": false, "64:ff9b:1::808:808": false,
		"2001:db8::1": false, "2001::1": false, "2002:7f00:1::": false, "3fff::1": false,
		"fc00::1": false, "fd00:ec2::254": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "ff02::1": false,
	} {
		if got := public(netip.MustParseAddr(address)); got != want {
			t.Errorf("public(%s) = %v", address, got)
		}
	}
}

func TestOldTLS(t *testing.T) {
	srv, ca := secure(t, http.NotFoundHandler())
	srv.TLS.MinVersion, srv.TLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, _, err := read(t, testClient(t, Options{CAFile: ca}, defaultLimits), Request{URL: parse(t, srv.URL)})
	if !errors.Is(err, ErrTLS) {
		t.Errorf("error %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, bytes.Repeat([]byte("x"), 10), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + ".none"} {
		if _, err := New(Options{CAFile: file}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v", file, err)
		}
	}
}
