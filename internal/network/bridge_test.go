package network

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestNewBridge(t *testing.T) {
	for _, tt := range []struct{ name, bridge, networks, want string }{
		{"both families", "jetpack0", "172.23.0.0/16 fd00:1::/64", ""},
		{"IPv4", "br-x_1", " 10.0.0.0/29 ", ""},
		{"no name", "", "10.0.0.0/24", "linux.bridge"},
		{"long name", "abcdefghijklmnop", "10.0.0.0/24", "linux.bridge"},
		{"every interface", "all", "10.0.0.0/24", "linux.bridge"},
		{"path", "../all", "10.0.0.0/24", "linux.bridge"},
		{"option", "-x", "10.0.0.0/24", "linux.bridge"},
		{"no network", "b", "", "linux.networks: want an IPv4 network"},
		{"address", "b", "10.0.0.1/24", `linux.networks: "10.0.0.1/24" is no network`},
		{"word", "b", "none", `"none" is no network`},
		{"IPv6 first", "b", "fd00:1::/64 10.0.0.0/24", "want an IPv4"},
		{"two of a kind", "b", "10.0.0.0/24 10.0.1.0/24", "want an IPv4"},
		{"three", "b", "10.0.0.0/24 fd00:1::/64 fd00:2::/64", "want an IPv4"},
		{"no room", "b", "10.0.0.0/30", "from /8 to /29"},
		{"everything", "b", "0.0.0.0/0", "from /8 to /29"},
		{"IPv6 too small", "b", "10.0.0.0/8 fd00:1::/97", "up to /96"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewBridge(tt.bridge, tt.networks)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewBridge = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestBridgeAddresses(t *testing.T) {
	b, err := NewBridge("b", "10.1.2.128/25 fd00:1::/64")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := b.Addresses(), addresses("10.1.2.129", "fd00:1::1"); !slices.Equal(got, want) {
		t.Errorf("the host has %v, want %v", got, want)
	}
	if got, want := b.pod(netip.MustParseAddr("10.1.2.200")), addresses("10.1.2.200", "fd00:1::48"); !slices.Equal(got, want) {
		t.Errorf("the pod has %v, want %v", got, want)
	}
}

func addresses(texts ...string) (addrs []netip.Addr) {
	for _, text := range texts {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs
}

func TestPortName(t *testing.T) {
	a := netip.MustParseAddr("172.23.0.5")
	name := portName(a)
	if name != "jpac170005" {
		t.Errorf("name %s", name)
	}
	if got, ok := portAddress(name); !ok || got != a {
		t.Errorf("portAddress = %v, %v", got, ok)
	}
	for _, name := range []string{"", "jp", "eth0", "jpac1700", "jpac17000500", "jpac17000g", "xpac170005"} {
		if a, ok := portAddress(name); ok {
			t.Errorf("%s is of %v", name, a)
		}
	}
}

func TestLinkLocal(t *testing.T) {
	if got := linkLocal(hardware(netip.MustParseAddr("172.23.0.5"))); got != netip.MustParseAddr("fe80::6a:acff:fe17:5") {
		t.Errorf("link-local address %v", got)
	}
}
