package ace

import (
	"crypto/sha512"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

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
	run := []string{"pod", "run", "--rm"}
	fromManifest := append(slices.Clone(run), "--manifest", "-")
	images := []string{imageName("main"), "---", imageName("sidekick")}

	t.Run("pod manifest with an empty volume", func(t *testing.T) {
		h.with(t).valid(h.podManifest(emptyVolume), fromManifest...)
	})
	t.Run("pod manifest with a directory of the host", func(t *testing.T) {
		r := patient(func() result {
			dir := t.TempDir()
			volume := fmt.Sprintf(`{"name": "database", "kind": "host", "source": %q}`, dir)
			r := h.with(t).run(h.podManifest(volume), fromManifest...)
			for _, role := range roles {
				if _, err := os.Stat(filepath.Join(dir, role)); err != nil {
					t.Error(err)
				}
			}
			return r
		}, result.ok)
		if !r.ok() {
			t.Errorf("%v", r)
		}
	})
	t.Run("pod manifest without volumes and mounts", func(t *testing.T) {
		h := h.with(t)
		text := strings.ReplaceAll(h.podManifest(""), `"mounts": [{"volume": "database", "path": "/db"}]`, `"mounts": []`)
		h.valid(text, fromManifest...)
	})
	t.Run("a pod that is started twice", func(t *testing.T) {
		h := h.with(t)
		id := strings.TrimSpace(h.must(append([]string{"pod", "prepare"}, images...)...))
		for range 2 {
			h.valid("", "pod", "start", id)
		}
		h.must("pod", "rm", id)
	})
	t.Run("command line", func(t *testing.T) {
		h.with(t).valid("", slices.Concat(run, []string{"--volume", "database"}, images)...)
	})
	t.Run("20 pods at once", func(t *testing.T) {
		h := h.with(t)
		results := make([]result, 20)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() { results[i] = h.run("", append(run, images...)...) })
		}
		wg.Wait()
		late := 0
		for _, r := range results {
			switch {
			case r.ok():
			case r.late():
				late++
			default:
				t.Errorf("%v", r)
			}
		}
		// That 100 ms were too short for one among 20 says nothing of what it was answered.
		if late > len(results)/4 && !slow() {
			t.Errorf("%d of %d pods were answered too late", late, len(results))
		}
	})
}

// prefix is what a pod of several apps has before each line.
var prefix = regexp.MustCompile(`(?m)^\S+ ace-validator-(main|sidekick): `)

// ok tells whether the validator found everything as it should be.
func (r result) ok() bool {
	lines := strings.Split(strings.TrimSpace(prefix.ReplaceAllString(r.stdout, "")), "\n")
	own := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return line == "sidekick OK" })
	return r.code == 0 && !strings.Contains(r.stderr, "==>") && len(lines) == len(own)+1 &&
		slices.Equal(own, []string{"prestart OK", "main OK", "poststop OK"})
}

// complaint is a line of the validator's; lateness is one about time, or what follows
// from that.
var (
	complaint = regexp.MustCompile(`(?m)==> .*$`)
	lateness  = regexp.MustCompile(`Client\.Timeout exceeded|timed out waiting|image id mismatch: \[\]`)
)

// late tells whether all that the validator found wrong is that something came late.
func (r result) late() bool {
	complaints := complaint.FindAllString(r.stderr, -1)
	return r.code == 1 && len(complaints) > 0 && !slices.ContainsFunc(complaints, func(c string) bool { return !lateness.MatchString(c) })
}

// slow tells whether this is an emulated machine, on which the 100 ms and the 5 s that the
// validator waits are too short for its own work, with many waiting at once or just now and
// then. It is so by how long a hash takes that others have in 20 ms.
var slow = sync.OnceValue(func() bool {
	data := make([]byte, 8<<20)
	best := time.Hour
	for range 5 {
		begin := time.Now()
		sha512.Sum512(data)
		best = min(best, time.Since(begin))
	}
	return best > 80*time.Millisecond
})

// patient runs something until it ends well, again and again while it is just late on a
// slow machine.
func patient(run func() result, well func(result) bool) result {
	r := run()
	for n := 0; n < 15 && !well(r) && slow() && r.late(); n++ {
		r = run()
	}
	return r
}

// valid runs a pod, and fails the test unless the validator finds everything as it should be.
func (h *host) valid(stdin string, args ...string) {
	h.t.Helper()
	if r := patient(func() result { return h.run(stdin, args...) }, result.ok); !r.ok() {
		h.t.Errorf("%v", r)
	}
}
