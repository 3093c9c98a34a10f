package httpclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// body is the body of an answer, with its bounds. Of time only what a Read waits
// for counts, not what its caller does in between.
type body struct {
	in     io.ReadCloser
	max    int64
	left   int64 // of max
	limits limits
	waited time.Duration // in the current window
	got    int64         // in the current window
	stall  *time.Timer   // ends a Read that gets nothing
	stop   func()
	fail   func(error) error // names the URL and why the context ended
	err    error             // every further Read gives it
}

func newBody(in io.ReadCloser, limit int64, l limits, cancel context.CancelCauseFunc, stop func(), fail func(error) error) *body {
	b := &body{in: in, max: limit, left: max(limit, 0), limits: l, stop: stop, fail: fail}
	b.stall = time.AfterFunc(l.window, func() { cancel(b.tooSlow()) })
	b.stall.Stop()
	return b
}

func (b *body) tooSlow() error {
	return fmt.Errorf("%w: less than %d bytes/s for %v", ErrTooSlow, b.limits.rate, b.limits.window)
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if int64(len(p)) > b.left {
		p = p[:b.left+1] // one more, to tell the limit from the end
	}
	start := time.Now()
	b.stall.Reset(b.limits.window)
	n, err := b.in.Read(p)
	b.stall.Stop()
	b.waited += time.Since(start)
	b.got += int64(n)
	switch {
	case int64(n) > b.left:
		n = int(b.left)
		err = fmt.Errorf("%w: more than the %d bytes that are allowed", ErrTooLarge, b.max)
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = ErrTruncated
	case err == nil && b.waited >= b.limits.window:
		if float64(b.got) < float64(b.limits.rate)*b.waited.Seconds() {
			err = b.tooSlow()
		}
		b.waited, b.got = 0, 0
	}
	b.left -= int64(n)
	if err != nil && err != io.EOF { //nolint:errorlint // a wrapped EOF is no end
		err = b.fail(err)
	}
	b.err = err
	return n, err
}

func (b *body) Close() error {
	err := b.in.Close()
	b.stop()
	if b.err == nil {
		b.err = errors.New("read of a closed body")
	}
	return err
}
