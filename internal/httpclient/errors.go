package httpclient

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

// Sentinels of this package, wrapped with the URL.
var (
	ErrInsecure  = errors.New("not an https URL; --insecure=http permits plain http")
	ErrPrivate   = errors.New("the address is not public, and a server chose it")
	ErrTLS       = errors.New("no TLS connection")
	ErrTooLarge  = errors.New("too large")
	ErrTooSlow   = errors.New("the server is too slow")
	ErrTruncated = errors.New("the connection ended before the file did")
	ErrEncoded   = errors.New("the server encodes the file, unasked")
	ErrRange     = errors.New("the server sends another part of the file than asked for")
	ErrRedirects = errors.New("redirected in vain")
)

// StatusError is an answer that is not the file.
type StatusError struct {
	URL    string // without password
	Status int
}

func (e *StatusError) Error() string {
	text := http.StatusText(e.Status) // the server's own could say anything
	if text == "" {
		text = "unknown status"
	}
	return fmt.Sprintf("%s: %d %s", e.URL, e.Status, text)
}

func statusError(u *url.URL, status int) error {
	return &StatusError{URL: u.Redacted(), Status: status}
}

// failure is an error with a text of its own.
type failure struct {
	text string
	err  error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.err }

// failed puts the URL before an error and makes both one printable line: texts of
// the TLS library show names out of the server's certificate.
func failed(u *url.URL, err error) error {
	var status *StatusError
	if errors.As(err, &status) {
		return err
	}
	return &failure{text: printable(u.Redacted() + ": " + err.Error()), err: err}
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// handshakeError says what would mend a failed handshake.
func handshakeError(u *url.URL, err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return err
	}
	var unverified *tls.CertificateVerificationError
	if errors.As(err, &unverified) {
		return fmt.Errorf("%w with %s: %w; discovery.ca-file names further authorities, --insecure=tls does without",
			ErrTLS, u.Host, unverified.Err)
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return fmt.Errorf("%w with %s: it does not speak TLS", ErrTLS, u.Host)
	}
	return fmt.Errorf("%w with %s: %w", ErrTLS, u.Host, err)
}
