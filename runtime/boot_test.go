package runtime

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/uuid"
)

func TestSetBoot(t *testing.T) {
	h := newHost(t)
	id := h.prepared(t, h.probes(t, "exit 0"), Options{Name: "web", Boot: true})
	steps := []struct {
		name string
		boot bool
	}{
		{"marked when it was made", true},
		{"off", false}, {"off again", false}, {"on", true}, {"on again", true},
	}
	for _, s := range steps {
		if err := h.SetBoot(t.Context(), id, s.boot); err != nil {
			t.Fatal(err)
		}
		info, err := h.Inspect(t.Context(), id)
		if err != nil || info.Options.Boot != s.boot || info.Options.Name != "web" || info.Options.Created.IsZero() {
			t.Errorf("%s: %+v, %v", s.name, info.Options, err)
		}
	}
}

// A supervisor holds the pod's lock, which does not keep the mark away.
func TestSetBootOfARunningPod(t *testing.T) {
	h := newHost(t)
	run, _ := h.up(t, h.probes(t, "sleep"), noNetwork)
	if err := h.SetBoot(t.Context(), run.UUID(), true); err != nil {
		t.Fatal(err)
	}
	run.Kill()
	ended(t, run)
	if removed, err := h.GC(t.Context(), 0); err != nil || len(removed) > 0 {
		t.Errorf("gc removed %v, %v", removed, err)
	}
}

func TestSetBootErrors(t *testing.T) {
	id := uuid.NewString()
	tests := []struct {
		name  string
		files map[string]string
		want  error
	}{
		{"not there", nil, ErrNotFound},
		{"embryo", map[string]string{lockFile: ""}, ErrBusy},
		{"damaged", map[string]string{lockFile: "", stateFile: `{"phase":"exited"}`, optionsFile: "{}"}, ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			if tt.files != nil {
				h.bare(t, id, tt.files)
			}
			if err := h.SetBoot(t.Context(), id, true); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

// GC keeps what is to be started again, and no more.
func TestGCKeepsMarkedPods(t *testing.T) {
	for _, tt := range []struct {
		phase Phase
		boot  bool
		gone  bool
	}{
		{Prepared, true, false},
		{Exited, true, false}, {Exited, false, true},
		{Running, true, false}, {Running, false, true}, // nobody holds the lock: crashed
		{Garbage, true, true},
	} {
		name := string(tt.phase)
		if tt.boot {
			name += ", marked"
		}
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			id := h.prepared(t, h.probes(t, "exit 0"), Options{Boot: tt.boot})
			p, err := h.Lock(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(p.setState(State{Phase: tt.phase}), p.Close()); err != nil {
				t.Fatal(err)
			}
			removed, err := h.GC(t.Context(), 0)
			if err != nil || slices.Contains(removed, id) != tt.gone {
				t.Errorf("gc removed %v, %v", removed, err)
			}
		})
	}
}
