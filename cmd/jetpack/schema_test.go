package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// jsonOutput is what a command prints as JSON.
type jsonOutput struct {
	command string
	list    bool // an array of views, and with jsonl and templates one at a time
	view    any
}

// jsonOutputs are all there are: a command with --format json or the name inspect
// belongs here.
func jsonOutputs() []jsonOutput {
	return []jsonOutput{
		{"image list", true, imageView{}},
		{"image inspect", true, imageDetailsView{}},
		{"image fetch", true, stepView{}},
		{"image tree", false, treeView{}},
		{"image history", true, historyView{}},
		{"image diff", true, changeView{}},
		{"pod list", true, podView{}},
		{"pod inspect", true, podView{}},
		{"pod diff", true, podChange{}},
		{"trust list", true, keyView{}},
		{"repo list", true, entryView{}},
		{"volume list", true, volumeView{}},
		{"volume inspect", true, volumeDetailsView{}},
		{"system df", true, usageView{}},
		{"system info", false, systemInfo{}},
	}
}

// schemaField is a row of a table in docs/json.md. In path, "[]" stands for any
// element of the array before it.
type schemaField struct{ path, kind, doc, null string }

// schemaFields describes the fields of a struct, those of structs in it included.
// outer are the structs that it is in.
func schemaFields(prefix string, t reflect.Type, outer ...reflect.Type) []schemaField {
	outer = append(slices.Clip(outer), t)
	var fields []schemaField
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" || name == "-" {
			continue
		}
		field := schemaField{path: prefix + name, doc: f.Tag.Get("doc"), null: f.Tag.Get("null")}
		if options == "omitempty" && field.null != "" {
			field.null = "absent " + field.null
		}
		inner, below := f.Type, prefix+name
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		field.kind = jsonKind(inner, outer)
		if inner.Kind() == reflect.Slice && inner != rawMessage {
			inner, below = inner.Elem(), below+"[]"
		}
		fields = append(fields, field)
		if jsonKind(inner, outer) == "object" {
			fields = append(fields, schemaFields(below+".", inner, outer...)...)
		}
	}
	return fields
}

var rawMessage = reflect.TypeFor[json.RawMessage]()

func jsonKind(t reflect.Type, outer []reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == rawMessage:
		return "JSON"
	case slices.Contains(outer, t):
		return "object of the same fields"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	case reflect.Struct:
		return "object"
	case reflect.Slice:
		return "array of " + jsonKind(t.Elem(), outer)
	case reflect.Map:
		return "object of " + jsonKind(t.Elem(), outer)
	}
	if t.ConvertibleTo(reflect.TypeFor[int64]()) {
		return "integer"
	}
	panic("no JSON is written of " + t.String()) // a view that a developer has just added
}

const schemaIntro = `# What jetpack prints as JSON

Made by ` + "`make generate`" + ` from the code.

Within a major version fields are added, and never renamed, removed or given
another type or meaning: programs should pass over those they do not know.
Times are RFC 3339 in UTC, sizes are bytes, IDs are whole. A field is never null
and always there, unless the last column says otherwise; a list that is empty is
` + "`[]`" + `. Names of files are made valid UTF-8.

Lists take ` + "`--format json`" + ` (an array), ` + "`jsonl`" + ` (an object a line), or a Go
template such as ` + "`'{{.id}}'`" + `, which sees the fields under these names. Commands
named inspect print an array with an object for each argument, and nothing else.
Where a type is JSON, the specification of App Containers describes it, as it does
what ` + "`image manifest`, `pod manifest` and `pod prepare --dry-run`" + ` print.
`

// writeSchemas makes docs/json.md.
func writeSchemas(w io.Writer) error {
	if _, err := io.WriteString(w, schemaIntro); err != nil {
		return err
	}
	for _, s := range jsonOutputs() {
		what := "An object:"
		if s.list {
			what = "An array of objects:"
		}
		_, err := fmt.Fprintf(w, "\n## %s\n\n%s\n\n| Field | Type | Meaning | Null |\n| --- | --- | --- | --- |\n", s.command, what)
		if err != nil {
			return err
		}
		for _, f := range schemaFields("", reflect.TypeOf(s.view)) {
			if _, err := fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", f.path, f.kind, f.doc, f.null); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestSchemasAreDocumented: no field without its meaning, and no field that may be
// null or absent without a word on when.
func TestSchemasAreDocumented(t *testing.T) {
	var check func(t *testing.T, view reflect.Type, seen []reflect.Type)
	check = func(t *testing.T, view reflect.Type, seen []reflect.Type) {
		for view.Kind() == reflect.Pointer || view.Kind() == reflect.Slice || view.Kind() == reflect.Map {
			view = view.Elem()
		}
		if view.Kind() != reflect.Struct || view.PkgPath() == "time" || slices.Contains(seen, view) {
			return
		}
		for _, f := range reflect.VisibleFields(view) {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous:
				continue
			case name == "" || name == "-":
				t.Errorf("%s.%s has no name in JSON", view.Name(), f.Name)
			case f.Tag.Get("doc") == "":
				t.Errorf("%s.%s has no doc", view.Name(), f.Name)
			case strings.ContainsAny(f.Tag.Get("doc")+f.Tag.Get("null"), "|\n"):
				t.Errorf("%s.%s breaks the table", view.Name(), f.Name)
			}
			if mayLack := f.Type.Kind() == reflect.Pointer || options == "omitempty"; mayLack != (f.Tag.Get("null") != "") {
				t.Errorf("%s.%s: its tag null says %q", view.Name(), f.Name, f.Tag.Get("null"))
			}
			check(t, f.Type, append(seen, view))
		}
	}
	for _, s := range jsonOutputs() {
		t.Run(s.command, func(t *testing.T) { check(t, reflect.TypeOf(s.view), nil) })
	}
}

// TestSchemasAreComplete: every command that prints JSON has one.
func TestSchemasAreComplete(t *testing.T) {
	var want []string
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		format := cmd.Flags().Lookup("format")
		shortcut := cmd.Parent() != nil && !cmd.Parent().HasParent() && !cmd.HasSubCommands()
		if !shortcut && (cmd.Name() == "inspect" || format != nil && strings.Contains(format.Usage, "json")) {
			want = append(want, strings.TrimPrefix(cmd.CommandPath(), "jetpack "))
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRootCommand(&cli{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}))
	var got []string
	for _, s := range jsonOutputs() {
		got = append(got, s.command)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("schemas of %q, but JSON is printed by %q", got, want)
	}
}

func TestSchemaFields(t *testing.T) {
	type inner struct {
		Self []inner `json:"self" doc:"s"`
		N    *int    `json:"n" doc:"n" null:"if none"`
	}
	type outer struct {
		inner
		List []inner           `json:"list,omitempty" doc:"l" null:"if empty"`
		Map  map[string]string `json:"map" doc:"m"`
	}
	got := schemaFields("", reflect.TypeFor[outer]())
	want := []schemaField{
		{"self", "array of object", "s", ""},
		{"self[].self", "array of object of the same fields", "s", ""},
		{"self[].n", "integer", "n", "if none"},
		{"n", "integer", "n", "if none"},
		{"list", "array of object", "l", "absent if empty"},
		{"list[].self", "array of object of the same fields", "s", ""},
		{"list[].n", "integer", "n", "if none"},
		{"map", "object of string", "m", ""},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"/a b/größe":  "/a b/größe",
		"/a\nb":       `"/a\nb"`,
		"/\x1b[31m":   `"/\x1b[31m"`,
		"/\xff":       `"/\xff"`,
		"/\u202egnol": `"/\u202egnol"`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %s, want %s", in, got, want)
		}
	}
}
