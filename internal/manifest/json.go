package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/appc/spec/schema"
)

const maxDepth = 32

var (
	imageFields = fieldNames(reflect.TypeFor[schema.ImageManifest](), false)
	podFields   = fieldNames(reflect.TypeFor[schema.PodManifest](), false)
	// schemaNames maps the folded form of every name in the schemas to the name.
	schemaNames = foldedNames()
)

func foldedNames() map[string]string {
	folded := map[string]string{}
	for _, t := range []reflect.Type{reflect.TypeFor[schema.ImageManifest](), reflect.TypeFor[schema.PodManifest]()} {
		for name := range fieldNames(t, true) {
			folded[fold(name)] = name
		}
	}
	return folded
}

// fieldNames lists the JSON names of a struct's fields and, if deep, of all
// that it is made of.
func fieldNames(t reflect.Type, deep bool) map[string]bool {
	names := map[string]bool{}
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return names
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		names[name] = true
		if deep {
			maps.Copy(names, fieldNames(f.Type, true))
		}
	}
	return names
}

// decodeObject checks a document as a whole (checkJSON) and splits its top
// level. It warns of top-level keys that are not among known.
func decodeObject(data []byte, known map[string]bool) (map[string]json.RawMessage, []string, error) {
	if err := checkJSON(data); err != nil {
		return nil, nil, err
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(data, &doc); err != nil || doc == nil {
		return nil, nil, invalid("", "not a JSON object")
	}
	var warnings []string
	for _, key := range slices.Sorted(maps.Keys(doc)) {
		if !known[key] {
			warnings = append(warnings, fmt.Sprintf("unknown field %.100q is ignored", key))
		}
	}
	return doc, warnings, nil
}

// checkJSON refuses what readers of JSON disagree about (CVE-2021-41190 is an
// attack by such a disagreement): bytes that are not UTF-8, a second document,
// deep nesting, repeated keys. encoding/json matches keys without regard to
// case, so keys that differ only in case are repeated keys, and a key that
// differs only in case from a name in the schema is refused. The contents of
// userAnnotations and userLabels, where case matters, are exempt from
// both, and the values of isolators from the last.
func checkJSON(data []byte) error {
	if len(data) > MaxSize {
		return invalid("", "larger than %d bytes", MaxSize)
	}
	if !utf8.Valid(data) {
		return invalid("", "not UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		return invalid("", "%s", oneLine(err.Error()))
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	first, err := dec.Token()
	if err != nil {
		return invalid("", "%s", oneLine(err.Error()))
	}
	if first != json.Delim('{') {
		return invalid("", "not a JSON object")
	}
	return keyWalker{dec}.object("", 1, schemaKeys)
}

// keyRule says how strictly the keys of an object are compared.
type keyRule int

const (
	exactKeys  keyRule = iota // distinct
	foldedKeys                // and distinct without regard to case
	schemaKeys                // and spelt as in the schema
)

// below is the rule for what is under key in an object with rule r.
func (r keyRule) below(key string) keyRule {
	switch key {
	case "userAnnotations", "userLabels":
		return exactKeys
	case "value": // of an isolator; elsewhere it is a string
		return min(r, foldedKeys)
	}
	return r
}

// keyWalker walks a document that is known to be syntactically valid.
type keyWalker struct{ dec *json.Decoder }

func (w keyWalker) object(where string, depth int, rule keyRule) error {
	seen := map[string]bool{}
	for w.dec.More() {
		tok, err := w.dec.Token()
		if err != nil {
			return invalid(where, "%s", oneLine(err.Error()))
		}
		key, ok := tok.(string)
		if !ok {
			return invalid(where, "not a key: %.100q", tok)
		}
		here := strings.TrimPrefix(where+"."+printable(key), ".")
		if err := checkKey(here, key, rule, seen); err != nil {
			return err
		}
		if err := w.value(func() string { return here }, depth, rule.below(key)); err != nil {
			return err
		}
	}
	_, err := w.dec.Token() // the closing brace
	return err
}

func (w keyWalker) array(where string, depth int, rule keyRule) error {
	for i := 0; w.dec.More(); i++ {
		if err := w.value(func() string { return fmt.Sprintf("%s[%d]", where, i) }, depth, rule); err != nil {
			return err
		}
	}
	_, err := w.dec.Token() // the closing bracket
	return err
}

// value walks one value. where is a function because most values are scalars
// and their names are not needed.
func (w keyWalker) value(where func() string, depth int, rule keyRule) error {
	tok, err := w.dec.Token()
	if err != nil {
		return invalid(where(), "%s", oneLine(err.Error()))
	}
	if _, ok := tok.(json.Delim); !ok {
		return nil
	}
	if depth == maxDepth {
		return invalid(where(), "nested more than %d deep", maxDepth)
	}
	if tok == json.Delim('{') {
		return w.object(where(), depth+1, rule)
	}
	return w.array(where(), depth+1, rule)
}

func checkKey(where, key string, rule keyRule, seen map[string]bool) error {
	id := key
	if rule >= foldedKeys {
		id = fold(key)
	}
	if seen[id] {
		return invalid(where, "duplicate key")
	}
	seen[id] = true
	if name, ok := schemaNames[id]; ok && rule == schemaKeys && name != key {
		return invalid(where, "misspelt key, should be %q", name)
	}
	return nil
}

// fold maps keys that encoding/json would take for the same ASCII name to the
// same string: ToUpper catches U+017F (long s), ToLower U+212A (Kelvin sign).
func fold(key string) string { return strings.ToLower(strings.ToUpper(key)) }

// printable shows a key in a path, quoted if it is not plain.
func printable(key string) string {
	quoted := fmt.Sprintf("%.60q", key)
	if plain := quoted[1 : len(quoted)-1]; plain == key {
		return key
	}
	return quoted
}
