package repository_test

import (
	"bytes"
	"context"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/discovery/repository"
)

// visitor does on a page what a person does, and leaves in an attribute what it saw.
const visitor = `<script>
(async function () {
  const shown = () => [...document.querySelectorAll("article")].filter(a => a.offsetHeight > 0).map(a => a.querySelector("h2 a").textContent);
  const q = document.getElementById("q");
  const search = words => {
    q.focus();
    q.select();
    if (words === "") document.execCommand("delete");
    else document.execCommand("insertText", false, words);
    return {shown: shown(), found: document.getElementById("found").textContent};
  };
  const saw = {first: shown(), searchShown: q.offsetHeight > 0};
  saw.searches = ["redis", "REDIS amd64", "2.0", "nothing like it", ""].map(search);
  const button = document.querySelector("article .command button");
  saw.label = button.getAttribute("aria-label");
  const click = async answer => {
    navigator.clipboard.writeText = text => { saw.copied = text; return answer; }; // headless, it asks for leave for ever
    button.click();
    await new Promise(resolve => setTimeout(resolve, 100));
  };
  await click(Promise.reject(new Error("refused")));
  saw.selected = getSelection().toString();
  await click(Promise.resolve());
  saw.button = button.textContent;
  document.documentElement.dataset.saw = JSON.stringify(saw);
})();
</script>`

var attribute = regexp.MustCompile(`data-saw="([^"]*)"`)

// TestBrowser looks at the page with Chromium: search and copy.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	r, dir := create(t, repository.Options{Prefix: "example.com/demo"})
	add(t, r, image(t, "example.com/demo/base", "1.0"))
	add(t, r, image(t, "example.com/demo/redis", "1.0"))
	add(t, r, image(t, "example.com/demo/web", "2.0"))
	files := repository.Handler(dir, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		files.ServeHTTP(answer, r)
		page := bytes.Replace(answer.Body.Bytes(), []byte("</body>"), []byte(visitor+"</body>"), 1)
		w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		w.WriteHeader(answer.Code)
		_, _ = w.Write(page) // a browser that has gone is told below
	}))
	defer server.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	// Root has no sandbox of its own, and the page is ours; nothing else is asked for.
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
		"--user-data-dir="+t.TempDir(), "--virtual-time-budget=5000", "--dump-dom", server.URL+"/demo/")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	dom, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	found := attribute.FindSubmatch(dom)
	if found == nil {
		t.Fatalf("the page has no answer:\n%s\n%s", dom, stderr.Bytes())
	}
	type search struct {
		Shown []string
		Found string
	}
	type seen struct {
		First       []string
		SearchShown bool
		Searches    []search
		Label       string
		Selected    string // when the browser refuses to copy
		Copied      string
		Button      string
	}
	var got seen
	if err := json.Unmarshal([]byte(html.UnescapeString(string(found[1]))), &got); err != nil {
		t.Fatal(err)
	}
	all := []string{"example.com/demo/base", "example.com/demo/redis", "example.com/demo/web"}
	want := seen{
		First: all, SearchShown: true,
		Searches: []search{
			{all[1:2], "1 of 3"},
			{all[1:2], "1 of 3"},
			{all[2:], "1 of 3"},
			{[]string{}, "0 of 3"},
			{all, ""},
		},
		Label:    "Copy: jetpack fetch example.com/demo/base",
		Selected: "jetpack fetch example.com/demo/base",
		Copied:   "jetpack fetch example.com/demo/base",
		Button:   "Copied",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("a visitor sees\n%+v\nnot\n%+v", got, want)
	}
}
