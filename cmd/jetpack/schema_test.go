package main

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

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
