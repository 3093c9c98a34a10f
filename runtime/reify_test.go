package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"golang.org/x/tools/txtar"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

var update = flag.Bool("update", false, "write the golden files")

func appOf(more string) string {
	return `"app":{"exec":["/bin/probe"],"user":"0","group":"0",` + more + `}`
}

// addForReify makes the images that the golden files name.
func addForReify(t *testing.T, h *host) {
	t.Helper()
	h.add(t, "example.com/volumes", appOf(`"mountPoints":[{"name":"data","path":"/data"},{"name":"conf","path":"/etc/conf","readOnly":true}]`))
	h.add(t, "example.com/reader", appOf(`"mountPoints":[{"name":"data","path":"/var/data"}]`))
	h.add(t, "example.com/versions", `"labels":[{"name":"version","value":"1.9"}]`, probeApp)
	h.add(t, "example.com/versions", `"labels":[{"name":"version","value":"1.10"}]`, probeApp)
	h.add(t, "example.com/isolated", appOf(`"isolators":[{"name":"resource/memory","value":{"limit":"1G"}},{"name":"example/unknown","value":1}]`))
	h.add(t, "example.com/freebsd", `"labels":[{"name":"os","value":"freebsd"},{"name":"arch","value":"amd64"}]`, probeApp)
	h.add(t, "example.com/arm", `"labels":[{"name":"os","value":"linux"},{"name":"arch","value":"aarch64"}]`, probeApp)
	h.add(t, "example.com/data")
	h.addVolume(t, "db")
	h.add(t, "example.com/empty-exec", `"app":{"exec":[],"user":"0","group":"0"}`)
	h.add(t, "example.com/web", appOf(`"ports":[{"name":"www","protocol":"tcp","port":80}]`))
	h.add(t, "example.com/activated", appOf(`"ports":[{"name":"www","protocol":"sctp","port":80,"socketActivated":true}]`))
}

// A golden file holds a template and what becomes of it: a reified manifest or an
// error, and the notices. "-- strict --" makes it so.
func TestReifyGolden(t *testing.T) {
	h := newHost(t)
	addForReify(t, h)
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".golden"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := txtar.Parse(data)
			out := h.reifyGolden(t, in)
			if *update {
				if err := os.WriteFile(file, out, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(out, data) {
				_, got, _ := bytes.Cut(out, template(in))
				_, want, _ := bytes.Cut(data, template(in))
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// template gives the template in a golden file.
func template(a *txtar.Archive) []byte {
	for _, f := range a.Files {
		if f.Name == "template" {
			return f.Data
		}
	}
	return nil
}

func (h *host) reifyGolden(t *testing.T, in *txtar.Archive) []byte {
	t.Helper()
	out := &txtar.Archive{Comment: in.Comment}
	strict := false
	for _, f := range in.Files {
		if f.Name == "strict" || f.Name == "template" {
			out.Files = append(out.Files, f)
		}
		strict = strict || f.Name == "strict"
	}
	m, _, err := manifest.ParsePod(template(in))
	if err != nil {
		t.Fatal(err)
	}
	h.noted()
	err = h.Reify(t.Context(), m, noNetwork, strict)
	add := func(name, data string) {
		if data != "" {
			out.Files = append(out.Files, txtar.File{Name: name, Data: []byte(data + "\n")})
		}
	}
	add("notices", strings.Join(h.noted(), "\n"))
	if err != nil {
		add("error", err.Error())
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, image.ErrNotFound) && !errors.Is(err, volume.ErrNotFound) {
			t.Errorf("error %v is of no kind", err)
		}
		return txtar.Format(out)
	}
	raw, err := manifest.MarshalPod(m)
	if err != nil {
		t.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	add("reified", pretty.String())
	// What is reified stays as it is.
	if err := h.Reify(t.Context(), m, noNetwork, strict); err != nil {
		t.Error("reify again:", err)
	}
	if again, err := manifest.MarshalPod(m); err != nil || !bytes.Equal(again, raw) {
		t.Errorf("reified again: %s, %v", again, err)
	}
	return txtar.Format(out)
}

// A host volume's source is there, and is what it seems.
func TestHostVolumeSource(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	for _, d := range []string{"dir", "real/sub"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": "dir", "above": "real", "dangling": "none"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := mkfifo(filepath.Join(dir, "fifo")); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ source, message string }{
		{"dir", ""},
		{"file", ""},
		{"real/sub", ""},
		{"none", "none does not exist"},
		{"dir/none/deep", "deep does not exist"},
		{"link", "link is a symbolic link"},
		{"above/sub", "above is a symbolic link"},
		{"dangling", "dangling is a symbolic link"},
		{"fifo", "fifo is neither a directory nor a file"},
		{"file/below", "not a directory"},
		{"dir/../dir", "write it as"},
	}
	for _, appVolume := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, of the app: %v", tt.source, appVolume), func(t *testing.T) {
				m := h.probes(t, "args")
				v := types.Volume{Name: "v", Kind: "host", Source: dir + "/" + tt.source}
				mount := schema.Mount{Volume: "v", Path: "/v"}
				if appVolume {
					mount.AppVolume = &v
				} else {
					m.Volumes = []types.Volume{v}
				}
				m.Apps[0].Mounts = []schema.Mount{mount}
				err := h.Reify(t.Context(), m, noNetwork, false)
				switch {
				case tt.message == "" && err != nil:
					t.Error(err)
				case tt.message != "" && (err == nil || !strings.Contains(err.Error(), tt.message)):
					t.Errorf("error %v, want %q", err, tt.message)
				}
			})
		}
	}
}

// With its switch a pod may have symbolic links in sources.
func TestSymlinkedSource(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	if err := fillRoot(dir, map[string]string{"/real/f": "text", "/link": "-> real"}); err != nil {
		t.Fatal(err)
	}
	for value, ok := range map[string]bool{"": false, "false": false, "true": true} {
		m := h.probes(t, "read /v/f")
		m.Volumes = []types.Volume{{Name: "v", Kind: "host", Source: filepath.Join(dir, "link")}}
		m.Apps[0].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}}
		if value != "" {
			m.Annotations.Set(allowSymlinks, value)
		}
		if err := h.Reify(t.Context(), m, noNetwork, false); (err == nil) != ok {
			t.Errorf("%q: %v", value, err)
		}
		if !ok {
			continue
		}
		run, c := h.up(t, m, noNetwork)
		if info := ended(t, run); info.Status() != 0 || c.text() != "text" {
			t.Errorf("%+v, %q", info.State, c.text())
		}
	}
}

func TestValidHostname(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "web-1.example.com": true, "A": true, strings.Repeat("a", 64): true,
		"": false, "-a": false, "a-": false, "a_b": false, "a b": false, strings.Repeat("a", 65): false,
	} {
		if ValidHostname(name) != want {
			t.Errorf("%q should be %v", name, want)
		}
	}
}
