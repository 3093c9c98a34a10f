package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/appc/spec/schema"
)

// ParseDraft is ParseImage of a manifest by somebody who makes an image: what is the same
// in all of them, acKind and acVersion, may be left out.
func ParseDraft(data []byte) (*schema.ImageManifest, []string, error) {
	if err := checkText(data); err != nil {
		return nil, nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return nil, nil, invalid("", "not a JSON object")
	}
	var more []string
	if _, ok := fields["acKind"]; !ok {
		more = append(more, fmt.Sprintf("%q:%q", "acKind", schema.ImageManifestKind))
	}
	if _, ok := fields["acVersion"]; !ok {
		more = append(more, fmt.Sprintf("%q:%q", "acVersion", schema.AppContainerVersion))
	}
	if len(more) == 0 {
		return ParseImage(data)
	}
	if len(fields) > 0 {
		more = append([]string{""}, more...) // a comma first
	}
	end := bytes.LastIndexByte(data, '}')
	return ParseImage(fmt.Appendf(nil, "%s%s}", data[:end], strings.Join(more, ",")))
}
