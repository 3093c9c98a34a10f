package runtime

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

func isolator(t *testing.T, text string) types.Isolator {
	t.Helper()
	is, err := manifest.ParseIsolator([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func TestDecodeIsolator(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		want        sandbox.Value // nil: an error
	}{
		{"resource/cpu", `{"limit":"0.5"}`, sandbox.Resource{Request: 500, Limit: 500}},
		{"resource/cpu", `{"limit":2}`, sandbox.Resource{Request: 2000, Limit: 2000}},
		{"resource/cpu", `{"request":"250m","limit":"500m"}`, sandbox.Resource{Request: 250, Limit: 500}},
		{"resource/cpu", `{"request":"250m"}`, sandbox.Resource{Request: 250}},
		{"resource/cpu", `{"request":"501m","limit":"500m"}`, nil},
		{"resource/memory", `{"limit":"128974848"}`, sandbox.Resource{Request: 123 << 20, Limit: 123 << 20}},
		{"resource/memory", `{"limit":"125952Ki"}`, sandbox.Resource{Request: 123 << 20, Limit: 123 << 20}},
		{"resource/memory", `{"limit":"123Mi"}`, sandbox.Resource{Request: 123 << 20, Limit: 123 << 20}},
		{"resource/memory", `{"limit":"1.5G"}`, sandbox.Resource{Request: 1500e6, Limit: 1500e6}},
		{"resource/memory", `{"limit":"2k","request":"1K"}`, sandbox.Resource{Request: 1000, Limit: 2000}},
		{"resource/block-bandwidth", `{"default":true,"limit":"2M"}`, sandbox.Resource{Request: 2e6, Limit: 2e6}},
		{"resource/block-iops", `{"default":true,"limit":"1000"}`, sandbox.Resource{Request: 1000, Limit: 1000}},
		{"resource/network-bandwidth", `{"default":true,"limit":"1G"}`, sandbox.Resource{Request: 1e9, Limit: 1e9}},
		{"os/linux/capabilities-retain-set", `{"set":["CAP_CHOWN","CAP_KILL"]}`, sandbox.Set{Names: []string{"CAP_CHOWN", "CAP_KILL"}}},
		{"os/linux/capabilities-remove-set", `{"set":["CAP_CHOWN"]}`, sandbox.Set{Names: []string{"CAP_CHOWN"}}},
		{"os/linux/seccomp-retain-set", `{"set":["@appc.io/all"]}`, sandbox.Set{Names: []string{"@appc.io/all"}}},
		{"os/linux/seccomp-remove-set", `{"set":["mount"],"errno":"ENOTSUP"}`, sandbox.Set{Names: []string{"mount"}, Errno: "ENOTSUP"}},
		{"os/linux/no-new-privileges", `true`, sandbox.Switch(true)},
		{"os/linux/oom-score-adj", `-1000`, sandbox.Number(-1000)},
		{"os/linux/cpu-shares", `512`, sandbox.Number(512)},
		{"os/linux/selinux-context", `{"user":"u","role":"r","type":"t","level":"s0"}`, sandbox.Text("u:r:t:s0")},
		{"os/linux/apparmor-profile", `{"profile":"docker-default"}`, sandbox.Text("docker-default")},
		{"os/unix/sysctl", `{"net.ipv4.ip_forward":"1"}`, sandbox.Settings{"net.ipv4.ip_forward": "1"}},
		{"os/freebsd/rctl", `{"maxproc:deny":"10"}`, sandbox.Settings{"maxproc:deny": "10"}},
		{"os/freebsd/rctl", `{}`, nil},
		{"os/freebsd/rctl", `{"maxproc:deny":10}`, nil},
		{"os/freebsd/jail-param", `{"allow.mlock":"true"}`, sandbox.Settings{"allow.mlock": "true"}},
		{"os/freebsd/cpuset", `"0-2,5"`, sandbox.Text("0-2,5")},
		{"os/freebsd/cpuset", `2`, nil},
		{"example.com/unknown", `{"a":[1]}`, sandbox.Text(`{"a":[1]}`)},
	} {
		t.Run(tt.name+" "+tt.value, func(t *testing.T) {
			is := isolator(t, `{"name":"`+tt.name+`","value":`+tt.value+`}`)
			got, _, err := decodeIsolators([]types.Isolator{is}, forPod|forApp)
			if tt.want == nil {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("decoded %+v, %v, want an error", got, err)
				}
				return
			}
			if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0].Value, tt.want) {
				t.Errorf("decoded %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

// enforcing is an engine that claims to enforce everything.
type enforcing struct {
	sandbox.Engine
	asked sandbox.Pod
}

func (e *enforcing) Check(_ context.Context, pod sandbox.Pod) (outcomes []sandbox.Outcome, err error) {
	e.asked = pod
	for _, is := range pod.Isolators {
		outcomes = append(outcomes, is.Outcome("", "", ""))
	}
	for _, app := range pod.Apps {
		for _, is := range app.Isolators {
			outcomes = append(outcomes, is.Outcome(app.Name, "", ""))
		}
	}
	return outcomes, nil
}

func TestMergeIsolators(t *testing.T) {
	h := newHost(t)
	engine := &enforcing{Engine: h.Engine}
	h.Engine = engine
	h.add(t, "example.com/limited", appOf(`"isolators":[{"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_NET_ADMIN"]}},{"name":"resource/memory","value":{"limit":"2Gi"}}]`))
	retain := `{"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_NET_ADMIN"]}}`
	for _, tt := range []struct {
		name     string
		pod      []string
		app      []string // of the operator
		want     []sandbox.Isolator
		modified []string
	}{
		{"of the image", nil, nil, []sandbox.Isolator{
			{Name: sandbox.CapabilitiesRetain, Value: sandbox.Set{Names: []string{"CAP_NET_ADMIN"}}, Image: true},
			{Name: sandbox.Memory, Value: sandbox.Resource{Request: 2 << 30, Limit: 2 << 30}, Image: true},
		}, nil},
		{"what the operator repeats is the operator's", nil, []string{retain}, []sandbox.Isolator{
			{Name: sandbox.Memory, Value: sandbox.Resource{Request: 2 << 30, Limit: 2 << 30}, Image: true},
			{Name: sandbox.CapabilitiesRetain, Value: sandbox.Set{Names: []string{"CAP_NET_ADMIN"}}},
		}, nil},
		{"what excludes another replaces it", nil, []string{`{"name":"os/linux/capabilities-remove-set","value":{"set":["CAP_CHOWN"]}}`}, []sandbox.Isolator{
			{Name: sandbox.Memory, Value: sandbox.Resource{Request: 2 << 30, Limit: 2 << 30}, Image: true},
			{Name: sandbox.CapabilitiesRemove, Value: sandbox.Set{Names: []string{"CAP_CHOWN"}}},
		}, nil},
		{"bounded by the pod", []string{`{"name":"resource/memory","value":{"limit":"1Gi"}}`}, nil, []sandbox.Isolator{
			{Name: sandbox.CapabilitiesRetain, Value: sandbox.Set{Names: []string{"CAP_NET_ADMIN"}}, Image: true},
			{Name: sandbox.Memory, Value: sandbox.Resource{Request: 1 << 30, Limit: 1 << 30}, Image: true},
		}, []string{sandbox.Memory}},
		{"within the pod", []string{`{"name":"resource/memory","value":{"limit":"4Gi"}}`, `{"name":"resource/cpu","value":{"limit":"1"}}`},
			[]string{`{"name":"resource/cpu","value":{"limit":"0.5"}}`}, []sandbox.Isolator{
				{Name: sandbox.CapabilitiesRetain, Value: sandbox.Set{Names: []string{"CAP_NET_ADMIN"}}, Image: true},
				{Name: sandbox.Memory, Value: sandbox.Resource{Request: 2 << 30, Limit: 2 << 30}, Image: true},
				{Name: sandbox.CPU, Value: sandbox.Resource{Request: 500, Limit: 500}},
			}, nil},
		{"only requested", []string{`{"name":"resource/cpu","value":{"limit":"1"}}`},
			[]string{`{"name":"resource/cpu","value":{"request":"2"}}`}, []sandbox.Isolator{
				{Name: sandbox.CapabilitiesRetain, Value: sandbox.Set{Names: []string{"CAP_NET_ADMIN"}}, Image: true},
				{Name: sandbox.Memory, Value: sandbox.Resource{Request: 2 << 30, Limit: 2 << 30}, Image: true},
				{Name: sandbox.CPU, Value: sandbox.Resource{Request: 1000}},
			}, []string{sandbox.CPU}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := AppRequest{Image: "example.com/limited"}
			var chosen []string
			for _, text := range tt.app {
				is := isolator(t, text)
				req.Isolators, chosen = append(req.Isolators, is), append(chosen, is.Name.String())
			}
			m, err := h.Template(t.Context(), []AppRequest{req}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range tt.pod {
				m.Isolators = append(m.Isolators, isolator(t, text))
			}
			o := Options{Network: sandbox.NetworkNone, Isolators: map[string][]string{m.Apps[0].Name.String(): chosen}}
			var modified []string
			h.Report = func(outcomes []sandbox.Outcome) {
				for _, o := range outcomes {
					if o.Status != sandbox.Enforced {
						modified = append(modified, o.Isolator)
					}
				}
			}
			if err := h.Reify(t.Context(), m, o, false); err != nil {
				t.Fatal(err)
			}
			if got := engine.asked.Apps[0].Isolators; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("asked for %+v\nwant %+v", got, tt.want)
			}
			if !reflect.DeepEqual(modified, tt.modified) {
				t.Errorf("modified %q, want %q", modified, tt.modified)
			}
			err = h.Reify(t.Context(), m, o, true)
			if (err != nil) != (len(tt.modified) > 0) || err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("strict: %v", err)
			}
		})
	}
}

// What an isolator cannot be for is told, and not handed to the engine.
func TestMisplacedIsolators(t *testing.T) {
	h := newHost(t)
	engine := &enforcing{Engine: h.Engine}
	h.Engine = engine
	m, err := h.Template(t.Context(), []AppRequest{{Image: "example.com/probe", Isolators: []types.Isolator{
		isolator(t, `{"name":"os/unix/sysctl","value":{"net.ipv4.ip_forward":"1"}}`),
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Isolators = append(m.Isolators, isolator(t, `{"name":"os/linux/no-new-privileges","value":true}`))
	var got []string
	h.Report = func(outcomes []sandbox.Outcome) {
		for _, o := range outcomes {
			got = append(got, o.Isolator+" "+string(o.Status)+" "+o.Detail)
		}
	}
	if err := h.Reify(t.Context(), m, noNetwork, false); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"os/linux/no-new-privileges ignored it is for apps, not for pods",
		"os/unix/sysctl ignored it is for pods, not for apps",
	}
	if !reflect.DeepEqual(got, want) || len(engine.asked.Isolators)+len(engine.asked.Apps[0].Isolators) > 0 {
		t.Errorf("got %q\nwant %q, asked for %+v", got, want, engine.asked)
	}
}
