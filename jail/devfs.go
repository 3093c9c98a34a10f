package jail

import (
	"encoding/binary"
	"fmt"
)

// rule is a rule of devfs(8).
type rule struct {
	path string // pattern; "" is every device
	hide bool   // or else show
}

// devices are the rules of a pod's /dev: nothing but what every program may expect.
// The standard set for jails (4, in /etc/defaults/devfs.rules) also shows zfs and fuse.
var devices = []rule{
	{"", true},
	{"null", false},
	{"zero", false},
	{"full", false},
	{"random", false},
	{"urandom", false},
	{"fd", false},
	{"fd/*", false},
	{"stdin", false},
	{"stdout", false},
	{"stderr", false},
	{"ptmx", false},
	{"pts", false},
	{"pts/*", false},
	{"tty", false},
	{"shm", false}, // of linux(4)
}

// Of struct devfs_rule in fs/devfs/devfs.h.
const (
	ruleSize      = 236
	ruleMagic     = 0xdb0a087a
	patternOffset = 16
	patternSize   = 200
	includeOffset = 234
	onPath        = 2    // dr_icond: DRC_PATHPTRN
	actHide       = 1    // dr_bacts: DRB_HIDE
	actShow       = 2    // DRB_UNHIDE
	actFlags      = 1    // dr_iacts: DRA_BACTS
	actInclude    = 0x10 // DRA_INCSET
)

// marshal encodes the rule with that number in a set as the kernel takes it.
func (r rule) marshal(set, number int) ([]byte, error) {
	if len(r.path) >= patternSize {
		return nil, fmt.Errorf("devfs pattern %q is too long", r.path)
	}
	b := make([]byte, ruleSize)
	put := func(offset int, v uint32) { binary.NativeEndian.PutUint32(b[offset:], v) }
	put(0, ruleMagic)
	put(4, uint32(set)<<16|uint32(number))
	if r.path != "" {
		put(8, onPath)
		copy(b[patternOffset:], r.path)
	}
	put(216, actFlags)
	put(220, actShow)
	if r.hide {
		put(220, actHide)
	}
	return b, nil
}

// ruleSet is the number of the set that an encoded rule belongs to.
func ruleSet(b []byte) int32 { return int32(binary.NativeEndian.Uint32(b[4:]) >> 16) }

// hidesAll tells whether an encoded rule hides every device, itself or if the set that
// it includes does.
func hidesAll(b []byte) bool { return hides(b) || field(b, 8) == 0 && field(b, 216)&actInclude != 0 }

func hides(b []byte) bool {
	return field(b, 8) == 0 && field(b, 216)&actFlags != 0 && field(b, 220)&actHide != 0
}

func field(b []byte, offset int) uint32 { return binary.NativeEndian.Uint32(b[offset:]) }

// beginsHidden tells whether a set begins with hiding every device; first gives the first
// rule of a set, or nil. The kernel goes as deep as that into sets that are included.
func beginsHidden(set int32, depth uint32, first func(set int32) ([]byte, error)) (bool, error) {
	for ; ; depth-- {
		b, err := first(set)
		switch {
		case err != nil || b == nil || !hidesAll(b):
			return false, err
		case hides(b):
			return true, nil
		case depth == 0:
			return false, nil
		}
		set = int32(binary.NativeEndian.Uint16(b[includeOffset:]))
	}
}
