package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Frames that a pod with all powers over its network may send, as bytes.

func ethernet(to, from net.HardwareAddr, protocol uint16, payload []byte) []byte {
	return slices.Concat(to, from, binary.BigEndian.AppendUint16(nil, protocol), payload)
}

func sum(parts ...[]byte) uint16 {
	var n uint32
	for b := range slices.Chunk(slices.Concat(parts...), 2) {
		n += uint32(binary.BigEndian.Uint16(append(b[:len(b):len(b)], 0)))
	}
	for n>>16 > 0 {
		n = n>>16 + n&0xffff
	}
	return ^uint16(n)
}

// packet is a UDP datagram between ports of the same number.
func packet(from, to netip.Addr, port uint16, text string) []byte {
	be := binary.BigEndian
	udp := be.AppendUint16(be.AppendUint16(be.AppendUint16(nil, port), port), uint16(8+len(text)))
	udp = append(append(udp, 0, 0), text...)
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), be.AppendUint32(nil, uint32(len(udp))), []byte{0, 0, 0, unix.IPPROTO_UDP})
	be.PutUint16(udp[6:], sum(pseudo, udp))
	return ip(from, to, unix.IPPROTO_UDP, udp)
}

func ip(from, to netip.Addr, protocol byte, payload []byte) []byte {
	be := binary.BigEndian
	if from.Is6() {
		head := append(be.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload))), protocol, 255)
		return slices.Concat(head, from.AsSlice(), to.AsSlice(), payload)
	}
	head := be.AppendUint16([]byte{0x45, 0}, uint16(20+len(payload)))
	head = slices.Concat(head, []byte{0, 0, 0, 0, 64, protocol, 0, 0}, from.AsSlice(), to.AsSlice())
	be.PutUint16(head[10:], sum(head))
	return append(head, payload...)
}

func icmp6(from, to netip.Addr, body []byte) []byte {
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), binary.BigEndian.AppendUint32(nil, uint32(len(body))), []byte{0, 0, 0, unix.IPPROTO_ICMPV6})
	binary.BigEndian.PutUint16(body[2:], sum(pseudo, body))
	return ip(from, to, unix.IPPROTO_ICMPV6, body)
}

// arp is a reply: an address is at a hardware address.
func arp(a netip.Addr, at net.HardwareAddr, to netip.Addr, toHW net.HardwareAddr) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 2}, at, a.AsSlice(), toHW, to.AsSlice())
}

// advertise is a neighbour advertisement: the same for IPv6 (RFC 4861, 4.4).
func advertise(from, to, a netip.Addr, at net.HardwareAddr) []byte {
	return icmp6(from, to, slices.Concat([]byte{neighbourSays, 0, 0, 0, 0x60, 0, 0, 0}, a.AsSlice(), []byte{2, 1}, at))
}

// route is a router advertisement (RFC 4861, 4.2).
func route(from, to netip.Addr) []byte {
	return icmp6(from, to, []byte{routerSays, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0})
}

// send sends frames by a namespace's interface.
func send(t *testing.T, ns *os.File, frames ...[]byte) {
	t.Helper()
	inside(t, ns, func() error {
		link, err := netlink.LinkByName(podInterface)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
				return err
			}
		}
		return nil
	})
}

// believing has an interface, in this thread's network, believe every reply at once (arp(7),
// locktime).
func believing(name string) error {
	return os.WriteFile("/proc/sys/net/ipv4/neigh/"+name+"/locktime", []byte("0"), 0)
}

// TestSpoof: a pod with every power over its own network cannot seem to be another.
// Each time something true follows what must not come: when it is there, the other is not.
func TestSpoof(t *testing.T) {
	b := testBridge(t)
	p, victim := join(t, b, "s/p"), join(t, b, "s/victim")
	host, gateway := b.Addresses(), hardware(b.Addresses()[0])
	mine, theirs := hardware(p.addrs[0]), hardware(victim.addrs[0])
	outside := addresses("192.0.2.77", "2001:db8::77")
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

	t.Run("addresses", func(t *testing.T) {
		for i, protocol := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6} {
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host[i], 0)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			port := uint16(c.LocalAddr().(*net.UDPAddr).Port)
			frame := func(from netip.Addr, hw net.HardwareAddr, text string) []byte {
				return ethernet(gateway, hw, protocol, packet(from, host[i], port, text))
			}
			tagged := slices.Concat(gateway, mine, []byte{0x81, 0, 0, 5}, frame(victim.addrs[i], mine, "in a VLAN")[12:])
			send(t, p.ns,
				frame(victim.addrs[i], mine, "another's address"),
				frame(victim.addrs[i], theirs, "another's addresses"),
				frame(p.addrs[i], theirs, "another's hardware address"),
				frame(host[i], gateway, "the host's addresses"),
				frame(outside[i], mine, "an address from elsewhere"),
				tagged,
				frame(p.addrs[i], mine, "its own"))
			if err := c.SetReadDeadline(time.Now().Add(deadline)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			if n, from, err := c.ReadFromUDPAddrPort(buf); err != nil || string(buf[:n]) != "its own" || from.Addr() != p.addrs[i] {
				t.Errorf("came from %v: %q, %v", from, buf[:n], err)
			}
		}
	})
	t.Run("neighbours", func(t *testing.T) {
		if err := believing(b.Name); err != nil {
			t.Fatal(err)
		}
		inside(t, victim.ns, func() error { return believing(podInterface) })
		// All of them know each other, which is when a lie would be believed.
		for i := range host {
			seenAs(t, nil, greet(t, victim.ns, victim.addrs[i]), deadline)
			seenAs(t, victim.ns, greet(t, nil, host[i]), deadline)
		}
		all, own := netip.MustParseAddr("ff02::1"), linkLocal(mine)
		allHW := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
		bridge, err := netlink.LinkByName(b.Name)
		if err != nil {
			t.Fatal(err)
		}
		knows := func(link netlink.Link, neighbour netip.Addr, hw net.HardwareAddr) {
			t.Helper()
			list, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
			if err != nil {
				t.Error(err)
			}
			for _, n := range list {
				if n.IP.Equal(neighbour.AsSlice()) && len(n.HardwareAddr) > 0 && !slices.Equal(n.HardwareAddr, hw) {
					t.Errorf("%v is believed to be at %v, not %v", neighbour, n.HardwareAddr, hw)
				}
			}
		}
		check := func() {
			for i := range host {
				knows(bridge, victim.addrs[i], theirs)
			}
			inside(t, victim.ns, func() error {
				link, err := netlink.LinkByName(podInterface)
				if err != nil {
					return err
				}
				for i := range host {
					knows(link, host[i], gateway)
				}
				routes, err := netlink.RouteList(link, netlink.FAMILY_V6)
				for _, r := range routes {
					if r.Protocol == unix.RTPROT_RA {
						t.Errorf("a pod made itself a router: %v", r)
					}
				}
				return err
			})
		}
		// Again and again: what was heard in this very tick of the clock is not replaced.
		for range 10 {
			send(t, p.ns,
				ethernet(broadcast, mine, unix.ETH_P_ARP, arp(victim.addrs[0], mine, host[0], gateway)),
				ethernet(gateway, theirs, unix.ETH_P_ARP, arp(victim.addrs[0], mine, host[0], gateway)),
				ethernet(theirs, mine, unix.ETH_P_ARP, arp(host[0], mine, victim.addrs[0], theirs)),
				ethernet(theirs, mine, unix.ETH_P_ARP, arp(host[0], theirs, victim.addrs[0], theirs)),
				ethernet(allHW, mine, unix.ETH_P_IPV6, advertise(p.addrs[1], all, victim.addrs[1], mine)),
				ethernet(allHW, mine, unix.ETH_P_IPV6, advertise(own, all, victim.addrs[1], mine)),
				ethernet(theirs, mine, unix.ETH_P_IPV6, advertise(own, victim.addrs[1], host[1], mine)),
				ethernet(theirs, theirs, unix.ETH_P_IPV6, advertise(host[1], victim.addrs[1], host[1], mine)),
				ethernet(allHW, mine, unix.ETH_P_IPV6, route(own, all)))
			// What comes behind them has arrived: so have they.
			for i := range host {
				seenAs(t, p.ns, greet(t, victim.ns, victim.addrs[i]), deadline)
				seenAs(t, p.ns, greet(t, nil, host[i]), deadline)
			}
			check()
		}
	})
}

// The same frames, when they are true, are let through: the rules know them.
func TestTrueFrames(t *testing.T) {
	b := testBridge(t)
	p := join(t, b, "s/p")
	bridge, err := netlink.LinkByName(b.Name)
	if err != nil {
		t.Fatal(err)
	}
	host, gateway, mine := b.Addresses(), hardware(b.Addresses()[0]), hardware(p.addrs[0])
	if err := believing(b.Name); err != nil {
		t.Fatal(err)
	}
	for i := range host { // an entry to be confirmed; nothing is learnt without one
		if err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: bridge.Attrs().Index, State: netlink.NUD_STALE, IP: p.addrs[i].AsSlice(), HardwareAddr: gateway,
		}); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(deadline); ; time.Sleep(time.Millisecond) {
		send(t, p.ns,
			ethernet(gateway, mine, unix.ETH_P_ARP, arp(p.addrs[0], mine, host[0], gateway)),
			ethernet(gateway, mine, unix.ETH_P_IPV6, advertise(linkLocal(mine), host[1], p.addrs[1], mine)))
		list, err := netlink.NeighList(bridge.Attrs().Index, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		right := 0
		for _, n := range list {
			if slices.Equal(n.HardwareAddr, mine) {
				right++
			}
		}
		if right >= len(host) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("neighbours: %v", list)
		}
	}
}
