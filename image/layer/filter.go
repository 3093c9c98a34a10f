//go:build unix

package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Whitelist is a set of names in a tree (appc spec, "Image Manifest Schema",
// pathWhitelist). A directory in it does not put its content in it; the top
// directory is always in it. A nil Whitelist has every name. It takes 16 bytes for
// each name, however long.
type Whitelist struct {
	keys []key // sorted, without duplicates
}

// NewWhitelist makes a set of absolute paths, "/" being the top of the tree. An
// empty list stands for no whitelist at all and gives nil.
func NewWhitelist(paths []string) *Whitelist {
	if len(paths) == 0 {
		return nil
	}
	w := &Whitelist{make([]key, len(paths))}
	for i, p := range paths {
		w.keys[i] = keyOf(strings.TrimPrefix(path.Clean(p), "/"))
	}
	w.sort()
	return w
}

func (w *Whitelist) sort() {
	slices.SortFunc(w.keys, compareKeys)
	w.keys = slices.Compact(w.keys)
}

func compareKeys(a, b key) int { return bytes.Compare(a[:], b[:]) }

// Has tells whether a clean name is in the set.
func (w *Whitelist) Has(name string) bool {
	return w == nil || name == "." || w.has(keyOf(name))
}

func (w *Whitelist) has(k key) bool {
	_, found := slices.BinarySearchFunc(w.keys, k, compareKeys)
	return found
}

// Intersect gives the names that are in both; nil only if both are nil. The result
// may be empty: it has nothing but the top directory.
func (w *Whitelist) Intersect(other *Whitelist) *Whitelist {
	switch {
	case w == nil:
		return other
	case other == nil:
		return w
	}
	both := &Whitelist{}
	for _, k := range w.keys {
		if other.has(k) {
			both.keys = append(both.keys, k)
		}
	}
	return both
}

// MarshalBinary encodes the set, which must not be nil, for another process.
func (w *Whitelist) MarshalBinary() ([]byte, error) {
	data := make([]byte, 0, len(w.keys)*len(key{}))
	for _, k := range w.keys {
		data = append(data, k[:]...)
	}
	return data, nil
}

// UnmarshalBinary decodes what MarshalBinary gave.
func (w *Whitelist) UnmarshalBinary(data []byte) error {
	if len(data)%len(key{}) != 0 {
		return fmt.Errorf("whitelist of %d bytes", len(data))
	}
	w.keys = make([]key, 0, len(data)/len(key{}))
	for part := range slices.Chunk(data, len(key{})) {
		w.keys = append(w.keys, key(part))
	}
	return nil
}

// Survey reads an archive once in order to apply it through a whitelist the second
// time. It checks what a Checker checks.
type Survey struct {
	checker *Checker
	filter  *Filter
}

// Filter tells an Applier what of an archive to make:
//
//   - entries whose name is in the whitelist, and the top directory;
//   - directories in the whitelist that have no entry, but entries below them;
//   - the directories above all these, with what the archive's own entries say of
//     them, wherever in the archive these are;
//   - the content and metadata of a file that is not in the whitelist, under the
//     first of its names that is: the hard links that follow are made to this one.
//
// All else is checked and counted and changes nothing.
type Filter struct {
	keep  *Whitelist
	dirs  map[key]struct{}    // above entries in keep
	files map[key]*linkedFile // of more than one name, by each of these
	room  int64               // bytes that files may still take
}

// linkedFile is a regular file of several names.
type linkedFile struct {
	at string // the name that its content is made under; "" for none so far
}

const (
	// maxLinkBytes is what the files of a Filter may take: some 400,000 links of
	// common names.
	maxLinkBytes = 32 << 20
	// bytesPerLink is about what an entry of Filter.files and its file take.
	bytesPerLink = 64
)

// NewSurvey prepares to read an archive. keep must not be nil.
func NewSurvey(keep *Whitelist, l Limits) (*Survey, error) {
	checker, err := NewChecker(l)
	if err != nil {
		return nil, fmt.Errorf("survey layer: %w", err)
	}
	f := &Filter{keep: keep, dirs: map[key]struct{}{}, files: map[key]*linkedFile{}, room: maxLinkBytes}
	return &Survey{checker, f}, nil
}

// Add takes an entry to notice. The parameters are those of Applier.Apply; r is
// read. Errors: those of Apply but for the file system's, ErrTooManyLinks.
func (s *Survey) Add(hdr *tar.Header, name string, r io.Reader) error {
	if err := s.checker.Check(hdr, name, r); err != nil {
		return err
	}
	if isDevice(hdr) {
		return nil
	}
	if hdr.Typeflag == tar.TypeLink {
		if err := s.filter.addLink(name, hdr.Linkname); err != nil {
			return fmt.Errorf("entry %q: %w", name, err)
		}
	}
	if s.filter.keep.Has(name) {
		s.filter.addParents(name)
	}
	for p := path.Dir(name); p != "."; p = path.Dir(p) {
		if s.filter.keep.Has(p) {
			s.filter.addParents(p)
			break
		}
	}
	return nil
}

// Filter gives what the survey found, after the last entry.
func (s *Survey) Filter() *Filter { return s.filter }

func (f *Filter) addParents(name string) {
	for p := path.Dir(name); p != "."; p = path.Dir(p) {
		k := keyOf(p)
		if _, known := f.dirs[k]; known {
			return // and all above it
		}
		f.dirs[k] = struct{}{}
	}
}

func (f *Filter) addLink(name, target string) error {
	target = path.Clean(target) // the checker accepted it
	linked := f.files[keyOf(target)]
	if linked == nil {
		linked = &linkedFile{}
		if f.keep.Has(target) {
			linked.at = target
			f.room -= int64(len(target))
		}
		f.files[keyOf(target)] = linked
		f.room -= bytesPerLink
	}
	if linked.at == "" && f.keep.Has(name) {
		linked.at = name
		f.room -= int64(len(name))
	}
	f.files[keyOf(name)] = linked
	f.room -= bytesPerLink
	if f.room < 0 {
		return ErrTooManyLinks
	}
	return nil
}

// place gives the name under which to make an entry, "" for not at all.
func (f *Filter) place(hdr *tar.Header, name string) string {
	if f == nil {
		return name
	}
	linked := f.files[keyOf(name)]
	switch {
	case hasContent(hdr) && linked != nil:
		return linked.at
	case hdr.Typeflag == tar.TypeLink && linked != nil && linked.at == name:
		return "" // made when its target passed by
	case hdr.Typeflag == tar.TypeDir && f.isParent(name), f.keep.Has(name):
		return name
	}
	return ""
}

func (f *Filter) isParent(name string) bool {
	_, ok := f.dirs[keyOf(name)]
	return ok
}

// target gives the name to link to for the hard link name.
func (f *Filter) target(name, target string) string {
	if f != nil {
		if linked := f.files[keyOf(name)]; linked != nil {
			return linked.at
		}
	}
	return path.Clean(target)
}
