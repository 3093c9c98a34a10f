package httpclient

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// RoundTripper makes the requests of a library that speaks a protocol of its own with
// host ("name" or "name:port"), within the bounds of this package: plain http is for host
// alone, and only where it is permitted; whatever else it names or redirects to has to be
// public, or on another port of host, and is sent nothing that authenticates but what the
// library means for it.
// limit says how long the body of an answer may be, in bytes.
func (c *Client) RoundTripper(host string, limit func(*http.Request) int64) http.RoundTripper {
	return roundTripper{c, host, limit}
}

type roundTripper struct {
	*Client
	host  string
	limit func(*http.Request) int64
}

// RoundTrip makes one request. Errors are those of Client.Get.
func (t roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	foreign := !strings.EqualFold(req.URL.Hostname(), (&url.URL{Host: t.host}).Hostname())
	if err := t.checkScheme(req.URL); err != nil {
		return nil, failed(req.URL, err)
	}
	if !strings.EqualFold(req.URL.Host, t.host) && req.URL.Scheme == "http" {
		return nil, failed(req.URL, fmt.Errorf("%w, and only with %s", ErrInsecure, t.host))
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	req = req.Clone(ctx)
	req.Header.Set("Accept-Encoding", "identity")
	if t.options.UserAgent != "" {
		req.Header.Set("User-Agent", t.options.UserAgent)
	}
	fail := func(err error) error {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return failed(req.URL, err)
	}
	resp, err := t.roundTrip(req, foreign)
	if err != nil {
		err = fail(err)
		cancel(nil)
		return nil, err
	}
	resp.Body = newBody(resp.Body, t.limit(req), t.limits, cancel, func() { cancel(nil) }, fail)
	return resp, nil
}
