// Package failpoint names the steps that a command takes on what outlives it, so
// that tests can make each one fail, or end the process there.
//
// Not for: production, where there are no points; operations of storage drivers
// and sandbox engines, which tests wrap as a whole.
package failpoint

// Points stand around steps: Op does the step, or fails in its place, or does it
// and fails all the same. One value is asked by several goroutines at a time.
type Points interface {
	Op(step string, do func() error) error
}

// Do does a step, through p if there is one.
func Do(p Points, step string, do func() error) error {
	if p == nil {
		return do()
	}
	return p.Op(step, do)
}
