package runtime

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// linePattern is what a line of several apps looks like: time, name, text.
var linePattern = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ([a-z0-9-]+): (.*)$`)

// written gives the lines of shared output by app.
func written(t *testing.T, text string) map[string][]string {
	t.Helper()
	byApp := map[string][]string{}
	if text == "" {
		return byApp
	}
	if !strings.HasSuffix(text, "\n") {
		t.Errorf("the last line has no end: %.100q", text[max(0, len(text)-100):])
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		m := linePattern.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not a line: %.200q", line)
		}
		byApp[m[1]] = append(byApp[m[1]], m[2])
	}
	return byApp
}

// shared opens the output of several apps and has each write.
func shared(t *testing.T, apps map[string]func(s stdio)) (out, errs string) {
	t.Helper()
	c := newCapture(t)
	o := newOutput(c.io(), true)
	var wg sync.WaitGroup
	for name, write := range apps {
		s, err := o.open(&app{name: name})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { write(s) })
	}
	wg.Wait()
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	o.drain()
	data, err := os.ReadFile(c.errs.Name())
	if err != nil {
		t.Fatal(err)
	}
	return c.text(), string(data)
}

func TestSharedOutput(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine)
	tests := []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", nil},
		{"a line", "a b\n", []string{"a b"}},
		{"lines", "a\n\nb\n", []string{"a", "", "b"}},
		{"no final newline", "a\nb", []string{"a", "b"}},
		{"carriage return", "a\r\n", []string{"a\r"}},
		{"a line as long as the buffer", long[:maxLine-1] + "\n", []string{long[:maxLine-1]}},
		{"a line one too long", long[:maxLine] + "\n", []string{long[:maxLine], ""}},
		{"a long line", long + "y\n", []string{long[:maxLine], long[:maxLine], long[:maxLine], "y"}},
		{"bytes", "\x00\xff\xfe\n", []string{"\x00\xff\xfe"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, errs := shared(t, map[string]func(stdio){"web": func(s stdio) { fmt.Fprint(s.out, tt.text) }})
			if got := written(t, out)["web"]; fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) {
				t.Errorf("got %.300q", got)
			}
			if errs != "" {
				t.Errorf("standard error: %q", errs)
			}
		})
	}
}

// Many apps write at a time, in pieces: no line is mixed with another, lost, or
// out of the app's order.
func TestLinesDoNotMix(t *testing.T) {
	const lines = 200
	apps := map[string]func(stdio){}
	text := func(app, n int) string { return strings.Repeat(fmt.Sprintf("%d.%d ", app, n), 1+n*7%50) }
	for i := range 8 {
		apps[fmt.Sprintf("app-%d", i)] = func(s stdio) {
			for n := range lines {
				f := s.out
				if n%2 == 1 {
					f = s.err
				}
				half := len(text(i, n)) / 2
				fmt.Fprint(f, text(i, n)[:half])
				fmt.Fprintln(f, text(i, n)[half:])
			}
		}
	}
	out, errs := shared(t, apps)
	for which, all := range []map[string][]string{written(t, out), written(t, errs)} {
		for i := range 8 {
			got := all[fmt.Sprintf("app-%d", i)]
			if len(got) != lines/2 {
				t.Errorf("app %d: %d lines, want %d", i, len(got), lines/2)
			}
			for n, line := range got {
				if want := text(i, 2*n+which); line != want {
					t.Fatalf("app %d, line %d: %q, want %q", i, n, line, want)
				}
			}
		}
	}
}

// The apps go on when nobody reads them any more.
func TestReaderIsGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	o := newOutput(IO{Stdout: w, Stderr: w}, true)
	s, err := o.open(&app{name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if _, err := fmt.Fprintln(s.out, strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	o.drain()
}

func TestSingleOutput(t *testing.T) {
	c := newCapture(t)
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	files := c.io()
	files.Stdin = in
	o := newOutput(files, false)
	s, err := o.open(&app{name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if s.out != c.stdout || s.err != c.errs || s.handlerOut != c.stdout || s.handlerErr != c.errs {
		t.Errorf("not the files themselves: %+v", s)
	}
	if s.in != nil {
		t.Error("standard input was not asked for")
	}
	if s, err = o.open(&app{name: "web", stdin: true}); err != nil || s.in != in {
		t.Errorf("standard input %v, %v", s.in, err)
	}
	if err := o.close(); err != nil {
		t.Error(err)
	}
	o.drain()
	if _, err := c.stdout.WriteString("x"); err != nil {
		t.Error("the user's file was closed:", err)
	}
}

// The user's terminal is not for apps to have.
func TestTerminalIsNotPassed(t *testing.T) {
	master, name := testenv.Terminal(t)
	defer master.Close()
	tty, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	o := newOutput(IO{Stdin: tty, Stdout: tty, Stderr: tty}, false)
	s, err := o.open(&app{name: "web", stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{s.in, s.out, s.err, s.handlerOut, s.handlerErr} {
		if isTerminal(f) {
			t.Errorf("%s is a terminal", f.Name())
		}
	}
	reader := bufio.NewReader(master)
	fmt.Fprintln(s.out, "to the terminal")
	if line, err := reader.ReadString('\n'); err != nil || line != "to the terminal\r\n" {
		t.Errorf("%q, %v", line, err)
	}
	fmt.Fprintln(master, "from the terminal")
	if line, err := bufio.NewReader(s.in).ReadString('\n'); err != nil || line != "from the terminal\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := o.close(); err != nil {
		t.Error(err)
	}
	o.drain()
}

// An app's terminal is joined to the user's.
func TestJoin(t *testing.T) {
	master, name := testenv.Terminal(t)
	c := newCapture(t)
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	files := c.io()
	files.Stdin = in
	o := newOutput(files, false)
	s, err := o.open(&app{name: "web", terminal: true, stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if s.in != nil || s.out != nil || s.err != nil || s.attach == nil {
		t.Errorf("%+v", s)
	}
	app, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.attach(master)
	fmt.Fprintln(w, "keys")
	if line, err := bufio.NewReader(app).ReadString('\n'); err != nil || line != "keys\n" {
		t.Errorf("%q, %v", line, err)
	}
	fmt.Fprint(app, "hello")
	c.wait(1, "hello")
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if n, err := app.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end of the input: %d, %v", n, err)
	}
	if err := app.Close(); err != nil { // the last process has ended
		t.Error(err)
	}
	if err := o.close(); err != nil {
		t.Error(err)
	}
	o.drain()
}

// In a pod of one app every byte passes; in one of several, lines do.
func TestOutputOfPods(t *testing.T) {
	h := newHost(t)
	run, c := h.up(t, h.probes(t, "split"), noNetwork)
	ended(t, run)
	var all strings.Builder
	for i := range 256 {
		all.WriteByte(byte(i))
	}
	if c.text() != all.String() {
		t.Errorf("%q", c.text())
	}
	run, c = h.up(t, h.probes(t, "args x", "args y"), noNetwork)
	ended(t, run)
	want := map[string][]string{"probe": {`["/bin/probe","args","x"]`}, "probe-2": {`["/bin/probe","args","y"]`}}
	if got := written(t, c.text()); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v", got)
	}
}

func TestStandardInput(t *testing.T) {
	h := newHost(t)
	for _, interactive := range []bool{false, true} {
		t.Run(fmt.Sprint(interactive), func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			fmt.Fprint(w, "typed")
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			c := newCapture(t)
			files, o, want := c.io(), noNetwork, ""
			files.Stdin = r
			if interactive {
				o.Interactive, want = []string{"probe"}, "typed"
			}
			run, err := h.Run(t.Context(), h.probes(t, "cat"), o, false, files)
			if err != nil {
				t.Fatal(err)
			}
			ended(t, run)
			if got := c.text(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
