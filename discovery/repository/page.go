package repository

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/docker/go-units"
)

//go:embed page.html page.css page.js
var pageFiles embed.FS

// pageTemplate is parsed when it is needed: each pod that starts loads this package.
var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page.html").Funcs(template.FuncMap{
		"size":  func(n int64) string { return units.HumanSize(float64(n)) },
		"group": group,
		"css":   func() (template.CSS, error) { b, err := pageFiles.ReadFile("page.css"); return template.CSS(b), err }, //nolint:gosec // our own
		"js":    func() (template.JS, error) { b, err := pageFiles.ReadFile("page.js"); return template.JS(b), err },    //nolint:gosec // our own
	}).ParseFS(pageFiles, "page.html"))
})

// generator stands in every page, to tell them from other people's files.
const generator = `<meta name="generator" content="jetpack">`

type page struct {
	Prefix   string // the page is about images of that name and below
	Match    string // what the meta tags are for
	Template string
	KeysURL  string
	Keys     []Key
	Crumbs   []crumb
	Images   []pageImage
}

type crumb struct{ Text, Href string }

type pageImage struct {
	Name, Href, Description, Newest string
	Versions                        []pageVersion
}

type pageVersion struct {
	Entry
	Href  string // of the file
	Needs []node
}

// node is a dependency in a tree.
type node struct {
	Text, Href string // no Href: it is not in this repository
	Needs      []node
}

// pages makes every page, by file. It refuses to replace a page that others made.
func (r *Repository) pages(idx index) (map[string][]byte, error) {
	images := r.pageImages(idx)
	all := map[string][]byte{}
	for prefix := range pageDirs(idx) {
		file := pageFile(prefix)
		old, err := os.ReadFile(r.path(file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil && !bytes.Contains(old, []byte(generator)) {
			return nil, fmt.Errorf("%s is in the way: not a page of jetpack's", r.path(file))
		}
		data, err := r.page(prefix, idx, images)
		if err != nil {
			return nil, fmt.Errorf("make page of %s: %w", prefix, err)
		}
		all[file] = data
	}
	return all, nil
}

func (r *Repository) page(prefix string, idx index, images []pageImage) ([]byte, error) {
	p := page{Prefix: prefix, Match: prefix, Template: r.template(), Keys: idx.Keys, Crumbs: crumbs(prefix)}
	if !below(prefix, r.Prefix) {
		p.Match = r.Prefix
	}
	if len(idx.Keys) > 0 {
		p.KeysURL = r.absolute(keysName)
	}
	for _, image := range images {
		if below(image.Name, prefix) {
			p.Images = append(p.Images, image)
		}
	}
	var out bytes.Buffer
	err := pageTemplate().Execute(&out, p)
	return out.Bytes(), err
}

func below(name, prefix string) bool { return strings.HasPrefix(name+"/", prefix+"/") }

// absolute is the whole URL of a file.
func (r *Repository) absolute(file string) string {
	if r.URL == "" {
		host, _, _ := strings.Cut(r.Prefix, "/")
		return "https://" + host + "/" + file
	}
	return r.URL + "/" + file
}

func pageHref(prefix string) string {
	_, rest, _ := strings.Cut(prefix, "/")
	return "/" + rest
}

func crumbs(prefix string) []crumb {
	var all []crumb
	parts := strings.Split(prefix, "/")
	for i, part := range parts {
		all = append(all, crumb{part, pageHref(strings.Join(parts[:i+1], "/"))})
	}
	return all
}

// pageImages groups what is published by name.
func (r *Repository) pageImages(idx index) []pageImage {
	var all []pageImage
	for _, e := range idx.Images {
		if len(all) == 0 || all[len(all)-1].Name != e.Name {
			all = append(all, pageImage{e.Name, pageHref(e.Name), e.Description, e.Version, nil})
		}
		image := &all[len(all)-1]
		// From the root of the host, so that a page can be looked at elsewhere.
		href := r.URL + "/" + e.File
		image.Versions = append(image.Versions, pageVersion{e, href, needs(idx, e.Dependencies, map[string]bool{e.File: true})})
	}
	return all
}

// needs is the tree of dependencies as far as this repository has them. seen are the
// files of the images above.
func needs(idx index, dependencies []Dependency, seen map[string]bool) []node {
	var all []node
	for _, d := range dependencies {
		e := idx.find(d)
		if e == nil {
			all = append(all, node{Text: d.title()})
			continue
		}
		n := node{Text: e.Name + ":" + e.Version, Href: pageHref(e.Name)}
		if !seen[e.File] {
			above := maps.Clone(seen)
			above[e.File] = true
			n.Needs = needs(idx, e.Dependencies, above)
		}
		all = append(all, n)
	}
	return all
}

// find gives the newest image that a dependency can mean.
func (idx *index) find(d Dependency) *Entry {
	i := slices.IndexFunc(idx.Images, func(e Entry) bool { return d.matches(e) })
	if i < 0 {
		return nil
	}
	return &idx.Images[i]
}

func (d Dependency) matches(e Entry) bool {
	for name, value := range d.Labels {
		if e.Labels[name] != value {
			return false
		}
	}
	return e.Name == d.Name && (d.ID == "" || d.ID == e.ID)
}

func (d Dependency) title() string {
	if version := d.Labels["version"]; version != "" {
		return d.Name + ":" + version
	}
	return d.Name
}

// group writes a fingerprint as people compare it.
func group(fingerprint string) string {
	var parts []string
	for chunk := range slices.Chunk([]byte(strings.ToUpper(fingerprint)), 4) {
		parts = append(parts, string(chunk))
	}
	return strings.Join(parts, " ")
}
