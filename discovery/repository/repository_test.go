package repository_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/jetpack-run/jetpack/discovery/repository"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/imagetest"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

var update = flag.Bool("update", false, "rewrite golden files")

var limits = layer.Limits{MaxBytes: 1 << 20, MaxEntries: 100}

// image is an archive with the labels that publishing needs.
func image(t testing.TB, name, version string, fields ...string) []byte {
	t.Helper()
	labels := fmt.Sprintf(`"labels":[{"name":"version","value":%q},{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]`, version)
	options := []acitest.Option{acitest.WithField(labels)}
	for _, field := range fields {
		options = append(options, acitest.WithField(field))
	}
	return acitest.Image(t, name, options...)
}

// signers are made once: two unprotected keys in files.
var signers = sync.OnceValues(func() ([2]repository.Signer, error) {
	var all [2]repository.Signer
	for i := range all {
		secret, _, err := repository.Keygen(fmt.Sprintf("Signer %d", i), "signer@example.com", nil)
		if err != nil {
			return all, err
		}
		f, err := os.CreateTemp("", "")
		if err != nil {
			return all, err
		}
		_, err = f.Write(secret)
		if err := errors.Join(err, f.Close()); err != nil {
			return all, err
		}
		if all[i], err = repository.KeyFile(f.Name(), nil); err != nil {
			return all, err
		}
		if err := os.Remove(f.Name()); err != nil {
			return all, err
		}
	}
	return all, nil
})

func signer(t testing.TB, i int) repository.Signer {
	t.Helper()
	all, err := signers()
	if err != nil {
		t.Fatal(err)
	}
	return all[i]
}

func create(t testing.TB, o repository.Options) (*repository.Repository, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := repository.Init(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return r, dir
}

func add(t testing.TB, r *repository.Repository, image []byte) repository.Entry {
	t.Helper()
	e, err := r.Add(t.Context(), bytes.NewReader(image), signer(t, 0), repository.AddOptions{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func ref(t testing.TB, s string) manifest.Ref {
	t.Helper()
	ref, err := manifest.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// files lists what is in a directory, the lock left out.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == ".lock" {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		all = append(all, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLayout(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options repository.Options
		want    []string
		pages   map[string][2]string // file: prefix-match and template of its meta tags
		keys    string
	}{
		{
			"at the root of the names' host",
			repository.Options{Prefix: "example.com/apps", URL: "https://example.com/"},
			[]string{
				"apps/index.html",
				"apps/web/index.html",
				"apps/web-1.0-linux-amd64.aci", "apps/web-1.0-linux-amd64.aci.asc",
				"apps/web-latest-linux-amd64.aci", "apps/web-latest-linux-amd64.aci.asc",
				"index.html", "index.json", "keys.asc",
			},
			map[string][2]string{
				"index.html":          {"example.com/apps", "https://{name}-{version}-{os}-{arch}.{ext}"},
				"apps/index.html":     {"example.com/apps", "https://{name}-{version}-{os}-{arch}.{ext}"},
				"apps/web/index.html": {"example.com/apps/web", "https://{name}-{version}-{os}-{arch}.{ext}"},
			},
			"https://example.com/keys.asc",
		},
		{
			"elsewhere",
			repository.Options{Prefix: "example.com", URL: "https://files.example.net:8443/a&b"},
			[]string{
				"apps/index.html",
				"apps/web/index.html",
				"example.com/apps/web-1.0-linux-amd64.aci", "example.com/apps/web-1.0-linux-amd64.aci.asc",
				"example.com/apps/web-latest-linux-amd64.aci", "example.com/apps/web-latest-linux-amd64.aci.asc",
				"index.html", "index.json", "keys.asc",
			},
			map[string][2]string{
				"index.html":          {"example.com", "https://files.example.net:8443/a&amp;b/{name}-{version}-{os}-{arch}.{ext}"},
				"apps/index.html":     {"example.com/apps", "https://files.example.net:8443/a&amp;b/{name}-{version}-{os}-{arch}.{ext}"},
				"apps/web/index.html": {"example.com/apps/web", "https://files.example.net:8443/a&amp;b/{name}-{version}-{os}-{arch}.{ext}"},
			},
			"https://files.example.net:8443/a&amp;b/keys.asc",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, dir := create(t, tt.options)
			bytes := image(t, "example.com/apps/web", "1.0")
			e := add(t, r, bytes)
			got := files(t, dir)
			slices.Sort(tt.want)
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("files:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			for file, want := range tt.pages {
				page := read(t, dir, file)
				for tag, content := range map[string]string{"ac-discovery": want[0] + " " + want[1], "ac-discovery-pubkeys": want[0] + " " + tt.keys} {
					m := regexp.MustCompile(`<meta name="`+tag+`" content="([^"]*)">`).FindAllStringSubmatch(page, -1)
					if len(m) != 1 || m[0][1] != content {
						t.Errorf("%s: %s is %q, want %q", file, tag, m, content)
					}
				}
			}
			if read(t, dir, e.File) != string(bytes) {
				t.Error("the image is not what was added")
			}
			served(t, dir)
		})
	}
}

func read(t testing.TB, dir, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// served checks that what the index promises is there, and that no image has a
// signature that does not verify. It gives the images of the index.
func served(t testing.TB, dir string) []repository.Entry {
	t.Helper()
	r, err := repository.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys := openpgp.EntityList{}
	for i := range 2 {
		armored, err := signer(t, i).PublicKey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		key, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(armored))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key...)
	}
	for _, e := range entries {
		read(t, dir, e.File)
	}
	for _, file := range files(t, dir) {
		if filepath.Ext(file) != ".aci" {
			continue
		}
		_, _, err := openpgp.VerifyArmoredDetachedSignature(keys, strings.NewReader(read(t, dir, file)), strings.NewReader(read(t, dir, file+".asc")), nil)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	return entries
}

// settled checks that index, files, aliases and keys say the same.
func settled(t testing.TB, dir string) []repository.Entry {
	t.Helper()
	entries := served(t, dir)
	known := map[string]bool{}
	for _, e := range entries {
		sum := sha512.Sum512([]byte(read(t, dir, e.File)))
		if e.Digest != "sha512-"+hex.EncodeToString(sum[:]) {
			t.Errorf("%s: other bytes than the index says", e.File)
		}
		known[e.File] = true
		if e.Latest {
			alias := strings.Replace(e.File, "-"+e.Version+"-", "-latest-", 1)
			known[alias] = true
			if read(t, dir, alias) != read(t, dir, e.File) || read(t, dir, alias+".asc") != read(t, dir, e.File+".asc") {
				t.Errorf("%s is not %s", alias, e.File)
			}
		}
	}
	for _, file := range files(t, dir) {
		if name := strings.TrimSuffix(file, ".asc"); strings.HasSuffix(name, ".aci") && !known[name] {
			t.Errorf("%s is left over", file)
		}
		if strings.Contains(file, "/.") || strings.HasPrefix(file, ".") {
			t.Errorf("%s is left over", file)
		}
	}
	r, err := repository.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := r.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if !slices.ContainsFunc(entries, func(e repository.Entry) bool { return e.Signer == k.Fingerprint }) {
			t.Errorf("key %s signed nothing", k.Fingerprint)
		}
	}
	return entries
}

func TestEntry(t *testing.T) {
	r, dir := create(t, repository.Options{Prefix: "example.com"})
	data := acitest.Compress(t, extract.Gzip, image(t, "example.com/web", "1.0",
		`"annotations":[{"name":"description","value":"A <b>web</b> server"}]`,
		`"dependencies":[{"imageName":"example.com/base","labels":[{"name":"version","value":"2"}]}]`))
	e := add(t, r, data)
	if e.Name != "example.com/web" || e.Version != "1.0" || e.OS != "linux" || e.Arch != "amd64" || !e.Latest ||
		e.Size != int64(len(data)) || e.Description != "A <b>web</b> server" || len(e.Dependencies) != 1 ||
		e.Dependencies[0].Labels["version"] != "2" || !strings.HasPrefix(e.ID, "sha512-") || e.ID == e.Digest || len(e.Signer) != 40 {
		t.Errorf("entry %+v", e)
	}
	var idx struct {
		Format   int
		Template string
		Keys     []repository.Key
		Images   []repository.Entry
	}
	if err := json.Unmarshal([]byte(read(t, dir, "index.json")), &idx); err != nil {
		t.Fatal(err)
	}
	if idx.Format != 1 || idx.Template != "https://{name}-{version}-{os}-{arch}.{ext}" || len(idx.Keys) != 1 || len(idx.Images) != 1 ||
		idx.Images[0].ID != e.ID || idx.Keys[0].Identities[0] != "Signer 0 <signer@example.com>" {
		t.Errorf("index %+v", idx)
	}
	if page := read(t, dir, "web/index.html"); strings.Contains(page, "<b>web") || !strings.Contains(page, "A &lt;b&gt;web") {
		t.Error("the description is not escaped")
	}
}

func TestAddRefuses(t *testing.T) {
	labels := func(version, os, arch string) string {
		return fmt.Sprintf(`"labels":[{"name":"version","value":%q},{"name":"os","value":%q},{"name":"arch","value":%q}]`, version, os, arch)
	}
	r, dir := create(t, repository.Options{Prefix: "example.com/apps"})
	add(t, r, image(t, "example.com/apps/web", "1.0"))
	add(t, r, image(t, "example.com/apps/db-1", "2"))
	before := files(t, dir)
	for _, tt := range []struct {
		name  string
		image []byte
		want  error
	}{
		{"other contents", image(t, "example.com/apps/web", "1.0", `"annotations":[{"name":"a","value":"b"}]`), repository.ErrExists},
		{"same file of another name and version", image(t, "example.com/apps/db", "1-2"), repository.ErrExists},
		{"sibling of the prefix", image(t, "example.com/appsy", "1.0"), repository.ErrName},
		{"above the prefix", image(t, "example.com", "1.0"), repository.ErrName},
		{"another host", image(t, "example.org/apps/web", "1.0"), repository.ErrName},
		{"named as a page", image(t, "example.com/apps/index.html", "1.0"), repository.ErrName},
		{"below what is named as an image", image(t, "example.com/apps/web-1.0-linux-amd64.aci/x", "1.0"), repository.ErrName},
		{"the alias's version", image(t, "example.com/apps/web", "latest"), repository.ErrName},
		{"version with a slash", image(t, "example.com/apps/web", "1/../../2"), repository.ErrName},
		{"version of dots", image(t, "example.com/apps/web", ".."), repository.ErrName},
		{"version with a variable", image(t, "example.com/apps/web", "{ext}"), repository.ErrName},
		{"no version", acitest.Image(t, "example.com/apps/web", acitest.WithField(`"labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]`)), repository.ErrName},
		{"no arch", acitest.Image(t, "example.com/apps/web", acitest.WithField(`"labels":[{"name":"version","value":"3"},{"name":"os","value":"linux"}]`)), repository.ErrName},
		{"no such arch", acitest.Image(t, "example.com/apps/web", acitest.WithField(labels("3", "linux", "x"))), manifest.ErrInvalid},
		{"no image", []byte("hello"), aci.ErrFormat},
		{"half an image", image(t, "example.com/apps/web", "1.1")[:2048], aci.ErrTruncated},
		{"too large", acitest.Image(t, "example.com/apps/web", acitest.WithField(labels("3", "linux", "amd64")), acitest.WithFile("/a", strings.Repeat("x", 2<<20))), layer.ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.Add(t.Context(), bytes.NewReader(tt.image), signer(t, 0), repository.AddOptions{Limits: limits})
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if got := files(t, dir); !slices.Equal(got, before) {
				t.Errorf("files are %q, were %q", got, before)
			}
		})
	}
}

func TestAliasIsNotTaken(t *testing.T) {
	r, dir := create(t, repository.Options{Prefix: "example.com"})
	add(t, r, image(t, "example.com/a-latest", "1"))
	// The file of a-latest:1 is that of a:latest-1, and its alias that of a:latest-latest.
	for _, version := range []string{"latest-1", "latest-latest"} {
		_, err := r.Add(t.Context(), bytes.NewReader(image(t, "example.com/a", version)), signer(t, 0), repository.AddOptions{Limits: limits, Replace: true})
		if !errors.Is(err, repository.ErrExists) {
			t.Errorf("%s: %v", version, err)
		}
	}
	settled(t, dir)
}

func TestLatestFollows(t *testing.T) {
	r, dir := create(t, repository.Options{Prefix: "example.com"})
	latest := func() string {
		t.Helper()
		var all []string
		for _, e := range settled(t, dir) {
			if e.Latest {
				all = append(all, e.Version)
			}
		}
		return strings.Join(all, " ")
	}
	for _, step := range []struct{ add, remove, want string }{
		{add: "1.9", want: "1.9"},
		{add: "1.10-rc1", want: "1.10-rc1"},
		{add: "1.10", want: "1.10"},
		{add: "1.2", want: "1.10"},
		{remove: "1.2", want: "1.10"},
		{remove: "1.10", want: "1.10-rc1"},
		{remove: "1.10-rc1", want: "1.9"},
		{remove: "1.9", want: ""},
	} {
		if step.add != "" {
			add(t, r, image(t, "example.com/web", step.add))
		} else if removed, err := r.Remove(t.Context(), ref(t, "example.com/web:"+step.remove)); err != nil || len(removed) != 1 {
			t.Fatal(removed, err)
		}
		if got := latest(); got != step.want {
			t.Errorf("after %v: latest is %q", step, got)
		}
	}
	if got, want := files(t, dir), []string{"index.html", "index.json"}; !slices.Equal(got, want) {
		t.Errorf("left: %q", got)
	}
	if _, err := r.Remove(t.Context(), ref(t, "example.com/web")); !errors.Is(err, repository.ErrNotFound) {
		t.Errorf("removed nothing: %v", err)
	}
}

func TestAddAgain(t *testing.T) {
	r, dir := create(t, repository.Options{Prefix: "example.com"})
	data := image(t, "example.com/web", "1.0")
	first := add(t, r, data)
	state := read(t, dir, "index.json") + read(t, dir, first.File+".asc")
	if again := add(t, r, data); again.Published != first.Published {
		t.Errorf("%+v, then %+v", first, again)
	}
	if read(t, dir, "index.json")+read(t, dir, first.File+".asc") != state {
		t.Error("the same bytes changed something")
	}
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"signed anew", data},
		{"other contents", image(t, "example.com/web", "1.0", `"annotations":[{"name":"a","value":"b"}]`)},
	} {
		e, err := r.Add(t.Context(), bytes.NewReader(tt.data), signer(t, 1), repository.AddOptions{Limits: limits, Replace: true})
		if err != nil {
			t.Fatal(err)
		}
		if e.Signer == first.Signer || read(t, dir, e.File) != string(tt.data) {
			t.Errorf("%s: %+v", tt.name, e)
		}
		if got := settled(t, dir); len(got) != 1 {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

func TestInit(t *testing.T) {
	for _, tt := range []struct {
		name, prefix, url string
	}{
		{"no host", "web", ""},
		{"not a name", "Example.com", ""},
		{"with a version", "example.com/web:1", ""},
		{"empty", "", ""},
		{"http", "example.com", "http://example.com"},
		{"password", "example.com", "https://a:b@example.com"},
		{"query", "example.com", "https://example.com/?a=b"},
		{"variable", "example.com", "https://{name}/"},
		{"no URL", "example.com", "example.com/a"},
		{"named as a file", "example.com/a.aci", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := repository.Init(dir, repository.Options{Prefix: tt.prefix, URL: tt.url}); err == nil {
				t.Error("no error")
			}
			if left := files(t, dir); len(left) > 0 {
				t.Errorf("left %q", left)
			}
		})
	}
	t.Run("mends pages and aliases", func(t *testing.T) {
		r, dir := create(t, repository.Options{Prefix: "example.com"})
		add(t, r, image(t, "example.com/web", "1.0"))
		for _, file := range []string{"web/index.html", "keys.asc", "web-latest-linux-amd64.aci"} {
			if err := os.Remove(filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := repository.Init(dir, r.Options); err != nil {
			t.Fatal(err)
		}
		settled(t, dir)
		alias := filepath.Join(dir, "web-latest-linux-amd64.aci")
		if err := errors.Join(os.Remove(alias), os.WriteFile(alias, []byte("other"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := repository.Init(dir, r.Options); err != nil {
			t.Fatal(err)
		}
		settled(t, dir)
		read(t, dir, "web/index.html")
		read(t, dir, "keys.asc")
		if _, err := repository.Init(dir, repository.Options{Prefix: "example.org"}); err == nil {
			t.Error("the prefix changed")
		}
	})
	t.Run("somebody's page", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := repository.Init(dir, repository.Options{Prefix: "example.com"}); err == nil || read(t, dir, "index.html") != "precious" {
			t.Error(err)
		}
		if got := files(t, dir); len(got) != 1 {
			t.Errorf("left %q", got)
		}
	})
	t.Run("open none", func(t *testing.T) {
		if _, err := repository.Open(t.TempDir()); !errors.Is(err, repository.ErrNone) {
			t.Error(err)
		}
	})
}

// Whatever step of a change fails, and however, no signature that is served is wrong,
// and the change can be made again.
func TestInterrupted(t *testing.T) {
	one, two := image(t, "example.com/web", "1.0"), image(t, "example.com/web", "2.0")
	other := image(t, "example.com/web", "1.0", `"annotations":[{"name":"a","value":"b"}]`)
	change := func(data []byte, key int, replace bool) func(*repository.Repository) error {
		return func(r *repository.Repository) error {
			_, err := r.Add(t.Context(), bytes.NewReader(data), signer(t, key), repository.AddOptions{Limits: limits, Replace: replace})
			return err
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*repository.Repository) error
		keeps  string // a version that is listed and served all the time
		after  int    // images
	}{
		{"new version", change(two, 0, false), "1.0", 3},
		{"new version by another key", change(two, 1, false), "1.0", 3},
		{"replaced", change(other, 0, true), "0.1", 2},
		{"signed anew", change(one, 1, true), "1.0", 2},
		{"removed", func(r *repository.Repository) error {
			_, err := r.Remove(t.Context(), ref(t, "example.com/web:1.0"))
			return err
		}, "0.1", 1},
	} {
		for _, mode := range []imagetest.Mode{imagetest.Before, imagetest.After, imagetest.Onwards} {
			t.Run(tt.name+"/"+string(mode), func(t *testing.T) {
				for k := 1; ; k++ {
					r, dir := create(t, repository.Options{Prefix: "example.com"})
					add(t, r, image(t, "example.com/web", "0.1"))
					add(t, r, one)
					var faults imagetest.Faults
					r.SetPoints(&faults)
					faults.Arm(mode, k)
					err := tt.change(r)
					failed := faults.Disarm()
					if failed == "" {
						if err != nil || k < 4 {
							t.Fatalf("%d steps, %v", k-1, err)
						}
						return
					}
					if !errors.Is(err, imagetest.ErrFault) {
						t.Fatalf("step %d, %s: %v", k, failed, err)
					}
					if tt.name != "removed" {
						entries := served(t, dir)
						if !slices.ContainsFunc(entries, func(e repository.Entry) bool { return e.Version == tt.keeps }) {
							t.Errorf("step %d, %s: lost %s: %v", k, failed, tt.keeps, entries)
						}
						read(t, dir, "web-latest-linux-amd64.aci")
					}
					// As a process that was killed leaves it.
					if err := os.WriteFile(filepath.Join(dir, ".add-1"), nil, 0o600); err != nil {
						t.Fatal(err)
					}
					// After the very last step there is nothing left to remove.
					if err := tt.change(r); err != nil && !errors.Is(err, repository.ErrNotFound) {
						t.Fatalf("step %d, %s: again: %v", k, failed, err)
					}
					if got := settled(t, dir); len(got) != tt.after {
						t.Errorf("step %d, %s: then %d images", k, failed, len(got))
					}
				}
			})
		}
	}
}

// A signer of which a client would refuse the signature publishes nothing.
func TestWrongSigner(t *testing.T) {
	r, dir := create(t, repository.Options{Prefix: "example.com"})
	before := files(t, dir)
	for name, s := range map[string]repository.Signer{
		"another's public key": mixed{sign: signer(t, 0), key: signer(t, 1)},
		"no signature":         mixed{key: signer(t, 0)},
	} {
		_, err := r.Add(t.Context(), bytes.NewReader(image(t, "example.com/web", "1")), s, repository.AddOptions{Limits: limits})
		if err == nil || !slices.Equal(files(t, dir), before) {
			t.Errorf("%s: %v, %q", name, err, files(t, dir))
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	_, dir := create(t, repository.Options{Prefix: "example.com"})
	signer(t, 0)
	var wg sync.WaitGroup
	for i := range 8 {
		data := image(t, "example.com/web", fmt.Sprintf("1.%d", i))
		wg.Go(func() {
			r, err := repository.Open(dir)
			if err == nil {
				_, err = r.Add(t.Context(), bytes.NewReader(data), signer(t, 0), repository.AddOptions{Limits: limits})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := settled(t, dir); len(got) != 8 || got[0].Version != "1.7" {
		t.Errorf("%+v", got)
	}
}

// The page of one image, with what differs from run to run replaced.
func TestPage(t *testing.T) {
	r, dir := create(t, repository.Options{Prefix: "example.com"})
	add(t, r, image(t, "example.com/base", "2.0", `"dependencies":[{"imageName":"example.org/libc"}]`))
	e := add(t, r, image(t, "example.com/web", "1.0", `"dependencies":[{"imageName":"example.com/base"}]`))
	page := read(t, dir, "web/index.html")
	for _, drop := range []string{`(?s)<style>.*</style>`, `(?s)<script>.*</script>`} {
		page = regexp.MustCompile(drop).ReplaceAllString(page, "")
	}
	page = strings.NewReplacer(e.ID, "ID", strings.TrimPrefix(e.Digest, "sha512-"), "DIGEST").Replace(page)
	page = regexp.MustCompile(`([0-9A-F]{4} ){9}[0-9A-F]{4}`).ReplaceAllString(page, "FINGERPRINT")
	page = regexp.MustCompile(`\d{4}-\d\d-\d\d(T[^"]*Z)?`).ReplaceAllString(page, "DATE")
	golden := filepath.Join("testdata", "page.html")
	if *update {
		if err := os.WriteFile(golden, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := read(t, ".", golden); page != want {
		t.Errorf("page (go test -update after looking at it):\n%s\nwant:\n%s", page, want)
	}
}

func TestDependencyCycle(t *testing.T) {
	r, dir := create(t, repository.Options{Prefix: "example.com"})
	add(t, r, image(t, "example.com/a", "1", `"dependencies":[{"imageName":"example.com/b"}]`))
	add(t, r, image(t, "example.com/b", "1", `"dependencies":[{"imageName":"example.com/a"}]`))
	if n := strings.Count(read(t, dir, "a/index.html"), `class="tree"`); n != 2 {
		t.Errorf("%d levels", n)
	}
}
