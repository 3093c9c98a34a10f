package repository

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"time"
)

// Handler serves a repository's directory, or one like it: files under their names, and
// index.html for directories, with an ETag made of the contents, in ranges if asked, and
// never encoded, as what is signed must arrive byte by byte. What begins with a dot or
// lies outside of the directory is not there. Each request is a line of log, in the
// Common Log Format; nil is no log.
func Handler(dir string, log io.Writer) http.Handler {
	h := &handler{dir: dir, tags: map[string]tag{}}
	if log == nil {
		return h
	}
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		begin := time.Now()
		counted := &counter{ResponseWriter: w}
		h.ServeHTTP(counted, req)
		host, _, err := net.SplitHostPort(req.RemoteAddr)
		if err != nil {
			host = req.RemoteAddr
		}
		request := fmt.Sprintf("%q", req.Method+" "+req.URL.RequestURI()+" "+req.Proto)
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(log, "%s - - [%s] %s %d %d\n", host, begin.Format("02/Jan/2006:15:04:05 -0700"), request, counted.status, counted.size)
	})
}

type handler struct {
	dir string

	mu   sync.Mutex
	tags map[string]tag // by file
}

// tag is a file's ETag, and the file as it was then.
type tag struct {
	info fs.FileInfo
	etag string
}

func (h *handler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	f, info, err := h.open(req.URL.Path)
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	if err != nil {
		http.Error(w, "the file cannot be read", http.StatusInternalServerError)
		return
	}
	defer f.Close() //nolint:errcheck // only read
	etag, err := h.etag(f, info)
	if err != nil {
		http.Error(w, "the file cannot be read", http.StatusInternalServerError)
		return
	}
	w.Header().Set("ETag", etag)
	w.Header().Set("Content-Type", contentType(info.Name()))
	w.Header().Set("Cache-Control", "no-cache") // "latest" changes: ask each time
	http.ServeContent(w, req, "", info.ModTime(), f)
}

// open gives the regular file that a URL's path means. Errors: fs.ErrNotExist for all
// that is not to be seen.
func (h *handler) open(urlPath string) (*os.File, fs.FileInfo, error) {
	name := strings.TrimPrefix(path.Clean("/"+urlPath), "/")
	if strings.HasPrefix(name, ".") || strings.Contains(name, "/.") || strings.ContainsAny(name, "\x00\\") {
		return nil, nil, fs.ErrNotExist
	}
	if name == "" {
		name = pageName
	}
	root, err := os.OpenRoot(h.dir)
	if err != nil {
		return nil, nil, errors.New("open repository") // its absence is not the file's
	}
	defer root.Close() //nolint:errcheck // only read
	info, err := root.Stat(name)
	if err == nil && info.IsDir() {
		name += "/" + pageName
		info, err = root.Stat(name)
	}
	// A fifo would not be opened before somebody writes to it.
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil, fs.ErrNotExist
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err = f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// etag hashes a file once, until another is in its place.
func (h *handler) etag(f *os.File, info fs.FileInfo) (string, error) {
	h.mu.Lock()
	known := h.tags[f.Name()]
	h.mu.Unlock()
	if known.info != nil && os.SameFile(known.info, info) && known.info.Size() == info.Size() && known.info.ModTime().Equal(info.ModTime()) {
		return known.etag, nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	etag := `"` + hex.EncodeToString(hash.Sum(nil)) + `"`
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tags[f.Name()] = tag{info, etag}
	return etag, nil
}

func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".asc", ".txt":
		return "text/plain; charset=utf-8"
	case ".json":
		return "application/json"
	}
	return "application/octet-stream"
}

// counter remembers what was answered.
type counter struct {
	http.ResponseWriter
	status int
	size   int64
}

func (c *counter) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(p []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	n, err := c.ResponseWriter.Write(p)
	c.size += int64(n)
	return n, err
}
