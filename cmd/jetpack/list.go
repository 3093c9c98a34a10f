package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// listOptions are the output flags of every list.
type listOptions struct {
	format string
	quiet  bool
}

func (o *listOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "table", "`FORMAT`: table, json, jsonl, or a Go template for each entry")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "only the whole IDs, one a line")
}

// row is an entry of a list: its ID, what a table shows of it, and itself as JSON.
type row struct {
	id    string
	cells []string
	value any
}

func (o *listOptions) print(w io.Writer, header []string, rows []row) error {
	if o.quiet && o.format != "table" {
		return usagef("--quiet prints IDs: no --format beside it")
	}
	if o.quiet {
		for _, r := range rows {
			if _, err := fmt.Fprintln(w, r.id); err != nil {
				return err
			}
		}
		return nil
	}
	switch o.format {
	case "table":
		return printTable(w, header, rows)
	case "json":
		values := make([]any, len(rows))
		for i, r := range rows {
			values[i] = r.value
		}
		return printJSON(w, values)
	case "jsonl":
		enc := json.NewEncoder(w)
		for _, r := range rows {
			if err := enc.Encode(r.value); err != nil {
				return err
			}
		}
		return nil
	}
	t, err := template.New("format").Option("missingkey=zero").Parse(o.format)
	if err != nil || !strings.Contains(o.format, "{{") {
		return usagef("--format %q: want table, json, jsonl or a Go template such as '{{.id}}'", o.format)
	}
	for _, r := range rows {
		if err := executeTemplate(w, t, r.value); err != nil {
			return err
		}
	}
	return nil
}

// printLines prints entries with neither header nor columns where print would print
// a table.
func (o *listOptions) printLines(w io.Writer, rows []row) error {
	if o.format != "table" || o.quiet {
		return o.print(w, nil, rows)
	}
	for _, r := range rows {
		if _, err := fmt.Fprintln(w, strings.Join(r.cells, " ")); err != nil {
			return err
		}
	}
	return nil
}

// executeTemplate shows the template the names of the JSON, which are documented
// and stay, and not those of the code.
func executeTemplate(w io.Writer, t *template.Template, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	var fields map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&fields); err != nil {
		return err
	}
	if err := checkFields(t, fields); err != nil {
		return err
	}
	for name, field := range fields {
		fields[name] = templateValue(field)
	}
	var line bytes.Buffer // nothing is printed of an entry that fails
	if err := t.Execute(&line, fields); err != nil {
		return usagef("--format: %w", err)
	}
	line.WriteByte('\n')
	_, err = line.WriteTo(w)
	return err
}

// checkFields refuses names that no entry has, as far as they stand in plain sight:
// the template itself takes them for empty, as it does labels that an image lacks.
func checkFields(t *template.Template, fields map[string]any) error {
	for _, node := range t.Root.Nodes {
		action, ok := node.(*parse.ActionNode)
		if !ok {
			continue
		}
		for _, command := range action.Pipe.Cmds {
			for _, arg := range command.Args {
				if f, ok := arg.(*parse.FieldNode); ok && !hasKey(fields, f.Ident[0]) {
					return usagef("--format: there is no field .%s: want one of %s", f.Ident[0], strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
				}
			}
		}
	}
	return nil
}

func hasKey(fields map[string]any, key string) bool {
	_, ok := fields[key]
	return ok
}

// templateValue gives an object of strings, as labels are, the type for which a
// missing key is the empty string; and a number one that is printed as it is, and can be
// compared. (What is in other objects and lists stays as JSON has it.)
func templateValue(value any) any {
	if number, ok := value.(json.Number); ok {
		if n, err := number.Int64(); err == nil {
			return n
		}
		return value
	}
	object, ok := value.(map[string]any)
	if !ok {
		return value
	}
	texts := map[string]string{}
	for key, v := range object {
		text, ok := v.(string)
		if !ok {
			return value
		}
		texts[key] = text
	}
	return texts
}

func printTable(w io.Writer, header []string, rows []row) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r.cells, "\t"))
	}
	return tw.Flush()
}

func printJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(value)
}

// ago says how long ago something was; of what has not been, nothing.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return units.HumanDuration(time.Since(t)) + " ago"
}
