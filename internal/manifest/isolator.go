package manifest

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/jetpack-run/jetpack/internal/lazyregexp"

	"github.com/appc/spec/schema/types"
)

// AppArmorName is an isolator of the appc specification (ace.md) that the
// library does not know. Its value stays JSON, in Isolator.ValueRaw:
// {"profile": NAME}, which the parsers have checked.
const AppArmorName types.ACIdentifier = "os/linux/apparmor-profile"

// own are jetpack's isolators, for pods on FreeBSD.
var own = []types.ACIdentifier{"os/freebsd/rctl", "os/freebsd/cpuset", "os/freebsd/jail-param"}

// opaqueName is the name under which the library decodes isolators that it does
// not know.
const opaqueName types.ACIdentifier = "jetpack/opaque"

// opaque is the value of an isolator that the library does not know. In an app
// the library refuses isolators without value, and it lets others make a value
// type only by embedding one of its own.
type opaque struct{ types.ResourceBase }

// UnmarshalJSON accepts anything: Isolator.ValueRaw keeps it.
func (*opaque) UnmarshalJSON([]byte) error { return nil }

func init() {
	types.AddIsolatorValueConstructor(opaqueName, func() types.IsolatorValue { return new(opaque) })
}

// UnknownIsolators lists the names of isolators that neither a version of the appc
// specification nor jetpack defines, in the order of the manifest.
func UnknownIsolators(isolators []types.Isolator) []string {
	var names []string
	for _, i := range isolators {
		if !libraryKnows(i.Name) && i.Name != AppArmorName && !slices.Contains(own, i.Name) {
			names = append(names, string(i.Name))
		}
	}
	return names
}

func libraryKnows(name types.ACIdentifier) bool {
	for _, names := range []map[types.ACIdentifier]struct{}{
		types.LinuxIsolatorNames, types.UnixIsolatorNames, types.ResourceIsolatorNames,
	} {
		if _, ok := names[name]; ok {
			return true
		}
	}
	return false
}

// ParseIsolator decodes and checks one isolator, given as JSON: {"name": …, "value": …}.
func ParseIsolator(data []byte) (types.Isolator, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return types.Isolator{}, invalid("isolator", "not a JSON object")
	}
	for key := range fields {
		if key != "name" && key != "value" {
			return types.Isolator{}, invalid("isolator", "unknown key %.20q: want name and value", key)
		}
	}
	return decodeIsolator("isolator", data)
}

// Exclude tells whether an app can have only one of two isolators.
func Exclude(a, b types.ACIdentifier) bool {
	return slices.Contains(exclusive, [2]types.ACIdentifier{a, b}) || slices.Contains(exclusive, [2]types.ACIdentifier{b, a})
}

// takeAppIsolators removes the isolators from the JSON of an app and decodes
// them apart. Left in, one that the library does not know would make the whole
// manifest unreadable, and one without a value would make it panic.
func takeAppIsolators(where string, app json.RawMessage) (json.RawMessage, types.Isolators, error) {
	var fields map[string]json.RawMessage
	if err := unmarshal(where, app, &fields); err != nil {
		return nil, nil, err
	}
	if fields == nil {
		return json.RawMessage("null"), nil, nil
	}
	isolators, err := decodeIsolators(where+".isolators", fields["isolators"])
	if err != nil {
		return nil, nil, err
	}
	delete(fields, "isolators")
	rest, err := json.Marshal(fields)
	if err != nil {
		return nil, nil, invalid(where, "%s", reason(err))
	}
	return rest, isolators, nil
}

// takePodIsolators does takeAppIsolators for the apps of a pod.
func takePodIsolators(data json.RawMessage) (json.RawMessage, []types.Isolators, error) {
	var apps []map[string]json.RawMessage
	if err := unmarshal("apps", data, &apps); err != nil {
		return nil, nil, err
	}
	isolators := make([]types.Isolators, len(apps))
	for i, app := range apps {
		if app == nil {
			return nil, nil, invalid(fmt.Sprintf("apps[%d]", i), "null")
		}
		var err error
		app["app"], isolators[i], err = takeAppIsolators(fmt.Sprintf("apps[%d].app", i), app["app"])
		if err != nil {
			return nil, nil, err
		}
	}
	rest, err := json.Marshal(apps)
	if err != nil {
		return nil, nil, invalid("apps", "%s", reason(err))
	}
	return rest, isolators, nil
}

func decodeIsolators(where string, data json.RawMessage) (types.Isolators, error) {
	var raws []json.RawMessage
	if err := unmarshal(where, data, &raws); err != nil {
		return nil, err
	}
	var isolators types.Isolators
	for i, raw := range raws {
		isolator, err := decodeIsolator(fmt.Sprintf("%s[%d]", where, i), raw)
		if err != nil {
			return nil, err
		}
		isolators = append(isolators, isolator)
	}
	return isolators, nil
}

func decodeIsolator(where string, data json.RawMessage) (types.Isolator, error) {
	var raw struct {
		Name  string          `json:"name"`
		Value json.RawMessage `json:"value"`
	}
	if err := unmarshal(where, data, &raw); err != nil {
		return types.Isolator{}, err
	}
	if err := checkIdentifier(where+".name", raw.Name); err != nil {
		return types.Isolator{}, err
	}
	where = fmt.Sprintf("%s (%s)", where, raw.Name)
	if raw.Value == nil || string(raw.Value) == "null" {
		return types.Isolator{}, invalid(where, "no value")
	}
	name := types.ACIdentifier(raw.Name)
	value, err := checkIsolatorValue(where, name, raw.Value)
	if err != nil {
		return types.Isolator{}, err
	}
	known := name
	if !libraryKnows(name) {
		known = opaqueName
	}
	// Only the library's decoder makes an isolator that has a Value.
	var isolator types.Isolator
	if err := decode(where, map[string]any{"name": known, "value": value}, &isolator); err != nil {
		return types.Isolator{}, err
	}
	isolator.Name = name
	return isolator, nil
}

// checkIsolatorValue checks what the library does not and returns the value as
// the library is to read it.
func checkIsolatorValue(where string, name types.ACIdentifier, value json.RawMessage) (json.RawMessage, error) {
	if _, ok := types.ResourceIsolatorNames[name]; ok {
		return checkResource(where, name, value)
	}
	if name == AppArmorName {
		var v struct {
			Profile string `json:"profile"`
		}
		if err := unmarshal(where, value, &v); err != nil {
			return nil, err
		}
		if v.Profile == "" {
			return nil, invalid(where, "no profile")
		}
	}
	return value, nil
}

// checkResource checks the quantities of a resource isolator, so that the
// library's Value and, for resource/cpu, MilliValue do not overflow.
func checkResource(where string, name types.ACIdentifier, value json.RawMessage) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := unmarshal(where, value, &fields); err != nil {
		return nil, err
	}
	if fields["limit"] == nil && fields["request"] == nil {
		return nil, invalid(where, "neither limit nor request")
	}
	for key := range fields { // "Request" is a request to the library
		if name := fold(key); name != key && slices.Contains([]string{"limit", "request", "default"}, name) {
			return nil, invalid(where, "misspelt key %.20q, should be %q", key, name)
		}
	}
	limit := int64(math.MaxInt64)
	if name == types.ResourceCPUName {
		limit /= 1000
	}
	for _, key := range []string{"limit", "request"} {
		raw, ok := fields[key]
		if !ok {
			continue
		}
		quantity, err := checkQuantity(strings.Trim(string(raw), `"`), limit)
		if err != nil {
			return nil, invalid(where, "%s: %s", key, err)
		}
		fields[key] = json.RawMessage(strconv.Quote(quantity))
	}
	normal, err := json.Marshal(fields)
	if err != nil {
		return nil, invalid(where, "%s", reason(err))
	}
	return normal, nil
}

// quantityPattern is the grammar of the appc specification (ace.md, "Resource
// Isolators"). The library's is wider: with exponents, "1e999999999" keeps it
// busy for ever.
var quantityPattern = lazyregexp.New(`^([0-9]+(?:\.[0-9]+)?)(|m|[kKMGTPE]|[KMGTPE]i)$`)

// maxQuantity bounds the characters of a quantity.
const maxQuantity = 41

// checkQuantity returns s in the library's spelling, where kilo is k only.
func checkQuantity(s string, limit int64) (string, error) {
	parts := quantityPattern().FindStringSubmatch(s)
	if parts == nil || len(s) > maxQuantity {
		return "", fmt.Errorf("not a quantity: %.60q", s)
	}
	value, ok := new(big.Rat).SetString(parts[1])
	if !ok {
		return "", fmt.Errorf("not a quantity: %.60q", s)
	}
	value.Mul(value, multiplier(parts[2]))
	if value.Sign() == 0 || value.Cmp(new(big.Rat).SetInt64(limit)) > 0 {
		return "", fmt.Errorf("out of range: %q", s)
	}
	if parts[2] == "K" {
		s = parts[1] + "k"
	}
	return s, nil
}

func multiplier(suffix string) *big.Rat {
	if suffix == "" {
		return big.NewRat(1, 1)
	}
	if suffix == "m" {
		return big.NewRat(1, 1000)
	}
	base := int64(1000)
	if strings.HasSuffix(suffix, "i") {
		base = 1024
	}
	power := int64(strings.Index("KMGTPE", strings.ToUpper(suffix[:1])) + 1)
	return new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(power), nil))
}

// onlyOnce lists isolators of which one app or pod has at most one, and
// exclusive pairs that it does not have both of (appc spec, ace.md).
var (
	onlyOnce = []types.ACIdentifier{
		types.LinuxSeccompRemoveSetName, types.LinuxSeccompRetainSetName, types.LinuxSELinuxContextName,
		types.LinuxOOMScoreAdjName, types.LinuxCPUSharesName, types.UnixSysctlName, AppArmorName,
	}
	exclusive = [][2]types.ACIdentifier{
		{types.LinuxSeccompRemoveSetName, types.LinuxSeccompRetainSetName},
		{types.LinuxCapabilitiesRevokeSetName, types.LinuxCapabilitiesRetainSetName},
	}
)

// checkIsolatorSet checks the isolators of one app or pod against each other.
func checkIsolatorSet(where string, isolators []types.Isolator) (warnings []string, err error) {
	count := map[types.ACIdentifier]int{}
	for _, i := range isolators {
		count[i.Name]++
		if count[i.Name] != 2 {
			continue
		}
		if slices.Contains(onlyOnce, i.Name) {
			return nil, invalid(where, "more than one %s", i.Name)
		}
		warnings = append(warnings, fmt.Sprintf("%s: several %.100s, the last one counts", where, i.Name))
	}
	for _, pair := range exclusive {
		if count[pair[0]] > 0 && count[pair[1]] > 0 {
			return nil, invalid(where, "%s and %s exclude each other", pair[0], pair[1])
		}
	}
	return warnings, nil
}
