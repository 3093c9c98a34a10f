package render_test

import (
	"archive/tar"
	"flag"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

var (
	seeds     = flag.Int("seeds", 0, "random cases for each driver (0: 200 for plaindir, 40 for others, fewer on machines that are slow)")
	firstSeed = flag.Int("seed", 0, "the first one of them")
)

func TestRandom(t *testing.T) {
	slow := testenv.Slowness(t, scratch(t))
	onEachBackend(t, func(t *testing.T, b backend) {
		n := *seeds
		if n == 0 {
			n = b.seeds
			if slow > testenv.Emulated {
				n /= int(slow)
			}
			t.Logf("%d cases", n)
		}
		for seed := *firstSeed; seed < *firstSeed+n; seed++ {
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				specs := few(rand.New(rand.NewPCG(uint64(seed), 0))).generate(t)
				problem := check(t, b, specs)
				if problem == "" {
					return
				}
				t.Errorf("seed %d: %s", seed, problem)
				small := shrink(t, b, specs, kind(problem))
				for _, s := range small {
					t.Log(s)
				}
				t.Errorf("the same, as small as it gets: %s", check(t, b, small))
			})
		}
	})
}

// 20 images of 2,000 files, or 5 where that would take hours, each of them compared.
func TestBig(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute or two; not with -short")
	}
	images := 20
	if testenv.Slowness(t, scratch(t)) > testenv.Emulated {
		images = 5
	}
	specs := many(rand.New(rand.NewPCG(uint64(*firstSeed), 1)), images).generate(t)
	all, most := 0, 0
	for _, s := range specs {
		if len(s.entries) != 2001 {
			t.Fatalf("%s has %d entries", s.name, len(s.entries))
		}
		all, most = all+len(passes(s)), max(most, len(passes(s)))
	}
	t.Logf("%d images: %d archives to unpack, %d for one of them", images, all, most)
	onEachBackend(t, func(t *testing.T, b backend) {
		if problem := check(t, b, specs); problem != "" {
			t.Errorf("%.5000s", problem)
		}
	})
}

// check imports images and tells what is wrong with the first one that is not
// as the naive renderer has it, or "".
func check(t *testing.T, b backend, specs []*spec) (problem string) {
	t.Helper()
	w := newWorld(t, b)
	defer w.unmountAll()
	for _, s := range specs {
		if _, err := w.load(s); err != nil {
			return fmt.Sprintf("import: %s %s: %v", s.name, s.labels["version"], err)
		}
	}
	for _, s := range specs {
		if diff := w.differs(s); diff != "" {
			return fmt.Sprintf("differs: %s %s\n%s", s.name, s.labels["version"], diff)
		}
	}
	return ""
}

// kind is what sort of problem a problem is.
func kind(problem string) string {
	word, _, _ := strings.Cut(problem, ":")
	return word
}

// shrink takes away from images what it can without losing the problem.
func shrink(t *testing.T, b backend, specs []*spec, problem string) []*spec {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for again := true; again; {
		again = false
		for i := 0; time.Now().Before(deadline); i++ {
			smaller, ok := without(specs, i)
			if !ok {
				break
			}
			if valid(t, smaller) && kind(check(t, b, smaller)) == problem {
				specs, again, i = smaller, true, i-1
			}
		}
	}
	return specs
}

// without gives a copy of images that lacks one thing: the i-th of all images,
// dependencies, entries and listed paths. There is none for a high i.
func without(specs []*spec, i int) (smaller []*spec, ok bool) {
	copies := map[*spec]*spec{}
	gone := func(n int) bool {
		i -= n
		return i < 0 && i+n >= 0
	}
	for _, s := range slices.Backward(specs) { // the last ones first: nobody depends on them
		if gone(1) {
			ok = true
			continue
		}
		c := *s
		copies[s] = &c
		smaller = append([]*spec{&c}, smaller...)
	}
	for _, c := range smaller {
		c.deps, c.entries, c.whitelist = slices.Clone(c.deps), slices.Clone(c.entries), slices.Clone(c.whitelist)
		for j := range c.deps {
			c.deps[j].on = copies[c.deps[j].on]
		}
		c.deps = slices.DeleteFunc(c.deps, func(d dependency) bool { return d.on == nil || gone(1) })
		lost := ""
		c.entries = slices.DeleteFunc(c.entries, func(e entry) bool {
			switch {
			case e.path == "/":
				return false
			case lost != "" && e.target == lost && e.kind == tar.TypeLink:
				return true
			case gone(1):
				lost = e.path
				return true
			}
			return false
		})
		whole := len(c.whitelist) > 0
		c.whitelist = slices.DeleteFunc(c.whitelist, func(string) bool { return gone(1) })
		if whole && len(c.whitelist) == 0 {
			c.whitelist = nil
		}
		ok = ok || i < 0
	}
	return smaller, ok
}

// valid tells whether all whitelists still mean something.
func valid(t *testing.T, specs []*spec) bool {
	t.Helper()
	dir := scratch(t)
	for _, s := range specs {
		whole := *s
		whole.whitelist = nil
		root := naive(t, dir, &whole, true)
		if slices.ContainsFunc(s.whitelist, func(name string) bool { return !defined(root, path.Clean(name)) }) {
			return false
		}
	}
	return true
}
