package network

import (
	"errors"
	"net/netip"
	"testing"
)

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		name, network string
		taken         []string
		seed          uint64
		want          string // "" is ErrFull
	}{
		{"skips the host", "172.23.0.1/16", nil, 0, "172.23.0.2"},
		{"skips what is taken", "172.23.0.1/16", []string{"172.23.0.2", "172.23.0.3"}, 0, "172.23.0.4"},
		{"starts where the seed says", "172.23.0.1/16", nil, 0x1233, "172.23.18.52"},
		{"goes round", "10.0.0.1/29", []string{"10.0.0.6"}, 5, "10.0.0.2"},
		{"large seed", "10.0.0.1/30", nil, 1<<64 - 1, "10.0.0.2"},
		{"host in the middle", "10.0.0.3/29", []string{"10.0.0.1", "10.0.0.2"}, 0, "10.0.0.4"},
		{"neither network nor broadcast", "10.0.0.1/30", []string{"10.0.0.2"}, 0, ""},
		{"full", "10.0.0.1/29", []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"}, 3, ""},
		{"no room for pods", "10.0.0.0/31", nil, 0, ""},
		{"single", "10.0.0.1/32", nil, 0, ""},
		{"IPv6", "fd00::1/64", nil, 0, "fd00::2"},
		{"IPv6 by seed", "fd00::1/64", nil, 0xfffe, "fd00::ffff"},
		{"IPv6 last", "fd00::1/126", []string{"fd00::2"}, 0, "fd00::3"},
		{"IPv6 full", "fd00::1/126", []string{"fd00::2", "fd00::3"}, 0, ""},
		{"IPv6, long prefix", "fd00::10/124", nil, 0, "fd00::11"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			taken := map[netip.Addr]bool{}
			for _, a := range tt.taken {
				taken[netip.MustParseAddr(a)] = true
			}
			got, err := choose(netip.MustParsePrefix(tt.network), taken, tt.seed)
			if tt.want == "" {
				if !errors.Is(err, ErrFull) {
					t.Fatalf("choose = %v, %v; want ErrFull", got, err)
				}
				return
			}
			if err != nil || got != netip.MustParseAddr(tt.want) {
				t.Fatalf("choose = %v, %v; want %s", got, err, tt.want)
			}
		})
	}
}

// Whatever the seed, all of a network is given, once each, and nothing else.
func TestChooseAll(t *testing.T) {
	for _, network := range []string{"10.1.2.77/25", "fd00:1::5/121"} {
		for _, seed := range []uint64{0, 1, 76, 1 << 40} {
			n := netip.MustParsePrefix(network)
			taken := map[netip.Addr]bool{}
			for {
				a, err := choose(n, taken, seed)
				if err != nil {
					break
				}
				if taken[a] || !n.Contains(a) || a == n.Addr() {
					t.Fatalf("%s: %v given", network, a)
				}
				taken[a] = true
			}
			want := 128 - 2 // without the first and the host's
			if n.Addr().Is4() {
				want-- // and the broadcast's
			}
			if len(taken) != want {
				t.Errorf("%s, seed %d: %d addresses, want %d", network, seed, len(taken), want)
			}
		}
	}
}

func TestNetworksOfNoInterface(t *testing.T) {
	if _, err := Networks("nosuch0"); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("Networks = %v", err)
	}
}
