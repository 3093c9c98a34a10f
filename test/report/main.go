// Command report reads the JSON of 'go test -json' and prints a line a package,
// the output of what failed, and every skipped test with its reason, so that
// nothing is skipped unnoticed. Its arguments say in the last line what was tested.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is a line of test2json (go doc test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func main() {
	if err := report(os.Stdin, os.Stdout, strings.Join(os.Args[1:], " ")); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func report(r io.Reader, w io.Writer, tested string) error {
	output := map[string][]string{} // by package and test
	var skipped, failed []string
	var passes, fails int
	in := bufio.NewScanner(r)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			fmt.Fprintln(w, in.Text()) // what the go command itself says
			continue
		}
		key := e.Package + " " + e.Test
		switch {
		case e.Action == "build-output":
			fmt.Fprint(w, e.Output)
		case e.Action == "output":
			output[key] = append(output[key], e.Output)
		case e.Test == "" && (e.Action == "pass" || e.Action == "fail"):
			fmt.Fprintf(w, "%-4s %s %.1fs\n", e.Action, e.Package, e.Elapsed)
			if e.Action == "fail" {
				failed = append(failed, key)
			}
		case e.Action == "pass":
			passes++
			delete(output, key)
		case e.Action == "fail":
			fails++
			failed = append(failed, key)
		case e.Action == "skip" && e.Test != "":
			skipped = append(skipped, key+": "+reason(output[key]))
		}
	}
	slices.Sort(skipped)
	for _, s := range skipped {
		fmt.Fprintln(w, "SKIP", s)
	}
	for _, key := range failed {
		fmt.Fprintln(w, "FAIL", key)
		fmt.Fprint(w, strings.Join(output[key], ""))
	}
	if tested != "" {
		tested += ": "
	}
	fmt.Fprintf(w, "%s%d run, %d passed, %d failed, %d skipped\n", tested, passes+fails+len(skipped), passes, fails, len(skipped))
	return in.Err()
}

// reason is what a skipped test said, in one line.
func reason(lines []string) string {
	var said []string
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "---") {
			said = append(said, l)
		}
	}
	return strings.Join(said, " ")
}
