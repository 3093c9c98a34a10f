package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/coreos/go-semver/semver"
)

const (
	maxDepth = 32
	// Only a pathWhitelist has reason to be long. These bound what the rest of a
	// document is in bytes, and in keys and list elements, of which three bytes
	// ("{},") become hundreds in memory.
	maxRest   = 4 << 20
	maxValues = 1 << 17
	// maxPaths is the most entries of a pathWhitelist, or commas in it: they are
	// counted before it is decoded.
	maxPaths = 1 << 20
	// maxWarnings is the most warnings that are given of one document.
	maxWarnings = 50
)

var (
	imageShape = sync.OnceValue(func() *shape { return shapeOf(reflect.TypeFor[schema.ImageManifest]()) })
	podShape   = sync.OnceValue(func() *shape { return shapeOf(reflect.TypeFor[schema.PodManifest]()) })
	// anything is the shape of what the schema does not know.
	anything = &shape{}
)

// shape is what the schema says of a value: an object with these fields, a list
// of these elements, a map with the user's keys, or else anything.
type shape struct {
	fields   map[string]*shape
	folded   map[string]string // the folded forms of the names in fields
	elem     *shape
	userKeys bool
	paths    bool // the pathWhitelist
	earlier  []rename
	isolator bool
}

// shapeOf reads the shape from the types of the library.
func shapeOf(t reflect.Type) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	s := &shape{isolator: t == reflect.TypeFor[types.Isolator]()}
	switch t.Kind() {
	case reflect.Map:
		s.userKeys = true
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 { // raw JSON, IP addresses
			s.elem = shapeOf(t.Elem())
		}
	case reflect.Struct:
		s.addFields(t)
	}
	return s
}

// addFields leaves structs without JSON names, which are strings in JSON, as
// they are.
func (s *shape) addFields(t reflect.Type) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		if s.fields == nil {
			s.fields, s.folded = map[string]*shape{}, map[string]string{}
		}
		s.fields[name] = shapeOf(f.Type)
		s.fields[name].paths = name == "pathWhitelist"
		s.folded[fold(name)] = name
	}
	for _, r := range renames {
		if r.in == t {
			s.earlier = append(s.earlier, r)
		}
	}
}

// document is a manifest before the library sees it.
type document struct {
	fields   map[string]json.RawMessage // but for the pathWhitelist, under their present names
	paths    []string                   // the pathWhitelist
	warnings []string
}

// readDocument checks a document as a whole and splits it.
func readDocument(data []byte, s *shape) (document, error) {
	if err := checkText(data); err != nil {
		return document{}, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return document{}, invalid("", "not a JSON object")
	}
	if len(data)-len(fields["pathWhitelist"]) > maxRest {
		return document{}, invalid("", "larger than %d bytes besides its pathWhitelist", maxRest)
	}
	version := versionOf(fields["acVersion"])
	w := keyWalker{dec: json.NewDecoder(bytes.NewReader(data)), version: version}
	if list, ok := fields["pathWhitelist"]; ok {
		commas := bytes.Count(list, []byte(","))
		if commas >= maxPaths {
			return document{}, invalid("pathWhitelist", "more than %d entries", maxPaths)
		}
		w.paths = make([]string, 0, commas+1) // growing would take several times as much
	}
	delete(fields, "pathWhitelist")
	w.dec.UseNumber()
	if err := w.value(func() string { return "" }, 0, s); err != nil {
		return document{}, err
	}
	mapped, err := updateKeys(fields, s, version)
	if err != nil {
		return document{}, err
	}
	return document{fields, w.paths, append(mapped, w.warnings...)}, nil
}

// checkText refuses what is too large, not UTF-8, or not JSON.
func checkText(data []byte) error {
	if len(data) > MaxSize {
		return invalid("", "larger than %d bytes", MaxSize)
	}
	if !utf8.Valid(data) {
		return invalid("", "not UTF-8")
	}
	if err := json.Unmarshal(data, new(opaque)); err != nil {
		return invalid("", "%s", reason(err))
	}
	return nil
}

// keyWalker walks a document that is known to be syntactically valid. It
// refuses what readers of JSON disagree about (CVE-2021-41190 is an attack by
// such a disagreement), and deep nesting. encoding/json matches keys without
// regard to case, so keys that differ only in case are repeated keys, and a key
// that differs only in case from a field of its object is refused. The contents
// of userAnnotations and userLabels, where case matters, are exempt from both,
// and the values of isolators from the last. It warns of unknown fields.
type keyWalker struct {
	dec      *json.Decoder
	version  semver.Version
	values   int
	paths    []string
	warnings []string
}

func (w *keyWalker) object(where string, depth int, s *shape) error {
	seen := map[string]bool{}
	for w.dec.More() {
		tok, err := w.dec.Token()
		if err != nil {
			return invalid(where, "%s", reason(err))
		}
		key, ok := tok.(string)
		if !ok {
			return invalid(where, "not a key: %.100q", tok)
		}
		here := join(where, key)
		if err := w.count(here); err != nil {
			return err
		}
		field, err := w.field(here, key, s, seen)
		if err != nil {
			return err
		}
		if err := w.value(func() string { return here }, depth, field); err != nil {
			return err
		}
	}
	_, err := w.dec.Token() // the closing brace
	return err
}

func (w *keyWalker) array(where string, depth int, s *shape) error {
	for i := 0; w.dec.More(); i++ {
		if err := w.count(where); err != nil {
			return err
		}
		if err := w.value(func() string { return index(where, i) }, depth, s); err != nil {
			return err
		}
	}
	_, err := w.dec.Token() // the closing bracket
	return err
}

// value walks one value. where is a function because most values are scalars
// and their names are not needed.
func (w *keyWalker) value(where func() string, depth int, s *shape) error {
	if s.paths {
		return w.decodePaths(where())
	}
	tok, err := w.dec.Token()
	if err != nil {
		return invalid(where(), "%s", reason(err))
	}
	if _, ok := tok.(json.Delim); !ok {
		return nil
	}
	isObject := tok == json.Delim('{')
	switch {
	case depth == maxDepth:
		return invalid(where(), "nested more than %d deep", maxDepth)
	case isObject && s.elem != nil:
		return invalid(where(), "an object, not a list")
	case !isObject && (s.fields != nil || s.userKeys):
		return invalid(where(), "a list, not an object")
	case isObject:
		return w.object(where(), depth+1, s)
	case s.elem == nil:
		return w.array(where(), depth+1, s)
	}
	return w.array(where(), depth+1, s.elem)
}

// decodePaths decodes in one go what is too long for one token after another.
func (w *keyWalker) decodePaths(where string) error {
	if err := w.dec.Decode(&w.paths); err != nil {
		return invalid(where, "%s", reason(err))
	}
	return nil
}

func (w *keyWalker) count(where string) error {
	if w.values++; w.values > maxValues {
		return invalid(where, "more than %d values", maxValues)
	}
	return nil
}

// field checks a key of an object of shape s and returns the shape of what is
// under it.
func (w *keyWalker) field(where, key string, s *shape, seen map[string]bool) (*shape, error) {
	id := key
	if !s.userKeys {
		id = fold(key)
	}
	if seen[id] {
		return nil, invalid(where, "duplicate key")
	}
	seen[id] = true
	if s.fields == nil {
		return s, nil
	}
	if field, ok := s.fields[key]; ok {
		return field, nil
	}
	if name, ok := s.folded[id]; ok {
		return nil, invalid(where, "misspelt key, should be %q", name)
	}
	for _, r := range s.earlier {
		if r.old == key && w.version.LessThan(r.before) {
			return s.fields[r.new], nil
		}
	}
	if len(w.warnings) <= maxWarnings {
		w.warnings = append(w.warnings, fmt.Sprintf("unknown field %s is ignored", where))
	}
	return anything, nil
}

// limitWarnings cuts a list that would bury the user.
func limitWarnings(warnings []string) []string {
	if len(warnings) <= maxWarnings {
		return warnings
	}
	return append(warnings[:maxWarnings:maxWarnings], "further warnings are left out")
}

// fold maps keys that encoding/json would take for the same ASCII name to the
// same string: ToUpper catches U+017F (long s), ToLower U+212A (Kelvin sign).
func fold(key string) string { return strings.ToLower(strings.ToUpper(key)) }

// join is the path of a key in the object at where. The key is quoted if it is
// not plain.
func join(where, key string) string {
	if quoted := fmt.Sprintf("%.60q", key); key == "" || quoted[1:len(quoted)-1] != key {
		key = quoted
	}
	if where == "" {
		return key
	}
	return where + "." + key
}

// index is the path of an element of the list at where.
func index(where string, i int) string { return fmt.Sprintf("%s[%d]", where, i) }

// Decode decodes a document of another kind into v, a pointer to a struct, after the
// checks that all manifests undergo: exactly one JSON object, of bounded size and
// depth, in which readers of JSON agree on every key. Unknown fields are ignored.
// Errors: ErrInvalid.
func Decode(data []byte, v any) error {
	if err := checkText(data); err != nil {
		return err
	}
	if first := bytes.TrimLeft(data, " \t\r\n"); first[0] != '{' {
		return invalid("", "not a JSON object")
	}
	if len(data) > maxRest {
		return invalid("", "larger than %d bytes", maxRest)
	}
	w := keyWalker{dec: json.NewDecoder(bytes.NewReader(data))}
	w.dec.UseNumber()
	if err := w.value(func() string { return "" }, 0, shapeOf(reflect.TypeOf(v).Elem())); err != nil {
		return err
	}
	return unmarshal("", data, v)
}
