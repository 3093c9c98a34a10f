package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/internal/httpclient"
)

// content is that of a file, another one for each seed.
func content(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

var file, other = content(1, 1000), content(2, 1200)

// answer is what a server does with one request.
type answer func(w http.ResponseWriter, req *http.Request)

// good serves a file as it should be.
func good(body []byte, etag string) answer {
	return func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("ETag", etag)
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(body))
	}
}

func dated(body []byte, etag string) answer {
	return func(w http.ResponseWriter, req *http.Request) {
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		http.ServeContent(w, req, "", time.Unix(1e9, 0), bytes.NewReader(body))
	}
}

// plain serves a file as a server does that knows nothing of ranges or versions.
func plain(body []byte) answer {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }
}

// chunked does not say how long the file is.
func chunked(body []byte) answer {
	return func(w http.ResponseWriter, _ *http.Request) {
		for part := range slices.Chunk(body, 100) {
			_, _ = w.Write(part)
			w.(http.Flusher).Flush()
		}
	}
}

// cut ends the connection after n bytes of what a gives.
func cut(a answer, n int) answer {
	return func(w http.ResponseWriter, req *http.Request) {
		a(&cutter{w, n}, req)
	}
}

type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	n, _ := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	c.left -= n
	if c.left == 0 {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

func (c *cutter) Flush() { c.ResponseWriter.(http.Flusher).Flush() }

// part206 answers a range with what the server says it is.
func part206(etag, contentRange string, body []byte) answer {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", etag)
		w.Header().Set("Content-Range", contentRange)
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(body)
	}
}

func status(code int, contentRange string) answer {
	return func(w http.ResponseWriter, _ *http.Request) {
		if contentRange != "" {
			w.Header().Set("Content-Range", contentRange)
		}
		w.WriteHeader(code)
	}
}

// server gives one answer after the other, the last one for ever.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	answers  []answer
	requests []string // how each began: its Range, If-Range and If-None-Match
	sent     int      // bytes
}

func newServer(t testing.TB, answers ...answer) *server {
	s := &server{answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		a := s.answers[0]
		if len(s.answers) > 1 {
			s.answers = s.answers[1:]
		}
		h := req.Header
		s.requests = append(s.requests, strings.TrimSpace(h.Get("Range")+" "+h.Get("If-Range")+h.Get("If-None-Match")))
		s.mu.Unlock()
		a(&counted{w, s, false}, req)
	}))
	t.Cleanup(s.Close)
	return s
}

type counted struct {
	http.ResponseWriter
	s      *server
	failed bool
}

func (c *counted) Write(p []byte) (int, error) {
	c.s.mu.Lock()
	if !c.failed {
		c.s.sent += len(p) // before a client can ask for the sum
	}
	c.s.mu.Unlock()
	return c.ResponseWriter.Write(p)
}

func (c *counted) WriteHeader(status int) {
	c.failed = status >= 400
	c.ResponseWriter.WriteHeader(status)
}

func (c *counted) Flush() { c.ResponseWriter.(http.Flusher).Flush() }

func (s *server) wanted(t testing.TB, limit int) request {
	t.Helper()
	u, err := url.Parse(s.URL + "/a.aci")
	if err != nil {
		t.Fatal(err)
	}
	return request{url: u, max: int64(limit)}
}

var client = func() *httpclient.Client {
	c, err := httpclient.New(httpclient.Options{HTTP: true})
	if err != nil {
		panic(err)
	}
	return c
}()

func noMeter(_ string, _, _ int64, r io.Reader) io.ReadCloser { return io.NopCloser(r) }

func notCome() (bool, error) { return false, nil }

func open(t testing.TB, dir string) *Downloads {
	t.Helper()
	d, err := OpenDownloads(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *Downloads) try(ctx context.Context, r request) (*Download, error) {
	return d.get(ctx, client, r, noMeter, func() {}, notCome)
}

func read(t testing.TB, d *Download) []byte {
	t.Helper()
	if _, err := d.File.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(d.File)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// kept lists the downloads that are left, but for those that are being made.
func kept(t testing.TB, dir string) []Kept {
	t.Helper()
	left, err := Left(dir)
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// A second fetch goes on where the first one ended, if the server lets it.
func TestResume(t *testing.T) {
	const date = "Sun, 09 Sep 2001 01:46:40 GMT"
	broken := cut(good(file, `"1"`), 600)
	for _, tt := range []struct {
		name     string
		max      int
		answers  []answer
		first    error    // of the first fetch, that breaks off unless it is nil
		errs     []error  // of further ones, before the last
		requests []string // after the first fetch
		sent     int      // bytes, after the first fetch
		want     []byte
	}{
		{"cut", 1000, []answer{broken, good(file, `"1"`)}, httpclient.ErrTruncated, nil, []string{`bytes=600- "1"`}, 400, file},
		{"cut twice", 1000, []answer{broken, cut(good(file, `"1"`), 300), good(file, `"1"`)}, httpclient.ErrTruncated,
			[]error{httpclient.ErrTruncated}, []string{`bytes=600- "1"`, `bytes=900- "1"`}, 400, file},
		{"no ranges", 1000, []answer{broken, plain(file)}, httpclient.ErrTruncated, nil, []string{`bytes=600- "1"`}, 1000, file},
		{"changed, as large as may be", 1200, []answer{broken, good(other, `"2"`)}, httpclient.ErrTruncated, nil, []string{`bytes=600- "1"`}, 1200, other},
		{"shorter now, version ignored", 1000, []answer{broken, status(416, "bytes */500"), good(other[:500], `"1"`)}, httpclient.ErrTruncated, nil,
			[]string{`bytes=600- "1"`, ""}, 500, other[:500]},
		{"another part than asked for", 1000, []answer{broken, part206(`"1"`, "bytes 500-999/1000", file[500:]), good(file, `"1"`)}, httpclient.ErrTruncated, nil,
			[]string{`bytes=600- "1"`, ""}, 1500, file},
		{"no part named", 1000, []answer{broken, part206(`"1"`, "", file[600:]), good(file, `"1"`)}, httpclient.ErrTruncated, nil,
			[]string{`bytes=600- "1"`, ""}, 1400, file},
		{"parts are refused", 1000, []answer{broken, status(400, ""), good(file, `"1"`)}, httpclient.ErrTruncated, nil,
			[]string{`bytes=600- "1"`, ""}, 1000, file},
		{"more than there is", 5000, []answer{broken, part206(`"1"`, "bytes 600-1599/1600", file), good(file, `"1"`)}, httpclient.ErrTruncated,
			[]error{httpclient.ErrTooLarge}, []string{`bytes=600- "1"`, ""}, 2000, file},
		{"less than the rest", 1000, []answer{broken, part206(`"1"`, "bytes 600-699/1000", file[600:700]), good(file, `"1"`)}, httpclient.ErrTruncated,
			[]error{httpclient.ErrTruncated}, []string{`bytes=600- "1"`, `bytes=700- "1"`}, 400, file},
		{"without version", 1000, []answer{cut(plain(file), 600), plain(file)}, httpclient.ErrTruncated, nil, []string{""}, 1000, file},
		{"weak version", 1000, []answer{cut(good(file, `W/"1"`), 600), good(file, `W/"1"`)}, httpclient.ErrTruncated, nil, []string{""}, 1000, file},
		{"date", 1000, []answer{cut(dated(file, `W/"1"`), 600), dated(file, `W/"1"`)}, httpclient.ErrTruncated, nil, []string{"bytes=600- " + date}, 400, file},
		{"unknown size", 1000, []answer{cut(chunked(file), 600), chunked(file)}, httpclient.ErrTruncated, nil, []string{""}, 1000, file},
		{"whole", 1000, []answer{good(file, `"1"`)}, nil, nil, []string{`bytes=1000- "1"`}, 0, file},
		{"whole, and changed", 1200, []answer{good(file, `"1"`), good(other, `"2"`)}, nil, nil, []string{`bytes=1000- "1"`}, 1200, other},
		{"whole, and the server has more of it", 1200, []answer{good(file, `"1"`), good(slices.Concat(file, other[:200]), `"1"`)}, nil, nil,
			[]string{`bytes=1000- "1"`, ""}, 1400, slices.Concat(file, other[:200])},
		{"whole, and the server has less", 1200, []answer{good(file, `"1"`), good(other[:500], `"1"`)}, nil, nil, []string{`bytes=1000- "1"`, ""}, 500, other[:500]},
		{"whole without version", 1000, []answer{plain(file)}, nil, nil, []string{""}, 1000, file},
		{"empty", 1000, []answer{good(nil, `"1"`)}, nil, nil, []string{""}, 0, nil},
		{"server error between", 1000, []answer{broken, status(503, ""), good(file, `"1"`)}, httpclient.ErrTruncated,
			[]error{errStatus}, []string{`bytes=600- "1"`, `bytes=600- "1"`}, 400, file},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, tt.answers...)
			dir := t.TempDir()
			first := open(t, dir)
			got, err := first.try(t.Context(), s.wanted(t, tt.max))
			if !errors.Is(err, tt.first) {
				t.Fatalf("first fetch: %v, want %v", err, tt.first)
			}
			// Its process ends without a word.
			if err := first.lock.Close(); err != nil {
				t.Fatal(err)
			}
			s.requests, s.sent = nil, 0
			for _, want := range tt.errs {
				if _, err := open(t, dir).try(t.Context(), s.wanted(t, tt.max)); !is(err, want) {
					t.Fatalf("got %v, want %v", err, want)
				}
			}
			last, err := open(t, dir).try(t.Context(), s.wanted(t, tt.max))
			if err != nil {
				t.Fatal(err)
			}
			if b := read(t, last); !bytes.Equal(b, tt.want) {
				t.Errorf("%d bytes are wrong", len(b))
			}
			if got != nil && len(tt.want) > 0 && !bytes.Equal(read(t, got), file) {
				t.Error("the file of the first fetch has changed")
			}
			if !slices.Equal(s.requests, tt.requests) || s.sent != tt.sent {
				t.Errorf("%q gave %d bytes, want %q, %d", s.requests, s.sent, tt.requests, tt.sent)
			}
			if err := last.Drop(); err != nil {
				t.Error(err)
			}
			for _, k := range kept(t, dir) {
				if k.URL != "" {
					t.Errorf("left: %+v", k)
				}
			}
		})
	}
}

// errStatus stands for any *httpclient.StatusError.
var errStatus = errors.New("status")

func is(err, target error) bool {
	var status *httpclient.StatusError
	return errors.Is(err, target) || target == errStatus && errors.As(err, &status)
}

// Of what no fetch can use, nothing is kept.
func TestNothingLeft(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer answer
		known  string
		want   error
	}{
		{"too large", good(file, `"1"`), "", httpclient.ErrTooLarge},
		{"too large, unannounced", chunked(file), "", httpclient.ErrTooLarge},
		{"not there", status(404, ""), "", errStatus},
		{"encoded", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(file)
		}, "", httpclient.ErrEncoded},
		{"not modified", good(file, `"1"`), `"1"`, errNotModified},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, tt.answer)
			dir := t.TempDir()
			r := s.wanted(t, 999)
			r.known = tt.known
			_, err := open(t, dir).try(t.Context(), r)
			if !is(err, tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if left := kept(t, dir); len(left) > 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

// Many that want a file at once cause one download, also of a server that says nothing
// about it; and none of them takes for new what was there before.
func TestShared(t *testing.T) {
	for name, serve := range map[string]answer{"good": good(file, `"1"`), "plain": plain(file), "chunked": chunked(file)} {
		for _, stale := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stale %t", name, stale), func(t *testing.T) {
				const many = 8
				waiting := make(chan struct{}, many)
				s := newServer(t, plain(other), func(w http.ResponseWriter, req *http.Request) {
					for range many - 1 {
						<-waiting
					}
					serve(w, req)
				})
				dir := t.TempDir()
				if stale {
					if _, err := open(t, dir).try(t.Context(), s.wanted(t, 2000)); err != nil {
						t.Fatal(err)
					}
				} else {
					s.answers = s.answers[1:]
				}
				s.sent = 0
				var group sync.WaitGroup
				for range many {
					group.Go(func() {
						d, err := OpenDownloads(t.Context(), dir)
						if err != nil {
							t.Error(err)
							return
						}
						defer d.Close()
						got, err := d.get(t.Context(), client, s.wanted(t, 2000), noMeter, func() { waiting <- struct{}{} }, notCome)
						if err != nil {
							t.Error(err)
							return
						}
						if !bytes.Equal(read(t, got), file) {
							t.Error("not the file")
						}
					})
				}
				group.Wait()
				if s.sent != len(file) {
					t.Errorf("%d bytes were sent for %d", s.sent, len(file))
				}
			})
		}
	}
}

// The one that fetches breaks off; one of those that wait goes on.
func TestTakeOver(t *testing.T) {
	waiting := make(chan struct{})
	s := newServer(t, func(w http.ResponseWriter, req *http.Request) {
		<-waiting
		cut(good(file, `"1"`), 600)(w, req)
	}, good(file, `"1"`))
	dir := t.TempDir()
	first, second := open(t, dir), open(t, dir)
	broke := make(chan error, 1)
	go func() {
		_, err := first.try(t.Context(), s.wanted(t, 1000))
		broke <- err
	}()
	for s.count() == 0 {
		time.Sleep(time.Millisecond)
	}
	got, err := second.get(t.Context(), client, s.wanted(t, 1000), noMeter, func() { close(waiting) }, notCome)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-broke; !errors.Is(err, httpclient.ErrTruncated) {
		t.Error(err)
	}
	if !bytes.Equal(read(t, got), file) || s.sent != len(file) {
		t.Errorf("not the file, or %d bytes were sent", s.sent)
	}
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// Who waits can give up, or finds that the image has come in another way.
func TestWait(t *testing.T) {
	stop := make(chan struct{})
	s := newServer(t, func(http.ResponseWriter, *http.Request) { <-stop })
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	first := open(t, dir)
	ended := make(chan error, 1)
	go func() {
		_, err := first.try(ctx, s.wanted(t, 1000))
		ended <- err
	}()
	for s.count() == 0 {
		time.Sleep(time.Millisecond)
	}
	brief, done := context.WithCancel(t.Context())
	if _, err := open(t, dir).get(brief, client, s.wanted(t, 1000), noMeter, done, notCome); !errors.Is(err, context.Canceled) {
		t.Error("got", err)
	}
	_, err := open(t, dir).get(t.Context(), client, s.wanted(t, 1000), noMeter, cancel, func() (bool, error) { return true, nil })
	if !errors.Is(err, errCome) {
		t.Error("got", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error("got", err)
	}
	close(stop)
	if left := kept(t, dir); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

// What a fetch uses is not there to be pruned; what it left is.
func TestLeft(t *testing.T) {
	hold := make(chan struct{})
	s := newServer(t, cut(good(file, `"1"`), 600), func(w http.ResponseWriter, req *http.Request) {
		<-hold
		good(file, `"1"`)(w, req)
	})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "somebody's"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := open(t, dir)
	r := s.wanted(t, 1000)
	r.url.User = url.UserPassword("me", "secret")
	if _, err := dead.try(t.Context(), r); !errors.Is(err, httpclient.ErrTruncated) {
		t.Fatal(err)
	}
	stale := kept(t, dir)
	if len(stale) != 1 || stale[0].Size != 600 || stale[0].URL != r.url.Redacted() {
		t.Fatalf("left: %+v", stale)
	}
	state, err := os.ReadFile(filepath.Join(stale[0].path, stateName))
	if err != nil || bytes.Contains(state, []byte("secret")) {
		t.Errorf("state %s, %v", state, err)
	}
	running := open(t, dir)
	result := make(chan *Download, 1)
	go func() {
		got, err := running.try(t.Context(), r)
		if err != nil {
			t.Error(err)
		}
		result <- got
	}()
	for s.count() == 1 {
		time.Sleep(time.Millisecond)
	}
	if left := kept(t, dir); len(left) > 0 {
		t.Errorf("left, says a prune while it comes: %+v", left)
	}
	if err := stale[0].Remove(); err != nil {
		t.Error("remove what came into use:", err)
	}
	close(hold)
	got := <-result
	left := kept(t, dir)
	if len(left) != 1 || left[0].Size != 1000 {
		t.Fatalf("left: %+v", left)
	}
	for range 2 {
		if err := left[0].Remove(); err != nil {
			t.Error(err)
		}
	}
	if err := got.Drop(); err != nil {
		t.Error("drop what was pruned:", err)
	}
	if !bytes.Equal(read(t, got), file) {
		t.Error("pruned away")
	}
	if err := dead.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if left := kept(t, dir); len(left) != 1 || left[0].path != dead.mine || left[0].URL != "" {
		t.Errorf("left: %+v", left)
	} else if err := left[0].Remove(); err != nil {
		t.Error(err)
	}
	if err := os.MkdirAll(dead.mine, 0o700); err != nil { // for its Close
		t.Fatal(err)
	}
	if left, err := Left(filepath.Join(dir, "none")); err != nil || left != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Fetches, drops and prunes that run into each other leave nothing half done.
func TestCrowd(t *testing.T) {
	s := newServer(t, good(file, `"1"`))
	dir := t.TempDir()
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			for range 25 {
				d, err := OpenDownloads(t.Context(), dir)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := d.try(t.Context(), s.wanted(t, 1000))
				if err != nil {
					t.Error(err)
				} else if !bytes.Equal(read(t, got), file) {
					t.Error("not the file")
				} else if err := got.Drop(); err != nil {
					t.Error(err)
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	ctx, stop := context.WithCancel(t.Context())
	var prunes sync.WaitGroup
	for range 2 {
		prunes.Go(func() {
			for ctx.Err() == nil {
				left, err := Left(dir)
				if err != nil {
					t.Error(err)
				}
				for _, k := range left {
					if err := k.Remove(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	stop()
	prunes.Wait()
	for _, k := range kept(t, dir) {
		if err := k.Remove(); err != nil {
			t.Error(err)
		}
	}
	if rest, err := os.ReadDir(dir); err != nil || len(rest) > 0 {
		t.Errorf("left: %v, %v", rest, err)
	}
}

// A disk that is full is no fault of the server, and no reason to try the next.
func TestOwnFaults(t *testing.T) {
	s := newServer(t, good(file, `"1"`))
	d := open(t, t.TempDir())
	failing := func(_ string, _, _ int64, r io.Reader) io.ReadCloser {
		return struct {
			io.Reader
			io.Closer
		}{r, failCloser{}}
	}
	_, err := d.get(t.Context(), client, s.wanted(t, 1000), failing, func() {}, notCome)
	var away awayError
	if !errors.Is(err, errOwn) || errors.As(err, &away) {
		t.Error("got", err)
	}
	s.Close()
	if _, err = d.try(t.Context(), s.wanted(t, 1000)); !errors.As(err, &away) {
		t.Error("got", err)
	}
}

var errOwn = errors.New("no space left")

type failCloser struct{}

func (failCloser) Close() error { return errOwn }

// Whatever lies in the directory of a download, the file is the server's.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"url":"URL","etag":"\"0\"","size":1000}`), []byte("x"))
	f.Add([]byte(`{"url":"URL","lastModified":"Sun, 09 Sep 2001 01:46:40 GMT","size":1}`), []byte("x"))
	f.Add([]byte(`{"url":"URL","etag":"\"\r\n","size":-1}`), []byte("x"))
	f.Add([]byte(`{`), []byte{})
	s := newServer(f, good(file, `"1"`))
	f.Fuzz(func(t *testing.T, state, have []byte) {
		dir := t.TempDir()
		r := s.wanted(t, 1000)
		state = bytes.ReplaceAll(state, []byte("URL"), []byte(r.url.String()))
		if bytes.Contains(state, []byte("1")) && bytes.Contains(state, []byte("etag")) {
			return // it may lie about what the server has: that is for the signature to find
		}
		d := open(t, dir)
		got, err := d.try(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(filepath.Join(filepath.Dir(got.part), stateName), state, 0o600), os.WriteFile(got.part, have, 0o600)); err != nil {
			t.Fatal(err)
		}
		if got, err = d.try(t.Context(), r); err != nil {
			return
		}
		if !bytes.Equal(read(t, got), file) {
			t.Error("not the file")
		}
	})
}

func FuzzRangeTotal(f *testing.F) {
	f.Add("bytes */100")
	f.Add("bytes 0-9/100")
	f.Add("bytes */-5")
	f.Fuzz(func(t *testing.T, value string) {
		if n := rangeTotal(&httpclient.Response{Header: http.Header{"Content-Range": {value}}}); n < -1 {
			t.Error(n)
		}
	})
}

// Who waited for one that gave up does not take for new what was there before.
func TestStale(t *testing.T) {
	stop := make(chan struct{})
	s := newServer(t, plain(other), func(http.ResponseWriter, *http.Request) { <-stop }, plain(file))
	dir := t.TempDir()
	if _, err := open(t, dir).try(t.Context(), s.wanted(t, 2000)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := open(t, dir)
	ended := make(chan error, 1)
	go func() {
		_, err := first.try(ctx, s.wanted(t, 2000))
		ended <- err
	}()
	for s.count() == 1 {
		time.Sleep(time.Millisecond)
	}
	got, err := open(t, dir).get(t.Context(), client, s.wanted(t, 2000), noMeter, cancel, notCome)
	if err != nil || !bytes.Equal(read(t, got), file) {
		t.Error("not the file, or", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error("got", err)
	}
	close(stop)
}
