package storagetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/jetpack-run/jetpack/internal/storage"
)

// BenchmarkClone measures Clone and Mount of origins of 10 MB and 1 GB, and, as
// "cycle", with Unmount and Destroy: the part that storage has in the start and
// end of an app.
func BenchmarkClone(b *testing.B, open func(b *testing.B) storage.Driver) {
	for _, size := range []struct {
		name  string
		files int
	}{{"10MB", 10}, {"1GB", 1000}} {
		d, origin := open(b), "images/a"
		makeOrigin(b, d, origin, size.files)
		for _, cycle := range []bool{false, true} {
			bench := size.name
			if cycle {
				bench += "-cycle"
			}
			b.Run(bench, func(b *testing.B) {
				for b.Loop() {
					cloneOnce(b, d, origin, cycle)
				}
			})
		}
		check(b, d.Destroy(b.Context(), origin))
	}
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// makeOrigin makes a sealed tree with files of a megabyte.
func makeOrigin(b *testing.B, d storage.Driver, name string, files int) {
	b.Helper()
	check(b, d.Create(b.Context(), name, storage.Options{}))
	dir, err := d.Mount(b.Context(), name)
	check(b, err)
	for i := range files {
		check(b, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), randomBytes(1e6), 0o644))
	}
	check(b, d.Unmount(b.Context(), name))
	check(b, d.Seal(b.Context(), name))
}

func cloneOnce(b *testing.B, d storage.Driver, origin string, cycle bool) {
	check(b, d.Clone(b.Context(), origin, "pods/a", storage.Options{}))
	_, err := d.Mount(b.Context(), "pods/a")
	check(b, err)
	if !cycle {
		b.StopTimer()
		defer b.StartTimer()
	}
	check(b, d.Unmount(b.Context(), "pods/a"))
	check(b, d.Destroy(b.Context(), "pods/a"))
}
