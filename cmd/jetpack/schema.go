package main

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"
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
		{"image tree", false, treeView{}},
		{"image history", true, historyView{}},
		{"image diff", true, changeView{}},
		{"pod list", true, podView{}},
		{"pod inspect", true, podView{}},
		{"pod diff", true, podChange{}},
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
