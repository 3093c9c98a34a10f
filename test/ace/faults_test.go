package ace

import (
	"encoding/json"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
)

// pod is the pod of the validator, as `pod prepare` says it, with what its apps are spelled out.
func (h *host) pod() *schema.PodManifest {
	h.t.Helper()
	var pod schema.PodManifest
	text := h.must("pod", "prepare", "--dry-run", "--annotation", "team=blue", imageName("main"), "---", imageName("sidekick"))
	if err := json.Unmarshal([]byte(text), &pod); err != nil {
		h.t.Fatal(err)
	}
	for i := range pod.Apps {
		var image schema.ImageManifest
		if err := json.Unmarshal([]byte(h.must("image", "manifest", pod.Apps[i].Image.ID.String())), &image); err != nil {
			h.t.Fatal(err)
		}
		pod.Apps[i].App = image.App
	}
	return &pod
}

// fault is something wrong with a pod, or with what the metadata service says, and what
// the validator says of it.
type fault struct {
	name    string
	pod     func(pod *schema.PodManifest)
	service func(answers map[string]*answer)
	want    []string
}

const mainPath = "/apps/ace-validator-main"

var faults = []fault{
	{name: "none"},
	{
		name: "nothing mounted",
		pod: func(pod *schema.PodManifest) {
			for i := range pod.Apps {
				pod.Apps[i].Mounts, pod.Apps[i].App.MountPoints = nil, nil
			}
		},
		want: []string{notMounted(), "timed out waiting for /db/sidekick", "timed out waiting for /db/main"},
	},
	{
		name: "volume read-only",
		pod: func(pod *schema.PodManifest) {
			readOnly := true
			pod.Volumes[0].ReadOnly = &readOnly
		},
		// Elsewhere the validator does not see the option itself.
		want: slices.Concat([]string{`error touching file "/db/main"`}, linuxOnly(`"/db" mounted ro=true, want false`)),
	},
	{
		name: "working directory",
		pod:  func(pod *schema.PodManifest) { pod.Apps[0].App.WorkingDirectory = "/opt" },
		want: []string{`working directory not set appropriately (need "/opt/acvalidator", got /opt)`},
	},
	{
		name: "PATH",
		pod:  func(pod *schema.PodManifest) { pod.Apps[0].App.Environment.Set("PATH", "/bin") },
		want: []string{"PATH not set appropriately"},
	},
	{
		name: "environment",
		pod:  func(pod *schema.PodManifest) { pod.Apps[0].App.Environment.Set("IN_ACE_VALIDATOR", "wrong") },
		want: []string{`environment variable "IN_ACE_VALIDATOR" not set appropriately`},
	},
	{
		name: "name of the app",
		pod:  func(pod *schema.PodManifest) { pod.Apps[0].Name = "main" },
		want: []string{`AC_APP_NAME not set appropriately (need "ace-validator-main", got "main")`},
	},
	{
		name: "no pre-start",
		pod: func(pod *schema.PodManifest) {
			pod.Apps[0].App.EventHandlers = slices.DeleteFunc(pod.Apps[0].App.EventHandlers, func(e types.EventHandler) bool { return e.Name == "pre-start" })
		},
		want: []string{`file "/prestart" does not exist as expected`},
	},
	{
		name: "no sidekick",
		pod:  func(pod *schema.PodManifest) { pod.Apps = pod.Apps[:1] },
		want: []string{"timed out waiting for /db/sidekick"},
	},
	{
		name: "no metadata service",
		pod: func(pod *schema.PodManifest) {
			env := &pod.Apps[0].App.Environment
			*env = slices.DeleteFunc(*env, func(e types.EnvironmentVariable) bool { return e.Name == "AC_METADATA_URL" })
		},
		want: []string{"AC_METADATA_URL is not set"},
	},
	{
		name:    "type with a charset",
		service: func(a map[string]*answer) { a["/pod/manifest"].kind = "application/json; charset=utf-8" },
		want: []string{
			"did not respond with expected Content-Type header.  Expected application/json, received application/json; charset=utf-8",
		},
	},
	{
		name:    "too slow",
		service: func(a map[string]*answer) { a["/pod/manifest"].delay = 150 * time.Millisecond },
		want:    []string{"Client.Timeout exceeded while awaiting headers"},
	},
	{
		name:    "not found",
		service: func(a map[string]*answer) { a[mainPath+"/image/manifest"].code = 404 },
		want:    []string{"/image/manifest failed with 404"},
	},
	{
		name:    "UUID with a newline",
		service: func(a map[string]*answer) { a["/pod/uuid"].body += "\n" },
		want:    []string{"malformed UUID returned"},
	},
	{
		name:    "image ID with a newline",
		service: func(a map[string]*answer) { a[mainPath+"/image/id"].body += "\n" },
		want:    []string{"image id mismatch"},
	},
	{
		name: "order of annotations",
		service: func(a map[string]*answer) {
			var annotations types.Annotations
			_ = json.Unmarshal([]byte(a[mainPath+"/annotations"].body), &annotations) // it was marshalled
			slices.Reverse(annotations)
			text, _ := json.Marshal(annotations) // it was unmarshalled
			a[mainPath+"/annotations"].body = string(text)
		},
		want: []string{"ace-validator-main annotations mismatch"},
	},
	{
		name:    "no annotations in place of an empty list",
		pod:     func(pod *schema.PodManifest) { pod.Annotations = types.Annotations{} },
		service: func(a map[string]*answer) { a["/pod/annotations"].body = "null" },
		want:    []string{"pod annotations mismatch: [] vs []"},
	},
	{
		name:    "signature that is not verified",
		service: func(a map[string]*answer) { a["/pod/hmac/verify"].code = 403 },
		want:    []string{"/pod/hmac/verify failed with 403"},
	},
	{
		name:    "verified without a type",
		service: func(a map[string]*answer) { a["/pod/hmac/verify"].kind = "" },
		want:    []string{"Expected text/plain; charset=us-ascii, received "},
	},
}

// says tells whether the validator has all these complaints.
func (r result) says(texts []string) bool {
	return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(r.stderr, text) })
}

// notMounted is what the validator says where there is not even a directory.
func notMounted() string {
	if runtime.GOOS == "linux" {
		return `"/db" is not a mount point`
	}
	return `error calling statfs on "/db"`
}

func linuxOnly(text string) []string {
	if runtime.GOOS != "linux" {
		return nil
	}
	return []string{text}
}

// TestFaults shows that the validator sees what is wrong, and with that a stand-in whose
// answers are known gets nothing to complain about, that it sees nothing else.
func TestFaults(t *testing.T) {
	h := newHost(t, runtime.GOOS)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			h := h.with(t)
			pod := h.pod()
			answers := map[string]*answer{}
			pod.Apps[0].App.Environment.Set("AC_METADATA_URL", standIn(t, answers))
			if f.pod != nil {
				f.pod(pod)
			}
			maps.Copy(answers, h.answers(pod))
			if f.service != nil {
				f.service(answers)
			}
			args := []string{"pod", "run", "--rm", "--net", "host", "--no-mds", "--manifest", "-"}
			if f.want == nil {
				if r := h.run(marshal(t, pod), args...); !r.ok() && (!slow() || !r.late()) {
					t.Errorf("%v", r)
				}
				return
			}
			says := func(r result) bool { return r.code == 1 && r.says(f.want) }
			if r := patient(func() result { return h.run(marshal(t, pod), args...) }, says); !says(r) {
				t.Errorf("want %q, got %v", f.want, r)
			}
		})
	}
	t.Run("roots of an earlier run", func(t *testing.T) {
		h := h.with(t)
		id := strings.TrimSpace(h.must("pod", "prepare", "--no-mds", "--keep-rootfs", imageName("main"), "---", imageName("sidekick")))
		_ = h.run("", "pod", "start", id) // without a metadata service it fails
		r := h.run("", "pod", "start", id)
		if want := `file "/prestart" exists unexpectedly`; !strings.Contains(r.stderr, want) {
			t.Errorf("no %q in %v", want, r)
		}
		h.must("pod", "rm", id)
	})
}
