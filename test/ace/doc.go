// Package ace runs the ACE validator of the App Container Specification
// (github.com/appc/spec/ace) with the real binary: its images are made of the
// specification's module when the tests run. A second table breaks, one by one, what the
// validator looks at, to see that it does.
//
// Not for: what the validator does not check. That is in runtime, internal/sandbox and
// test/script.
package ace
