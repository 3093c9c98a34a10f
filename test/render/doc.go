// Package render checks the root file systems that jetpack makes of images with
// dependencies against a naive renderer, which is the text of the appc spec
// (ace.md, "Filesystem Setup"; aci.md on dependencies and pathWhitelist) done
// literally: every archive is unpacked again, one after the other, into one
// plain directory. It shares no code with what it checks.
//
//	go test ./test/render -run TestRandom -seeds 5000
//	go test ./test/render -run 'TestRandom/plaindir/seed=17$'
//
// Not for: anything outside its tests.
package render
