package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// For whom an isolator can be (appc spec, ace.md); unknown ones are for the engine to
// ignore.
const (
	forPod = 1 << iota
	forApp
)

var scopes = map[string]int{
	sandbox.CPU:                forPod | forApp,
	sandbox.Memory:             forPod | forApp,
	sandbox.BlockBandwidth:     forPod | forApp,
	sandbox.BlockIOPS:          forPod | forApp,
	sandbox.NetworkBandwidth:   forPod | forApp,
	sandbox.CapabilitiesRetain: forApp,
	sandbox.CapabilitiesRemove: forApp,
	sandbox.SeccompRetain:      forApp,
	sandbox.SeccompRemove:      forApp,
	sandbox.NoNewPrivileges:    forApp,
	sandbox.OOMScoreAdj:        forApp,
	sandbox.CPUShares:          forApp,
	sandbox.SELinuxContext:     forPod | forApp,
	sandbox.AppArmorProfile:    forPod | forApp,
	sandbox.Sysctl:             forPod,
	sandbox.FreeBSDRctl:        forPod,
	sandbox.FreeBSDCpuset:      forPod,
	sandbox.FreeBSDJailParam:   forPod,
}

// decodeIsolators gives the isolators of a pod or of an app, of several of one name the
// last, as manifest.ParsePod has warned. Those that cannot be for such a one are in
// misplaced. Errors: ErrInvalid.
func decodeIsolators(isolators []types.Isolator, scope int) (decoded, misplaced []sandbox.Isolator, err error) {
	for i, is := range isolators {
		again := func(later types.Isolator) bool { return later.Name == is.Name }
		if slices.ContainsFunc(isolators[i+1:], again) {
			continue
		}
		value, err := isolatorValue(is)
		if err != nil {
			return nil, nil, fmt.Errorf("isolator %s: %w: %w", is.Name, ErrInvalid, err)
		}
		one := sandbox.Isolator{Name: string(is.Name), Value: value}
		if where, known := scopes[one.Name]; known && where&scope == 0 {
			misplaced = append(misplaced, one)
			continue
		}
		decoded = append(decoded, one)
	}
	return decoded, misplaced, nil
}

// isolatorValue decodes what manifest.ParsePod or ParseImage have checked.
func isolatorValue(is types.Isolator) (sandbox.Value, error) {
	switch v := is.Value().(type) {
	case *types.ResourceCPU:
		return resourceValue(v, func(q quantity) int64 { return q.MilliValue() })
	case types.Resource: // the opaque value is one, too
		if _, known := types.ResourceIsolatorNames[is.Name]; known {
			return resourceValue(v, func(q quantity) int64 { return q.Value() })
		}
	case types.LinuxCapabilitiesSet:
		return sandbox.Set{Names: names(v.Set())}, nil
	case types.LinuxSeccompSet:
		return sandbox.Set{Names: names(v.Set()), Errno: string(v.Errno())}, nil
	case *types.LinuxNoNewPrivileges:
		return sandbox.Switch(*v), nil
	case *types.LinuxOOMScoreAdj:
		return sandbox.Number(*v), nil
	case *types.LinuxCPUShares:
		return sandbox.Number(*v), nil
	case *types.UnixSysctl:
		return sandbox.Settings(*v), nil
	case *types.LinuxSELinuxContext:
		return sandbox.Text(fmt.Sprintf("%s:%s:%s:%s", v.User(), v.Role(), v.Type(), v.Level())), nil
	}
	return ownValue(string(is.Name), rawValue(is))
}

// quantity is what is used of resource.Quantity.
type quantity interface {
	Value() int64
	MilliValue() int64
}

// resourceValue: a request that is omitted is the limit (appc spec, ace.md, "Resource
// Isolators").
func resourceValue(v types.Resource, amount func(quantity) int64) (sandbox.Value, error) {
	var r sandbox.Resource
	if q := v.Limit(); q != nil {
		r.Limit = amount(q)
	}
	r.Request = r.Limit
	if q := v.Request(); q != nil {
		r.Request = amount(q)
	}
	if r.Limit > 0 && r.Request > r.Limit {
		return nil, errors.New("the request is more than the limit")
	}
	return r, nil
}

func names[T ~string](set []T) []string {
	out := make([]string, len(set))
	for i, s := range set {
		out[i] = string(s)
	}
	return out
}

// rawValue is the isolator's value as JSON.
func rawValue(is types.Isolator) json.RawMessage {
	if is.ValueRaw == nil {
		return json.RawMessage("null")
	}
	return *is.ValueRaw
}

// ownValue decodes what the library does not know.
func ownValue(name string, raw json.RawMessage) (sandbox.Value, error) {
	switch name {
	case sandbox.FreeBSDRctl, sandbox.FreeBSDJailParam:
		var v map[string]string
		if json.Unmarshal(raw, &v) != nil || len(v) == 0 {
			return nil, errors.New("want an object of strings")
		}
		return sandbox.Settings(v), nil
	case sandbox.FreeBSDCpuset:
		var v string
		if json.Unmarshal(raw, &v) != nil || v == "" {
			return nil, errors.New(`want a list of processors, as "0-2,5"`)
		}
		return sandbox.Text(v), nil
	case sandbox.AppArmorProfile:
		var v struct{ Profile string }
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, err
		}
		return sandbox.Text(v.Profile), nil
	}
	return sandbox.Text(raw), nil
}

// markImage marks those of an app's isolators that its image has as well, with the same
// value, unless the operator gave them by name: a template repeats what the image says.
func markImage(isolators []sandbox.Isolator, app *schema.RuntimeApp, img *image.Image, chosen []string) error {
	own := img.Parsed().App
	if own == nil {
		return nil
	}
	images, _, err := decodeIsolators(own.Isolators, forApp)
	if err != nil {
		return err
	}
	for i := range isolators {
		is := &isolators[i]
		same := func(o sandbox.Isolator) bool { return o.Name == is.Name && o.Value.String() == is.Value.String() }
		is.Image = app.App == nil || !slices.Contains(chosen, is.Name) && slices.ContainsFunc(images, same)
	}
	return nil
}

// within keeps what an app asks for within what its pod has (appc spec, ace.md,
// "Isolators") and tells what it changed.
func within(app, pod []sandbox.Isolator) (changed map[string]string) {
	changed = map[string]string{}
	for i := range app {
		mine, ok := app[i].Value.(sandbox.Resource)
		if !ok {
			continue
		}
		for _, is := range pod {
			theirs, ok := is.Value.(sandbox.Resource)
			if !ok || is.Name != app[i].Name || theirs.Limit == 0 || mine.Limit <= theirs.Limit && mine.Request <= theirs.Limit {
				continue
			}
			bounded := sandbox.Resource{Request: min(mine.Request, theirs.Limit), Limit: mine.Limit}
			if mine.Limit > theirs.Limit {
				bounded.Limit = theirs.Limit
			}
			app[i].Value = bounded
			changed[app[i].Name] = fmt.Sprintf("the pod's limit of %s bounds it", sandbox.Isolator{Name: is.Name, Value: sandbox.Resource{Request: theirs.Limit, Limit: theirs.Limit}}.Text())
		}
	}
	return changed
}

// limits are the decoded isolators of a pod and its apps, and what became of them so far.
type limits struct {
	pod       []sandbox.Isolator
	apps      [][]sandbox.Isolator // in the manifest's order
	asked     map[string]string    // by app and isolator: its value, before the pod bounded it
	bounded   map[string]string    // by app and isolator: how the pod did
	misplaced []sandbox.Outcome
}

// limitsOf decodes the isolators of a pod that was reified. Errors: ErrInvalid.
func limitsOf(m *schema.PodManifest, images []*image.Image, o Options) (l limits, err error) {
	l.asked, l.bounded = map[string]string{}, map[string]string{}
	pod, misplaced, err := decodeIsolators(m.Isolators, forPod)
	if err != nil {
		return l, err
	}
	l.pod = pod
	for _, is := range misplaced {
		l.misplaced = append(l.misplaced, is.Outcome("", sandbox.Ignored, "it is for apps, not for pods"))
	}
	for i := range m.Apps {
		app := &m.Apps[i]
		name := app.Name.String()
		own, misplaced, err := decodeIsolators(effectiveApp(app, images[i]).Isolators, forApp)
		if err == nil {
			err = markImage(own, app, images[i], o.Isolators[name])
		}
		if err != nil {
			return l, fmt.Errorf("app %s: %w", name, err)
		}
		for _, is := range misplaced {
			l.misplaced = append(l.misplaced, is.Outcome(name, sandbox.Ignored, "it is for pods, not for apps"))
		}
		for _, is := range own {
			l.asked[key(name, is.Name)] = is.Text()
		}
		for isolator, how := range within(own, pod) {
			l.bounded[key(name, isolator)] = how
		}
		l.apps = append(l.apps, own)
	}
	return l, nil
}

func key(app, isolator string) string { return app + " " + isolator }

// outcomes adds to what the engine says of the isolators what was done to them before.
func (l limits) outcomes(engine []sandbox.Outcome) []sandbox.Outcome {
	for i := range engine {
		o := &engine[i]
		how, ok := l.bounded[key(o.App, o.Isolator)]
		if !ok {
			continue
		}
		o.Value = l.asked[key(o.App, o.Isolator)]
		if o.Status == sandbox.Enforced {
			o.Status = sandbox.Modified
		}
		if o.Status == sandbox.Modified {
			o.Detail = strings.TrimSuffix(how+"; "+o.Detail, "; ")
		}
	}
	return append(engine, l.misplaced...)
}

// check asks the engine whether it can isolate a pod that was reified, tells the user
// what becomes of its isolators, and with strict refuses what is not enforced as it says.
// Errors: ErrInvalid, those of the engine.
func (r *Runtime) check(ctx context.Context, m *schema.PodManifest, images []*image.Image, o Options, strict bool) ([]sandbox.Outcome, error) {
	l, err := limitsOf(m, images, o)
	if err != nil {
		return nil, err
	}
	engine, err := r.Engine.Check(ctx, isolation(m, images, o, l))
	if err != nil {
		return nil, err
	}
	outcomes := l.outcomes(engine)
	if len(outcomes) > 0 && r.Report != nil {
		r.Report(outcomes)
	}
	for _, o := range outcomes {
		if strict && o.Status != sandbox.Enforced {
			where := "pod"
			if o.App != "" {
				where = "app " + o.App
			}
			return nil, fmt.Errorf("%s: %w: isolator %s is %s (%s), and --strict asks for all of them", where, ErrInvalid, o.Isolator, o.Status, o.Detail)
		}
	}
	return outcomes, nil
}

// addIsolators lays isolators over those of an app: one replaces those of its name and
// those that exclude it.
func addIsolators(isolators, more []types.Isolator) []types.Isolator {
	for _, is := range more {
		isolators = slices.DeleteFunc(slices.Clone(isolators), func(o types.Isolator) bool {
			return o.Name == is.Name || manifest.Exclude(o.Name, is.Name)
		})
		isolators = append(isolators, is)
	}
	return isolators
}
