package config

import (
	"fmt"
	"io"
	"strings"
)

const sampleHead = `# Configuration of jetpack: see jetpack.toml(5). A line that begins with "#" and
# no blank is a setting with its default: remove the "#" to change it.
`

// Sample writes a configuration file in which every key is a comment with its
// default on goos.
func Sample(w io.Writer, goos string) error {
	return sample(w, Keys(), goos)
}

func sample(w io.Writer, keys []Key, goos string) error {
	var b strings.Builder
	b.WriteString(sampleHead)
	for _, k := range keys {
		doc := k.Doc
		if len(k.Choices) > 0 {
			doc += " One of " + strings.Join(k.Choices, ", ") + "."
		}
		d := k.defaultOn(goos)
		if d == "" {
			fmt.Fprintf(&b, "\n%s# %s has no default.\n", comment(doc), k.Name)
			continue
		}
		fmt.Fprintf(&b, "\n%s#%s = %s\n", comment(doc), k.Name, k.literal(d))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write sample: %w", err)
	}
	return nil
}

// literal is a value as TOML has it.
func (k Key) literal(value string) string {
	if k.Type == Integer {
		return value
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
}

// comment breaks text into lines of a comment.
func comment(text string) string {
	var b strings.Builder
	line := "#"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > 80 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}
