package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/uuid"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
	"github.com/jetpack-run/jetpack/internal/httpclient"
)

// Getter is what a Fetcher needs of httpclient.Client.
type Getter interface {
	Get(ctx context.Context, r httpclient.Request) (*httpclient.Response, error)
}

// Meter shows how far a download is: it passes r on. Have of size bytes are there
// already; size is -1 when it is unknown.
type Meter func(what string, have, size int64, r io.Reader) io.ReadCloser

// Downloads keeps files on their way, so that several processes fetch one of them once,
// and that the next goes on where one was cut short. In its directory, which is on the
// image store's file system, a URL has a directory with the file, as far as it came,
// and a lock that is held while it comes; a fetch has one with links to the files that
// it is using, and a lock that it holds.
type Downloads struct {
	dir  string
	mine string // the directory of this fetch
	lock *flock.Flock

	mu    sync.Mutex
	files []*os.File // that were given away
}

const (
	urlPrefix   = "url-"
	fetchPrefix = "fetch-"
	gonePrefix  = "gone-" // what is being removed
	lockName    = "lock"
	partName    = "part"
	stateName   = "state.json"
	lockPoll    = 20 * time.Millisecond
)

// OpenDownloads begins a fetch. Its owner calls Close.
func OpenDownloads(ctx context.Context, dir string) (*Downloads, error) {
	d := &Downloads{dir: dir, mine: filepath.Join(dir, fetchPrefix+uuid.NewString())}
	var err error
	// A prune may look at it, or remove it, before it is locked.
	if d.lock, _, err = lockDir(ctx, d.mine, func() {}); err != nil {
		return nil, fmt.Errorf("begin fetch: %w", err)
	}
	return d, nil
}

// Close ends the fetch, and closes its files. What has not come whole stays for the next.
func (d *Downloads) Close() error {
	var errs []error
	for _, file := range d.files {
		if err := file.Close(); !errors.Is(err, fs.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, removeDir(d.mine), d.lock.Close())...)
}

// removeDir removes a directory whose lock the caller holds: at once, so that nobody
// locks it anew meanwhile.
func removeDir(dir string) error {
	gone := filepath.Join(filepath.Dir(dir), gonePrefix+uuid.NewString())
	if err := os.Rename(dir, gone); err != nil {
		return err
	}
	return removeGone(gone)
}

// removeGone removes what removeDir renamed. Who was about to lock the directory under
// its old name may make a lock in it still.
func removeGone(dir string) error {
	for {
		if err := os.RemoveAll(dir); !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
	}
}

// Download is a file that has come whole. Its owner, who alone has it under its name,
// may close File, and calls Drop when nobody need fetch it again.
type Download struct {
	File *os.File
	ETag string // the server's name for this version, or ""
	part string
}

// Drop removes what the next fetch of the file would begin with.
func (d *Download) Drop() error { return Kept{path: filepath.Dir(d.part)}.Remove() }

// state is what is known of a file on its way.
type state struct {
	URL          string `json:"url"` // without password
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
	Size         int64  `json:"size"` // of the whole, or -1
}

// validator is what a server can be asked to go on by (RFC 9110, 13.1.5); a weak ETag
// does not do.
func (s state) validator() string {
	if strings.HasPrefix(s.ETag, `"`) {
		return s.ETag
	}
	return s.LastModified
}

// request is a file that is wanted.
type request struct {
	url     *url.URL
	foreign bool
	max     int64  // bytes
	known   string // the ETag of the version that is here already, or ""
}

// errNotModified: the server has what is known already.
var errNotModified = errors.New("not modified")

// get fetches a file, or takes part in another's fetching it. waiting is called when
// there is one to wait for; come says whether the file has come in another way since,
// then the error is errCome.
//
// A file that has come whole is never written to again: others have it under their names.
func (d *Downloads) get(ctx context.Context, client Getter, r request, meter Meter, waiting func(), come func() (bool, error)) (_ *Download, err error) {
	sum := sha256.Sum256([]byte(r.url.String()))
	dir := filepath.Join(d.dir, urlPrefix+hex.EncodeToString(sum[:16]))
	p := &part{dir: dir, request: r, client: client, meter: meter}
	before, _ := os.Stat(p.path()) // nil if there is none
	lock, waited, err := lockDir(ctx, dir, waiting)
	if err != nil {
		return nil, fmt.Errorf("download %s: %w", r.url.Redacted(), err)
	}
	defer func() {
		_, statErr := os.Stat(p.path())
		if errors.Is(statErr, fs.ErrNotExist) || errors.Is(err, errCome) {
			err = errors.Join(err, removeDir(dir)) // there is nothing to go on with, or no need to
		}
		_ = lock.Close() // it only unlocks
	}()
	if waited {
		here, err := come()
		if err != nil {
			return nil, err
		}
		if here {
			return nil, errCome
		}
	}
	have := p.read()
	if !waited || have != p.state.Size || p.is(before) { // else it has just come
		if err := p.complete(ctx, have); err != nil {
			return nil, err
		}
	}
	link := filepath.Join(d.mine, uuid.NewString())
	if err := os.Link(p.path(), link); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(link, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = append(d.files, file)
	return &Download{File: file, ETag: p.state.ETag, part: p.path()}, nil
}

var errCome = errors.New("another fetch has brought it")

// lockDir makes a directory and takes its lock, which goes with it when somebody
// removes the directory meanwhile.
func lockDir(ctx context.Context, dir string, waiting func()) (_ *flock.Flock, waited bool, err error) {
	path := filepath.Join(dir, lockName)
	for {
		err := os.MkdirAll(dir, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue // it was there, and has just gone
		}
		if err != nil {
			return nil, waited, err
		}
		l := flock.New(path, flock.SetPermissions(0o600))
		ok, err := l.TryLock()
		if err == nil && !ok {
			if !waited {
				waiting()
			}
			waited = true
			_, err = l.TryLockContext(ctx, lockPoll)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // the directory has just gone
		}
		if err != nil {
			return nil, waited, errors.Join(err, l.Close())
		}
		ok, err = isLock(l, path)
		if ok {
			return l, waited, nil
		}
		if err := errors.Join(err, l.Close()); err != nil {
			return nil, waited, err
		}
	}
}

// part is a file as far as it has come.
type part struct {
	dir string
	request
	client Getter
	meter  Meter
	state  state
}

func (p *part) path() string { return filepath.Join(p.dir, partName) }

// is tells whether the file is the one that it was before, and no longer.
func (p *part) is(before fs.FileInfo) bool {
	now, err := os.Stat(p.path())
	return err == nil && before != nil && os.SameFile(before, now) && before.Size() == now.Size()
}

// complete has the rest of the file come, of which the first bytes are there.
func (p *part) complete(ctx context.Context, have int64) error {
	if p.state.validator() == "" {
		have = 0
	}
	resp, err := p.ask(ctx, have)
	if errors.Is(err, httpclient.ErrRange) || have > 0 && isStatus4xx(err) {
		have = 0
		resp, err = p.ask(ctx, have)
	}
	if errors.Is(err, errWhole) {
		return nil
	}
	if err != nil {
		return err
	}
	if resp.Status == http.StatusOK {
		have = 0
	}
	return p.receive(resp, have)
}

// read gives how much has come so far; of what nothing is known, nothing has.
func (p *part) read() int64 {
	raw, err := os.ReadFile(filepath.Join(p.dir, stateName))
	known := err == nil && json.Unmarshal(raw, &p.state) == nil && p.state.URL == p.url.Redacted()
	fi, err := os.Stat(p.path())
	if !known || err != nil {
		p.state = state{Size: -1}
		return 0
	}
	return fi.Size()
}

// errWhole: what is there already is all that the server has.
var errWhole = errors.New("nothing is missing")

// ask requests the file from where it broke off. Errors: ErrRange when the server does
// not go on there, errWhole, errNotModified.
func (p *part) ask(ctx context.Context, have int64) (*httpclient.Response, error) {
	header := http.Header{}
	switch {
	case have > 0:
		header.Set("Range", "bytes="+strconv.FormatInt(have, 10)+"-")
		header.Set("If-Range", p.state.validator())
	case p.known != "":
		header.Set("If-None-Match", p.known)
	}
	resp, err := p.client.Get(ctx, httpclient.Request{URL: p.url, Foreign: p.foreign, Header: header, MaxBytes: p.max})
	if err != nil {
		return nil, awayError{err}
	}
	whole := have > 0 && have == p.state.Size
	switch {
	case resp.Status == http.StatusNotModified:
		err = errNotModified
	case resp.Status == http.StatusRequestedRangeNotSatisfiable && whole && rangeTotal(resp) == have:
		err = errWhole
	case resp.Status == http.StatusRequestedRangeNotSatisfiable, resp.Status == http.StatusPartialContent && whole:
		err = httpclient.ErrRange
	default:
		return resp, nil
	}
	return nil, errors.Join(err, resp.Body.Close())
}

// receive writes what comes, after the first bytes that are there.
func (p *part) receive(resp *httpclient.Response, have int64) (err error) {
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	flags := os.O_WRONLY
	if have == 0 {
		// Not the old one: somebody may have linked it.
		if err := os.RemoveAll(p.path()); err != nil {
			return err
		}
		flags |= os.O_CREATE | os.O_EXCL
		p.state = state{URL: p.url.Redacted(), ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified"), Size: resp.Size}
		if err := p.write(); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(p.path(), flags, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	limit := p.max
	if p.state.Size >= 0 {
		limit = p.state.Size
	}
	body := p.meter(path.Base(p.url.EscapedPath()), have, p.state.Size, awayReader{resp.Body})
	n, err := io.Copy(f, io.LimitReader(body, limit-have+1))
	err = errors.Join(err, body.Close())
	size := have + n
	if err == nil && size < p.state.Size {
		err = awayError{fmt.Errorf("%s: %w: %d of %d bytes", p.url.Redacted(), httpclient.ErrTruncated, size, p.state.Size)}
	}
	var away awayError
	switch {
	case size > limit || errors.Is(err, httpclient.ErrTooLarge):
		// No next fetch could use it.
		return errors.Join(fmt.Errorf("%s: %w: more than %d bytes", p.url.Redacted(), httpclient.ErrTooLarge, limit), os.Remove(p.path()))
	case errors.As(err, &away) && p.state.validator() != "":
		return fmt.Errorf("%w; the next fetch goes on from there", err)
	case errors.As(err, &away):
		return err
	case err != nil:
		return fmt.Errorf("download %s: %w", p.url.Redacted(), err)
	case p.state.Size < 0:
		p.state.Size = size
		return p.write()
	}
	return nil
}

func (p *part) write() error {
	raw, err := json.Marshal(p.state)
	if err != nil {
		return err
	}
	return atomicfile.Replace(filepath.Join(p.dir, stateName), raw, 0o600)
}

// awayError is that of a server, or of the way there: another may do better.
type awayError struct{ error }

func (e awayError) Unwrap() error { return e.error }

// awayReader reads what a server sends.
type awayReader struct{ io.Reader }

func (r awayReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = awayError{err}
	}
	return n, err
}

// rangeTotal reads the size of the whole in "bytes */TOTAL" or "bytes START-END/TOTAL"
// (RFC 9110, 14.4); -1 is neither.
func rangeTotal(resp *httpclient.Response) int64 {
	span, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
	n, err := strconv.ParseInt(total, 10, 64)
	if err != nil || n < 0 || !strings.HasPrefix(span, "bytes ") {
		return -1
	}
	return n
}

// Kept is a file that a broken or failed fetch has left.
type Kept struct {
	URL  string // "" when it is unknown
	Size int64  // bytes
	path string
}

// Left lists what fetches that are over have left in a directory.
func Left(dir string) (left []Kept, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list downloads: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if used, err := inUse(path); err != nil {
			return nil, fmt.Errorf("list downloads: %w", err)
		} else if used {
			continue
		}
		kept := Kept{path: path}
		var s state
		if raw, err := os.ReadFile(filepath.Join(path, stateName)); err == nil && json.Unmarshal(raw, &s) == nil {
			kept.URL = s.URL
		}
		if fi, err := os.Stat(filepath.Join(path, partName)); err == nil {
			kept.Size = fi.Size()
		}
		left = append(left, kept)
	}
	return left, nil
}

func inUse(dir string) (bool, error) {
	if strings.HasPrefix(filepath.Base(dir), gonePrefix) {
		return false, nil // nobody locks it any more
	}
	l, ok, err := tryDir(dir)
	if ok {
		err = l.Close()
	}
	return !ok, err
}

// tryDir takes the lock of a directory; ok says whether it could: that somebody holds
// it, or that the directory has gone, is no error.
func tryDir(dir string) (l *flock.Flock, ok bool, err error) {
	path := filepath.Join(dir, lockName)
	// Made where there is none, so that who is about to lock it for the first time waits.
	l = flock.New(path, flock.SetPermissions(0o600))
	ok, err = l.TryLock()
	if err != nil || !ok {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, false, errors.Join(err, l.Close())
	}
	ok, err = isLock(l, path)
	if err != nil || !ok {
		return nil, false, errors.Join(err, l.Close())
	}
	return l, true, nil
}

// isLock tells whether a lock is still the one at its path.
func isLock(l *flock.Flock, path string) (bool, error) {
	held, err := l.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(held, now), err
}

// Remove takes it away, unless somebody uses it.
func (k Kept) Remove() error {
	if strings.HasPrefix(filepath.Base(k.path), gonePrefix) {
		return removeGone(k.path)
	}
	l, ok, err := tryDir(k.path)
	if err != nil {
		return fmt.Errorf("remove download: %w", err)
	}
	if !ok {
		return nil
	}
	if err := errors.Join(removeDir(k.path), l.Close()); err != nil {
		return fmt.Errorf("remove download: %w", err)
	}
	return nil
}
