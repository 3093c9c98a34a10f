package jail

import (
	"encoding/binary"
	"errors"
	"testing"
)

func TestBeginsHidden(t *testing.T) {
	including := func(set uint16) []byte {
		b := make([]byte, ruleSize)
		binary.NativeEndian.PutUint32(b[216:], actInclude)
		binary.NativeEndian.PutUint16(b[includeOffset:], set)
		return b
	}
	encoded := func(r rule) []byte {
		b, err := r.marshal(1, 100)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	broken := errors.New("broken")
	sets := map[int32][]byte{
		1: encoded(rule{hide: true}),
		2: encoded(rule{path: "null"}),
		3: encoded(rule{path: "mem", hide: true}),
		4: including(1),
		5: including(2),
		6: including(4),
		7: including(7),
		8: including(99),
		9: including(66),
	}
	for _, tt := range []struct {
		name  string
		set   int32
		depth uint32
		want  bool
		err   error
	}{
		{"hides everything", 1, 0, true, nil},
		{"shows one", 2, 1, false, nil},
		{"hides one", 3, 1, false, nil},
		{"includes what hides everything", 4, 1, true, nil},
		{"includes, and the kernel does not", 4, 0, false, nil},
		{"includes what shows", 5, 1, false, nil},
		{"deeper than the kernel goes", 6, 1, false, nil},
		{"as deep as the kernel goes", 6, 2, true, nil},
		{"includes itself", 7, 5, false, nil},
		{"includes nothing", 8, 1, false, nil},
		{"cannot be read", 9, 1, false, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := beginsHidden(tt.set, tt.depth, func(set int32) ([]byte, error) {
				if set == 66 {
					return nil, broken
				}
				return sets[set], nil
			})
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
