package network

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/jetpack-run/jetpack/internal/lazyregexp"
)

// Bridge is a network of pods on Linux: an interface to which each of them has a
// cable (veth(4)) that ends as eth0 in its network namespace. The host has the first
// address of each network, which pods know as their router.
type Bridge struct {
	// Name is that of the interface, and of two nftables tables.
	Name string
	// Networks are one of IPv4 and, behind it, perhaps one of IPv6. A pod has the same
	// number in both.
	Networks []netip.Prefix
}

// Longer names are refused by the kernel (IFNAMSIZ).
var bridgeName = lazyregexp.New(`^[A-Za-z][A-Za-z0-9_-]{0,14}$`)

// NewBridge is the bridge of a name with networks that are separated by blanks:
// "172.23.0.0/16 fd00:1::/64".
func NewBridge(name, networks string) (Bridge, error) {
	b := Bridge{Name: name}
	// The kernel's settings have these names for more than one interface.
	if !bridgeName().MatchString(name) || name == "all" || name == "default" {
		return b, fmt.Errorf("linux.bridge: %q is no name of an interface: a letter, then up to 14 letters, digits, _ and -", name)
	}
	for _, text := range strings.Fields(networks) {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			return b, fmt.Errorf("linux.networks: %q is no network such as 172.23.0.0/16 or fd00:1::/64", text)
		}
		b.Networks = append(b.Networks, p)
	}
	if n := b.Networks; len(n) == 0 || len(n) > 2 || !n[0].Addr().Is4() || n[0].Bits() < 8 || n[0].Bits() > 29 ||
		len(n) == 2 && (!n[1].Addr().Is6() || n[1].Bits() > 96) {
		return b, errors.New("linux.networks: want an IPv4 network from /8 to /29 and, behind it, perhaps one of IPv6 up to /96")
	}
	return b, nil
}

// Addresses are the host's, of which pods reach it.
func (b Bridge) Addresses() []netip.Addr {
	var addrs []netip.Addr
	for _, n := range b.Networks {
		addrs = append(addrs, gateway(n))
	}
	return addrs
}

// pod gives the addresses of a pod by the one that it has in the first network.
func (b Bridge) pod(a netip.Addr) []netip.Addr {
	addrs := []netip.Addr{a}
	for _, n := range b.Networks[1:] {
		addrs = append(addrs, nth(n, number(b.Networks[0], a)))
	}
	return addrs
}

// gateway is the address that the host has in a network.
func gateway(network netip.Prefix) netip.Addr { return nth(network, 1) }

// number is that of an address in an IPv4 network: nth gives it back.
func number(network netip.Prefix, a netip.Addr) uint64 {
	at, first := a.As4(), network.Addr().As4()
	return uint64(binary.BigEndian.Uint32(at[:]) - binary.BigEndian.Uint32(first[:]))
}

// The names of a pod's side of its cable, and of the host's, follow from the pod's
// IPv4 address: the interface is the lease.
const (
	podInterface = "eth0"
	portPrefix   = "jp"
)

func portName(a netip.Addr) string { return fmt.Sprintf("%s%x", portPrefix, a.As4()) }

// portAddress is the reverse of portName.
func portAddress(name string) (a netip.Addr, ok bool) {
	digits, ours := strings.CutPrefix(name, portPrefix)
	raw, err := hex.DecodeString(digits)
	if !ours || err != nil || len(raw) != 4 {
		return a, false
	}
	return netip.AddrFrom4([4]byte(raw)), true
}

// hardware is the hardware address of who has an IPv4 address: locally administered
// (RFC 9542, 2.1), and the same whenever the address is given out again, so that what
// neighbours remember stays right.
func hardware(a netip.Addr) net.HardwareAddr {
	raw := a.As4()
	return append(net.HardwareAddr{0x02, 'j'}, raw[:]...)
}

// linkLocal is the address that the kernel makes of a hardware address (RFC 4291,
// appendix A).
func linkLocal(hw net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: hw[0] ^ 0x02, 9: hw[1], 10: hw[2], 11: 0xff, 12: 0xfe, 13: hw[3], 14: hw[4], 15: hw[5]})
}
