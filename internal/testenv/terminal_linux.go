package testenv

import (
	"testing"

	"github.com/containerd/console"
)

// Terminal makes a terminal: ours is the side of who shows it, name the file of the
// side of programs.
func Terminal(tb testing.TB) (ours console.Console, name string) {
	tb.Helper()
	ours, name, err := console.NewPty()
	if err != nil {
		tb.Fatal(err)
	}
	return ours, name
}
