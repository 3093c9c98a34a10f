// Package revert takes back what a multi-step change has done so far when a
// later step fails.
//
// Not for: recovery after a crash, which needs a record on disk.
package revert

import "errors"

// Stack holds the undo of each step that has succeeded. The zero value is
// empty and ready. It is not safe for concurrent use.
//
//	func create() (err error) {
//		var undo revert.Stack
//		defer undo.Run(&err)
//		if err = mount(); err != nil {
//			return err
//		}
//		undo.Add(unmount)
//		…
//		undo.Disarm()
//		return nil
//	}
type Stack struct {
	undo []func() error
}

// Add registers the undo of a step, after the step has succeeded.
func (s *Stack) Add(undo func() error) {
	s.undo = append(s.undo, undo)
}

// Run calls what Add registered, the last first, and every one of them even if
// some fail or panic; their errors are joined to *err. It then holds nothing, so
// that a second Run does nothing. It is meant to be deferred, with err the
// address of the function's named result, and it runs when the function panics, too.
func (s *Stack) Run(err *error) {
	if len(s.undo) == 0 {
		return
	}
	last := s.undo[len(s.undo)-1]
	s.undo = s.undo[:len(s.undo)-1]
	defer s.Run(err)
	if e := last(); e != nil {
		*err = errors.Join(*err, e)
	}
}

// Disarm forgets everything registered: the change is complete.
func (s *Stack) Disarm() {
	s.undo = nil
}
