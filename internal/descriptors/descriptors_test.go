//go:build unix

package descriptors_test

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/descriptors"
)

func TestInherited(t *testing.T) {
	ours, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	var theirs [2]int
	for i := range theirs {
		// As if it had been there from the start: without close-on-exec.
		if theirs[i], err = unix.Open(os.DevNull, unix.O_RDONLY, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(theirs[i])
	}
	got, err := descriptors.Inherited(3)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(got, theirs[0]) || !slices.Contains(got, theirs[1]) {
		t.Errorf("Inherited = %v, want %v among them", got, theirs)
	}
	if slices.Contains(got, int(ours.Fd())) {
		t.Errorf("Inherited = %v, with %d, which is close-on-exec", got, ours.Fd())
	}
	after, err := descriptors.Inherited(theirs[0] + 1)
	if err != nil || slices.Contains(after, theirs[0]) || !slices.Contains(after, theirs[1]) {
		t.Errorf("Inherited(%d) = %v, %v", theirs[0]+1, after, err)
	}
}
