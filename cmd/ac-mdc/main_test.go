package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/mds"
)

const (
	podUUID       = "6733c0a7-3b9d-4b5c-8d2f-3b1f2f9d2d10"
	imageManifest = `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/web","annotations":[{"name":"role","value":"front"},{"name":"empty","value":""}]}`
)

var (
	imageID     = "sha512-" + strings.Repeat("01", 64)
	podManifest = `{"acVersion":"0.8.11","acKind":"PodManifest","apps":[{"name":"web","image":{"id":"` + imageID + `"}}],"volumes":[],"isolators":[],"annotations":[{"name":"ip-address","value":"10.0.0.7"}],"ports":[]}`
)

// pod gives the environment of an app that a metadata service knows.
func pod(t *testing.T) map[string]string {
	t.Helper()
	keys, err := mds.OpenKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := mds.New(keys)
	token := mds.NewToken()
	if _, err := s.Add(mds.Pod{
		Token: token, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, UUID: podUUID,
		Manifest: json.RawMessage(podManifest), Images: map[string]json.RawMessage{"web": json.RawMessage(imageManifest)},
	}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return map[string]string{"AC_METADATA_URL": server.URL + mds.Path(token), "AC_APP_NAME": "web"}
}

type result struct {
	code           int
	stdout, stderr string
}

func try(t *testing.T, env map[string]string, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, func(key string) string { return env[key] }, strings.NewReader(stdin), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func TestCommands(t *testing.T) {
	env := pod(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("address {{annotation \"ip-address\"}}\nrole {{appAnnotation \"role\"}}, {{annotation \"none\" \"nothing\"}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	const usage = "ac-mdc help"
	for _, tt := range []struct {
		name   string
		args   string // with | between them
		stdin  string
		code   int
		stdout string
		stderr string // is in it
	}{
		{name: "uuid", args: "uuid", stdout: podUUID + "\n"},
		{name: "manifest", args: "manifest", stdout: podManifest + "\n"},
		{name: "image-id", args: "image-id", stdout: imageID + "\n"},
		{name: "image-manifest", args: "image-manifest", stdout: imageManifest + "\n"},
		{name: "annotation", args: "annotation|ip-address", stdout: "10.0.0.7\n"},
		{name: "annotation with a default", args: "annotation|ip-address|x", stdout: "10.0.0.7\n"},
		{name: "default", args: "annotation|none|x", stdout: "x\n"},
		{name: "no annotation", args: "annotation|none", code: 1, stderr: "annotation none: not found"},
		{name: "app annotation", args: "app-annotation|role", stdout: "front\n"},
		{name: "empty annotation", args: "app-annotation|empty|x"},
		{name: "render", args: "render|" + file, stdout: "address 10.0.0.7\nrole front, nothing"},
		{name: "render standard input", args: "render|-", stdin: "{{uuid}}", stdout: podUUID},
		{name: "render nothing", args: "render|" + file + ".none", code: 1, stderr: "no such file"},
		{name: "expand", args: `expand|{{env "AC_APP_NAME"}}-{{imageID}}`, stdout: "web-" + imageID + "\n"},
		{name: "expand what is not there", args: `expand|{{annotation "none"}}`, code: 1, stderr: "annotation none: not found"},
		{name: "no template", args: "expand|{{", code: 1, stderr: "template"},
		{name: "no command", code: 2, stderr: usage},
		{name: "unknown command", args: "pods", code: 2, stderr: usage},
		{name: "too many arguments", args: "uuid|x", code: 2, stderr: usage},
		{name: "too few arguments", args: "verify|x", code: 2, stderr: usage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := try(t, env, tt.stdin, strings.FieldsFunc(tt.args, func(r rune) bool { return r == '|' })...)
			if got.code != tt.code || got.stdout != tt.stdout || !strings.Contains(got.stderr, tt.stderr) || (got.stderr == "") != (tt.stderr == "") {
				t.Errorf("got %+v", got)
			}
		})
	}
	if got := try(t, env, "", "help"); got.code != 0 || !strings.Contains(got.stdout, "app-annotation NAME") {
		t.Errorf("help: %+v", got)
	}
}

func TestSignature(t *testing.T) {
	env := pod(t)
	signed := try(t, env, "content", "sign")
	sig := strings.TrimSpace(signed.stdout)
	if signed.code != 0 || len(sig) != 88 {
		t.Fatalf("sign: %+v", signed)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := try(t, env, "", "sign", file); again != signed {
		t.Errorf("sign a file: %+v, not %+v", again, signed)
	}
	if got := try(t, env, "", "verify", podUUID, sig, file); got != (result{}) {
		t.Errorf("verify: %+v", got)
	}
	if got := try(t, env, "changed", "verify", podUUID, sig); got.code != 1 || !strings.Contains(got.stderr, "not good") {
		t.Errorf("verify what was changed: %+v", got)
	}
	if got := try(t, env, strings.Repeat("x", maxContent+1), "sign"); got.code != 1 || !strings.Contains(got.stderr, "more than") {
		t.Errorf("sign too much: %.200s", got.stderr)
	}
}

// The token is in the URL, and nobody is to see it.
func TestService(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked elsewhere") }))
	defer elsewhere.Close()
	for name, tt := range map[string]struct {
		answer http.HandlerFunc // nil: nobody listens
		env    func(map[string]string)
		want   string
	}{
		"none":          {env: func(m map[string]string) { delete(m, "AC_METADATA_URL") }, want: "AC_METADATA_URL is not set"},
		"no URL":        {env: func(m map[string]string) { m["AC_METADATA_URL"] = "%secret" }, want: "not a URL"},
		"nobody":        {want: "connect"},
		"not ours":      {answer: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusUnauthorized) }, want: `401 Unauthorized: "no"`},
		"redirects":     {answer: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, want: "302"},
		"no list":       {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) }, want: "no list"},
		"without a app": {answer: func(http.ResponseWriter, *http.Request) {}, env: func(m map[string]string) { delete(m, "AC_APP_NAME") }, want: "AC_APP_NAME is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(tt.answer)
			if tt.answer == nil {
				server.Close()
			} else {
				defer server.Close()
			}
			env := map[string]string{"AC_METADATA_URL": server.URL + "/~secret", "AC_APP_NAME": "web"}
			if tt.env != nil {
				tt.env(env)
			}
			got := try(t, env, "", "app-annotation", "x")
			if got.code != 1 || !strings.Contains(got.stderr, tt.want) || strings.Contains(got.stderr, "secret") || strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
		})
	}
}
