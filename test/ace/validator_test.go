package ace

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// network is that of the pods.
func network() string {
	if runtime.GOOS == "linux" {
		return "host"
	}
	return "private"
}

// podManifest is a pod with both apps that share a volume, in the specification's terms.
func (h *host) podManifest(volume string) string {
	return fmt.Sprintf(`{
		"acKind": "PodManifest", "acVersion": "0.8.11",
		"apps": [
			{"name": "ace-validator-main", "image": {"name": %q, "id": %q},
			 "mounts": [{"volume": "database", "path": "/db"}],
			 "annotations": [{"name": "lorem", "value": "overridden"}]},
			{"name": "ace-validator-sidekick", "image": {"name": %q, "id": %q},
			 "mounts": [{"volume": "database", "path": "/db"}]}
		],
		"volumes": [%s], "annotations": [{"name": "team", "value": "blue"}], "isolators": [], "ports": []
	}`, imageName("main"), h.ids["main"], imageName("sidekick"), h.ids["sidekick"], volume)
}

const emptyVolume = `{"name": "database", "kind": "empty", "mode": "0755", "uid": 0, "gid": 0}`

func TestValidator(t *testing.T) {
	systems := []string{runtime.GOOS}
	if runtime.GOOS == "freebsd" {
		systems = append(systems, "linux")
	}
	for _, goos := range systems {
		t.Run(goos, func(t *testing.T) {
			if goos != runtime.GOOS {
				testenv.LinuxABI(t)
			}
			h := newHost(t, goos)
			h.serveMetadata()
			testValidator(t, h)
		})
	}
}

func testValidator(t *testing.T, h *host) {
	run := []string{"pod", "run", "--rm", "--net", network()}
	fromManifest := append(slices.Clone(run), "--manifest", "-")
	images := []string{imageName("main"), "---", imageName("sidekick")}

	t.Run("pod manifest with an empty volume", func(t *testing.T) {
		valid(t, h.with(t).run(h.podManifest(emptyVolume), fromManifest...))
	})
	t.Run("pod manifest with a directory of the host", func(t *testing.T) {
		dir := t.TempDir()
		volume := fmt.Sprintf(`{"name": "database", "kind": "host", "source": %q}`, dir)
		valid(t, h.with(t).run(h.podManifest(volume), fromManifest...))
		for _, role := range roles {
			if _, err := os.Stat(filepath.Join(dir, role)); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("pod manifest without volumes and mounts", func(t *testing.T) {
		h := h.with(t)
		text := strings.ReplaceAll(h.podManifest(""), `"mounts": [{"volume": "database", "path": "/db"}]`, `"mounts": []`)
		valid(t, h.run(text, fromManifest...))
	})
	t.Run("a pod that is started twice", func(t *testing.T) {
		h := h.with(t)
		id := strings.TrimSpace(h.must(append([]string{"pod", "prepare", "--net", network()}, images...)...))
		for range 2 {
			valid(t, h.run("", "pod", "start", id))
		}
		h.must("pod", "rm", id)
	})
	t.Run("command line", func(t *testing.T) {
		valid(t, h.with(t).run("", slices.Concat(run, []string{"--volume", "database"}, images)...))
	})
	t.Run("20 pods at once", func(t *testing.T) {
		h := h.with(t)
		results := make([]result, 20)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() { results[i] = h.run("", append(run, images...)...) })
		}
		wg.Wait()
		for _, r := range results {
			valid(t, r)
		}
	})
}

// prefix is what a pod of several apps has before each line.
var prefix = regexp.MustCompile(`(?m)^\S+ ace-validator-(main|sidekick): `)

// valid fails the test unless the validator found everything as it should be.
func valid(t *testing.T, r result) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(prefix.ReplaceAllString(r.stdout, "")), "\n")
	own := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return line == "sidekick OK" })
	want := []string{"prestart OK", "main OK", "poststop OK"}
	if r.code != 0 || strings.Contains(r.stderr, "==>") || !slices.Equal(own, want) || len(lines) != len(own)+1 {
		t.Errorf("%v", r)
	}
}
