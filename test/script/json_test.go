package script

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// TestJSON compares what commands print as JSON with what docs/json.md promises.
// Its scripts have one command more:
//
//	documented SECTION       what the last command printed, one value or one a line, is
//	                         as that section of docs/json.md says, and nothing in there
//	                         is missing
func TestJSON(t *testing.T) {
	testenv.Root(t)
	bin := binary(t)
	probe, err := os.ReadFile(sandboxtest.BuildProbe(t))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/json",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup:               func(env *testscript.Env) error { return setup(t, env, bin, probe) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"aci":        func(ts *testscript.TestScript, _ bool, args []string) { makeACI(t, ts, probe, args) },
			"serve":      serve,
			"documented": func(ts *testscript.TestScript, neg bool, args []string) { documented(string(doc), ts, neg, args) },
		},
	})
}

func documented(doc string, ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: documented SECTION")
	}
	s := section{rows: map[string]docRow{}, seen: map[string]bool{}}
	ts.Check(s.read(doc, args[0]))
	in := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	in.UseNumber()
	for {
		var value any
		err := in.Decode(&value)
		if err == io.EOF {
			break
		}
		ts.Check(err)
		s.top(value)
	}
	for path, row := range s.rows {
		if !s.seen[path] && row.null == "" {
			s.errorf("%s is in none of the objects", path)
		}
	}
	if len(s.errs) > 0 {
		ts.Fatalf("%s:\n%s", args[0], strings.Join(s.errs, "\n"))
	}
}

type docRow struct{ kind, null string }

// section is a section of docs/json.md, and what was found to contradict it.
type section struct {
	rows map[string]docRow // by path
	seen map[string]bool
	errs []string
}

func (s *section) errorf(format string, args ...any) {
	s.errs = append(s.errs, fmt.Sprintf(format, args...))
}

func (s *section) read(doc, title string) error {
	_, text, ok := strings.Cut(doc, "\n## "+title+"\n")
	if !ok {
		return fmt.Errorf("no section %q", title)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	for line := range bytes.Lines([]byte(text)) {
		cells := strings.Split(string(line), "|")
		if len(cells) != 6 || !strings.Contains(cells[1], "`") {
			continue
		}
		s.rows[strings.Trim(cells[1], " `")] = docRow{strings.TrimSpace(cells[2]), strings.TrimSpace(cells[4])}
	}
	return nil
}

func (s *section) top(value any) {
	if list, ok := value.([]any); ok {
		for _, v := range list {
			s.object("", v)
		}
		return
	}
	s.object("", value)
}

func (s *section) object(prefix string, value any) {
	fields, ok := value.(map[string]any)
	if !ok {
		s.errorf("%s is %T, not an object", prefix, value)
		return
	}
	for name, v := range fields {
		row, ok := s.rows[prefix+name]
		switch {
		case !ok:
			s.errorf("%s is not documented", prefix+name)
		case v != nil:
			s.seen[prefix+name] = true
			s.value(prefix, prefix+name, row.kind, v)
		case row.null == "" || strings.HasPrefix(row.null, "absent "):
			s.errorf("%s is null", prefix+name)
		}
	}
	for path, row := range s.rows {
		name, below := strings.CutPrefix(path, prefix)
		if _, ok := fields[name]; below && !strings.Contains(name, ".") && !ok && !strings.HasPrefix(row.null, "absent ") {
			s.errorf("%s is missing", path)
		}
	}
}

func (s *section) value(prefix, path, kind string, v any) {
	var ok bool
	array, isArray := strings.CutPrefix(kind, "array of ")
	members, isMap := strings.CutPrefix(kind, "object of ")
	switch {
	case isArray:
		var list []any
		list, ok = v.([]any)
		for _, e := range list {
			s.value(prefix, path+"[]", array, e)
		}
	case isMap && members != "the same fields":
		var object map[string]any
		object, ok = v.(map[string]any)
		for _, m := range object {
			s.value(prefix, path, members, m)
		}
	default:
		ok = s.simple(prefix, path, kind, v)
	}
	if !ok {
		s.errorf("%s is %v, not of type %s", path, v, kind)
	}
}

func (s *section) simple(prefix, path, kind string, v any) bool {
	text, isString := v.(string)
	switch kind {
	case "object":
		s.object(path+".", v)
	case "object of the same fields":
		s.object(prefix, v)
	case "JSON":
	case "string":
		return isString
	case "boolean":
		_, ok := v.(bool)
		return ok
	case "integer":
		n, ok := v.(json.Number)
		_, err := n.Int64()
		return ok && err == nil
	case "time":
		_, err := time.Parse(time.RFC3339, text)
		return isString && err == nil && strings.HasSuffix(text, "Z")
	default:
		return false
	}
	return true
}
