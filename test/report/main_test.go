package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const in = `{"Action":"build-output","ImportPath":"p","Output":"a.go:1: undefined\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: needs root\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Test":"TestC"}
not json
{"Action":"fail","Package":"p","Elapsed":1}
`
	var out strings.Builder
	if err := report(strings.NewReader(in), &out, "system, commit"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"SKIP p TestA: a_test.go:1: needs root\n", "FAIL p TestB\n    b_test.go:1: wrong\n", "not json\n", "a.go:1: undefined\n", "fail p 1.0s\n", "system, commit: 3 run, 1 passed, 1 failed, 1 skipped\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}
