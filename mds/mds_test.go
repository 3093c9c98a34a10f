package mds

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/google/uuid"
	"golang.org/x/time/rate"
)

const (
	uuidA = "6733c0a7-3b9d-4b5c-8d2f-3b1f2f9d2d10"
	uuidB = "0b6c9a54-54f3-4b1e-9d56-3f60e2f1c011"

	imageManifest = `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/web",
		"app":{"exec":["/web"],"user":"0","group":"0"},
		"annotations":[{"name":"created","value":"2026-01-02T03:04:05Z"},{"name":"role","value":"image's"}]}`
	imageID     = "sha512-00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	podManifest = `{"acVersion":"0.8.11","acKind":"PodManifest","apps":[
		{"name":"web","image":{"id":"` + imageID + `"},"annotations":[{"name":"extra","value":"1"},{"name":"role","value":"pod's"}]},
		{"name":"plain","image":{"id":"` + imageID + `"}}],
		"volumes":[],"isolators":[],"annotations":[{"name":"ip-address","value":"127.0.0.1"},{"name":"example.com/team","value":"blue"}],"ports":[]}`
)

func podA() Pod {
	return Pod{
		Token: NewToken(), Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, UUID: uuidA, Manifest: json.RawMessage(podManifest),
		Images: map[string]json.RawMessage{"web": json.RawMessage(imageManifest), "plain": json.RawMessage(`{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/plain"}`)},
	}
}

// another is a pod that shares nothing with podA but its images.
func another() Pod {
	p := podA()
	p.UUID, p.Addresses = uuidB, []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	return p
}

func keys(t testing.TB) *KeyRing {
	t.Helper()
	ring, err := OpenKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func serve(t testing.TB, pods ...Pod) (*Service, *httptest.Server) {
	t.Helper()
	s := New(keys(t))
	for _, p := range pods {
		if _, err := s.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = r.Header.Get(testFrom) // hosts have no addresses to play with
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return s, server
}

const testFrom = "Test-From"

// from is the source address of a client.
type from string

func (f from) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(testFrom, net.JoinHostPort(string(f), "9"))
	return http.DefaultTransport.RoundTrip(r)
}

type seen struct {
	status      int
	contentType string
	body        string
}

func do(t testing.TB, c from, req *http.Request, err error) seen {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return seen{resp.StatusCode, resp.Header.Get("Content-Type"), string(body)}
}

func request(t testing.TB, c from, method, url string) seen {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	return do(t, c, req, err)
}

func post(t testing.TB, c from, to string, form url.Values) seen {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to, strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return do(t, c, req, err)
}

func TestEndpoints(t *testing.T) {
	p := podA()
	_, server := serve(t, p)
	c := from("127.0.0.1")
	base := server.URL + Path(p.Token) + prefix
	for _, tt := range []struct{ path, contentType, body string }{
		{"/pod/uuid", contentText, uuidA},
		{"/pod/manifest", contentJSON, podManifest},
		{"/pod/annotations", contentJSON, `[{"name":"ip-address","value":"127.0.0.1"},{"name":"example.com/team","value":"blue"}]`},
		{"/pod/annotations/ip-address", contentText, "127.0.0.1"},
		{"/pod/annotations/example.com/team", contentText, "blue"},
		{"/apps/web/annotations", contentJSON, `[{"name":"created","value":"2026-01-02T03:04:05Z"},{"name":"role","value":"pod's"},{"name":"extra","value":"1"}]`},
		{"/apps/web/annotations/role", contentText, "pod's"},
		{"/apps/plain/annotations", contentJSON, `[]`},
		{"/apps/web/image/manifest", contentJSON, imageManifest},
		{"/apps/web/image/id", contentText, imageID},
	} {
		want := seen{200, tt.contentType, tt.body}
		if got := request(t, c, http.MethodGet, base+tt.path); got != want {
			t.Errorf("GET %s: %v, want %v", tt.path, got, want)
		}
		want.body = ""
		if got := request(t, c, http.MethodHead, base+tt.path); got != want {
			t.Errorf("HEAD %s: %v, want %v", tt.path, got, want)
		}
		if got := request(t, c, http.MethodPut, base+tt.path); got.status != http.StatusMethodNotAllowed {
			t.Errorf("PUT %s: %v", tt.path, got)
		}
	}
	for _, path := range []string{"", "/", "/pod", "/pod/", "/pod/uuid/", "/pod/annotations/none", "/apps/none/image/id", "/apps/web", "/../pod/uuid", "/pod/manifest/../../x"} {
		if got := request(t, c, http.MethodGet, base+path); got.status != http.StatusNotFound {
			t.Errorf("GET %s: %v", path, got)
		}
	}
	for _, path := range []string{"/pod/hmac/sign", "/pod/hmac/verify"} {
		if got := request(t, c, http.MethodGet, base+path); got.status != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %v", path, got)
		}
	}
}

// The shape of the annotations is that of those in the manifest, which clients compare.
func TestAnnotationsShape(t *testing.T) {
	p := podA()
	p.Manifest = json.RawMessage(`{"acVersion":"0.8.11","acKind":"PodManifest","apps":[{"name":"web","image":{"id":"` + imageID + `"}}],"volumes":[],"isolators":[],"annotations":[],"ports":[]}`)
	_, server := serve(t, p)
	c := from("127.0.0.1")
	base := server.URL + Path(p.Token) + prefix
	var m, list schema.PodManifest
	for path, into := range map[string]any{"/pod/manifest": &m, "/pod/annotations": &list.Annotations} {
		if err := json.Unmarshal([]byte(request(t, c, http.MethodGet, base+path).body), into); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(m.Annotations, list.Annotations) {
		t.Errorf("%#v is not %#v", list.Annotations, m.Annotations)
	}
}

func TestHMAC(t *testing.T) {
	a, b := podA(), another()
	_, server := serve(t, a, b)
	ca, cb := from("127.0.0.1"), from("127.0.0.2")
	baseA, baseB := server.URL+Path(a.Token)+prefix, server.URL+Path(b.Token)+prefix
	content := "to be signed\x00\xff &="
	signed := post(t, ca, baseA+"/pod/hmac/sign", url.Values{"content": {content}})
	if raw, err := base64.StdEncoding.DecodeString(signed.body); err != nil || len(raw) != 64 || signed.status != 200 || signed.contentType != contentText {
		t.Fatalf("sign: %v (%v)", signed, err)
	}
	good := func() url.Values {
		return url.Values{"content": {content}, "uuid": {uuidA}, "signature": {signed.body}}
	}
	for _, tt := range []struct {
		name         string
		field, value string // "" deletes the field
		want         int
	}{
		{"good", "content", content, 200},
		{"another content", "content", content + "x", 403},
		{"no bytes of content", "content", "\x00", 403},
		{"another pod", "uuid", uuidB, 403},
		{"no UUID", "uuid", "nobody", 403},
		{"another signature", "signature", base64.StdEncoding.EncodeToString(make([]byte, 64)), 403},
		{"short signature", "signature", "AAAA", 403},
		{"not base64", "signature", "%%%", 403},
		{"without content", "content", "", 400},
		{"without UUID", "uuid", "", 400},
		{"without signature", "signature", "", 400},
		{"large", "content", strings.Repeat("x", maxBody), 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			form := good()
			form.Set(tt.field, tt.value)
			if tt.value == "" {
				form.Del(tt.field)
			}
			got := post(t, cb, baseB+"/pod/hmac/verify", form) // by another pod
			if got.status != tt.want || got.contentType != contentText || (got.body == "") != (tt.want == 200) {
				t.Errorf("got %v, want %d", got, tt.want)
			}
		})
	}
	if got := post(t, ca, baseA+"/pod/hmac/sign", url.Values{"content": {""}}); got.status != 200 {
		t.Errorf("sign nothing: %v", got)
	}
	if got := post(t, ca, baseA+"/pod/hmac/sign", url.Values{}); got.status != 400 {
		t.Errorf("sign without content: %v", got)
	}

	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	if err := form.WriteField("content", content); err != nil {
		t.Fatal(err)
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, baseA+"/pod/hmac/sign", &body)
	req.Header.Set("Content-Type", form.FormDataContentType())
	if got := do(t, ca, req, err); got != signed {
		t.Errorf("sign what is sent in parts: %v, want %v", got, signed)
	}
}

// Without both its token and its address, nobody is a pod.
func TestStrangers(t *testing.T) {
	a, b := podA(), another()
	s, server := serve(t, a, b)
	ca, cb := from("127.0.0.1"), from("127.0.0.2")
	at := func(token string) string { return server.URL + Path(token) + prefix + "/pod/uuid" }
	for name, got := range map[string]seen{
		"B's token from A's address": request(t, ca, http.MethodGet, at(b.Token)),
		"A's token from B's address": request(t, cb, http.MethodGet, at(a.Token)),
		"from nowhere":               request(t, from("127.0.0.3"), http.MethodGet, at(a.Token)),
		"half a token":               request(t, ca, http.MethodGet, at(a.Token[:32])),
		"upper case":                 request(t, ca, http.MethodGet, at(strings.ToUpper(a.Token))),
		"no token":                   request(t, ca, http.MethodGet, at("")),
		"no tilde":                   request(t, ca, http.MethodGet, server.URL+"/"+a.Token+prefix+"/pod/uuid"),
		"root":                       request(t, ca, http.MethodGet, server.URL),
		"only a tilde":               request(t, ca, http.MethodGet, server.URL+"/~"),
	} {
		if got.status != http.StatusUnauthorized || strings.Contains(got.body, uuidA) || strings.Contains(got.body, uuidB) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, header := range map[string]http.Header{
		"forwarded for":  {"X-Forwarded-For": {"127.0.0.2"}},
		"forwarded":      {"Forwarded": {"for=127.0.0.2"}},
		"via":            {"Via": {"1.1 proxy"}},
		"foreign host":   {"Host": {"example.com"}},
		"another port":   {"Host": {"127.0.0.1:1"}},
		"another server": {"Host": {"127.0.0.2"}},
		"local name":     {"Host": {"localhost"}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at(a.Token), nil)
		req.Header, req.Host = header, header.Get("Host")
		if got := do(t, ca, req, err); got.status != http.StatusForbidden {
			t.Errorf("%s: %v", name, got)
		}
	}
	s.at[a.Addresses[0]].limit.SetLimit(rate.Inf)
	for range 1_000_000 {
		if _, err := s.find(a.Addresses[0], NewToken()); err == nil {
			t.Fatal("a token was guessed")
		}
	}
}

// Pods that have the host's address are told apart by their tokens.
func TestSharedAddress(t *testing.T) {
	a, b := podA(), another()
	b.Addresses = a.Addresses
	s, server := serve(t, a)
	remove, err := s.Add(b)
	if err != nil {
		t.Fatal(err)
	}
	c := from("127.0.0.1")
	at := func(p Pod) seen { return request(t, c, http.MethodGet, server.URL+Path(p.Token)+prefix+"/pod/uuid") }
	if at(a).body != uuidA || at(b).body != uuidB {
		t.Errorf("got %v, %v", at(a), at(b))
	}
	remove()
	remove() // a second time does nothing
	if at(a).body != uuidA || at(b).status != http.StatusUnauthorized {
		t.Errorf("after one is gone: %v, %v", at(a), at(b))
	}
}

func TestComeAndGo(t *testing.T) {
	a := podA()
	s, server := serve(t, a)
	c := from("127.0.0.1")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				p := podA()
				remove, err := s.Add(p)
				if err != nil {
					t.Error(err)
					return
				}
				if !knows(s, p) {
					t.Error("not known")
				}
				remove()
				if knows(s, p) {
					t.Error("still known")
				}
			}
		})
	}
	group.Wait()
	if got := request(t, c, http.MethodGet, server.URL+Path(a.Token)+prefix+"/pod/uuid"); got.body != uuidA {
		t.Error(got)
	}
	if len(s.at) != 1 || len(s.at[a.Addresses[0]].pods) != 1 || s.Pods() != 1 {
		t.Errorf("left: %d pods at %v", s.Pods(), s.at)
	}
}

func TestAddRefuses(t *testing.T) {
	for name, change := range map[string]func(*Pod){
		"no UUID":             func(p *Pod) { p.UUID = "" },
		"UUID in another way": func(p *Pod) { p.UUID = strings.ToUpper(p.UUID) },
		"no token":            func(p *Pod) { p.Token = "" },
		"short token":         func(p *Pod) { p.Token = p.Token[2:] },
		"no address":          func(p *Pod) { p.Addresses = nil },
		"no manifest":         func(p *Pod) { p.Manifest = nil },
		"no image":            func(p *Pod) { delete(p.Images, "web") },
	} {
		p := podA()
		change(&p)
		s := New(keys(t))
		if _, err := s.Add(p); err == nil || s.Pods() > 0 || len(s.at) > 0 {
			t.Errorf("%s: %v, %v", name, err, s.at)
		}
	}
}

func TestKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mds")
	id := uuid.MustParse(uuidA)
	open := func() *KeyRing {
		t.Helper()
		ring, err := OpenKeys(dir)
		if err != nil {
			t.Fatal(err)
		}
		return ring
	}
	old := open()
	signed := old.Sign(id, []byte("x"))
	if again := open(); !bytes.Equal(again.Sign(id, []byte("x")), signed) {
		t.Error("another key after a restart")
	}
	if err := Rotate(dir); err != nil {
		t.Fatal(err)
	}
	ring := open()
	if !ring.Verify(id, []byte("x"), signed) || bytes.Equal(ring.Sign(id, []byte("x")), signed) {
		t.Error("the newest key signs, and all verify: not so")
	}
	if old.Verify(id, []byte("x"), ring.Sign(id, []byte("x"))) {
		t.Error("the old key made the new signature")
	}
	for name, bad := range map[string]struct {
		file, text string
		mode       os.FileMode
	}{
		"others can read it": {"000003.key", strings.Repeat("ab", 64), 0o644},
		"too short":          {"000003.key", "abcd", 0o600},
		"not hexadecimal":    {"000003.key", strings.Repeat("zz", 64), 0o600},
		"no number":          {"new.key", strings.Repeat("ab", 64), 0o600},
		"twice":              {"2.key", strings.Repeat("ab", 64), 0o600},
	} {
		file := filepath.Join(dir, bad.file)
		if err := os.WriteFile(file, []byte(bad.text), bad.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, bad.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeys(dir); err == nil || !strings.Contains(err.Error(), ".key") {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "000001.key")); err != nil {
		t.Fatal(err)
	}
	if open().Verify(id, []byte("x"), signed) {
		t.Error("what a removed key signed still verifies")
	}
}

func TestKeysAtOnce(t *testing.T) {
	dir := t.TempDir()
	id := uuid.MustParse(uuidA)
	var group sync.WaitGroup
	sigs := make([][]byte, 8)
	for i := range sigs {
		group.Go(func() {
			ring, err := OpenKeys(dir)
			if err != nil {
				t.Error(err)
				return
			}
			sigs[i] = ring.Sign(id, nil)
		})
	}
	group.Wait()
	for _, sig := range sigs[1:] {
		if !bytes.Equal(sig, sigs[0]) {
			t.Error("more than one first key")
		}
	}
}

// The signature is what others make of the same key.
func TestSignature(t *testing.T) {
	// The bytes of the UUID, then abc: openssl dgst -sha512 -hmac key -binary | base64
	ring := &KeyRing{keys: [][]byte{[]byte("key")}}
	const want = "84PccH6RHfE5jnJvKR9LlJkaq+aPYUVeWB/7SekkqWUQgbYp3RzZn+KgHgD76mhbNcClIKsjeD/owBUfBY9D6Q=="
	if got := base64.StdEncoding.EncodeToString(ring.Sign(uuid.MustParse(uuidA), []byte("abc"))); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Whatever is asked for, only a pod is told anything.
func FuzzPath(f *testing.F) {
	p := podA()
	s := New(keys(f))
	if _, err := s.Add(p); err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{"/", "/~", "/~x", "//~", "/~" + uuidA + prefix + "/pod/uuid", "/~/acMetadata/v1/pod/manifest", "/%7e"} {
		f.Add(path)
	}
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}
	f.Fuzz(func(t *testing.T, path string) {
		if strings.Contains(path, p.Token) {
			t.Skip("it has the token")
		}
		r := &http.Request{
			Method: http.MethodGet, URL: &url.URL{Path: path}, Host: "127.0.0.1", RemoteAddr: "127.0.0.1:9", Header: http.Header{},
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r.WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, local)))
		if w.Code != http.StatusUnauthorized {
			t.Errorf("%q: %d %s", path, w.Code, w.Body)
		}
	})
}

// One that asks without end is told to wait, and its neighbour is not.
func TestRate(t *testing.T) {
	a, b := podA(), another()
	b.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	s, _ := serve(t, a, b)
	s.at[a.Addresses[0]].limit.SetLimit(0) // as if no time went by
	refused := 0
	for range maxBurst + 10 {
		if _, err := s.find(a.Addresses[0], a.Token); errors.Is(err, errTooMany) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused != 10 {
		t.Errorf("%d of %d requests at once were refused", refused, maxBurst+10)
	}
	if _, err := s.find(b.Addresses[0], b.Token); err != nil {
		t.Errorf("the neighbour: %v", err)
	}
	w := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:80"+Path(a.Token)+prefix+"/pod/uuid", nil)
	req.RemoteAddr = "127.0.0.1:1234"
	req = req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80})))
	s.ServeHTTP(w, req)
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
}

func TestControl(t *testing.T) {
	a := podA()
	s, _ := serve(t, a)
	s.logged(slog.New(slog.DiscardHandler)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	stopped := 0
	control := s.Control(func() { stopped++ })
	ask := func(method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		control.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w
	}
	metrics := ask(http.MethodGet, "/metrics").Body.String()
	for _, want := range []string{"jetpack_mds_pods 1\n", `jetpack_mds_requests_total{status="403"} 1` + "\n", "jetpack_mds_request_duration_seconds_count 1\n"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %q in\n%s", want, metrics)
		}
	}
	if strings.Contains(metrics, a.Token) {
		t.Error("a token is in the metrics")
	}
	if w := ask(http.MethodGet, "/stop"); w.Code != http.StatusMethodNotAllowed || stopped != 0 {
		t.Errorf("GET /stop: %d", w.Code)
	}
	if w := ask(http.MethodPost, "/stop"); w.Code != http.StatusAccepted || stopped != 1 {
		t.Errorf("POST /stop: %d, stopped %d times", w.Code, stopped)
	}
}

// knows tells whether a pod is answered.
func knows(s *Service, p Pod) bool {
	_, err := s.find(p.Addresses[0], p.Token)
	return err == nil
}
