// Package lazyregexp compiles regular expressions when they are first used: jetpack
// starts once per pod, and most of those that it knows no start needs.
//
// Not for: patterns that come from a user, which may be wrong.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New gives what compiles a pattern once and gives it. It panics then if the pattern is
// none.
func New(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
