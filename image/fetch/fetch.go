// Package fetch opens the places that an image can come from: a file, standard
// input, a URL.
//
// Not for: reading what comes (image/aci), keeping it (image).
package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Sentinels of this package, wrapped with the location.
var (
	// ErrInsecureURL: the location, or what it redirects to, is not https.
	ErrInsecureURL = errors.New("not an https URL; --insecure=http permits it")
	// ErrHTTP: the server answered, and not with the file.
	ErrHTTP = errors.New("server error")
)

// Options say what an administrator permitted.
type Options struct {
	Stdin io.Reader // what "-" means
	HTTP  bool      // plain http too
	TLS   bool      // certificates that do not verify too
}

// maxRedirects: more is a loop or a maze.
const maxRedirects = 5

// Open opens a location as a command line names it: "-", a path, or a file, https
// or http URL. It gives the bytes, as the server has them, and how to name the
// place in records: "stdin", an absolute path, or the URL without credentials.
func Open(ctx context.Context, location string, o Options) (body io.ReadCloser, origin string, err error) {
	if location == "-" {
		return interruptible(ctx, o.Stdin), "stdin", nil
	}
	u, err := url.Parse(location)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		body, err = get(ctx, u, o)
		return body, u.Redacted(), err
	}
	if err == nil && u.Scheme == "file" {
		if u.Host != "" && u.Host != "localhost" {
			return nil, "", fmt.Errorf("%s: a file URL names no other host", location)
		}
		location = u.Path
	}
	return openFile(location)
}

// interruptible reads r until ctx ends: a read of standard input itself cannot be
// interrupted, and stays behind.
func interruptible(ctx context.Context, r io.Reader) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		_ = in.CloseWithError(err) // it never fails
	}()
	context.AfterFunc(ctx, func() { _ = in.CloseWithError(ctx.Err()) })
	return out
}

func openFile(path string) (io.ReadCloser, string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, "", err
	}
	fi, err := os.Stat(abs)
	if err != nil {
		return nil, "", err
	}
	if fi.IsDir() {
		return nil, "", fmt.Errorf("%s: is a directory", path)
	}
	f, err := os.Open(abs)
	return f, abs, err
}

// IsLocation tells a location from the name of an image in the store: it is "-",
// has a scheme, begins like a path, or ends like an ACI.
func IsLocation(s string) bool {
	return s == "-" || strings.Contains(s, "://") || strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") ||
		strings.HasSuffix(s, ".aci")
}

func get(ctx context.Context, u *url.URL, o Options) (io.ReadCloser, error) {
	if err := checkScheme(u, o); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		// Go would undo a Content-Encoding, and with it the hash and the signature.
		DisableCompression:    true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       10 * time.Second,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.TLS}, //nolint:gosec // asked for by --insecure=tls
	}
	client := &http.Client{
		Transport: transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("%w: more than %d redirects", ErrHTTP, maxRedirects)
			}
			return checkScheme(req.URL, o)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s: %w: %s", u.Redacted(), ErrHTTP, resp.Status), resp.Body.Close())
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, errors.Join(fmt.Errorf("%s: %w: it sends the file %s-encoded, unasked", u.Redacted(), ErrHTTP, enc), resp.Body.Close())
	}
	return resp.Body, nil
}

func checkScheme(u *url.URL, o Options) error {
	if u.Scheme == "https" || u.Scheme == "http" && o.HTTP {
		return nil
	}
	return fmt.Errorf("%s: %w", u.Redacted(), ErrInsecureURL)
}
