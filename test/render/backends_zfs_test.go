package render_test

import (
	"os"
	"testing"

	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/testenv"
	"github.com/jetpack-run/jetpack/zfs"
)

func init() {
	if os.Getenv("JETPACK_TEST_ZFS") == "" {
		return
	}
	backends = append(backends, backend{"zfs", 40, true, func(t testing.TB, dir string) storage.Driver {
		t.Helper()
		dataset := testenv.Dataset(t)
		if _, err := zfs.Init(t.Context(), dataset, "12345678", dir); err != nil {
			t.Fatal(err)
		}
		d, err := zfs.Open(dataset, dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}})
}
