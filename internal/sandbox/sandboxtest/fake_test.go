//go:build unix

package sandboxtest_test

import (
	"os"
	"testing"

	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
)

// engines are the fakes by their directory, which they do not use.
var engines = map[string]sandbox.Engine{}

var suite = sandboxtest.Suite{
	New: func(dir string) (sandbox.Engine, error) {
		if engines[dir] == nil {
			engines[dir] = sandboxtest.NewFake()
		}
		return engines[dir], nil
	},
	Leftovers: func(string, string) ([]string, error) { return nil, nil },
	Owner:     "fake-owner",
}

func init() { suite.Register() }

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

func TestFake(t *testing.T) { suite.Run(t) }
