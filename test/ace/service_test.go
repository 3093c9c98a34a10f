package ace

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/appc/spec/schema"
)

// answer is what the stand-in for the metadata service says to requests for a path.
type answer struct {
	code  int
	kind  string // Content-Type; "" is none
	body  string
	delay time.Duration
}

const (
	asJSON = "application/json"
	asText = "text/plain; charset=us-ascii"
	asUUID = "6733c088-a507-4694-aabf-efbe9b2b2b5c"
)

// answers are the right ones for a pod, by path.
func (h *host) answers(pod *schema.PodManifest) map[string]*answer {
	all := map[string]*answer{
		"/pod/manifest":    {200, asJSON, marshal(h.t, pod), 0},
		"/pod/annotations": {200, asJSON, marshal(h.t, pod.Annotations), 0},
		"/pod/uuid":        {200, asText, asUUID, 0},
		"/pod/hmac/sign":   {200, asText, "c2lnbmVk", 0},
		"/pod/hmac/verify": {200, asText, "", 0},
	}
	for _, app := range pod.Apps {
		text := h.must("image", "manifest", app.Image.ID.String())
		var image schema.ImageManifest
		if err := json.Unmarshal([]byte(text), &image); err != nil {
			h.t.Fatal(err)
		}
		for _, a := range app.Annotations {
			image.Annotations.Set(a.Name, a.Value)
		}
		at := "/apps/" + app.Name.String()
		all[at+"/image/manifest"] = &answer{200, asJSON, text, 0}
		all[at+"/image/id"] = &answer{200, asText, app.Image.ID.String(), 0}
		all[at+"/annotations"] = &answer{200, asJSON, marshal(h.t, image.Annotations), 0}
	}
	return all
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// standIn serves answers until the test ends, and gives its URL.
func standIn(t *testing.T, answers map[string]*answer) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := answers[strings.TrimPrefix(r.URL.Path, "/acMetadata/v1")]
		if a == nil {
			http.NotFound(w, r)
			return
		}
		select {
		case <-time.After(a.delay):
		case <-r.Context().Done():
		}
		w.Header()["Content-Type"] = []string{a.kind}
		w.WriteHeader(a.code)
		_, _ = io.WriteString(w, a.body) // nobody may wait for that any more
	}))
	t.Cleanup(s.Close)
	return s.URL
}
