//go:build unix

package hostile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// What one case may take: its process and the largest of that one's children
// together, and each import.
const (
	maxMemory = 256 << 10 // KiB
	maxTime   = 5 * time.Second
)

// raceDetector: memory is several times what it would be, and time, too.
var raceDetector bool

var every = flag.Int("every", 0, "try one of so many cases; 0 is all, and fewer on machines that are slow")

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(testenv.PrivateMounts(m))
}

func TestCorpus(t *testing.T) {
	testenv.Root(t)
	h := host{filepath.Join(t.TempDir(), "base")}
	must(t, os.Mkdir(h.base, 0o755))
	testenv.InMemory(t, h.base)
	useZFS(t)
	must(t, os.Mkdir(filepath.Join(h.base, filesDir), 0o755))
	makeCanary(t, h)
	must(t, call(t.Context(), buildProcess, h.base, new(int)))
	slow := testenv.Slowness(t, h.base)
	if *every == 0 {
		*every = 1
		if slow > testenv.Emulated {
			*every = int(slow)
		}
	}
	t.Logf("limits of time are %.1f times the usual; one of %d cases is tried", slow, *every)
	t.Run("undisturbed", func(t *testing.T) { testCorpus(t, h, false, slow) })
	// A thread swaps what is in the staging tree meanwhile.
	t.Run("swapped", func(t *testing.T) { testCorpus(t, h, true, slow) })
	if raceDetector {
		t.Log("memory was not judged: the race detector multiplies it")
	}
}

// Joined errors are several lines, which a command makes one of; an image's own
// line breaks are none of these.
func TestCheckMessage(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	for name, err := range map[string]error{
		"joined":                errors.Join(a, b),
		"joined, wrapped":       fmt.Errorf("import: %w", errors.Join(a, fmt.Errorf("discard: %w", errors.Join(a, b)))),
		"two wrapped":           fmt.Errorf("import: %w: %w", a, b),
		"joined, one of one":    errors.Join(a, nil),
		"not joined, but alike": fmt.Errorf("a %w", errors.Join(b, b)),
	} {
		if err := checkMessage(err); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"a newline":         errors.New("a\nb"),
		"wrapped":           fmt.Errorf("import: %w", errors.New("a\nb")),
		"beside joined":     fmt.Errorf("c\nd: %w", errors.Join(a, b)),
		"in one of several": errors.Join(a, errors.New("x\ny")),
		"escape sequence":   errors.Join(a, errors.New("\x1b[2J")),
		"too long":          errors.New(strings.Repeat("a", maxMessage+1)),
	} {
		if checkMessage(err) == nil {
			t.Errorf("%s: %q was taken for one line", name, err)
		}
	}
}

func testCorpus(t *testing.T, h host, swap bool, slow float64) {
	before, err := h.hash()
	must(t, err)
	cases := corpus(h)
	var sum summary
	begin := time.Now()
	t.Run("cases", func(t *testing.T) {
		names := working(t)
		for n, name := range names {
			places := &pool{prefix: filepath.Join(h.base, name+"-")}
			for i, c := range cases {
				// One driver for each, since it has no part in extraction, and the
				// other when it is disturbed.
				turn := i / *every
				if swap {
					turn++
				}
				if i%*every != 0 || turn%len(names) != n || swap && !c.isArchive() {
					continue
				}
				t.Run(name+"/"+c.name, func(t *testing.T) {
					t.Parallel()
					place := places.take()
					sum.add(runCase(t, order{
						Base: h.base, Place: place, Driver: name, Case: i, Want: indices(c.want), Limits: c.limits(), Swap: swap,
					}, slow))
					if !t.Failed() {
						places.give(place)
					}
					after, err := h.hash()
					must(t, err)
					if d := difference(before, after); d != "" {
						t.Errorf("the canary: %s", d)
					}
				})
			}
		}
	})
	t.Logf("%d imports, half of them of benign twins, in %s; the most: %d MiB (%s), %s for one import (%s); %d swaps",
		sum.imports, time.Since(begin).Round(time.Second), sum.memory>>10, sum.largest, sum.time.Round(time.Millisecond), sum.slowest, sum.swaps)
	if unseen := sum.imports/2 - sum.seen; memoryOfChildren && unseen > sum.imports/20 {
		t.Errorf("no child was seen in %d cases", unseen)
	}
	if swap && sum.swaps < sum.imports {
		t.Errorf("%d swaps are too few for %d imports", sum.swaps, sum.imports)
	}
}

// working names the drivers that work here.
func working(t *testing.T) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(drivers)) {
		if err := drivers[name].supported(t.TempDir()); err != nil {
			t.Logf("left out: storage %s: %v", name, err)
			continue
		}
		names = append(names, name)
	}
	return names
}

// pool hands out places, so that not every case makes its own.
type pool struct {
	prefix string
	mu     sync.Mutex
	free   []string
	made   int
}

func (p *pool) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		place := p.free[n-1]
		p.free = p.free[:n-1]
		return place
	}
	p.made++
	return fmt.Sprintf("%s%03d", p.prefix, p.made)
}

func (p *pool) give(place string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, place)
}

// summary is what the cases took.
type summary struct {
	mu               sync.Mutex
	memory           int64
	time             time.Duration
	largest, slowest string
	swaps, imports   int
	seen             int // cases of which a child was seen
}

func (s *summary) add(name string, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := a.Self + a.Child; m > s.memory {
		s.memory, s.largest = m, name
	}
	if a.Child > 0 {
		s.seen++
	}
	if a.Slowest > s.time {
		s.time, s.slowest = a.Slowest, name
	}
	s.swaps += a.Swaps
	s.imports += 2
}

// measured is how often a case that took too much is tried: other tests run beside it,
// and time and the garbage collector's leftovers are as much theirs as its own.
const measured = 3

func runCase(t *testing.T, o order, slow float64) (string, answer) {
	limit := time.Duration(slow * float64(maxTime))
	if slow > testenv.Emulated { // some things are much slower there than others
		limit *= 4
	}
	switch {
	case raceDetector:
		limit *= 10
	case o.Swap: // which takes a processor for itself
		limit *= 4
	}
	for n := 1; ; n++ {
		var a answer
		if err := call(t.Context(), importProcess, o, &a); err != nil {
			t.Error(err)
		}
		for _, p := range a.Problems {
			t.Error(p)
		}
		t.Logf("%d+%d MiB, %s: %s", a.Self>>10, a.Child>>10, a.Slowest, a.Refusal)
		large := a.Self+a.Child > maxMemory && !raceDetector
		late := a.Slowest > limit && o.Limits == small
		if n < measured && !t.Failed() && (large || late) {
			continue
		}
		if large {
			t.Errorf("took %d MiB, %d of them in its child", (a.Self+a.Child)>>10, a.Child>>10)
		}
		if late {
			t.Errorf("took %s", a.Slowest)
		}
		return t.Name(), a
	}
}

// call has a process of its own answer a request.
func call(ctx context.Context, process string, request, answer any) error {
	q, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // emulated machines are slow
	defer cancel()
	cmd := exec.CommandContext(ctx, reexec.Self())
	cmd.Args = []string{process}
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(q), &out, &complaints
	err = cmd.Run()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", process, err, complaints.Bytes())
	}
	if complaints.Len() > 0 {
		return fmt.Errorf("%s said %q", process, complaints.Bytes())
	}
	return json.Unmarshal(out.Bytes(), answer)
}
