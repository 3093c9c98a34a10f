// Package hostile holds images against jetpack: a corpus of archives and
// manifests built to escape, to deceive or to exhaust, each with the error that
// it must be refused with and a benign twin that must be accepted.
//
// The corpus goes through aci.Import into a real store, each case in a process of
// its own, while a canary tree and some of the host's own files are watched.
//
// Not for: what a refusal says (the packages' own tests), the runtime's side of
// hostile images.
package hostile
