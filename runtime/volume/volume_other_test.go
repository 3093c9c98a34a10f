//go:build !linux

package volume_test

import (
	"errors"
	"testing"

	"github.com/jetpack-run/jetpack/internal/storage"
)

// drivers are those that the tests run on, by name.
var drivers = map[string]func(t *testing.T, root string) storage.Driver{"plaindir": openPlain}

func reopenMounting(string) (storage.Driver, error) {
	return nil, errors.New("no driver that mounts trees")
}
