package oci

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/internal/manifest"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

const someDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseLocation(t *testing.T) {
	for _, tt := range []struct{ in, full, ref string }{
		{"docker://debian", "docker://index.docker.io/library/debian:latest", "index.docker.io/library/debian:latest"},
		{"docker://debian:12", "docker://index.docker.io/library/debian:12", "index.docker.io/library/debian:12"},
		{"docker://Reg.example.com:5000/my_app/x--y:V_1", "docker://Reg.example.com:5000/my_app/x--y:V_1", "reg.example.com~3a5000/my~5fapp/x~2d-y:V_1"},
		{"docker://localhost:5000/a:1@" + someDigest, "docker://localhost:5000/a:1@" + someDigest, "localhost~3a5000/a:1"},
		{"docker://localhost:5000/a@" + someDigest, "docker://localhost:5000/a@" + someDigest, "localhost~3a5000/a"},
		{"oci:/a/b_c", "oci:/a/b_c", "b~5fc"},
		{"oci:/a/b:1", "oci:/a/b:1", "b:1"},
		{"oci:/a/b@" + someDigest, "oci:/a/b@" + someDigest, "b"},
		{"oci-archive:/a/b.oci.tar:v1", "oci-archive:/a/b.oci.tar:v1", "b:v1"},
		{"docker-archive:/a/b.tar:x/y:2", "docker-archive:/a/b.tar:x/y:2", "b:x-y-2"},
	} {
		l, err := ParseLocation(tt.in, false)
		if err != nil || l.String() != tt.full || l.Ref().String() != tt.ref {
			t.Errorf("%s: %s, %s, %v", tt.in, l, l.Ref(), err)
		}
		if _, err := manifest.ParseRef(l.Ref().String()); err != nil {
			t.Errorf("%s: %v", tt.in, err)
		}
		if again, err := ParseLocation(l.String(), false); err != nil || again.String() != tt.full {
			t.Errorf("%s: then %s, %v", tt.in, again, err)
		}
	}
	for _, bad := range []string{"docker://", "docker://a b", "docker://UPPER", "docker://a@sha256:12", "docker://a@" + strings.ToUpper(someDigest), "oci:", "oci-archive::1"} {
		if l, err := ParseLocation(bad, false); err == nil {
			t.Errorf("%s: %s", bad, l)
		}
	}
	for _, other := range []string{"example.com/a", "ocix:1", "/oci:", "https://example.com/a.aci", "-"} {
		if IsLocation(other) {
			t.Error(other)
		}
	}
}

func TestNamed(t *testing.T) {
	for _, tt := range []struct{ location, inside, want string }{
		{"oci:/d/l", "", "l"},
		{"oci:/d/l", "1", "l:1"},
		{"oci:/d/l:2", "1", "l:2"},
		{"oci:/d/l", "docker.io/library/debian:12", "index.docker.io/library/debian:12"},
		{"oci:/d/l", "localhost/web:1", "localhost/web:1"},
		{"docker-archive:/d/l.tar", "quay.io/a/b:1", "quay.io/a/b:1"},
		{"oci:/d/l", "not: a reference", "l"},
		{"docker://a.example/b:1", "other/x:2", "a.example/b:1"},
	} {
		l, err := ParseLocation(tt.location, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.named(tt.inside).String(); got != tt.want {
			t.Errorf("%s %q: %s, want %s", tt.location, tt.inside, got, tt.want)
		}
	}
}

// Whatever a name is, what is written is an AC Identifier, and no two names of images in
// registries are the same.
func FuzzIdentifier(f *testing.F) {
	for _, s := range []string{"", "a", "-", "a--b", "a__b", "A/b", "~", "a~5fb", "é", "a.", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ref, err := manifest.ParseRef(identifier(s)); err != nil || ref.Name != identifier(s) {
			t.Errorf("%q: %q, %v", s, identifier(s), err)
		}
	})
}

func TestParseDocument(t *testing.T) {
	const (
		index  = `"manifests":[]`
		image  = `"config":{},"layers":[]`
		schema = `"schemaVersion":2`
	)
	for _, tt := range []struct {
		name, raw string
		called    types.MediaType
		err       error
	}{
		{"index", `{` + schema + `,` + index + `}`, types.OCIImageIndex, nil},
		{"manifest", `{` + schema + `,` + image + `}`, types.DockerManifestSchema2, nil},
		{"unnamed", `{` + schema + `,` + image + `}`, "", nil},
		{"both", `{` + schema + `,` + index + `,` + image + `}`, "", ErrFormat},
		{"index with layers", `{` + schema + `,` + index + `,"layers":[]}`, types.OCIImageIndex, ErrFormat},
		{"neither", `{` + schema + `}`, "", ErrFormat},
		{"index called a manifest", `{` + schema + `,` + index + `}`, types.OCIManifestSchema1, ErrFormat},
		{"manifest called an index", `{` + schema + `,` + image + `}`, types.DockerManifestList, ErrFormat},
		{"manifest calling itself an index", `{` + schema + `,"mediaType":"` + string(types.OCIImageIndex) + `",` + image + `}`, types.OCIManifestSchema1, ErrFormat},
		{"key twice", `{` + schema + `,` + image + `,"layers":[]}`, "", ErrFormat},
		{"key in another case", `{` + schema + `,` + image + `,"Layers":[]}`, "", ErrFormat},
		{"two documents", `{` + schema + `,` + image + `}{}`, "", ErrFormat},
		{"list", `[]`, "", ErrFormat},
		{"deep", `{` + schema + `,` + image + `,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "", ErrFormat},
		{"schema 1", `{"schemaVersion":1,"fsLayers":[],"history":[]}`, types.DockerManifestSchema1, ErrUnsupported},
		{"no version", `{` + image + `}`, "", ErrFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseDocument([]byte(tt.raw), tt.called); !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	index := func(platforms ...string) *v1.IndexManifest {
		m := new(v1.IndexManifest)
		for _, s := range platforms {
			s, version, _ := strings.Cut(s, ":")
			p, err := ParsePlatform(s)
			if err != nil {
				t.Fatal(err)
			}
			p.OSVersion = version
			m.Manifests = append(m.Manifests, v1.Descriptor{MediaType: types.OCIManifestSchema1, Platform: &p})
		}
		return m
	}
	freebsd := HostPlatforms("freebsd", "amd64", "14.3-RELEASE")
	for _, tt := range []struct {
		name      string
		index     *v1.IndexManifest
		platforms []v1.Platform
		want      string
	}{
		{"the host's", index("linux/arm64/v8", "linux/amd64"), HostPlatforms("linux", "amd64", "6.1"), "linux/amd64"},
		{"a usual variant", index("linux/amd64", "linux/arm64/v8"), HostPlatforms("linux", "arm64", ""), "linux/arm64/v8"},
		{"not a special variant", index("linux/amd64/v3", "linux/amd64"), HostPlatforms("linux", "amd64", ""), "linux/amd64"},
		{"the best variant", index("linux/arm/v5", "linux/arm/v7", "linux/arm/v6"), HostPlatforms("linux", "arm", ""), "linux/arm/v7"},
		{"attestations are none", index("unknown/unknown", "linux/amd64"), HostPlatforms("linux", "amd64", ""), "linux/amd64"},
		{"FreeBSD first", index("linux/amd64", "freebsd/amd64:14.2"), freebsd, "freebsd/amd64:14.2"},
		{"FreeBSD takes Linux", index("linux/amd64", "freebsd/arm64"), freebsd, "linux/amd64"},
		{"the newest that runs", index("freebsd/amd64:13.4", "freebsd/amd64:15.0", "freebsd/amd64:14.3", "freebsd/amd64:14.1"), freebsd, "freebsd/amd64:14.3"},
		{"none", index("linux/arm64", "windows/amd64"), HostPlatforms("linux", "amd64", ""), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := choose(tt.index, tt.platforms)
			if tt.want == "" {
				if !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "linux/arm64, windows/amd64") {
					t.Error(err)
				}
				return
			}
			if err != nil || d.Platform.String() != tt.want {
				t.Errorf("%v, %v", d.Platform, err)
			}
		})
	}
}

// What a configuration becomes, with the words of both systems.
func TestAppcManifest(t *testing.T) {
	for _, tt := range []struct{ name, config, want string }{
		{
			"all", `{"os":"linux","architecture":"386","author":"me","created":"2020-01-02T03:04:05.6Z",
			"config":{"User":"www:web","Env":["A=b=c","EMPTY=","no","1X=y"],"Entrypoint":["/e"],"Cmd":["c","d"],"WorkingDir":"w",
			"Volumes":{"/var/lib/x":{},"/var/lib-x":{},"relative":{},"/":{}},"ExposedPorts":{"80":{},"53/udp":{},"8000-8010/tcp":{},"1/sctp":{}},
			"Labels":{"org.x":"1","My_Key":"2","jetpack/stop-signal":"SIGKILL","created":"yesterday"},
			"StopSignal":"SIGQUIT","Healthcheck":{"Test":["CMD","x"],"Interval":5}}}`,
			`{"acKind":"ImageManifest","acVersion":"0.8.11","name":"n","labels":[{"name":"version","value":"1"},{"name":"os","value":"linux"},{"name":"arch","value":"i386"}],` +
				`"app":{"exec":["/e","c","d"],"user":"www","group":"web","workingDirectory":"/w","environment":[{"name":"A","value":"b=c"},{"name":"EMPTY","value":""}],` +
				`"mountPoints":[{"name":"var-lib-x","path":"/var/lib-x"},{"name":"var-lib-x-2","path":"/var/lib/x"}],` +
				`"ports":[{"name":"53-udp","protocol":"udp","port":53,"count":1,"socketActivated":false},{"name":"80-tcp","protocol":"tcp","port":80,"count":1,"socketActivated":false},{"name":"8000-8010-tcp","protocol":"tcp","port":8000,"count":11,"socketActivated":false}]},` +
				`"annotations":[{"name":"0~4dy~5f~4bey","value":"2"},{"name":"org.x","value":"1"},{"name":"created","value":"2020-01-02T03:04:05Z"},{"name":"authors","value":"me"},{"name":"jetpack/stop-signal","value":"SIGQUIT"},{"name":"jetpack/healthcheck","value":"{\"Test\":[\"CMD\",\"x\"],\"Interval\":5}"}]}`,
		},
		{
			"FreeBSD", `{"os":"freebsd","architecture":"arm64","os.version":"14.3","config":{}}`,
			`{"acKind":"ImageManifest","acVersion":"0.8.11","name":"n","labels":[{"name":"version","value":"1"},{"name":"os","value":"freebsd"},{"name":"arch","value":"aarch64"},{"name":"os.version","value":"14.3"}],"app":{"exec":[],"user":"0","group":"0","workingDirectory":"/"}}`,
		},
		{
			"ARM", `{"os":"linux","architecture":"arm","variant":"v6","config":{"Cmd":["x"],"StopSignal":"3"}}`,
			`{"acKind":"ImageManifest","acVersion":"0.8.11","name":"n","labels":[{"name":"version","value":"1"},{"name":"os","value":"linux"},{"name":"arch","value":"armv6l"}],"app":{"exec":["x"],"user":"0","group":"0","workingDirectory":"/"},"annotations":[{"name":"jetpack/stop-signal","value":"3"}]}`,
		},
		{"no word for it", `{"os":"linux","architecture":"mips64le","config":{}}`, ""},
		{"no such ARM", `{"os":"freebsd","architecture":"arm","variant":"v9","config":{}}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := new(v1.ConfigFile)
			if err := json.Unmarshal([]byte(tt.config), c); err != nil {
				t.Fatal(err)
			}
			group, _, err := groupsOf(t.TempDir(), c)
			if err != nil {
				t.Fatal(err)
			}
			m, warnings, err := appcManifest(manifest.Ref{Name: "n", Labels: map[string]string{"version": "1"}}, c, group, nil)
			if tt.want == "" {
				if !errors.Is(err, ErrUnsupported) {
					t.Error(m, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			raw, err := manifest.MarshalImage(m)
			if err != nil || string(raw) != tt.want {
				t.Errorf("got  %s, %v\nwant %s", raw, err, tt.want)
			}
			if tt.name == "all" && len(warnings) != 6 {
				t.Errorf("warnings: %q", warnings)
			}
		})
	}
}

func TestGroups(t *testing.T) {
	root := t.TempDir()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(root+"/etc", 0o755))
	must(os.WriteFile(root+"/etc/passwd", []byte("root:x:0:0::/:\nwww:x:80:81::/:\n"), 0o644))
	must(os.WriteFile(root+"/etc/group", []byte("web:x:81:\nmore:x:90:www\nmost:x:91:root,www\n"), 0o644))
	for _, tt := range []struct {
		user, group string
		groups      []int
	}{
		{"", "0", []int{91}}, {"www", "81", []int{90, 91}}, {"80", "81", []int{90, 91}}, {"www:web", "web", nil}, {"1000", "0", nil}, {"nobody", "0", nil},
	} {
		group, groups, err := groupsOf(root, &v1.ConfigFile{Config: v1.Config{User: tt.user}})
		if err != nil || group != tt.group || !slices.Equal(groups, tt.groups) {
			t.Errorf("%q: %s, %v, %v", tt.user, group, groups, err)
		}
	}
}

// image-spec, config.md, "Layer ChainID".
func TestChainIDs(t *testing.T) {
	one := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}
	ids := chainIDs([]v1.Hash{one, one})
	if want := digestOf([]byte(one.String() + " " + one.String())); ids[0] != one.String() || ids[1] != want {
		t.Error(ids)
	}
}
