// Package repository publishes signed images for discovery (appc spec, discovery.md)
// as a plain directory, which any static web server can serve:
//
//	index.json                      the state, for machines too: what is published, keys
//	keys.asc                        the public keys, one armoured block
//	PATH/index.html                 a page for every part of every name: meta tags, and a
//	                                catalogue for people
//	NAME-VERSION-OS-ARCH.aci{,.asc} an image and its signature; VERSION "latest" is an
//	                                alias, the same bytes, of the highest one
//
// Of names it is the part after the host that makes PATH and NAME, so that the directory
// is what the host serves at its root, and simple discovery finds the files, too. When
// Options.URL puts the files elsewhere, NAME is the whole name.
//
// index.json is what counts: it is written after the files of an image that is added,
// and what follows from it (aliases, pages, keys) is made anew by every change and Init.
// Where a file is replaced, its signature is that of both files first: at no moment, and
// after no crash, is a file served whose signature does not verify.
//
// Not for: looking names up (discovery), trusting keys (image/trust).
package repository

import (
	"cmp"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jetpack-run/jetpack/internal/lazyregexp"

	"github.com/appc/spec/schema"
	"github.com/gofrs/flock"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/atomicfile"
	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// What callers test for.
var (
	// ErrNone: the directory is no repository.
	ErrNone = errors.New("no repository there")
	// ErrName: the image has no name, version, os or arch that can be published here.
	ErrName = errors.New("cannot be published")
	// ErrExists: something else is published under that name and version.
	ErrExists = errors.New("already published")
	// ErrNotFound: no such image is published.
	ErrNotFound = errors.New("not published")
)

// Options are fixed when a repository is made.
type Options struct {
	// Prefix is what the names of all images begin with, to the end of a component:
	// a host, or a host and a path.
	Prefix string
	// URL is where the directory is served, of https; "" is the root of Prefix's host.
	// The pages must be found at that host's root all the same.
	URL string
}

// Repository is a directory of published images. Its methods may be called from
// several processes at a time.
type Repository struct {
	Options
	dir    string
	points failpoint.Points
}

// Entry is a published image.
type Entry struct {
	Name         string            `json:"name"`
	Version      string            `json:"version"`
	OS           string            `json:"os"`
	Arch         string            `json:"arch"`
	Latest       bool              `json:"latest"` // the alias "latest" is this one
	Labels       map[string]string `json:"labels"` // all of them
	Description  string            `json:"description,omitempty"`
	Dependencies []Dependency      `json:"dependencies,omitempty"`
	File         string            `json:"file"`   // below the directory; the signature's has .asc after it
	Size         int64             `json:"size"`   // of the file
	Digest       string            `json:"digest"` // of the file: sha512-HEX
	ID           string            `json:"id"`     // the image ID
	Signer       string            `json:"signer"` // fingerprint of the primary key
	Published    time.Time         `json:"published"`
}

// Dependency is an image that a published one needs.
type Dependency struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	ID     string            `json:"id,omitempty"`
}

// Key is a key that something published is signed with.
type Key struct {
	Fingerprint string    `json:"fingerprint"` // lower-case hex
	Identities  []string  `json:"identities"`
	Created     time.Time `json:"created"`
	Armored     string    `json:"armored"`
}

// index is the contents of index.json.
type index struct {
	Format   int     `json:"format"`
	Prefix   string  `json:"prefix"`
	URL      string  `json:"url,omitempty"`
	Template string  `json:"template"`
	Keys     []Key   `json:"keys"`
	Images   []Entry `json:"images"` // by name, newest first
}

const (
	indexFormat = 1
	indexName   = "index.json"
	keysName    = "keys.asc"
	pageName    = "index.html"
	lockName    = ".lock"
	draftPrefix = ".add-"
)

// Init makes dir a repository, or makes what follows from the index of the one that it
// is anew. The options cannot change then.
func Init(dir string, o Options) (_ *Repository, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make repository %s: %w", dir, err)
		}
	}()
	if err := o.normalise(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	r := &Repository{Options: o, dir: dir}
	unlock, err := r.lock(context.Background())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	idx, err := r.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		idx = index{Format: indexFormat, Prefix: o.Prefix, URL: o.URL, Template: r.template(), Keys: []Key{}, Images: []Entry{}}
		if _, err := os.Lstat(r.path(keysName)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is in the way (%w)", keysName, cmp.Or(err, fs.ErrExist))
		}
	case err != nil:
		return nil, err
	case idx.Prefix != o.Prefix || idx.URL != o.URL:
		return nil, fmt.Errorf("it is there already, for prefix %s and URL %q", idx.Prefix, idx.URL)
	}
	pages, err := r.pages(idx)
	if err != nil {
		return nil, err
	}
	if err := r.write(idx); err != nil {
		return nil, err
	}
	if err := r.settle(idx, idx, pages); err != nil {
		return nil, err
	}
	return r, nil
}

// Open gives the repository in dir. Errors: ErrNone.
func Open(dir string) (*Repository, error) {
	r := &Repository{dir: dir}
	idx, err := r.read()
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", dir, err)
	}
	r.Prefix, r.URL = idx.Prefix, idx.URL
	return r, nil
}

func (o *Options) normalise() error {
	ref, err := manifest.ParseRef(o.Prefix)
	if err != nil {
		return err
	}
	host, _, _ := strings.Cut(o.Prefix, "/")
	if ref.Name != o.Prefix || !strings.Contains(host, ".") && host != "localhost" {
		return fmt.Errorf("prefix %q: not a host, or a host and a path", o.Prefix)
	}
	if err := checkName(o.Prefix); err != nil {
		return err
	}
	if o.URL == "" {
		return nil
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return err
	}
	if u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(o.URL, "{} ") {
		return fmt.Errorf("URL %q: not https://HOST[/PATH]", o.URL)
	}
	o.URL = strings.TrimRight(u.String(), "/")
	if o.URL == "https://"+host {
		o.URL = ""
	}
	return nil
}

// Keys gives the keys that what is published is signed with.
func (r *Repository) Keys(_ context.Context) ([]Key, error) {
	idx, err := r.read()
	if err != nil {
		return nil, fmt.Errorf("list keys of %s: %w", r.dir, err)
	}
	return idx.Keys, nil
}

// List gives what is published, by name, newest first.
func (r *Repository) List(_ context.Context) ([]Entry, error) {
	idx, err := r.read()
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", r.dir, err)
	}
	return idx.Images, nil
}

// AddOptions say how far Add may go.
type AddOptions struct {
	Limits  layer.Limits // of the image, as for aci.Validate
	Replace bool         // what is published under the same name and version, also to sign it anew
}

// Add publishes an image, read to its end, with a signature by sign. The same bytes
// once more change nothing. Errors: ErrName, ErrExists, those of aci.Validate.
func (r *Repository) Add(ctx context.Context, image io.Reader, sign Signer, o AddOptions) (_ Entry, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("publish image: %w", err)
		}
	}()
	unlock, err := r.lock(ctx)
	if err != nil {
		return Entry{}, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	old, err := r.read()
	if err != nil {
		return Entry{}, err
	}
	draft, digest, err := r.receive(ctx, image)
	if err != nil {
		return Entry{}, err
	}
	defer func() {
		err = errors.Join(err, draft.Close())
		if e := os.Remove(draft.Name()); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	entry, err := r.describe(ctx, draft, o.Limits)
	if err != nil {
		return Entry{}, err
	}
	entry.Digest = digest
	known, err := old.admit(r, entry, o.Replace)
	if err != nil {
		return Entry{}, err
	}
	if known != nil {
		pages, err := r.pages(old)
		if err != nil {
			return Entry{}, err
		}
		return *known, r.settle(old, old, pages)
	}
	signature, key, err := signDraft(ctx, sign, draft)
	if err != nil {
		return Entry{}, fmt.Errorf("sign %s: %w", entry.title(), err)
	}
	entry.Signer = key.Fingerprint
	next := old.with(entry, key)
	pages, err := r.pages(next)
	if err != nil {
		return Entry{}, err
	}
	if err := r.put(draft.Name(), signature, entry.File); err != nil {
		return Entry{}, err
	}
	if err := r.write(next); err != nil {
		return Entry{}, err
	}
	i := slices.IndexFunc(next.Images, entry.same)
	return next.Images[i], r.settle(old, next, pages)
}

// Remove takes back every published image that ref matches, and gives them. Errors:
// ErrNotFound.
func (r *Repository) Remove(ctx context.Context, ref manifest.Ref) (removed []Entry, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("remove %s: %w", ref, err)
		}
	}()
	unlock, err := r.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	old, err := r.read()
	if err != nil {
		return nil, err
	}
	next := old
	next.Images = nil
	for _, e := range old.Images {
		if e.matches(ref) {
			removed = append(removed, e)
		} else {
			next.Images = append(next.Images, e)
		}
	}
	if len(removed) == 0 {
		return nil, ErrNotFound
	}
	next.tidy()
	pages, err := r.pages(next)
	if err != nil {
		return nil, err
	}
	// The index last: what was interrupted is still listed, and removed by the next try.
	if err := r.settle(old, next, pages); err != nil {
		return nil, err
	}
	for _, e := range removed {
		if err := r.drop(e.File); err != nil {
			return nil, err
		}
	}
	return removed, r.write(next)
}

// receive copies an image into the directory and gives the open copy, at its end.
func (r *Repository) receive(ctx context.Context, image io.Reader) (_ *os.File, digest string, err error) {
	draft, err := os.CreateTemp(r.dir, draftPrefix)
	if err != nil {
		return nil, "", err
	}
	hash := sha512.New()
	_, err = io.Copy(io.MultiWriter(draft, hash), contextReader{ctx, image})
	if err := errors.Join(err, draft.Chmod(0o644), draft.Sync()); err != nil {
		return nil, "", errors.Join(err, draft.Close(), os.Remove(draft.Name()))
	}
	return draft, "sha512-" + hex.EncodeToString(hash.Sum(nil)), nil
}

// describe validates an image and tells what the index says about it, signature and
// digest left out.
func (r *Repository) describe(ctx context.Context, draft *os.File, l layer.Limits) (Entry, error) {
	info, err := draft.Stat()
	if err != nil {
		return Entry{}, err
	}
	if _, err := draft.Seek(0, io.SeekStart); err != nil {
		return Entry{}, err
	}
	result, err := aci.Validate(ctx, draft, l)
	if err != nil {
		return Entry{}, err
	}
	m := result.Manifest.Image
	e := Entry{
		Name:         string(m.Name),
		Labels:       map[string]string{},
		Dependencies: dependencies(m),
		Size:         info.Size(),
		ID:           result.ID,
		Published:    time.Now().UTC().Truncate(time.Second),
	}
	e.Description, _ = m.GetAnnotation("description")
	for _, l := range m.Labels {
		e.Labels[string(l.Name)] = l.Value
	}
	for _, l := range []struct {
		name  string
		value *string
	}{{"version", &e.Version}, {"os", &e.OS}, {"arch", &e.Arch}} {
		*l.value = e.Labels[l.name]
		if !fileable().MatchString(*l.value) {
			return Entry{}, fmt.Errorf("%w: %s: label %s is %q, which makes no file name", ErrName, e.Name, l.name, *l.value)
		}
	}
	if e.Version == latest {
		return Entry{}, fmt.Errorf("%w: %s: version %q is the alias of the highest one", ErrName, e.Name, latest)
	}
	if !strings.HasPrefix(e.Name+"/", r.Prefix+"/") || !strings.Contains(e.Name, "/") {
		return Entry{}, fmt.Errorf("%w: %s: not a name below %s", ErrName, e.Name, r.Prefix)
	}
	if err := checkName(e.Name); err != nil {
		return Entry{}, err
	}
	e.File = r.file(e, e.Version)
	return e, nil
}

// latest is the version that is asked for by who asks for none.
const latest = "latest"

// fileable is what may stand in a file's name and in a URL without being encoded by any
// server's or client's opinion.
var fileable = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._+~-]*$`)

// checkName refuses names of which a part could be that of one of the repository's files.
func checkName(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		if slices.Contains([]string{".aci", ".asc", ".html", ".json"}, filepath.Ext(part)) {
			return fmt.Errorf("%w: %s: %q ends as a file of the repository does", ErrName, name, part)
		}
	}
	return nil
}

func dependencies(m *schema.ImageManifest) []Dependency {
	var all []Dependency
	for _, d := range m.Dependencies {
		dep := Dependency{Name: string(d.ImageName)}
		if d.ImageID != nil {
			dep.ID = d.ImageID.String()
		}
		for _, l := range d.Labels {
			if dep.Labels == nil {
				dep.Labels = map[string]string{}
			}
			dep.Labels[string(l.Name)] = l.Value
		}
		all = append(all, dep)
	}
	return all
}

// signDraft gives the signature of a file, and the key of which it is.
func signDraft(ctx context.Context, sign Signer, draft *os.File) ([]byte, Key, error) {
	keyring, err := sign.PublicKey(ctx)
	if err != nil {
		return nil, Key{}, err
	}
	if _, err := draft.Seek(0, io.SeekStart); err != nil {
		return nil, Key{}, err
	}
	var signature strings.Builder
	if err := sign.Sign(ctx, &signature, draft); err != nil {
		return nil, Key{}, err
	}
	if _, err := draft.Seek(0, io.SeekStart); err != nil {
		return nil, Key{}, err
	}
	text := []byte(strings.TrimSpace(signature.String()) + "\n")
	key, err := check(contextReader{ctx, draft}, text, keyring)
	return text, key, err
}

// title is how messages and pages call an image.
func (e Entry) title() string {
	return fmt.Sprintf("%s:%s,os=%s,arch=%s", e.Name, e.Version, e.OS, e.Arch)
}

// same tells whether two images have the same place.
func (e Entry) same(other Entry) bool { return e.File == other.File }

func (e Entry) matches(ref manifest.Ref) bool {
	if e.Name != ref.Name {
		return false
	}
	for name, value := range ref.Labels {
		if got, ok := e.Labels[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// template is the meta tag's.
func (r *Repository) template() string {
	const file = "{name}-{version}-{os}-{arch}.{ext}"
	if r.URL == "" {
		return "https://" + file
	}
	return r.URL + "/" + file
}

// file is where an image is, or the alias of it, below the directory and below the URL.
func (r *Repository) file(e Entry, version string) string {
	name := e.Name
	if r.URL == "" {
		_, name, _ = strings.Cut(name, "/")
	}
	return name + "-" + version + "-" + e.OS + "-" + e.Arch + ".aci"
}

func (r *Repository) path(file string) string { return filepath.Join(r.dir, filepath.FromSlash(file)) }

// admit says whether an image may be added: it gives the published one if that has the
// same bytes, and refuses if another is in the way of the file or its alias.
func (idx *index) admit(r *Repository, e Entry, replace bool) (*Entry, error) {
	for i, other := range idx.Images {
		mine := []string{e.File, r.file(e, latest)}
		if other.Name == e.Name && other.OS == e.OS && other.Arch == e.Arch {
			mine = mine[:1] // the alias is the same
		}
		equal := other.Name == e.Name && other.Version == e.Version && other.OS == e.OS && other.Arch == e.Arch
		switch {
		case equal && replace:
		case equal && other.Digest == e.Digest:
			return &idx.Images[i], nil
		case equal:
			return nil, fmt.Errorf("%w: %s, with other contents", ErrExists, e.title())
		case slices.Contains(mine, other.File), slices.Contains(mine, r.file(other, latest)):
			return nil, fmt.Errorf("%w: %s has the file of %s", ErrExists, other.title(), e.title())
		}
	}
	return nil, nil
}

// with is the index after e has been published.
func (idx index) with(e Entry, k Key) index {
	idx.Images = slices.DeleteFunc(slices.Clone(idx.Images), e.same)
	idx.Images = append(idx.Images, e)
	idx.Keys = slices.DeleteFunc(slices.Clone(idx.Keys), func(other Key) bool { return other.Fingerprint == k.Fingerprint })
	idx.Keys = append(idx.Keys, k)
	idx.tidy()
	return idx
}

// tidy sorts, finds the latest ones, and drops keys that signed nothing.
func (idx *index) tidy() {
	images := append([]Entry{}, idx.Images...)
	slices.SortFunc(images, func(a, b Entry) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), compareVersions(b.Version, a.Version),
			strings.Compare(a.OS, b.OS), strings.Compare(a.Arch, b.Arch))
	})
	used, seen := map[string]bool{}, map[[3]string]bool{}
	for i := range images {
		e := &images[i]
		kind := [3]string{e.Name, e.OS, e.Arch}
		e.Latest = !seen[kind]
		seen[kind], used[e.Signer] = true, true
	}
	idx.Images = images
	idx.Keys = slices.DeleteFunc(append([]Key{}, idx.Keys...), func(k Key) bool { return !used[k.Fingerprint] })
	slices.SortFunc(idx.Keys, func(a, b Key) int { return strings.Compare(a.Fingerprint, b.Fingerprint) })
}

func compareVersions(a, b string) int {
	switch {
	case manifest.LessVersion(a, b):
		return -1
	case manifest.LessVersion(b, a):
		return 1
	}
	return 0
}

func (r *Repository) read() (index, error) {
	data, err := os.ReadFile(r.path(indexName))
	if err != nil {
		return index{}, err
	}
	var idx index
	if err := json.Unmarshal(data, &idx); err != nil {
		return index{}, fmt.Errorf("read %s: %w", indexName, err)
	}
	if idx.Format != indexFormat {
		return index{}, fmt.Errorf("read %s: format %d, not %d: not a repository of this version", indexName, idx.Format, indexFormat)
	}
	return idx, nil
}

func (r *Repository) write(idx index) error {
	data, err := json.MarshalIndent(idx, "", "  ")
	if err != nil {
		return err
	}
	return r.replace("write index", indexName, append(data, '\n'))
}

// lock waits for other changes to end, and removes what interrupted ones have left.
func (r *Repository) lock(ctx context.Context) (unlock func() error, err error) {
	l := flock.New(r.path(lockName))
	if _, err := l.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock repository: %w", err)
	}
	drafts, err := filepath.Glob(r.path(draftPrefix + "*"))
	for _, draft := range drafts {
		err = errors.Join(err, os.Remove(draft))
	}
	if err != nil {
		return nil, errors.Join(err, l.Unlock())
	}
	return l.Unlock, nil
}

// replace writes a small file, unless it has that content already.
func (r *Repository) replace(step, file string, data []byte) error {
	old, err := os.ReadFile(r.path(file))
	if err == nil && string(old) == string(data) {
		return nil
	}
	return failpoint.Do(r.points, step, func() error {
		if err := os.MkdirAll(filepath.Dir(r.path(file)), 0o755); err != nil {
			return err
		}
		return atomicfile.Write(r.path(file), data, 0o644)
	})
}
