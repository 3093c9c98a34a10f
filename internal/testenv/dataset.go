package testenv

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Dataset names a ZFS dataset for a test to make: below that of JETPACK_TEST_ZFS, it
// is destroyed at the end of the test with all that is in it. It is "" without ZFS.
func Dataset(t testing.TB) string {
	t.Helper()
	parent := os.Getenv("JETPACK_TEST_ZFS")
	if parent == "" {
		return ""
	}
	Root(t)
	name := parent + "/" + strings.ToLower(rand.Text()[:8])
	t.Cleanup(func() {
		// What was mounted by processes that were killed is busy until they are gone.
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
			out, err := exec.CommandContext(context.Background(), "zfs", "destroy", "-r", name).CombinedOutput()
			if err == nil || strings.Contains(string(out), "does not exist") {
				return
			}
			if time.Now().After(end) {
				t.Errorf("zfs destroy -r %s: %v: %s", name, err, out)
				return
			}
		}
	})
	return name
}
