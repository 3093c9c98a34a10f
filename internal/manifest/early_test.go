package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/appc/spec/schema"
)

// as gives a document another acVersion.
func as(version, doc string) string { return strings.Replace(doc, "0.8.11", version, 1) }

func dependency(fields string) string { return image(`"dependencies":[{` + fields + `}]`) }

func mount(fields string) string { return pod(`"mounts":[{`+fields+`}]`, "") }

// early is what a document of an early version means: the present document that
// is read as the same, and the warnings about the difference.
type early struct {
	name, old, present string
	warnings           []string
}

var earlyImages = []early{
	{"dependency", as("0.5.2", dependency(`"app":"a/b"`)), as("0.5.2", dependency(`"imageName":"a/b"`)),
		[]string{"dependencies[0].app is read as imageName, its name since 0.6.0"}},
	{"two dependencies", as("0.5.1", image(`"dependencies":[{"app":"a"},{"app":"b"}]`)), as("0.5.1", image(`"dependencies":[{"imageName":"a"},{"imageName":"b"}]`)),
		[]string{"dependencies[0].app is read as imageName, its name since 0.6.0", "dependencies[1].app is read as imageName, its name since 0.6.0"}},
	{"both names", as("0.5.2+git", dependency(`"imageName":"a","app":"a"`)), as("0.5.2+git", dependency(`"imageName":"a"`)),
		[]string{"dependencies[0].app is read as imageName, its name since 0.6.0"}},
	{"pre-release", as("0.6.0-dev", dependency(`"app":"a"`)), as("0.6.0-dev", dependency(`"imageName":"a"`)),
		[]string{"dependencies[0].app is read as imageName, its name since 0.6.0"}},
	{"present name", as("0.5.2", dependency(`"imageName":"a"`)), as("0.5.2", dependency(`"imageName":"a"`)), nil},
	{"dependency of 0.1", as("0.1.1", dependency(`"name":"a","hash":"`+goodID+`"`)), as("0.1.1", dependency(`"imageName":"a","imageID":"`+goodID+`"`)),
		[]string{"dependencies[0].hash is read as imageID, its name since 0.2.0", "dependencies[0].name is read as imageName, its name since 0.2.0"}},
	{"label of 0.1", as("0.1.0", image(`"labels":[{"name":"version","val":"1.0"}]`)), as("0.1.0", image(`"labels":[{"name":"version","value":"1.0"}]`)),
		[]string{"labels[0].val is read as value, its name since 0.2.0"}},
	{"dependency's label of 0.1", as("0.1.0", dependency(`"app":"a","labels":[{"name":"os","val":"linux"}]`)), as("0.1.0", dependency(`"imageName":"a","labels":[{"name":"os","value":"linux"}]`)),
		[]string{"dependencies[0].app is read as imageName, its name since 0.6.0", "dependencies[0].labels[0].val is read as value, its name since 0.2.0"}},
	{"isolator of 0.1", as("0.1.1", isolators(`{"name":"private-network","val":"true"}`)), as("0.1.1", isolators(`{"name":"private-network","value":"true"}`)),
		[]string{"app.isolators[0].val is read as value, its name since 0.2.0"}},
	{"capabilities", as("0.5.1", isolators(isolator(revokeSet, `{"set":["CAP_KILL"]}`))), as("0.5.1", isolators(isolator("os/linux/capabilities-remove-set", `{"set":["CAP_KILL"]}`))),
		[]string{"app.isolators[0]: os/linux/capabilities-revoke-set is read as os/linux/capabilities-remove-set, its name since 0.5.2"}},
	{"capabilities of 0.5.2", as("0.5.2", isolators(isolator(revokeSet, `{}`))), as("0.5.2", isolators(isolator(revokeSet, `{}`))), nil},
	{"cpu", as("0.6.1", isolators(isolator("resource/cpu", `{"limit":"500","request":250}`))), as("0.6.1", isolators(isolator("resource/cpu", `{"limit":"500m","request":"250m"}`))),
		[]string{"app.isolators[0].value.limit is read as 500m, the unit before 0.7.0", "app.isolators[0].value.request is read as 250m, the unit before 0.7.0"}},
	{"cpu with suffix", as("0.6.1", isolators(isolator("resource/cpu", `{"limit":"500m"}`))), as("0.6.1", isolators(isolator("resource/cpu", `{"limit":"500m"}`))), nil},
	{"memory", as("0.6.1", isolators(isolator("resource/memory", `{"limit":"500"}`))), as("0.6.1", isolators(isolator("resource/memory", `{"limit":"500"}`))), nil},
	{"cpu of 0.7", as("0.7.0", isolators(isolator("resource/cpu", `{"limit":"500"}`))), as("0.7.0", isolators(isolator("resource/cpu", `{"limit":"500"}`))), nil},
}

var earlyPods = []early{
	{"mount point", as("0.5.2", mount(`"volume":"v","mountPoint":"db"`)), as("0.5.2", mount(`"volume":"v","path":"db"`)),
		[]string{"apps[0].mounts[0].mountPoint is read as path, its name since 0.7.0"}},
	{"mount point of 0.6", as("0.6.1", mount(`"volume":"v","mountPoint":"db"`)), as("0.6.1", mount(`"volume":"v","path":"db"`)),
		[]string{"apps[0].mounts[0].mountPoint is read as path, its name since 0.7.0"}},
	{"both names", as("0.6.1+git", mount(`"volume":"v","path":"db","mountPoint":"db"`)), as("0.6.1+git", mount(`"volume":"v","path":"db"`)),
		[]string{"apps[0].mounts[0].mountPoint is read as path, its name since 0.7.0"}},
	{"UUID of 0.5.0", as("0.5.0", pod("", `"uuid":"6733C088-A507-4694-AABF-EDBE4FC5266F"`)), as("0.5.0", pod("", "")),
		[]string{"unknown field uuid is ignored"}},
	{"image label", as("0.1.1", podImage(`"name":"a","labels":[{"name":"version","val":"1"}]`)), as("0.1.1", podImage(`"name":"a","labels":[{"name":"version","value":"1"}]`)),
		[]string{"apps[0].image.labels[0].val is read as value, its name since 0.2.0"}},
	{"isolator of the pod", as("0.5.1", pod("", `"isolators":[{"name":"resource/cpu","value":{"limit":"1.5"}}]`)), as("0.5.1", pod("", `"isolators":[{"name":"resource/cpu","value":{"limit":"1.5m"}}]`)),
		[]string{"isolators[0].value.limit is read as 1.5m, the unit before 0.7.0"}},
}

func TestEarly(t *testing.T) {
	for _, tt := range earlyImages {
		t.Run("image/"+tt.name, func(t *testing.T) { checkEarly(t, tt, ParseImage, MarshalImage) })
	}
	for _, tt := range earlyPods {
		marshal := MarshalPod
		if !strings.Contains(tt.old, goodID) {
			marshal = nil
		}
		t.Run("pod/"+tt.name, func(t *testing.T) { checkEarly(t, tt, ParsePod, marshal) })
	}
}

// checkEarly also writes what it read, if marshal is given: that is present.
func checkEarly[M schema.ImageManifest | schema.PodManifest](t *testing.T, tt early, parse func([]byte) (*M, []string, error), marshal func(*M) ([]byte, error)) {
	m, warnings, err := parse([]byte(tt.old))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(warnings, tt.warnings) {
		t.Errorf("warnings %q, want %q", warnings, tt.warnings)
	}
	want, warnings, err := parse([]byte(tt.present))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got  %+v\nwant %+v", m, want)
	}
	if marshal == nil {
		return
	}
	data, err := marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	again, warnings, err := parse(data)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if twice, err := marshal(again); err != nil || !bytes.Equal(data, twice) {
		t.Errorf("%v\nwritten %s\nagain   %s", err, data, twice)
	}
}

func TestEarlyRefuses(t *testing.T) {
	image := func(b []byte) error { _, _, err := ParseImage(b); return err }
	pod := func(b []byte) error { _, _, err := ParsePod(b); return err }
	for _, tt := range []struct {
		name, doc string
		parse     func([]byte) error
		want      string
	}{
		{"two dependencies in one", as("0.5.2", dependency(`"app":"a","imageName":"b"`)), image, "dependencies[0]: app and imageName, its name since 0.6.0, differ"},
		{"two old names", as("0.1.1", dependency(`"app":"a","name":"b"`)), image, "dependencies[0]: app and imageName"},
		{"two mount points in one", as("0.5.2", mount(`"volume":"v","mountPoint":"a","path":"/a"`)), pod, "apps[0].mounts[0]: mountPoint and path, its name since 0.7.0, differ"},
		{"dependency of 0.6", as("0.6.0", dependency(`"app":"a"`)), image, "imageName"},
		{"mount point of 0.7", as("0.7.0", mount(`"volume":"v","mountPoint":"a"`)), pod, "apps[0].mounts[0].path: not absolute"},
		{"old name twice", as("0.5.2", dependency(`"app":"a","app":"a"`)), image, "dependencies[0].app: duplicate key"},
		{"old name no name", as("0.5.2", dependency(`"app":"a//b"`)), image, "dependencies[0].imageName: not an AC Identifier"},
		{"mount point no name", as("0.5.2", mount(`"volume":"v","mountPoint":"a/b"`)), pod, "apps[0].mounts[0].path: not absolute"},
		{"annotations of 0.1", as("0.1.1", strings.Replace(fullPod, `"annotations":[`, `"annotations":{},"x":[`, 1)), pod, "annotations: an object, not a list"},
		{"version repeated", strings.Replace(as("0.5.2", dependency(`"app":"a"`)), "{", `{"acVersion":"0.8.11",`, 1), image, "acVersion: duplicate key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.parse([]byte(tt.doc)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want ErrInvalid with %q", err, tt.want)
			}
		})
	}
}

// Every object of the schemas, with a key that it does not have.
func TestUnknownFields(t *testing.T) {
	const all = `"exec":[],"user":"0","group":"0","x":1,"userLabels":{"x":"","X":""},"userAnnotations":{"x":""},
		"eventHandlers":[{"name":"pre-start","exec":["/a"],"x":1}],"environment":[{"name":"A","value":"","x":1}],
		"mountPoints":[{"name":"a","path":"/a","x":1}],"ports":[{"name":"a","protocol":"tcp","port":1,"x":1}],
		"isolators":[{"name":"example.com/x","value":{"x":{"x":1}},"x":1}]`
	inApp := func(where string) []string {
		var paths []string
		for _, p := range []string{"x", "eventHandlers[0].x", "environment[0].x", "mountPoints[0].x", "ports[0].x", "isolators[0].x"} {
			paths = append(paths, where+p)
		}
		return paths
	}
	for _, tt := range []struct {
		name, doc string
		parse     func([]byte) ([]string, error)
		want      []string
	}{
		{"image", image(`"x":{"y":1},"labels":[{"name":"a","value":"","x":1}],"app":{` + all + `},"annotations":[{"name":"a","value":"","x":1}],
			"dependencies":[{"imageName":"a","x":1,"labels":[{"name":"a","value":"","x":1}]}]`),
			func(b []byte) ([]string, error) { _, w, err := ParseImage(b); return w, err },
			append([]string{"x", "labels[0].x", "annotations[0].x", "dependencies[0].x", "dependencies[0].labels[0].x"}, inApp("app.")...)},
		{"pod", strings.Replace(pod(`"x":1,"app":{`+all+`},"mounts":[{"volume":"a","path":"/a","x":1,"appVolume":{"name":"a","kind":"empty","x":1}}],"annotations":[{"name":"a","value":"","x":1}]`,
			`"x":1,"volumes":[{"name":"a","kind":"empty","x":1}],"isolators":[{"name":"example.com/x","value":{"x":1},"x":1}],"annotations":[{"name":"a","value":"","x":1}],
			"ports":[{"name":"a","hostPort":1,"x":1,"podPort":{"name":"a","protocol":"tcp","port":1,"x":1}}],"userLabels":{"x":""},"userAnnotations":{"x":""}`),
			`"image":{`, `"image":{"x":1,"labels":[{"name":"a","value":"","x":1}],`, 1),
			func(b []byte) ([]string, error) { _, w, err := ParsePod(b); return w, err },
			append([]string{"x", "apps[0].x", "apps[0].image.x", "apps[0].image.labels[0].x", "apps[0].mounts[0].x", "apps[0].mounts[0].appVolume.x", "apps[0].annotations[0].x",
				"volumes[0].x", "isolators[0].x", "annotations[0].x", "ports[0].x", "ports[0].podPort.x"}, inApp("apps[0].app.")...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.parse([]byte(tt.doc))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, path := range tt.want {
				want = append(want, "unknown field "+path+" is ignored")
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestWarningsAreBounded(t *testing.T) {
	for n, want := range map[int]int{50: 50, 51: 51, 60000: 51} {
		_, warnings, err := ParseImage([]byte(image(`"labels":[{"name":"a","value":"",` + keys(n) + `}]`)))
		if err != nil {
			t.Fatal(err)
		}
		if len(warnings) != want {
			t.Errorf("%d unknown fields: %d warnings", n, len(warnings))
		}
		if last := warnings[len(warnings)-1]; (last == "further warnings are left out") != (n > 50) {
			t.Errorf("%d unknown fields: the last warning is %q", n, last)
		}
	}
	old := as("0.1.1", image(`"labels":[`+strings.TrimSuffix(labels(60), ",")+`]`))
	if _, warnings, err := ParseImage([]byte(old)); err != nil || len(warnings) != 51 {
		t.Errorf("%d warnings, %v", len(warnings), err)
	}
}

func labels(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"name":"l%d","val":""},`, i)
	}
	return b.String()
}

func TestKind(t *testing.T) {
	for _, tt := range []struct{ name, doc, want string }{
		{"image", image(""), "ImageManifest"},
		{"pod", pod("", ""), "PodManifest"},
		{"kind alone", `{"acKind":"PodManifest"}`, "PodManifest"},
		{"invalid pod", `{"apps":7,"acKind":"PodManifest","acKinds":1}`, "PodManifest"},
		{"other kind", `{"acKind":"ContainerRuntimeManifest"}`, ""},
		{"no kind", `{}`, ""},
		{"kind a number", `{"acKind":1}`, ""},
		{"kind null", `{"acKind":null}`, ""},
		{"list", `[{"acKind":"PodManifest"}]`, ""},
		{"truncated", image("")[:40], ""},
		{"nothing", "", ""},
		{"binary", "\x1f\x8b\x00", ""},
		{"deep", nested(20000), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Kind([]byte(tt.doc)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzKind(f *testing.F) {
	f.Add([]byte(image("")))
	f.Add([]byte(`{"acKind":"PodManifest"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		kind := Kind(data)
		if _, _, err := ParseImage(data); err == nil && kind != "ImageManifest" {
			t.Errorf("an image of kind %q", kind)
		}
		if _, _, err := ParsePod(data); err == nil && kind != "PodManifest" {
			t.Errorf("a pod of kind %q", kind)
		}
	})
}

// checkWarnings: they are few, and lines for a terminal.
func checkWarnings(t *testing.T, warnings []string) {
	t.Helper()
	if len(warnings) > maxWarnings+1 {
		t.Fatalf("%d warnings", len(warnings))
	}
	for _, w := range warnings {
		if strings.ContainsFunc(w, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("not printable: %q", w)
		}
	}
}

// isEarly recognises the warnings of updateKeys.
func isEarly(warning string) bool { return strings.Contains(warning, " is read as ") }
