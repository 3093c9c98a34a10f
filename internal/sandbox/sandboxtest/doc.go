// Package sandboxtest holds what tests of and with sandbox engines need: the
// conformance suite that every engine passes, the probe program, and a fake.
//
// Not for: use outside tests.
package sandboxtest
