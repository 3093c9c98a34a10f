//go:build unix

package hostile

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/moby/sys/mountinfo"
	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// The processes that the test consists of, besides itself: one that writes the
// files of all cases, and one for each case that imports the two. What the latter
// starts in its turn is counted as part of it.
const (
	buildProcess  = "hostile-build"
	importProcess = "hostile-import"
)

func init() {
	reexec.Register(buildProcess, func() { serve(build) })
	reexec.Register(importProcess, func() { serve(attack) })
}

// serve answers one request on stdin.
func serve[Request, Answer any](do func(Request) (Answer, error)) {
	var q Request
	err := json.NewDecoder(os.Stdin).Decode(&q)
	if err == nil {
		var a Answer
		if a, err = do(q); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(a)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// driver is a storage to try the corpus on.
type driver struct {
	open      func(dir string) (storage.Driver, error)
	supported func(dir string) error
}

var drivers = map[string]driver{"plaindir": {
	open:      func(dir string) (storage.Driver, error) { return plaindir.Open(dir) },
	supported: func(string) error { return nil },
}}

// filesDir is where the files of the corpus are, below base.
const filesDir = "files"

func (h host) file(i int, kind string) string {
	return filepath.Join(h.base, filesDir, fmt.Sprintf("%03d.%s", i, kind))
}

func (h host) baseFile() string { return filepath.Join(h.base, filesDir, "base") }

// build writes the files of all cases.
func build(base string) (int, error) {
	h := host{base}
	if err := writeFile(h.baseFile(), baseImage(h)); err != nil {
		return 0, err
	}
	cases := corpus(h)
	for i, c := range cases {
		if err := errors.Join(writeFile(h.file(i, "bad"), c.bad), writeFile(h.file(i, "good"), c.good)); err != nil {
			return 0, err
		}
	}
	return len(cases), nil
}

func writeFile(name string, s source) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	s(w)
	return errors.Join(w.Flush(), f.Close())
}

// order is one case to be imported into a store with the base image in it. What it
// is made of is not known here, so that its making takes no memory.
type order struct {
	Base   string
	Place  string // the directory for the storage and the store, made if missing
	Driver string
	Case   int
	Want   []int // in sentinels
	Limits layer.Limits
	Swap   bool // swap what is in the draft's tree meanwhile; any result will do
}

// answer is what came of it.
type answer struct {
	Refusal  string        // the error of the hostile file
	Problems []string      // all that was not as it should be
	Slowest  time.Duration // of the imports, in time of processors
	Self     int64         // the process's peak of resident memory in KiB
	Child    int64         // and the largest of its children's, 0 if none was seen
	Swaps    int
}

// small are the limits of most imports, roomy those that jetpack has by default.
var (
	small = layer.Limits{MaxBytes: 64 << 20, MaxEntries: 20_000}
	roomy = layer.Limits{MaxBytes: 64 << 30, MaxEntries: 1_000_000}
)

func attack(o order) (a answer, err error) {
	debug.SetMemoryLimit(extract.Memory) // as the command does
	h := host{o.Base}
	m := watchMemory()
	p, err := openPlace(o)
	if err != nil {
		return a, err
	}
	before, err := p.state()
	if err != nil {
		return a, err
	}
	var s *swapper
	if o.Swap {
		s = startSwapper(h, p.trees)
	}
	_, refusal := p.timed(h.file(o.Case, "bad"), &a)
	if refusal != nil {
		a.Refusal = refusal.Error()
	}
	if !o.Swap {
		a.problem("message", checkMessage(refusal))
		a.problem("hostile file", checkRefusal(refusal, o.Want))
		a.problem("after the refusal", p.unchanged(before))
	}
	twin, mishap := p.timed(h.file(o.Case, "good"), &a)
	if o.Swap {
		a.Swaps = s.end()
	} else {
		a.problem("benign twin", mishap)
		if twin != nil {
			a.problem("after the benign twin", p.oneMore())
			a.problem("remove the benign twin", p.store.Remove(context.Background(), twin.ID))
			before.index = ""
			a.problem("after its removal", p.unchanged(before))
		}
	}
	if o.Swap || len(a.Problems) > 0 {
		a.problem("clean up", p.remove(!o.Swap))
	}
	a.Self, a.Child, err = m.end()
	return a, err
}

func (a *answer) problem(what string, err error) {
	if err != nil {
		a.Problems = append(a.Problems, fmt.Sprintf("%s: %v", what, err))
	}
}

// place is a store with one image, on which others may depend.
type place struct {
	dir    string
	trees  string
	limits layer.Limits
	driver storage.Driver
	store  *image.Store
}

// openPlace opens a place, or makes it.
func openPlace(o order) (*place, error) {
	p := &place{dir: o.Place, trees: filepath.Join(o.Place, "trees"), limits: o.Limits}
	var err error
	if p.driver, err = drivers[o.Driver].open(p.trees); err != nil {
		return nil, err
	}
	dir := filepath.Join(o.Place, "store")
	if p.store, err = image.Open(dir, p.driver); !errors.Is(err, image.ErrNotInitialized) {
		return p, err
	}
	if _, err := image.Init(context.Background(), dir); err != nil {
		return nil, err
	}
	if p.store, err = image.Open(dir, p.driver); err != nil {
		return nil, err
	}
	if _, err = p.load(host{o.Base}.baseFile()); err != nil {
		return nil, err
	}
	// The drivers make what layers are in when there is the first one.
	return p, errors.Join(p.driver.Create(context.Background(), "layers/first", storage.Options{}), p.driver.Destroy(context.Background(), "layers/first"))
}

func (p *place) load(file string) (img *image.Image, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if head := make([]byte, len(dockerFirst)); bytesRead(f.ReadAt(head, 0)) == len(head) && string(head) == dockerFirst {
		return p.loadDocker(file)
	}
	img, _, err = aci.Import(context.Background(), p.store, f, aci.ImportOptions{Origin: file, Limits: p.limits})
	return img, err
}

func bytesRead(n int, _ error) int { return n }

// loadDocker imports a docker-archive.
func (p *place) loadDocker(file string) (*image.Image, error) {
	l, err := oci.ParseLocation("docker-archive:"+file, false)
	if err != nil {
		return nil, err
	}
	img, _, err := oci.Import(context.Background(), p.store, l, oci.Options{
		Platforms: oci.HostPlatforms("linux", "amd64", ""), Insecure: []string{"signature"}, Limits: p.limits,
		Meter: func(_ string, _, _ int64, r io.Reader) io.ReadCloser { return io.NopCloser(r) },
	})
	return img, err
}

func (p *place) timed(file string, a *answer) (*image.Image, error) {
	begin := busy()
	img, err := p.load(file)
	a.Slowest = max(a.Slowest, busy()-begin)
	return img, err
}

// busy is how long this process and the children that it has waited for have had a
// processor: how long they took depends on what else the machine does.
func busy() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			panic(err) // of wrong arguments only
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

// state is what there is in a place.
type state struct {
	images int
	files  string // a description of all but the index
	index  string // a hash of it
}

func (p *place) state() (state, error) {
	list, err := p.store.List(context.Background())
	if err != nil {
		return state{}, err
	}
	files, index, err := listing(p.dir)
	return state{len(list), files, index}, err
}

// unchanged looks for anything that an import left, or took away; an index that
// was written and is as before is fine when before has none.
func (p *place) unchanged(before state) error {
	now, err := p.state()
	if err != nil {
		return err
	}
	if now.images != before.images {
		return fmt.Errorf("%d images instead of %d", now.images, before.images)
	}
	if d := difference(before.files, now.files); d != "" {
		return errors.New(d)
	}
	if before.index != "" && now.index != before.index {
		return errors.New("the index has changed")
	}
	return p.tidy()
}

// oneMore looks whether there is exactly one image more.
func (p *place) oneMore() error {
	now, err := p.state()
	if err != nil {
		return err
	}
	if now.images != 2 {
		return fmt.Errorf("%d images instead of two", now.images)
	}
	trees, err := p.driver.List(context.Background(), "images")
	if err != nil {
		return err
	}
	if len(trees) != 2 {
		return fmt.Errorf("%d trees of images instead of two", len(trees))
	}
	return p.tidy()
}

// tidy looks for drafts, debris and mounts.
func (p *place) tidy() error {
	ctx := context.Background()
	drafts, err := p.driver.List(ctx, "imports")
	if err != nil || len(drafts) > 0 {
		return fmt.Errorf("trees of drafts: %v, %v", drafts, err)
	}
	debris, err := p.store.Debris(ctx)
	if err != nil || len(debris) > 0 {
		return fmt.Errorf("debris: %v, %v", debris, err)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(p.dir))
	if err != nil || len(mounts) > 0 {
		return fmt.Errorf("mounts: %v, %v", mounts, err)
	}
	return nil
}

// remove takes all away. What a swapper did to a tree may keep it from being
// removed at first.
func (p *place) remove(clean bool) error {
	ctx := context.Background()
	trees, err := p.driver.List(ctx, "")
	if err != nil {
		return err
	}
	for _, t := range trees {
		if err := storage.Remove(ctx, p.driver, t.Name); err != nil && clean {
			return err
		}
	}
	return os.RemoveAll(p.dir)
}

// sentinels are all that an import may be refused with.
var sentinels = []error{
	aci.ErrFormat, aci.ErrEncrypted, aci.ErrCompression, aci.ErrTruncated, aci.ErrTrailing, aci.ErrLayout,
	aci.ErrNoManifest, aci.ErrNoRootfs,
	layer.ErrName, layer.ErrDuplicate, layer.ErrThroughLink, layer.ErrHardLink, layer.ErrSymlink, layer.ErrDevice, layer.ErrWhiteout,
	layer.ErrType, layer.ErrTooLarge, layer.ErrTooManyEntries, layer.ErrXattr, layer.ErrOwner,
	layer.ErrTooManyLinks,
	manifest.ErrInvalid, oci.ErrFormat, oci.ErrUnsupported, oci.ErrPlatform,
	image.ErrNotFound, image.ErrMismatch, image.ErrAmbiguous, image.ErrInUse, image.ErrUntrusted, image.ErrNotInitialized, image.ErrDamaged,
}

// indices finds errors in sentinels.
func indices(want []error) []int {
	var found []int
	for _, w := range want {
		i := slices.Index(sentinels, w)
		if i < 0 {
			panic(fmt.Sprintf("%q is not among the sentinels", w))
		}
		found = append(found, i)
	}
	return found
}

// checkRefusal looks whether an error is exactly those that are wanted, and those
// that these wrap themselves.
func checkRefusal(err error, want []int) error {
	if err == nil {
		return errors.New("it was imported")
	}
	for _, s := range sentinels {
		wanted := slices.ContainsFunc(want, func(i int) bool { return errors.Is(sentinels[i], s) })
		if wanted != errors.Is(err, s) {
			return fmt.Errorf("refused with %q, which is %q: %t", err, s, !wanted)
		}
	}
	return nil
}

// maxMessage is more than a name of 1023 bytes takes, quoted.
const maxMessage = 8 << 10

// checkMessage looks whether a message is fit for a terminal: one line for each of
// the errors that were joined, which the command puts into one.
func checkMessage(err error) error {
	if err == nil {
		return nil
	}
	m := oneLine(err)
	if len(m) > maxMessage {
		return fmt.Errorf("%d bytes", len(m))
	}
	if strings.ContainsFunc(m, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("not printable: %q", m)
	}
	return nil
}

// oneLine is the message of an error with "; " for the newlines that errors.Join put
// there, and for no others: those would be an image's.
func oneLine(err error) string {
	m := err.Error()
	var parts []error
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		parts = []error{e.Unwrap()}
	case interface{ Unwrap() []error }:
		parts = e.Unwrap()
	}
	var lines, clean []string
	for _, part := range parts {
		lines, clean = append(lines, part.Error()), append(clean, oneLine(part))
	}
	if joined := strings.Join(lines, "\n"); len(parts) > 1 && m == joined {
		return strings.Join(clean, "; ")
	}
	for i, line := range lines {
		m = strings.Replace(m, line, clean[i], 1)
	}
	return m
}
