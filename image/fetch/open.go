package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/appc/spec/schema"

	"github.com/jetpack-run/jetpack/discovery"
	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/trust"
)

// IsLocation tells a location from the name of an image: it is "-", has a scheme,
// begins like a path, or ends like an ACI.
func IsLocation(s string) bool {
	return s == "-" || strings.Contains(s, "://") || strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") ||
		strings.HasSuffix(s, ".aci")
}

// Import brings the image of a location, and what it depends on: of a file or file URL,
// of an https URL, or of stdin when it is "-". signature is where its signature is, a
// location as well; "" is beside it, with ".asc" added to the name. Errors: those of
// Fetch but for discovery's, of the file system.
func (f *Fetcher) Import(ctx context.Context, location, signature string, stdin io.Reader) (*image.Image, error) {
	return f.session(ctx, func(s *session) (_ *image.Image, err error) {
		in, err := f.source(location)
		if err != nil {
			return nil, err
		}
		if in == (source{}) && signature == "-" {
			return nil, errors.New("import: the image and its signature cannot both come from standard input")
		}
		if in.url != nil {
			s.typed = in.url.Hostname()
		}
		var vouching []byte
		if !s.waivesSignature() {
			if vouching, err = s.signature(ctx, in, signature, stdin); err != nil {
				return nil, fmt.Errorf("import %s: %w", location, err)
			}
		}
		img, warnings, err := s.bringIn(ctx, in, stdin, aci.ImportOptions{
			Origin: in.origin(), Insecure: s.Insecure, Strict: s.Strict, Limits: s.Limits,
			Admit: func(ctx context.Context, m *schema.ImageManifest, archive io.ReadSeeker) (*image.Signature, error) {
				vouched, err := s.verify(ctx, m.Name.String(), archive, vouching)
				if err != nil {
					return nil, err
				}
				return vouched, s.bring(ctx, m)
			},
		})
		if err != nil {
			return nil, fmt.Errorf("import %s: %w", location, err)
		}
		s.warn(location, warnings)
		return img, nil
	})
}

// source is a location: a path, a URL, or neither for stdin.
type source struct {
	path string // absolute
	url  *url.URL
}

// origin is how a source is named in records.
func (s source) origin() string {
	switch {
	case s.url != nil:
		return s.url.Redacted()
	case s.path != "":
		return s.path
	}
	return "stdin"
}

func (f *Fetcher) source(location string) (source, error) {
	if location == "-" {
		return source{}, nil
	}
	u, err := url.Parse(location)
	switch {
	case err == nil && (u.Scheme == "http" || u.Scheme == "https"):
		return source{url: u}, nil
	case strings.Contains(location, "://") && (err != nil || u.Scheme != "file"):
		return source{}, fmt.Errorf("%s: neither https, file nor a path", location)
	case err == nil && u.Scheme == "file":
		if u.Host != "" && u.Host != "localhost" {
			return source{}, fmt.Errorf("%s: a file URL names no other host", location)
		}
		location = u.Path
	}
	path, err := filepath.Abs(location)
	return source{path: path}, err
}

// signature reads what vouches for a source. Errors: image.ErrUntrusted when there is
// nothing.
func (s *session) signature(ctx context.Context, of source, location string, stdin io.Reader) (_ []byte, err error) {
	in := of
	switch {
	case location != "":
		if in, err = s.source(location); err != nil {
			return nil, err
		}
	case of.url != nil:
		beside := *of.url
		beside.Path += ".asc"
		if beside.RawPath != "" {
			beside.RawPath += ".asc"
		}
		in = source{url: &beside}
	case of.path != "":
		in = source{path: of.path + ".asc"}
	default:
		return nil, fmt.Errorf("%w: it has no signature; name one with --sig, or admit it all the same with --insecure=signature", image.ErrUntrusted)
	}
	raw, err := s.read(ctx, in, stdin, maxSignature)
	if location == "" && (isStatus4xx(err) || errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("%w: it has no signature at %s; name one with --sig, or admit it all the same with --insecure=signature", image.ErrUntrusted, in.origin())
	}
	if err == nil {
		err = trust.ParseSignature(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("signature %s: %w", in.origin(), err)
	}
	return raw, nil
}

// read reads a source that fits into memory.
func (s *session) read(ctx context.Context, in source, stdin io.Reader, limit int64) ([]byte, error) {
	switch {
	case in.url != nil:
		return s.small(ctx, in.url, false, limit)
	case in.path != "":
		return readFile(in.path, limit)
	}
	return readAll(interruptible(ctx, stdin), "standard input", limit)
}

func readFile(path string, limit int64) (_ []byte, err error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return readAll(f, path, limit)
}

func readAll(r io.Reader, what string, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", what, limit)
	}
	return raw, err
}

func openFile(path string) (*os.File, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		return nil, fmt.Errorf("%s: is a directory", path)
	}
	return os.Open(path)
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

// bringIn imports a source: a file that is somebody's, and stdin, are copied first.
func (s *session) bringIn(ctx context.Context, in source, stdin io.Reader, o aci.ImportOptions) (_ *image.Image, warnings []string, err error) {
	if in.url != nil {
		return s.bringURL(ctx, in.url, o)
	}
	var body io.ReadCloser
	if in.path == "" {
		body = interruptible(ctx, stdin)
	} else if body, err = openFile(in.path); err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	return aci.Import(ctx, s.Store, body, o)
}

func (s *session) bringURL(ctx context.Context, u *url.URL, o aci.ImportOptions) (_ *image.Image, warnings []string, err error) {
	n := &node{endpoint: discovery.Endpoint{Image: u}}
	if err := s.download(ctx, n, u.Redacted()); err != nil {
		return nil, nil, err
	}
	if n.known != nil {
		return n.known, nil, nil
	}
	o.ETag = n.download.ETag
	img, warnings, err := aci.ImportFile(ctx, s.Store, n.download.File, o)
	if err == nil || errors.Is(err, trust.ErrBadSignature) || errors.Is(err, aci.ErrFormat) {
		if err := n.download.Drop(); err != nil {
			s.Warn(err.Error())
		}
	}
	return img, warnings, err
}
