package script

import (
	"encoding/json"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/oci/ocitest"
)

// makeOCI adds an image to an image layout: see the package comment.
func makeOCI(t *testing.T, ts *testscript.TestScript, probe []byte, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: oci DIR TAG CONFIG [FIELD|,]...")
	}
	entries := []acitest.Entry{acitest.Dir("bin"), acitest.File("bin/probe", string(probe)), acitest.Dir("etc"), acitest.Dir("tmp")}
	var layers []v1.Layer
	for _, f := range args[3:] {
		path, content, isFile := strings.Cut(f, "=")
		from, to, isLink := strings.Cut(f, "->")
		switch {
		case f == ",":
			layers = append(layers, ocitest.Layer(t, entries...))
			entries = nil
		case isLink:
			entries = append(entries, acitest.Symlink(from, to))
		case isFile:
			entries = append(entries, acitest.File(path, content))
		default:
			entries = append(entries, acitest.Dir(f))
		}
	}
	layers = append(layers, ocitest.Layer(t, entries...))
	img := ocitest.Image(t, func(c *v1.ConfigFile) {
		c.OS, c.Architecture = runtime.GOOS, runtime.GOARCH
		ts.Check(json.Unmarshal([]byte(args[2]), &c.Config))
	}, layers...)
	ts.Setenv("DIGEST", ocitest.Layout(t, ts.MkAbs(args[0]), args[1], img))
}

// pushOCI pushes the image of a digest in a layout to a registry of the script's own.
func pushOCI(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: push DIR DIGEST NAME:TAG")
	}
	host := ts.Getenv("REGISTRY")
	if host == "" {
		server := httptest.NewServer(registry.New())
		ts.Defer(server.Close)
		host = strings.TrimPrefix(server.URL, "http://")
		ts.Setenv("REGISTRY", host)
	}
	p, err := layout.FromPath(filepath.Clean(ts.MkAbs(args[0])))
	ts.Check(err)
	digest, err := v1.NewHash(args[1])
	ts.Check(err)
	img, err := p.Image(digest)
	ts.Check(err)
	ref, err := name.ParseReference(host + "/" + args[2])
	ts.Check(err)
	ts.Check(remote.Write(ref, img))
}
