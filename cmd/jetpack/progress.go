package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/docker/go-units"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/jetpack-run/jetpack/image/fetch"
)

// screen is standard error, with bars at its lower end while there are any.
type screen struct {
	mu   sync.Mutex
	bars *mpb.Progress // nil if none
}

// say writes to standard error, above the bars. What goes wrong with it cannot be said
// anywhere.
func (c *cli) say(text string) {
	c.screen.mu.Lock()
	defer c.screen.mu.Unlock()
	if c.screen.bars == nil {
		_, _ = io.WriteString(c.stderr, text)
		return
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n" // a question; the bars move on meanwhile
	}
	_, _ = io.WriteString(c.screen.bars, text)
}

// endBars leaves the bars as they are.
func (c *cli) endBars() {
	c.screen.mu.Lock()
	defer c.screen.mu.Unlock()
	if c.screen.bars != nil {
		c.screen.bars.Shutdown()
	}
	c.screen.bars = nil
}

// newBar adds a bar, below those that are there.
func (c *cli) newBar(what string, size int64) *mpb.Bar {
	c.screen.mu.Lock()
	defer c.screen.mu.Unlock()
	if c.screen.bars == nil {
		c.screen.bars = mpb.New(mpb.WithOutput(c.stderr), mpb.WithWidth(40), mpb.PopCompletedMode())
	}
	amounts := decor.CountersKibiByte("% .1f / % .1f")
	if size < 0 {
		amounts = decor.CurrentKibiByte("% .1f")
	}
	return c.screen.bars.AddBar(max(size, 0),
		mpb.PrependDecorators(decor.Name(what+" ")),
		mpb.AppendDecorators(
			amounts,
			decor.EwmaSpeed(decor.SizeB1024(0), "  % .1f", 30),
			decor.OnComplete(decor.EwmaETA(decor.ET_STYLE_GO, 30, decor.WC{W: 8}), "    done"),
		))
}

// meter shows downloads: bars on a terminal, else a line for each. done ends them.
func (c *cli) meter() (_ fetch.Meter, done func()) {
	if !c.logs("info") {
		return func(_ string, _, _ int64, r io.Reader) io.ReadCloser { return io.NopCloser(r) }, func() {}
	}
	if c.logger != nil || !term.IsTerminal(int(c.stderr.Fd())) {
		return func(what string, have, size int64, r io.Reader) io.ReadCloser {
			c.notice("downloading " + what + " " + amount(have, size))
			return io.NopCloser(r)
		}, func() {}
	}
	return func(what string, have, size int64, r io.Reader) io.ReadCloser {
		bar := c.newBar(what, size)
		bar.SetCurrent(have)
		return &barReader{bar.ProxyReader(r), bar, false}
	}, c.endBars
}

// barReader leaves no bar unfinished.
type barReader struct {
	io.ReadCloser
	bar   *mpb.Bar
	ended bool
}

func (b *barReader) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}

func (b *barReader) Close() error {
	if b.ended {
		b.bar.SetTotal(-1, true) // what has come is all, also of an unknown size
	} else {
		b.bar.Abort(false)
	}
	return b.ReadCloser.Close()
}

func amount(have, size int64) string {
	switch {
	case size < 0:
		return "(of unknown size)"
	case have > 0:
		return fmt.Sprintf("(%s, %s of it are here)", units.BytesSize(float64(size)), units.BytesSize(float64(have)))
	}
	return "(" + units.BytesSize(float64(size)) + ")"
}
