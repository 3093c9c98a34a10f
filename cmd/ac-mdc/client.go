package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	timeout   = 10 * time.Second
	maxAnswer = 64 << 20 // bytes, of a manifest
)

// errAbsent: the service knows no such thing.
var errAbsent = errors.New("not found")

// errRefused: the signature is not good.
var errRefused = errors.New("the signature is not good")

// client asks the metadata service for an app (appc spec, ace.md, "App Container
// Metadata Service").
type client struct {
	base   string // with the pod's token: not to be shown
	app    string
	getenv func(string) string
	http   *http.Client
}

func newClient(getenv func(string) string) (*client, error) {
	base := getenv("AC_METADATA_URL")
	if base == "" {
		return nil, errors.New("AC_METADATA_URL is not set: no metadata service serves this pod")
	}
	if u, err := url.Parse(base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("AC_METADATA_URL is not a URL of a metadata service")
	}
	return &client{
		base: strings.TrimSuffix(base, "/") + "/acMetadata/v1", app: getenv("AC_APP_NAME"), getenv: getenv,
		// Nobody else is told the token: neither a proxy nor where a redirect leads.
		http: &http.Client{
			Timeout:       timeout,
			Transport:     &http.Transport{},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// ofApp is the path of something that the service knows of this app.
func (c *client) ofApp(what string) (string, error) {
	if c.app == "" {
		return "", errors.New("AC_APP_NAME is not set")
	}
	return "/apps/" + url.PathEscape(c.app) + what, nil
}

func (c *client) get(ctx context.Context, path string) (string, error) {
	return c.ask(ctx, http.MethodGet, path, nil)
}

func (c *client) ask(ctx context.Context, method, path string, form url.Values) (_ string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return "", errors.New("AC_METADATA_URL is not a URL of a metadata service")
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Metadata-Flavor", "AppContainer") // other services than ours may want it
	resp, err := c.http.Do(req)
	if err != nil {
		var failed *url.Error // which shows the URL
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return "", fmt.Errorf("ask the metadata service: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("ask the metadata service: %w", err)
	case len(body) > maxAnswer:
		return "", fmt.Errorf("the metadata service answers with more than %d bytes", maxAnswer)
	case resp.StatusCode == http.StatusNotFound:
		return "", errAbsent
	case resp.StatusCode == http.StatusForbidden && form.Has("signature"):
		return "", errRefused
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("the metadata service answers %s: %.200q", resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// annotation gives the value of a name in a list of annotations. Errors: errAbsent.
func (c *client) annotation(ctx context.Context, path, name string) (string, error) {
	raw, err := c.get(ctx, path)
	if err != nil {
		return "", err
	}
	var list []struct{ Name, Value string }
	if err := json.Unmarshal([]byte(raw), &list); err != nil {
		return "", fmt.Errorf("the metadata service answers with no list of annotations: %w", err)
	}
	for _, a := range list {
		if a.Name == name {
			return a.Value, nil
		}
	}
	return "", fmt.Errorf("annotation %s: %w", name, errAbsent)
}

func (c *client) podAnnotation(ctx context.Context, name string) (string, error) {
	return c.annotation(ctx, "/pod/annotations", name)
}

func (c *client) appAnnotation(ctx context.Context, name string) (string, error) {
	path, err := c.ofApp("/annotations")
	if err != nil {
		return "", err
	}
	return c.annotation(ctx, path, name)
}

func (c *client) sign(ctx context.Context, content string) (string, error) {
	return c.ask(ctx, http.MethodPost, "/pod/hmac/sign", url.Values{"content": {content}})
}

// verify's errors: errRefused.
func (c *client) verify(ctx context.Context, uuid, signature, content string) error {
	_, err := c.ask(ctx, http.MethodPost, "/pod/hmac/verify", url.Values{"content": {content}, "uuid": {uuid}, "signature": {signature}})
	return err
}
