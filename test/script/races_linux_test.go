package script

import (
	"bytes"
	"flag"
	"fmt"
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
	for _, kind := range []string{"images/sha512-*", "images/.import-*", "storage/images/*", "storage/imports/*"} {
		found, err := filepath.Glob(filepath.Join(h.root, kind))
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 0, false: 2}[strings.Contains(kind, "import-") || strings.Contains(kind, "imports")]; len(found) != want {
			t.Errorf("%s: %v", kind, found)
		}
	}
	h.clean()
}

// TestRunAgainstRemoval races `pod run` with `pod rm` of the same pod, with `image
// rm` of its image and with `pod gc`. Whoever wins, both say what happened, and
// nothing is left.
func TestRunAgainstRemoval(t *testing.T) {
	h := newHost(t)
	ran := map[string]map[int]int{}
	aci := filepath.Join(t.TempDir(), "probe.aci")
	h.must("image", "export", "example.com/probe", aci)
	for i := range *races {
		name := fmt.Sprintf("race-%d", i)
		var rival []string
		codes := []int{0, 3, 5}
		switch i % 4 {
		case 0:
			rival = []string{"pod", "rm", name}
		case 1:
			rival = []string{"pod", "rm", "--force", name}
		case 2:
			h.must("pod", "gc") // or its pods keep the image
			rival = []string{"image", "rm", "example.com/probe"}
		case 3:
			rival, codes = []string{"pod", "gc"}, []int{0}
		}
		done := make(chan outcome, 1)
		go func() { done <- h.try("pod", "run", "--name", name, "example.com/probe", "--", "exit", "7") }()
		time.Sleep(time.Duration(rand.N(60)) * time.Millisecond)
		rm := h.try(rival...)
		run := <-done
		h.legal(rm, codes...)
		// The app's own code, stopped or killed on the way, or refused beforehand.
		h.legal(run, 7, 125, 137, 143)
		if run.code == 125 && run.stderr == "" {
			t.Errorf("round %d: %v failed without a word", i, run.args)
		}
		kind := strings.Join(rival[:2], " ")
		if ran[kind] == nil {
			ran[kind] = map[int]int{}
		}
		ran[kind][rm.code]++
		if i%4 == 2 && rm.code == 0 {
			h.must("image", "import", "--insecure=signature", aci)
		}
		if i%10 == 9 {
			h.must("pod", "gc")
			h.clean()
		}
	}
	h.must("pod", "gc")
	h.clean()
	t.Logf("%d races; exit codes of the removals: %v", *races, ran)
}

// TestFullDisk imports and runs on a small file system: whatever does not fit
// fails with one line and leaves nothing; with room it works.
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
	"$0" --root "$1/root" pod gc
	"$0" --root "$1/root" system check
done
"$0" --root "$1/root" pod run --rm example.com/probe -- exit 7 || [ $? = 7 ]
echo all is well
`
	out, err := exec.Command("unshare", "-m", "sh", "-c", script, bin, t.TempDir(), aci).CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !bytes.Contains(out, []byte("all is well")) {
		t.Error(err)
	}
}
