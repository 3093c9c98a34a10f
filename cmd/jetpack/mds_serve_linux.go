package main

// confineMDS has nothing to add: who is not root any more has no capabilities.
func confineMDS() error { return nil }
