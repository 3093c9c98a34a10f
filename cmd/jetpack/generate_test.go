package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra/doc"

	"github.com/jetpack-run/jetpack/internal/config"
	"github.com/jetpack-run/jetpack/internal/platform"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

var update = flag.Bool("update", false, "TestGenerated writes the files")

// TestGenerated compares the files that are made from the code, with what is in the
// tree: the manual pages, the completion scripts, the sample of the configuration file,
// the tables of capabilities and of what is printed as JSON.
func TestGenerated(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("they are made on Linux, and name its defaults")
	}
	root := newRootCommand(&cli{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr})
	root.DisableAutoGenTag = true
	date := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC) // the pages are the same on every day
	header := &doc.GenManHeader{Section: "1", Source: "jetpack", Manual: "jetpack", Date: &date}
	dir := t.TempDir()
	man1, man5, comp := filepath.Join(dir, "share/man/man1"), filepath.Join(dir, "share/man/man5"), filepath.Join(dir, "share/completions")
	for _, sub := range []string{man1, man5, comp, filepath.Join(dir, "docs")} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		doc.GenManTree(root, header, man1),
		root.GenBashCompletionFileV2(filepath.Join(comp, "jetpack.bash"), true),
		root.GenZshCompletionFile(filepath.Join(comp, "_jetpack")),
		root.GenFishCompletionFile(filepath.Join(comp, "jetpack.fish"), true),
		writeTo(filepath.Join(man5, "jetpack.toml.5"), config.ManPage),
		writeTo(filepath.Join(dir, "share/jetpack.toml.sample"), func(w io.Writer) error { return config.Sample(w, "freebsd") }),
		writeTo(filepath.Join(dir, "docs/capabilities.md"), writeCapabilities),
		writeTo(filepath.Join(dir, "docs/isolators.md"), writeIsolators),
		writeTo(filepath.Join(dir, "docs/security.md"), writeSecurity),
		writeTo(filepath.Join(dir, "docs/json.md"), writeSchemas),
	); err != nil {
		t.Fatal(err)
	}
	const tree = "../.."
	made := files(t, dir, "share", "docs")
	if *update {
		err := errors.Join(os.RemoveAll(tree+"/share/man"), os.RemoveAll(tree+"/share/completions"))
		for name, text := range made {
			err = errors.Join(err, os.MkdirAll(filepath.Join(tree, filepath.Dir(name)), 0o755),
				os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range made {
		if kept, err := os.ReadFile(filepath.Join(tree, name)); err != nil || string(kept) != text {
			t.Errorf("%s is out of date, %v: run 'make generate'", name, err)
		}
	}
	for name := range files(t, tree, "share/man", "share/completions") {
		if _, ok := made[name]; !ok {
			t.Errorf("%s is of nothing: run 'make generate'", name)
		}
	}
}

// files reads the files in directories below dir.
func files(t *testing.T, dir string, below ...string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, sub := range below {
		err := fs.WalkDir(os.DirFS(dir), sub, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(filepath.Join(dir, path))
			texts[path] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return texts
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

// writeIsolators makes a table of what each engine does about each isolator.
func writeIsolators(w io.Writer) error {
	_, err := io.WriteString(w, isolatorsIntro+engineTable("Isolator", sandbox.Isolators(), func(e sandbox.Info, name string) string {
		return cmp.Or(e.Isolators[name], "ignored")
	}))
	return err
}

// writeSecurity puts a table of the profiles in its place.
func writeSecurity(w io.Writer) error {
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		return err
	}
	const begin, end = "<!-- made by 'make generate' -->\n", "<!-- end -->\n"
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return errors.New("docs/security.md has no place for the profiles")
	}
	table := engineTable("Profile", sandbox.Profiles(), func(e sandbox.Info, name sandbox.Profile) string { return e.Profiles[name] })
	_, err = io.WriteString(w, before+begin+table+end+after)
	return err
}

// engineTable has a column for each engine.
func engineTable[T ~string](first string, names []T, cell func(sandbox.Info, T) string) string {
	_, engines := platform.Backends()
	var b strings.Builder
	rule := "| --- |"
	b.WriteString("| " + first + " |")
	for _, e := range engines {
		b.WriteString(" " + map[string]string{"oci": "Linux", "jail": "FreeBSD"}[e.Name] + " |")
		rule += " --- |"
	}
	b.WriteString("\n" + rule + "\n")
	for _, name := range names {
		b.WriteString("| `" + string(name) + "` |")
		for _, e := range engines {
			b.WriteString(" " + cell(e, name) + " |")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

const isolatorsIntro = `# Isolators

Made by ` + "`make generate`" + `; see the appc specification for the values. A pod's are given by
` + "`--memory`, `--cpus`" + ` or a pod manifest, an app's by ` + "`--isolator`" + `, its image or the pod manifest. What becomes
of each is told when a pod is made and when it starts, and shown by ` + "`pod inspect`" + `: enforced,
modified or ignored, the latter two with the reason; ` + "`--strict`" + ` refuses both. An app's resources are
within its pod's. An image's isolators take from what the profile gives and add nothing to it; the
operator's do as they say. Of several of one name the last one counts. Amounts have the suffixes
k, M, G, T, P, E of 1000 and Ki, Mi, Gi, Ti, Pi, Ei of 1024; those of ` + "`--memory`" + ` are of 1024.

`
