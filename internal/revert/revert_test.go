package revert_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/jetpack-run/jetpack/internal/revert"
)

var (
	errStep = errors.New("step")
	errUndo = errors.New("undo")
	errLast = errors.New("undo of the last")
)

func TestRun(t *testing.T) {
	ok := func() error { return nil }
	tests := []struct {
		name  string
		steps []func() error // the undo of steps 0, 1, …
		fail  error          // of the step after them
		ran   []int
		want  []error
	}{
		{name: "no step", fail: errStep, want: []error{errStep}},
		{name: "success undoes nothing", steps: []func() error{ok, ok}},
		{name: "last first", steps: []func() error{ok, ok, ok}, fail: errStep, ran: []int{2, 1, 0}, want: []error{errStep}},
		{
			name:  "a failed undo does not stop the others",
			steps: []func() error{func() error { return errUndo }, ok, func() error { return errLast }},
			fail:  errStep, ran: []int{2, 1, 0}, want: []error{errStep, errUndo, errLast},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var ran []int
			change := func() (err error) {
				var r revert.Stack
				defer r.Run(&err)
				for i, undo := range tt.steps {
					r.Add(func() error { ran = append(ran, i); return undo() })
				}
				if tt.fail != nil {
					return tt.fail
				}
				r.Disarm()
				return nil
			}
			err := change()
			if !slices.Equal(ran, tt.ran) {
				t.Errorf("undone: %v, want %v", ran, tt.ran)
			}
			if (err != nil) != (tt.want != nil) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			for _, want := range tt.want {
				if !errors.Is(err, want) {
					t.Errorf("error %q does not include %q", err, want)
				}
			}
		})
	}
}

func TestRunOnce(t *testing.T) {
	n := 0
	var r revert.Stack
	r.Add(func() error { n++; return nil })
	err := errStep
	r.Run(&err)
	r.Run(&err)
	if n != 1 {
		t.Errorf("undone %d times, want 1", n)
	}
}

// A failure without an error of the step's own still has to be seen.
func TestRunReportsUndoAlone(t *testing.T) {
	var r revert.Stack
	r.Add(func() error { return errUndo })
	var err error
	r.Run(&err)
	if !errors.Is(err, errUndo) {
		t.Errorf("error %v, want %v", err, errUndo)
	}
}

func TestRunOnPanic(t *testing.T) {
	var ran []string
	func() {
		var err error
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		var r revert.Stack
		defer r.Run(&err)
		r.Add(func() error { ran = append(ran, "first"); return nil })
		r.Add(func() error { panic("undo") })
		panic("step")
	}()
	if !slices.Equal(ran, []string{"first"}) {
		t.Errorf("undone %q, want the first step", ran)
	}
}
