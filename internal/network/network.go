// Package network gives pods addresses of a network that the host is in.
//
// On FreeBSD (Lease, Release) an interface has the network: an address with a prefix,
// "172.23.0.1/16", which is the host's own. A pod gets another address of each such
// network, as an alias of the interface. On Linux (Bridge) it gets one on an interface
// of its own, connected to a bridge that is there as long as pods are. What is taken is read
// off the interfaces, under a lock of the host, so that several roots and other tools
// can share it.
//
// Not for: what a pod may do with its addresses (the engines), names of pods.
package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
)

// Sentinels of this package, wrapped with the interface.
var (
	// ErrNoNetwork: the interface does not exist, or has no network to give
	// addresses from.
	ErrNoNetwork = errors.New("no network for pods")
	// ErrFull: every address of a network is taken.
	ErrFull = errors.New("no free address")
)

// Networks gives the first network of each family, IPv4 before IPv6, on an interface: the host's
// address there with the length of the prefix. Link-local addresses and single
// ones (/32, /128), as those of pods are, do not count. Errors: ErrNoNetwork.
func Networks(name string) ([]netip.Prefix, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s does not exist: %w", name, ErrNoNetwork)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", name, err)
	}
	var found []netip.Prefix
	for _, p := range prefixes(addrs) {
		same := func(q netip.Prefix) bool { return q.Addr().Is4() == p.Addr().Is4() }
		if p.IsSingleIP() || p.Addr().IsLinkLocalUnicast() || slices.ContainsFunc(found, same) {
			continue
		}
		found = append(found, p)
	}
	slices.SortFunc(found, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }) // IPv4 first
	if len(found) == 0 {
		return nil, fmt.Errorf("interface %s has no address with a network: %w", name, ErrNoNetwork)
	}
	return found, nil
}

// Seed tells where to look for an address of an owner first, so that one is not
// given again at once.
func Seed(owner string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(owner)) // never fails
	return h.Sum64()
}

func prefixes(addrs []net.Addr) (ps []netip.Prefix) {
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		ones, bits := n.Mask.Size()
		if !ok || bits == 0 {
			continue
		}
		ip = ip.Unmap()
		ps = append(ps, netip.PrefixFrom(ip, ones-(bits-ip.BitLen())))
	}
	return ps
}

// choose gives a free address of a network, from a place that the seed tells, so
// that an address is not given again at once. It is never the first one, which
// names the network or any router of it (RFC 4291, 2.6.1), nor for IPv4 the last,
// which is the broadcast's. Errors: ErrFull.
func choose(network netip.Prefix, taken map[netip.Addr]bool, seed uint64) (netip.Addr, error) {
	// Of an IPv6 network a part that is large enough.
	bits := min(network.Addr().BitLen()-network.Bits(), 32)
	size := uint64(1) << bits
	last := size - 1
	if network.Addr().Is4() && size > 1 {
		last--
	}
	for i := range last {
		a := nth(network, 1+(seed+i)%last)
		if a != network.Addr() && !taken[a] {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%v: %w", network.Masked(), ErrFull)
}

// nth is the address with number n in a network; n is below 1<<32.
func nth(network netip.Prefix, n uint64) netip.Addr {
	first := network.Masked().Addr().AsSlice()
	low := first[len(first)-4:]
	binary.BigEndian.PutUint32(low, binary.BigEndian.Uint32(low)|uint32(n))
	a, _ := netip.AddrFromSlice(first) // its length is right
	return a
}
