package render_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/overlay"
	"github.com/jetpack-run/jetpack/internal/storage"
)

func init() {
	backends = append(backends, backend{"overlay", 40, false, func(t testing.TB, dir string) storage.Driver {
		t.Helper()
		if err := overlay.Supported(dir); errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
			t.Skip(err) // most containers
		} else if err != nil {
			t.Fatal(err)
		}
		d, err := overlay.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}})
}
