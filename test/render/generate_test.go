package render_test

import (
	"archive/tar"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// generator makes random images that depend on each other. The fewer names there
// are, the more often a path is something else in each of them.
type generator struct {
	*rand.Rand
	images   int        // how many
	entries  func() int // how many one archive has
	names    string     // of files and directories, a letter each
	depth    int        // of paths
	levels   int        // of dependencies
	made     int        // the most images that one is made of, as often as they are reached
	unlisted int        // percentage of paths that a whitelist leaves out
}

// few is for many small cases that collide everywhere.
func few(r *rand.Rand) generator {
	return generator{r, 3 + r.IntN(6), func() int { return r.IntN(10) }, "abc", 3, 6, 60, 40}
}

// generate gives images in an order in which they can be imported.
func (g generator) generate(t testing.TB) []*spec {
	t.Helper()
	var specs []*spec
	dir := scratch(t)
	for i := range g.images {
		s := newSpec(fmt.Sprintf("n%d", g.IntN(3)))
		s.labelled("version", fmt.Sprintf("1.0.%d", i))
		if g.chance(50) {
			s.labelled("os", "linux").labelled("arch", "amd64")
		}
		s.entries = append([]entry{g.metadata(directory("/", 0))}, g.archive(i)...)
		g.depend(s, specs)
		if g.chance(40) {
			s.whitelist = g.whitelist(s, naive(t, dir, s, true))
		}
		specs = append(specs, s)
	}
	return specs
}

// many is for few cases that are large.
func many(r *rand.Rand, images int) generator {
	return generator{r, images, func() int { return 2000 }, "abcdefghijkl", 5, 6, 40, 10}
}

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g generator, list ...T) T { return list[g.IntN(len(list))] }

// archive gives entries that do not contradict each other. Parents may have no
// entry, or one that comes later.
func (g generator) archive(number int) []entry {
	var list, files []entry
	kinds := map[string]byte{}
	above := map[string]bool{} // the parents of all entries
	count := g.entries()
	for tries := 20 * count; tries > 0 && len(list) < count; tries-- {
		e := g.entry(g.path(), number)
		if _, ok := kinds[e.path]; ok || e.kind != tar.TypeDir && above[e.path] {
			continue
		}
		if slices.ContainsFunc(parents(e.path), func(p string) bool { k, ok := kinds[p]; return ok && k != tar.TypeDir }) {
			continue
		}
		if e.kind == tar.TypeReg {
			if len(files) > 0 && g.chance(15) {
				target := pick(g, files...)
				target.kind, target.path, target.target, target.body = tar.TypeLink, e.path, target.path, ""
				e = target
			} else {
				files = append(files, e)
			}
		}
		for _, p := range parents(e.path) {
			above[p] = true
		}
		kinds[e.path] = e.kind
		list = append(list, e)
	}
	return list
}

func (g generator) path() string {
	var b strings.Builder
	for range 1 + g.IntN(g.depth) {
		fmt.Fprintf(&b, "/%c", g.names[g.IntN(len(g.names))])
	}
	return b.String()
}

func (g generator) entry(name string, image int) entry {
	mark := fmt.Sprintf("%d:%s", image, name)
	switch n := g.IntN(100); {
	case n < 40:
		return g.metadata(file(name, g.body(mark)))
	case n < 70:
		return g.metadata(directory(name, 0))
	case n < 92:
		up := strings.Repeat("../", g.IntN(4))
		return g.metadata(symlink(name, pick(g, up+g.path()[1:], g.path(), "nowhere", "/nowhere/at/all", ".", "..", "/", "/etc", g.path()+"/")))
	default:
		e := g.metadata(file(name, ""))
		e.kind = tar.TypeFifo
		return e
	}
}

// body is the content of a file, now and then one with holes.
func (g generator) body(mark string) string {
	switch n := g.IntN(100); {
	case n < 5:
		return mark + strings.Repeat("\x00", 70_000) + "end"
	case n < 15:
		return strings.Repeat("\x00", 4096*g.IntN(4))
	}
	return mark
}

func (g generator) metadata(e entry) entry {
	switch e.kind {
	case tar.TypeDir:
		e.mode = pick[int64](g, 0o755, 0o700, 0o750, 0, 0o1777, 0o2775, 0o4711)
	case tar.TypeReg:
		e.mode = pick[int64](g, 0o644, 0o600, 0o755, 0, 0o4755, 0o2755, 0o6711)
	}
	e.uid, e.gid = pick(g, 0, 0, 1, 1000, 65534, 100_000), pick(g, 0, 0, 2, 1000, 65534, 3_000_000_000)
	e.mtime = time.Unix(g.Int64N(1_900_000_000), pick(g, 0, g.Int64N(1e9))).UTC()
	return e
}

// depend gives an image some of the earlier ones as dependencies, rather the
// latest ones, some of them twice.
func (g generator) depend(s *spec, earlier []*spec) {
	for range g.IntN(5) {
		if len(earlier) == 0 {
			return
		}
		on := earlier[max(g.IntN(len(earlier)), g.IntN(len(earlier)))]
		d := dependency{on: on, byID: g.chance(30)}
		latest := !slices.ContainsFunc(earlier[slices.Index(earlier, on)+1:], func(o *spec) bool { return o.name == on.name })
		switch {
		case d.byID && g.chance(50) || latest && g.chance(50): // the name says enough
		case g.chance(50):
			d.labels = on.labels
		default:
			d.labels = map[string]string{"version": on.labels["version"]}
		}
		before := s.deps
		s.deps = append(slices.Clone(s.deps), d)
		if levels(s) > g.levels || len(passes(s)) > g.made {
			s.deps = before
		}
	}
}

// levels counts the images of the longest path down.
func levels(s *spec) int {
	deepest := 0
	for _, d := range s.deps {
		deepest = max(deepest, levels(d.on))
	}
	return deepest + 1
}

// whitelist lists some of the paths of an image's root, as it is without, and
// some others: at random, and what whitelists further down have left out.
func (g generator) whitelist(s *spec, root tree) []string {
	names := slices.Collect(maps.Keys(root))
	for _, p := range passes(s) {
		for _, e := range p.image.entries {
			if g.chance(15) {
				names = append(names, e.path)
			}
		}
	}
	for range g.IntN(4) {
		names = append(names, g.path())
	}
	slices.Sort(names)
	var list []string
	for _, name := range slices.Compact(names) {
		if !g.chance(g.unlisted) && defined(root, name) {
			list = append(list, name+pick(g, "", "", "", "/"))
		}
	}
	g.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// defined tells whether an image with this root, before its whitelist, may list
// a path. One below what is no directory cannot be there when the image itself
// is rendered, but may come from one of its own dependencies when it is
// filtered as a dependency: the specification does not say what it means.
func defined(root tree, name string) bool {
	return !slices.ContainsFunc(parents(name), func(p string) bool {
		what, ok := root[p]
		return ok && !strings.HasPrefix(what, "directory ")
	})
}
