package script

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

var (
	races     = flag.Int("races", 60, "how often a run races with a removal")
	importers = flag.Int("importers", 64, "how many processes import one image at a time")
)

// outcome is how a command ended.
type outcome struct {
	args           []string
	code           int
	stdout, stderr string
}

func (h *host) try(args ...string) outcome {
	cmd := h.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // the code says it
	return outcome{args, cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// legal fails the test unless the command ended with one of the codes.
func (h *host) legal(o outcome, codes ...int) {
	h.t.Helper()
	if !slices.Contains(codes, o.code) || strings.Contains(o.stderr, "panic") {
		h.t.Fatalf("jetpack %s: exit code %d, want one of %v\n%s", strings.Join(o.args, " "), o.code, codes, o.stderr)
	}
}

// TestImportAtOnce: many processes import one image, and there is one copy of it.
func TestImportAtOnce(t *testing.T) {
	h := newHost(t)
	aci := filepath.Join(t.TempDir(), "same.aci")
	probe, err := os.ReadFile(sandboxtest.BuildProbe(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(aci, probeImage(t, probe, "example.com/same", []string{"/etc/same=1"}), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	outcomes := make([]outcome, *importers)
	for i := range outcomes {
		wg.Go(func() { outcomes[i] = h.try("image", "import", "--insecure=signature", aci) })
	}
	wg.Wait()
	for _, o := range outcomes {
		h.legal(o, 0)
		if o.stdout != outcomes[0].stdout {
			t.Errorf("IDs %q and %q", o.stdout, outcomes[0].stdout)
		}
	}
	if ids := strings.Fields(h.must("image", "list", "-q")); len(ids) != 2 {
		t.Errorf("images: %v", ids)
	}
	for pattern, want := range map[string]int{"images/sha512-*": 2, "images/.import-*": 0} {
		if found, err := filepath.Glob(filepath.Join(h.root, pattern)); err != nil || len(found) != want {
			t.Errorf("%s: %v, %v", pattern, found, err)
		}
	}
	for kind, want := range map[string]int{"images": 2, "imports": 0} {
		if found := h.trees(kind); len(found) != want {
			t.Errorf("%s: %v", kind, found)
		}
	}
	h.clean()
}

// rival is a command that races with `pod run`.
type rival struct {
	args, app []string // POD stands for the pod's name
	// early is its exit code when it came before the pod.
	early int
	// runs are its legal exit codes, each with those of the run.
	runs map[int][]int
}

var (
	unhurt = []int{7}
	killed = []int{125, 137, 143} // before the app was up, or with it
	rivals = []rival{
		{[]string{"pod", "rm", "POD"}, []string{"exit", "7"}, 3, map[int][]int{3: unhurt, 0: unhurt, 5: unhurt}},
		{[]string{"pod", "rm", "POD"}, []string{"sleep"}, 3, map[int][]int{3: killed, 5: killed}},
		{[]string{"pod", "rm", "--force", "POD"}, []string{"sleep"}, 3, map[int][]int{3: killed, 0: killed}},
		{[]string{"pod", "stop", "POD"}, []string{"sleep"}, 3, map[int][]int{3: killed, 0: killed}},
		{[]string{"image", "rm", "example.com/probe"}, []string{"exit", "7"}, 0, map[int][]int{0: {125}, 5: unhurt}},
		{[]string{"volume", "rm", "data"}, []string{"exit", "7"}, 0, map[int][]int{0: {125}, 5: unhurt}},
		{[]string{"pod", "gc"}, []string{"exit", "7"}, 0, map[int][]int{0: unhurt}},
	}
)

// TestRunAgainstRemoval races `pod run` with whatever takes away the pod or what it
// needs. Whoever wins, both say what happened, and nothing is left.
func TestRunAgainstRemoval(t *testing.T) {
	h := newHost(t)
	aci := filepath.Join(t.TempDir(), "probe.aci")
	h.must("image", "export", "example.com/probe", aci)
	h.must("volume", "create", "data")
	counts := make([]map[int]int, len(rivals))
	// How much later than the run a rival starts; it stays near to where that matters.
	delays := make([]time.Duration, len(rivals))
	for i := range *races {
		n := i % len(rivals)
		r, step := rivals[n], time.Duration(rand.N(6000))*time.Microsecond
		code := h.race(r, fmt.Sprintf("race-%d", i), delays[n])
		if counts[n] == nil {
			counts[n] = map[int]int{}
		}
		counts[n][code]++
		if code == r.early {
			delays[n] += step
		} else {
			delays[n] -= step
		}
		h.must("pod", "gc")
		h.clean()
		switch {
		case r.args[0] == "image" && code == 0:
			h.must("image", "import", "--insecure=signature", aci)
		case r.args[0] == "volume" && code == 0:
			h.must("volume", "create", "data")
		}
	}
	for n, r := range rivals {
		t.Logf("%s against %s: exit codes %v", strings.Join(r.args, " "), strings.Join(r.app, " "), counts[n])
		if *races >= 50*len(rivals) && len(r.runs) > 1 && len(counts[n]) == 1 {
			t.Error("one of them has always won")
		}
	}
}

// race runs a pod and a rival, which starts so much later, or earlier when that is
// negative, and gives the rival's exit code.
func (h *host) race(r rival, name string, delay time.Duration) int {
	h.t.Helper()
	done := make(chan outcome, 1)
	go func() {
		time.Sleep(-delay)
		done <- h.try(append([]string{"pod", "run", "--name", name, "--volume", "v,source=volume:data",
			"example.com/probe", "--mount", "v:/v", "--"}, r.app...)...)
	}()
	time.Sleep(delay)
	args := strings.Split(strings.ReplaceAll(strings.Join(r.args, "\n"), "POD", name), "\n")
	rm := h.try(args...)
	h.legal(rm, slices.Collect(maps.Keys(r.runs))...)
	run := h.await(done, name, r.app[0] == "sleep")
	h.legal(run, r.runs[rm.code]...)
	if lacks := r.args[len(r.args)-1]; slices.Equal(r.runs[rm.code], []int{125}) && !strings.Contains(run.stderr, lacks) {
		h.t.Errorf("it does not name %s: %s", lacks, run.stderr)
	}
	return rm.code
}

// await waits for a run, whose pod has to be ended when it sleeps.
func (h *host) await(done <-chan outcome, name string, sleeps bool) outcome {
	h.t.Helper()
	for range 100 {
		select {
		case run := <-done:
			return run
		case <-time.After(100 * time.Millisecond):
		}
		if sleeps {
			h.legal(h.try("pod", "rm", "--force", name), 0, 3)
		}
	}
	h.t.Fatalf("pod %s does not end", name)
	return outcome{}
}

// TestFullDisk imports and runs on a small file system: whatever does not fit
// fails with one line and leaves nothing; with room it works. What takes away works
// without any room, and makes some.
func TestFullDisk(t *testing.T) {
	testenv.Root(t)
	probe, err := os.ReadFile(sandboxtest.BuildProbe(t))
	if err != nil {
		t.Fatal(err)
	}
	aci := filepath.Join(t.TempDir(), "probe.aci")
	if err := os.WriteFile(aci, probeImage(t, probe, "example.com/probe", nil), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(binary(t), "jetpack")
	// In a mount namespace of its own, so that the file system cannot be left.
	const script = `set -e
mount -t tmpfs -o size=64m tmpfs "$1"
cd "$1"
"$0" --root "$1/root" init
for room in 0 64 512 2048 4096 8192; do
	df=$(df -k --output=avail . | tail -1)
	head -c $(( (df - room) * 1024 )) /dev/zero >filler
	code=0
	"$0" --root "$1/root" image import --insecure=signature "$2" 2>"$2.err" >/dev/null || code=$?
	lines=$(grep -c "" "$2.err") || true
	echo "import with $room KiB: exit $code"
	[ $code != 0 ] || "$0" --root "$1/root" image rm example.com/probe
	[ $code = 0 ] || { cat "$2.err"; grep -q "no space left" "$2.err" && [ "$lines" = 1 ]; }
	rm filler
	"$0" --root "$1/root" system check
done
"$0" --root "$1/root" image import --insecure=signature "$2" 2>/dev/null
for room in 0 16 64 256 1024; do
	df=$(df -k --output=avail . | tail -1)
	head -c $(( (df - room) * 1024 )) /dev/zero >filler
	code=0
	"$0" --root "$1/root" pod run --rm example.com/probe -- exit 7 2>"$2.err" || code=$?
	echo "run with $room KiB: exit $code"
	[ $code = 7 ] || { cat "$2.err"; [ $code = 125 ]; grep -qE "no space left|unable to store init state" "$2.err"; }
	rm filler
	[ -z "$("$0" --root "$1/root" pod list -q)" ]
	"$0" --root "$1/root" system check
done
"$0" --root "$1/root" pod run --rm example.com/probe -- exit 7 || [ $? = 7 ]

jetpack() { "$bin" --root "$root/root" "$@"; }
bin=$0 root=$1
fill() { cat /dev/zero >>filler 2>/dev/null || [ "$(df -k --output=avail . | tail -1)" -eq 0 ]; }
frees() {
	fill
	jetpack "$@" || { echo "$* fails"; exit 1; }
	room=$(df -k --output=avail . | tail -1)
	echo "$* makes $room KiB"
	[ "$room" -gt 0 ]
}
jetpack volume create data
for pod in removed collected; do
	jetpack pod run --name $pod --volume v,source=volume:data example.com/probe --mount v:/v -- write /v/x x
done
"$bin" --root "$root/root" pod run --name crashed --volume v,source=volume:data example.com/probe --mount v:/v -- sleep >"$2.out" &
supervisor=$!
trap 'kill -9 $supervisor 2>/dev/null || true' EXIT
timeout 20 sh -c 'until grep -q ready "$1"; do sleep 0.05; done' - "$2.out"
fill
code=0
jetpack volume create more 2>"$2.err" || code=$?
cat "$2.err"
[ $code = 1 ] && grep -q "no space left" "$2.err" && [ "$(jetpack volume list -q)" = data ]
kill -9 $supervisor
wait $supervisor || true
trap - EXIT
frees pod rm removed
frees pod gc
[ -z "$(jetpack pod list -q)" ]
frees volume rm data
frees image rm example.com/probe
jetpack system check
[ "$(ls root/images root/storage/images root/storage/pods root/storage/named 2>/dev/null | grep -c sha512)" = 0 ]
rm filler
jetpack image import --insecure=signature "$2"
jetpack pod run --rm example.com/probe -- exit 7 || [ $? = 7 ]
echo all is well
`
	out, err := exec.Command("unshare", "-m", "sh", "-c", script, bin, t.TempDir(), aci).CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !bytes.Contains(out, []byte("all is well")) {
		t.Error(err)
	}
}
