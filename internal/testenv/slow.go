package testenv

import (
	"crypto/sha512"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Emulated is a slowness of machines that are not just busy.
const Emulated = 4

// Slowness is how many times longer than a usual machine this one takes, at least 1:
// emulated ones need ten times as long. Its files are in dir, and gone afterwards.
func Slowness(t testing.TB, dir string) float64 {
	t.Helper()
	const usual = 250 * time.Millisecond
	begin := time.Now()
	hash := sha512.New()
	for i := range 2000 {
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		hash.Write(make([]byte, 16<<10))
	}
	return max(1, float64(time.Since(begin))/float64(usual))
}
