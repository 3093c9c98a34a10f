// Package httpclient is how jetpack reads from the web: GET over https, with a
// bound on everything a server or a network can do: sizes, times, redirects,
// encodings, and the addresses that a server can make it connect to.
//
// Not for: what is read (discovery, image/fetch), serving.
package httpclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// maxRedirects: more is a maze.
const maxRedirects = 5

// Options say what the administrator permits and knows.
type Options struct {
	HTTP, TLS   bool                   // plain http is permitted; certificates need not verify
	CAFile      string                 // PEM of further authorities beside the system's, "" none
	Credentials map[string]Credentials // by host, lower case: "name", on any port, or "name:port"
	UserAgent   string
}

// Credentials are sent over https only, and no more once a redirect led to
// another host.
type Credentials struct {
	Username, Password string // basic authentication
	Token              string // bearer, instead
}

// Client reads from the web. It is safe for use by several goroutines.
type Client struct {
	options       Options
	limits        limits
	proxy         func(*http.Request) (*url.URL, error)
	open, guarded *http.Transport // guarded connects to public addresses only, and to no proxy
}

// limits are what tests cannot wait for.
type limits struct {
	connect, tls, header time.Duration
	window               time.Duration // what a minimum of rate is taken over
	rate                 int64         // bytes a second
}

// A server that answers at all does so at once; 1 KiB/s is slower than any link
// worth waiting for and faster than a server that means to hold us.
var defaultLimits = limits{
	connect: 10 * time.Second, tls: 10 * time.Second, header: 10 * time.Second,
	window: 30 * time.Second, rate: 1 << 10,
}

// New makes a client. The environment names its proxies (HTTPS_PROXY, HTTP_PROXY,
// NO_PROXY). Errors: CAFile cannot be read or holds no certificate.
func New(o Options) (*Client, error) {
	return newClient(o, defaultLimits, net.DefaultResolver, http.ProxyFromEnvironment)
}

func newClient(o Options, l limits, resolver *net.Resolver, proxy func(*http.Request) (*url.URL, error)) (*Client, error) {
	authorities, err := readAuthorities(o.CAFile)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: l.connect, Resolver: resolver}
	transport := func(d net.Dialer) *http.Transport {
		return &http.Transport{
			DialContext:            d.DialContext,
			TLSHandshakeTimeout:    l.tls,
			ResponseHeaderTimeout:  l.header,
			MaxResponseHeaderBytes: 64 << 10,
			IdleConnTimeout:        10 * time.Second,
			// Go would undo a Content-Encoding, and with it the hash and the signature.
			DisableCompression: true,
			// No HTTP/2, by not asking for it: nothing here is fetched side by side.
			TLSClientConfig: &tls.Config{
				MinVersion:         tls.VersionTLS12,
				RootCAs:            authorities,
				InsecureSkipVerify: o.TLS, //nolint:gosec // asked for by --insecure=tls
			},
		}
	}
	c := &Client{options: o, limits: l, proxy: proxy, open: transport(dialer)}
	c.open.Proxy = proxy
	// After the name was resolved, so that no answer of a name server gets around it.
	dialer.Control = vetoPrivate
	c.guarded = transport(dialer)
	return c, nil
}

// readAuthorities gives the system's and those of a file; nil means the system's.
func readAuthorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificate authorities %s: no PEM certificate in it", file)
	}
	return pool, nil
}

// Request is one thing to read.
type Request struct {
	URL *url.URL
	// Foreign: a server chose the URL (template, key tag). Addresses that are not
	// public are then refused, as they are after a redirect that leaves the host
	// of URL. What a proxy connects to is the proxy's to refuse, but for addresses
	// written as such.
	Foreign  bool
	Header   http.Header   // Range, If-Range, If-None-Match
	MaxBytes int64         // of the body; more is ErrTooLarge, also when Content-Length says so
	Timeout  time.Duration // for the whole, reading the body included; 0 leaves only the minimum rate
}

// Response is an answer; its Body is to be closed. Reading it gives ErrTooLarge,
// ErrTooSlow, ErrTruncated and context.DeadlineExceeded (Timeout).
type Response struct {
	URL    *url.URL // after redirects, without password
	Status int
	Header http.Header
	Size   int64 // of Body, -1 unknown
	Body   io.ReadCloser
}

// Get reads a URL, following redirects. The status is 200; or, when Header asked
// for it, 206 (beginning where it was asked to), 304 or 416. Everything else is a
// *StatusError; the sentinels of this package are the other errors, beside those
// of the network.
func (c *Client) Get(ctx context.Context, r Request) (*Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := func() { cancel(nil) }
	if r.Timeout > 0 {
		var free context.CancelFunc
		ctx, free = context.WithTimeoutCause(ctx, r.Timeout,
			fmt.Errorf("not done in %v: %w", r.Timeout, context.DeadlineExceeded))
		stop = func() { free(); cancel(nil) }
	}
	fail := func(u *url.URL, err error) error {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return failed(u, err)
	}
	resp, u, err := c.follow(ctx, r)
	if err != nil {
		err = fail(u, err)
		stop()
		return nil, err
	}
	if err := check(r, resp, u); err != nil {
		_ = resp.Body.Close() // it is not read
		stop()
		return nil, err
	}
	shown := *u
	shown.User = nil
	return &Response{
		URL: &shown, Status: resp.StatusCode, Header: resp.Header, Size: resp.ContentLength,
		Body: newBody(resp.Body, r.MaxBytes, c.limits, cancel, stop, func(err error) error { return fail(u, err) }),
	}, nil
}

// follow sends the request on until an answer is no redirect. The URL that it
// gives is the last one tried, also with an error.
func (c *Client) follow(ctx context.Context, r Request) (*http.Response, *url.URL, error) {
	u, foreign, left := r.URL, r.Foreign, false
	seen := map[string]bool{}
	for range maxRedirects + 1 {
		if seen[u.String()] {
			return nil, u, fmt.Errorf("%w: it comes back to itself", ErrRedirects)
		}
		seen[u.String()] = true
		if err := c.checkScheme(u); err != nil {
			return nil, u, err
		}
		resp, err := c.send(ctx, u, r, foreign, left)
		if err != nil {
			return nil, u, err
		}
		to, err := redirection(resp, u)
		if to == nil && err == nil {
			return resp, u, nil
		}
		_ = resp.Body.Close() // of a redirect nobody reads it
		if err != nil {
			return nil, u, err
		}
		if !sameHost(u, to) {
			foreign, left = true, true
		}
		u = to
	}
	return nil, u, fmt.Errorf("%w: more than %d", ErrRedirects, maxRedirects)
}

func (c *Client) checkScheme(u *url.URL) error {
	if u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !c.options.HTTP) {
		return ErrInsecure
	}
	return nil
}

// send makes one request. Left says that a redirect led away from the host of r.
func (c *Client) send(ctx context.Context, u *url.URL, r Request, foreign, left bool) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for key, values := range r.Header {
		req.Header[key] = values
	}
	req.Header.Set("Accept-Encoding", "identity")
	if c.options.UserAgent != "" {
		req.Header.Set("User-Agent", c.options.UserAgent)
	}
	if !left {
		c.authenticate(req, r)
	}
	return c.roundTrip(req, foreign)
}

// roundTrip sends one request to where it goes, or to a proxy.
func (c *Client) roundTrip(req *http.Request, foreign bool) (*http.Response, error) {
	u := req.URL
	var handshakeFailed atomic.Bool
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { handshakeFailed.Store(err != nil) },
	}))
	proxy, err := c.proxy(req)
	if err != nil {
		return nil, fmt.Errorf("the environment names a proxy that is none for %s", u.Host) // err shows its password
	}
	transport := c.open
	switch {
	case foreign && proxy == nil:
		transport = c.guarded
	case foreign:
		if err := vetoLiteral(u.Hostname()); err != nil {
			return nil, err
		}
	}
	resp, err := transport.RoundTrip(req)
	if err != nil && handshakeFailed.Load() {
		err = handshakeError(u, err)
	}
	return resp, err
}

// authenticate adds what is known for the host: what the URL says, if it was not
// chosen by a server, or the configured credentials.
func (c *Client) authenticate(req *http.Request, r Request) {
	if req.URL.Scheme != "https" {
		return
	}
	host := strings.ToLower(req.URL.Hostname())
	known, ok := c.options.Credentials[net.JoinHostPort(host, port(req.URL))]
	if !ok {
		known, ok = c.options.Credentials[host]
	}
	if user := r.URL.User; user != nil && !r.Foreign {
		password, _ := user.Password()
		known, ok = Credentials{Username: user.Username(), Password: password}, true
	}
	switch {
	case !ok:
	case known.Token != "":
		req.Header.Set("Authorization", "Bearer "+known.Token)
	default:
		req.SetBasicAuth(known.Username, known.Password)
	}
}

// redirection is where an answer to a request for u points, nil for nowhere.
func redirection(resp *http.Response, u *url.URL) (*url.URL, error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	location := resp.Header.Get("Location")
	if location == "" {
		return nil, statusError(u, resp.StatusCode)
	}
	to, err := u.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("%w: to what is no URL", ErrRedirects)
	}
	to.User, to.Fragment = nil, "" // credentials are the administrator's to give
	return to, nil
}

// sameHost says whether a redirect stays where it was: at the same name and port,
// or at the same name, from http to https. Another port is another service.
func sameHost(from, to *url.URL) bool {
	if !strings.EqualFold(from.Hostname(), to.Hostname()) {
		return false
	}
	return port(from) == port(to) || from.Scheme == "http" && to.Scheme == "https" && from.Port() == "" && to.Port() == ""
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "http":
		return "80"
	}
	return "443"
}

// check refuses answers that were not asked for.
func check(r Request, resp *http.Response, u *url.URL) error {
	ranged := r.Header.Get("Range")
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		if ranged == "" {
			return statusError(u, resp.StatusCode)
		}
		if !answersRange(resp.Header.Get("Content-Range"), ranged) {
			return failed(u, ErrRange)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		if ranged != "" {
			return nil
		}
		return statusError(u, resp.StatusCode)
	case http.StatusNotModified:
		if r.Header.Get("If-None-Match") != "" {
			return nil
		}
		return statusError(u, resp.StatusCode)
	default:
		return statusError(u, resp.StatusCode)
	}
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return failed(u, fmt.Errorf("%w: %s", ErrEncoded, encoding))
	}
	if resp.ContentLength > r.MaxBytes {
		return failed(u, fmt.Errorf("%w: %d bytes, %d are allowed", ErrTooLarge, resp.ContentLength, r.MaxBytes))
	}
	return nil
}

// answersRange says whether a Content-Range begins where a Range asked it to (RFC
// 9110, section 14.4).
func answersRange(got, asked string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(asked, "bytes="), "-")
	return strings.HasPrefix(got, "bytes "+first+"-")
}
