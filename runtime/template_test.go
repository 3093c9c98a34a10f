package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

func TestTemplate(t *testing.T) {
	h := newHost(t)
	h.add(t, "example.com/web", `"app":{"exec":["/bin/web","-v"],"user":"web","group":"www","workingDirectory":"/srv",`+
		`"environment":[{"name":"A","value":"1"},{"name":"B","value":"2"}],"supplementaryGIDs":[7],`+
		`"mountPoints":[{"name":"data","path":"/data"}],"eventHandlers":[{"name":"pre-start","exec":["/bin/pre"]}]}`)
	h.add(t, "example.com/data")

	// what the whole app object is when a request changes it
	const rest = `"eventHandlers":[{"name":"pre-start","exec":["/bin/pre"]}],`
	app := func(exec, user, group, dir, a, b, more string) string {
		return fmt.Sprintf(`{"exec":%s,%s"user":%q,"group":%q,"supplementaryGIDs":[7],"workingDirectory":%q,`+
			`"environment":[{"name":"A","value":%q},{"name":"B","value":%q}%s],"mountPoints":[{"name":"data","path":"/data"}]}`,
			exec, rest, user, group, dir, a, b, more)
	}
	const exec = `["/bin/web","-v"]`
	tests := []struct {
		name string
		req  AppRequest
		want string // the app object as JSON, "null" when the image's is taken
		err  error
	}{
		{"nothing asked", AppRequest{}, "null", nil},
		{"name and mounts change no app object", AppRequest{Name: "x", ReadOnly: true}, "null", nil},
		{"arguments follow the image's", AppRequest{Args: []string{"a", "b c"}},
			app(`["/bin/web","-v","a","b c"]`, "web", "www", "/srv", "1", "2", ""), nil},
		{"exec replaces", AppRequest{Exec: "sh"}, app(`["sh"]`, "web", "www", "/srv", "1", "2", ""), nil},
		{"exec with arguments", AppRequest{Exec: "sh", Args: []string{"-c", ""}},
			app(`["sh","-c",""]`, "web", "www", "/srv", "1", "2", ""), nil},
		{"user", AppRequest{User: "0"}, app(exec, "0", "www", "/srv", "1", "2", ""), nil},
		{"group", AppRequest{Group: "/srv"}, app(exec, "web", "/srv", "/srv", "1", "2", ""), nil},
		{"working directory", AppRequest{WorkDir: "/"}, app(exec, "web", "www", "/", "1", "2", ""), nil},
		{"environment", AppRequest{Env: []string{"B=x=y", "C=", "C=3"}},
			app(exec, "web", "www", "/srv", "1", "x=y", `,{"name":"C","value":"3"}`), nil},
		{"environment without value", AppRequest{Env: []string{"B"}}, "", ErrInvalid},
		{"environment without name", AppRequest{Env: []string{"=x"}}, "", ErrInvalid},
		{"bad name", AppRequest{Name: "a_b"}, "", ErrInvalid},
		{"upper case", AppRequest{Name: "A"}, "", ErrInvalid},
		{"no such image", AppRequest{Image: "example.com/none"}, "", image.ErrNotFound},
		{"malformed image", AppRequest{Image: "a b"}, "", manifest.ErrBadRef},
		{"arguments for nothing", AppRequest{Image: "example.com/data", Args: []string{"a"}}, "", ErrInvalid},
		{"command for an image without app", AppRequest{Image: "example.com/data", Exec: "/bin/probe"},
			`{"exec":["/bin/probe"],"user":"0","group":"0"}`, nil},
	}
	before := imageApp(t, h)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.req.Image = first(tt.req.Image, "example.com/web")
			m, err := h.Template(t.Context(), []AppRequest{tt.req}, nil)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			got, err := json.Marshal(m.Apps[0].App)
			if err != nil || string(got) != tt.want {
				t.Errorf("got  %s, %v\nwant %s", got, err, tt.want)
			}
			if m.Apps[0].ReadOnlyRootFS != tt.req.ReadOnly {
				t.Error("read-only root is not as asked")
			}
		})
	}
	if after := imageApp(t, h); after != before {
		t.Errorf("the image's app has changed: %s, was %s", after, before)
	}
}

func imageApp(t *testing.T, h *host) string {
	t.Helper()
	img, err := h.images.Find(t.Context(), "example.com/web")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(img.Parsed().App)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// What the store gives is shared, and not for a template to change.
func TestTemplateLeavesImageAlone(t *testing.T) {
	h := newHost(t)
	img := h.add(t, "example.com/env", appOf(`"environment":[{"name":"A","value":"1"}]`))
	own := img.Parsed().App
	own.Exec = slices.Grow(own.Exec, 10) // appending would write behind it
	before := fmt.Sprintf("%+v", *own)
	req := AppRequest{Args: []string{"x"}, Env: []string{"A=2", "B=3"}, User: "5"}
	if _, err := req.runtimeApp(img); err != nil {
		t.Fatal(err)
	}
	if after := fmt.Sprintf("%+v", *own); after != before {
		t.Errorf("%s, was %s", after, before)
	}
	if got := own.Exec[:2][1]; got != "" {
		t.Errorf("the image's arguments were appended to: %q", got)
	}
}

func TestAppNames(t *testing.T) {
	long := strings.Repeat("x", 70)
	h := newHost(t)
	for _, name := range []string{"example.com/web", "example.com/a.b_c~d", "example.com/" + long, "123", "example.com/" + long[:62] + "-y"} {
		if types.ValidACIdentifier.MatchString(name) {
			h.add(t, name, probeApp)
		}
	}
	type request struct{ image, name string }
	tests := []struct {
		name string
		apps []request
		want []string
	}{
		{"from the image", []request{{"example.com/web", ""}}, []string{"web"}},
		{"given", []request{{"example.com/web", "x"}}, []string{"x"}},
		{"numbered", []request{{"example.com/web", ""}, {"example.com/web", ""}, {"example.com/web", ""}}, []string{"web", "web-2", "web-3"}},
		{"number taken", []request{{"example.com/web", "web-2"}, {"example.com/web", ""}, {"example.com/web", ""}}, []string{"web-2", "web", "web-3"}},
		{"given twice", []request{{"example.com/web", "x"}, {"example.com/web", "x"}}, []string{"x", "x"}}, // refused when the pod is made
		{"digits", []request{{"123", ""}}, []string{"123"}},
		{"cut", []request{{"example.com/" + long, ""}}, []string{long[:63]}},
		{"cut for a number", []request{{"example.com/" + long, ""}, {"example.com/" + long, ""}}, []string{long[:63], long[:61] + "-2"}},
		{"cut at a hyphen", []request{{"example.com/" + long[:62] + "-y", ""}}, []string{long[:62]}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var reqs []AppRequest
			for _, a := range tt.apps {
				reqs = append(reqs, AppRequest{Image: a.image, Name: a.name})
			}
			m, err := h.Template(t.Context(), reqs, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, app := range m.Apps {
				got = append(got, app.Name.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDefaultAppName(t *testing.T) {
	tests := map[string]string{
		"example.com/web":        "web",
		"web":                    "web",
		"example.com/a.b~c":      "a-b-c",
		"example.com/a--b":       "a--b",
		"example.com/":           "example-com",
		"example.com/Ünder":      "nder",
		"example.com/___":        "app",
		strings.Repeat("a/", 99): "a",
	}
	for in, want := range tests {
		t.Run(in, func(t *testing.T) {
			got := defaultAppName(in)
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A template of what images of all kinds are named can be reified.
func TestTemplateIsReifiable(t *testing.T) {
	h := newHost(t)
	h.add(t, "example.com/isolated", appOf(`"isolators":[{"name":"example/unknown","value":1}]`))
	m, err := h.Template(t.Context(), []AppRequest{{Image: "example.com/isolated", Args: []string{"args"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Reify(t.Context(), m, noNetwork, false); err != nil {
		t.Error("arguments turn the image's isolator into the operator's:", err)
	}
}
