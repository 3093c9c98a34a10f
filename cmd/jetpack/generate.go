package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/jetpack-run/jetpack/internal/config"
	"github.com/jetpack-run/jetpack/internal/platform"
)

// newGenerateCommand writes what is made from the code: the manual pages, the
// completion scripts, the sample of the configuration file, the tables of
// capabilities and of what is printed as JSON.
// The tree keeps the result, and the tests compare.
func newGenerateCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:    "generate DIR",
		Short:  "Write what is made from the code below a checkout's DIR",
		Hidden: true,
		Args:   exactly(1, "one DIR"),
		RunE:   func(cmd *cobra.Command, args []string) error { return c.runGenerate(cmd.Root(), args[0]) },
	}
}

func (c *cli) runGenerate(root *cobra.Command, dir string) (err error) {
	share, docs := filepath.Join(dir, "share"), filepath.Join(dir, "docs")
	man1, man5, comp := filepath.Join(share, "man/man1"), filepath.Join(share, "man/man5"), filepath.Join(share, "completions")
	for _, sub := range []string{man1, man5, comp, docs} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
	}
	root.DisableAutoGenTag = true
	date := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC) // the pages are the same on every day
	header := &doc.GenManHeader{Section: "1", Source: "jetpack", Manual: "jetpack", Date: &date}
	if err := doc.GenManTree(root, header, man1); err != nil {
		return err
	}
	if err := errors.Join(
		root.GenBashCompletionFileV2(filepath.Join(comp, "jetpack.bash"), true),
		root.GenZshCompletionFile(filepath.Join(comp, "_jetpack")),
		root.GenFishCompletionFile(filepath.Join(comp, "jetpack.fish"), true),
	); err != nil {
		return err
	}
	return errors.Join(
		writeTo(filepath.Join(man5, "jetpack.toml.5"), config.ManPage),
		writeTo(filepath.Join(share, "jetpack.toml.sample"), func(w io.Writer) error { return config.Sample(w, "freebsd") }),
		writeTo(filepath.Join(docs, "capabilities.md"), writeCapabilities),
		writeTo(filepath.Join(docs, "json.md"), writeSchemas),
	)
}

func writeTo(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// writeCapabilities makes a table of what each backend declares of itself.
func writeCapabilities(w io.Writer) error {
	drivers, engines := platform.Backends()
	_, err := fmt.Fprintf(w, "# Capabilities of the backends\n\nMade by `make generate`; what the words mean is said in internal/storage and internal/sandbox.\n\n## Storage\n\n%s\n## Sandbox\n\n%s",
		capabilityTable(drivers), capabilityTable(engines))
	return err
}

// capabilityTable has a row for every boolean field of the Info structs, so that
// none is forgotten.
func capabilityTable[T any](infos []T) string {
	columns := make([]reflect.Value, len(infos))
	for i, info := range infos {
		columns[i] = reflect.ValueOf(info)
	}
	var b strings.Builder
	row := func(first string, cell func(v reflect.Value) string) {
		b.WriteString("| " + first + " |")
		for _, v := range columns {
			b.WriteString(" " + cell(v) + " |")
		}
		b.WriteByte('\n')
	}
	row("", func(v reflect.Value) string { return v.FieldByName("Name").String() })
	row("---", func(reflect.Value) string { return "---" })
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if f.Type.Kind() == reflect.Bool {
			row(f.Name, func(v reflect.Value) string {
				return map[bool]string{true: "yes", false: "no"}[v.FieldByIndex(f.Index).Bool()]
			})
		}
	}
	return b.String()
}
