// Package manifest is the only place where JSON that somebody else wrote
// becomes an appc image or pod manifest, and where its contents are validated.
// The library (github.com/appc/spec) decodes; it accepts much that the
// specification forbids and panics on some of it, so it never sees bytes that
// did not pass here first.
//
// It also knows how users name images (Ref) and what appc calls architectures.
//
// Not for: deciding whether a valid manifest can be run here (runtime), image
// archives (image/aci).
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
)

// MaxSize is the largest manifest that is read, in bytes.
const MaxSize = 16 << 20

// ErrInvalid is wrapped by every refusal: not JSON, not the schema, not a legal
// value. The message is one line that says where and what:
//
//	invalid manifest: apps[0].mounts[1].path: not absolute: "x"
var ErrInvalid = errors.New("invalid manifest")

// invalid makes a refusal. where is the path of the culprit, "" for the whole
// document.
func invalid(where, format string, args ...any) error {
	if where == "" {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	return fmt.Errorf("%w: %s: %s", ErrInvalid, where, fmt.Sprintf(format, args...))
}

// Kind is the acKind of a JSON document, "ImageManifest" or "PodManifest", and ""
// if it has neither or is not JSON. It checks nothing else.
func Kind(data []byte) string {
	var doc struct {
		ACKind string `json:"acKind"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return ""
	}
	switch types.ACKind(doc.ACKind) {
	case schema.ImageManifestKind, schema.PodManifestKind:
		return doc.ACKind
	}
	return ""
}

// ParseImage decodes and validates an image manifest (appc spec, aci.md, "Image
// Manifest Schema"). The warnings are sentences for the user, one line each and
// not many, about what is ignored, read as something else, or suspicious. What
// it returns is normalised: mount points and the pathWhitelist are clean, the
// arch label "arm64" has become "aarch64", a quantity like "1K" has become "1k",
// and what early versions of the specification called otherwise has its present
// name. Errors: ErrInvalid.
func ParseImage(data []byte) (*schema.ImageManifest, []string, error) {
	doc, err := readDocument(data, imageShape())
	if err != nil {
		return nil, nil, err
	}
	app, appIsolators, err := takeAppIsolators("app", doc.fields["app"])
	if err != nil {
		return nil, nil, err
	}
	doc.fields["app"] = app
	m := new(schema.ImageManifest)
	if err = decode("", doc.fields, m); err != nil {
		return nil, nil, err
	}
	m.PathWhitelist = doc.paths
	if m.App != nil {
		m.App.Isolators = appIsolators
	}
	more, err := checkImage(m)
	if err != nil {
		return nil, nil, err
	}
	return m, limitWarnings(append(doc.warnings, more...)), nil
}

// ParsePod decodes and validates a pod manifest (appc spec, pods.md). It reads
// complete manifests and templates, and leaves to the caller what a template
// may leave open:
//   - an app's image may have a name and no ID (MarshalPod refuses that);
//   - a mount's path may be the name of a mount point of the app;
//   - a mount may name a volume that is not in the list of volumes.
//
// Normalisation, warnings and errors are those of ParseImage.
func ParsePod(data []byte) (*schema.PodManifest, []string, error) {
	doc, err := readDocument(data, podShape())
	if err != nil {
		return nil, nil, err
	}
	isolators, err := decodeIsolators("isolators", doc.fields["isolators"])
	if err != nil {
		return nil, nil, err
	}
	delete(doc.fields, "isolators")
	apps, appIsolators, err := takePodIsolators(doc.fields["apps"])
	if err != nil {
		return nil, nil, err
	}
	doc.fields["apps"] = apps
	m := new(schema.PodManifest)
	if err = decode("", doc.fields, m); err != nil {
		return nil, nil, err
	}
	m.Isolators = isolators
	for i := range m.Apps {
		if m.Apps[i].App != nil {
			m.Apps[i].App.Isolators = appIsolators[i]
		}
	}
	more, err := checkPod(m)
	if err != nil {
		return nil, nil, err
	}
	return m, limitWarnings(append(doc.warnings, more...)), nil
}

// CompleteImage puts the acKind and acVersion of an image manifest into a JSON object
// that lacks them. All else, and what is no object, stays as it is.
func CompleteImage(data []byte) []byte {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || len(fields) == 0 {
		return data
	}
	_, body, _ := bytes.Cut(data, []byte("{"))
	for _, f := range [][2]string{{"acVersion", schema.AppContainerVersion.String()}, {"acKind", string(schema.ImageManifestKind)}} {
		if fields[f[0]] == nil {
			body = fmt.Appendf(nil, "%q:%q,%s", f[0], f[1], body)
		}
	}
	return append([]byte("{"), body...)
}

// MarshalImage validates and encodes an image manifest as JSON without
// indentation. m is not changed. Errors: ErrInvalid.
func MarshalImage(m *schema.ImageManifest) ([]byte, error) {
	out := *m
	out.App = withoutNil(m.App)
	return encode(out, func(data []byte) error { _, _, err := ParseImage(data); return err })
}

// MarshalPod validates and encodes a pod manifest as JSON without indentation.
// Lists that are nil are written as []. m is not changed. Errors: ErrInvalid,
// also when an image has no ID.
func MarshalPod(m *schema.PodManifest) ([]byte, error) {
	out := *m
	out.Apps = slices.Clone(m.Apps)
	for i := range out.Apps {
		if out.Apps[i].Image.ID.Empty() {
			return nil, invalid(fmt.Sprintf("apps[%d].image.id", i), "missing")
		}
		out.Apps[i].App = withoutNil(out.Apps[i].App)
	}
	out.Volumes = notNil(m.Volumes)
	out.Isolators = notNil(m.Isolators)
	out.Annotations = notNil(m.Annotations)
	out.Ports = notNil(m.Ports)
	return encode(out, func(data []byte) error { _, _, err := ParsePod(data); return err })
}

func withoutNil(app *types.App) *types.App {
	if app == nil {
		return nil
	}
	out := *app
	out.Exec = notNil(app.Exec)
	out.EventHandlers = slices.Clone(app.EventHandlers)
	for i := range out.EventHandlers {
		out.EventHandlers[i].Exec = notNil(out.EventHandlers[i].Exec)
	}
	return &out
}

func notNil[S ~[]E, E any](s S) S {
	if s == nil {
		return S{}
	}
	return s
}

// encode writes m and reads it back, because the library's encoder checks even
// less than its decoder.
func encode(m any, parse func([]byte) error) ([]byte, error) {
	var data []byte
	err := guard("", func() (err error) {
		data, err = json.Marshal(m)
		// The encoder wraps what the library says in the names of its types.
		for named := (*json.MarshalerError)(nil); errors.As(err, &named); {
			err = named.Err
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := parse(data); err != nil {
		return nil, err
	}
	return data, nil
}

// decode hands a document, or the part of it at where, to the library.
func decode(where string, doc, m any) error {
	return guard(where, func() error {
		data, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		return json.Unmarshal(data, m)
	})
}

// unmarshal decodes a part of a document into types of this package; no data
// leaves v as it is.
func unmarshal(where string, data json.RawMessage, v any) error {
	if data == nil {
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return invalid(where, "%s", reason(err))
	}
	return nil
}

// guard runs a piece of the library, turning panics and errors into ErrInvalid.
func guard(where string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = invalid(where, "%s", oneLine(fmt.Sprint(r)))
		}
	}()
	if err := f(); err != nil {
		return invalid(where, "%s", reason(err))
	}
	return nil
}

// reason is what a decoder says, without the names of Go's types.
func reason(err error) string {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return oneLine(err.Error())
	}
	if wrong.Field == "" {
		return oneLine(wrong.Value) + " is out of place"
	}
	return oneLine(wrong.Field + ": " + wrong.Value + " is out of place")
}

// oneLine makes the library's messages, which quote the manifest raw, fit for a
// terminal.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	return fmt.Sprintf("%.300s", strings.TrimSpace(s))
}
