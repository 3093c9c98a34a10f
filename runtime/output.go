package runtime

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/console"
	"golang.org/x/term"
)

// output leads what apps write to the user's files. A single app writes to them
// itself; several get one line per write, with time and name before it, and
// never two lines mixed.
type output struct {
	files  IO
	shared bool
	mu     sync.Mutex // one line at a time
	wg     sync.WaitGroup
	ends   []*os.File
}

// stdio is what one app reads and writes.
type stdio struct {
	in, out, err           *os.File // of the main process; nil with a terminal
	handlerOut, handlerErr *os.File // of its event handlers
	size                   console.WinSize
	// attach joins the app's terminal to the user's.
	attach func(console.Console)
}

func newOutput(files IO, shared bool) *output { return &output{files: files, shared: shared} }

// open gives the files of an app.
func (o *output) open(a *app) (s stdio, err error) {
	s.size = o.files.Size
	if s.handlerOut, err = o.writer(a.name, o.files.Stdout); err != nil {
		return s, err
	}
	if s.handlerErr, err = o.writer(a.name, o.files.Stderr); err != nil {
		return s, err
	}
	if a.terminal {
		// A user who has a terminal for the app types into it.
		s.attach = func(c console.Console) { o.join(c, a.stdin || isTerminal(o.files.Stdin)) }
		return s, nil
	}
	s.out, s.err = s.handlerOut, s.handlerErr
	if a.stdin {
		s.in, err = o.reader(o.files.Stdin)
	}
	return s, err
}

// writer gives what an app writes to, for the user's file f. It is f itself, but
// for two cases: several apps share f line by line, and the user's terminal is
// never given to an app, which could read its keys and type into it (ioctl_tty(2),
// TIOCSTI).
func (o *output) writer(name string, f *os.File) (*os.File, error) {
	if !o.shared && !isTerminal(f) {
		return f, nil
	}
	r, end, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("output pipe: %w", err)
	}
	o.ends = append(o.ends, end)
	o.wg.Go(func() {
		if o.shared {
			o.lines(r, name, f)
		} else {
			_, _ = io.Copy(f, r)
		}
		_ = r.Close() // nothing was written to it
	})
	return end, nil
}

// reader gives what an app reads, likewise.
func (o *output) reader(f *os.File) (*os.File, error) {
	if !isTerminal(f) {
		return f, nil
	}
	end, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("input pipe: %w", err)
	}
	o.ends = append(o.ends, end)
	go func() { // ends with the process, as in join
		_, _ = io.Copy(w, f)
		_ = w.Close()
	}()
	return end, nil
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// maxLine is where a line without end is broken.
const maxLine = 64 << 10

func (o *output) lines(r io.Reader, name string, w io.Writer) {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			text := fmt.Appendf(nil, "%s %s: %s", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), name, line)
			if text[len(text)-1] != '\n' {
				text = append(text, '\n')
			}
			o.mu.Lock()
			// When the user's end is gone, the app's output is drained all the same.
			_, _ = w.Write(text)
			o.mu.Unlock()
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// endOfFile is what a terminal takes for the end of its input, ^D (termios(4)).
const endOfFile = 4

// join copies between an app's terminal and the user's. The copy of the user's
// input cannot be interrupted in its read; it ends with the process.
func (o *output) join(c console.Console, input bool) {
	if input {
		go func() {
			_, err := io.Copy(c, o.files.Stdin)
			if err == nil {
				_, _ = c.Write([]byte{endOfFile}) // what comes from a file ends for the app, too
			}
		}()
	}
	o.wg.Go(func() {
		// The end of the last process that has the terminal open reads as EIO.
		_, _ = io.Copy(o.files.Stdout, c)
		_ = c.Close()
	})
}

// close gives up jetpack's ends of the apps' pipes.
func (o *output) close() error {
	var errs []error
	for _, end := range o.ends {
		errs = append(errs, end.Close())
	}
	o.ends = nil
	return errors.Join(errs...)
}

// drain returns, after close, when everything that was written is out: when
// nothing is left that could write.
func (o *output) drain() { o.wg.Wait() }
