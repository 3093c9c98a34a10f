package hostile

import (
	"github.com/jetpack-run/jetpack/internal/overlay"
	"github.com/jetpack-run/jetpack/internal/storage"
)

func init() {
	drivers["overlay"] = driver{
		open:      func(dir string) (storage.Driver, error) { return overlay.Open(dir) },
		supported: overlay.Supported,
	}
}
