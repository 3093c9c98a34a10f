package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// linkGroup marks bridges that jetpack made, from their first moment on.
const linkGroup = 0x6a706b

// portAlias is what the alias of a port begins with; its owner follows.
const portAlias = "jetpack pod "

// Check tells whether the host can have the bridge, before anything is made. An error
// that a setting mends names it.
func (b Bridge) Check(ctx context.Context) (err error) {
	unlock, err := lock(ctx) // nobody is just making it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	link, err := netlink.LinkByName(b.Name)
	switch {
	case isNotFound(err):
		err = b.checkRoutes()
	case err == nil:
		err = b.checkLink(link)
	}
	if err != nil {
		return err
	}
	return checkRules()
}

// checkLink refuses an interface that jetpack did not make, and one that it made for
// other networks.
func (b Bridge) checkLink(link netlink.Link) error {
	if !ours(link) {
		return fmt.Errorf("interface %s is not jetpack's; name another one with linux.bridge", b.Name)
	}
	has, err := hostPrefixes(link)
	if err != nil {
		return err
	}
	for _, p := range has {
		if !slices.Contains(b.hostPrefixes(), p) {
			return fmt.Errorf("interface %s has the address %v, which linux.networks does not say: end its pods first, or name another interface with linux.bridge", b.Name, p)
		}
	}
	return nil
}

// hostPrefixes are the host's addresses with the lengths of their networks.
func (b Bridge) hostPrefixes() (ps []netip.Prefix) {
	for _, n := range b.Networks {
		ps = append(ps, netip.PrefixFrom(gateway(n), n.Bits()))
	}
	return ps
}

func ours(link netlink.Link) bool {
	return link.Type() == "bridge" && link.Attrs().Group == linkGroup
}

// checkRoutes refuses networks that the host reaches in another way. Routes to half of
// all addresses are those of virtual private networks, which mean a default route.
func (b Bridge) checkRoutes() error {
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("read routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		to := prefix(r.Dst)
		for _, n := range b.Networks {
			if to.Bits() > 1 && to.Overlaps(n) {
				return fmt.Errorf("the network %v for pods overlaps the host's route to %v; name a free one with linux.networks", n, to)
			}
		}
	}
	return nil
}

func prefix(n *net.IPNet) netip.Prefix {
	if ps := prefixes([]net.Addr{n}); len(ps) == 1 {
		return ps[0]
	}
	return netip.Prefix{}
}

// Join connects a network namespace to the bridge, which it makes if need be, and gives it
// an address of each network that nobody else has; of IPv6 only where the host has that.
// Owner, without blanks, has to Leave, after an error as well.
func (b Bridge) Join(ctx context.Context, owner string, seed uint64, namespace *os.File) (addrs []netip.Addr, err error) {
	unlock, err := lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	b.Networks = slices.DeleteFunc(slices.Clone(b.Networks), func(n netip.Prefix) bool { return n.Addr().Is6() && !hasIPv6() })
	bridge, err := b.make()
	if err != nil {
		return nil, err
	}
	links, err := dump(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	leased := map[netip.Addr]bool{}
	for _, l := range links {
		if a, ok := portAddress(l.Attrs().Name); ok {
			leased[a] = true
		}
	}
	a, err := choose(b.hostPrefixes()[0], leased, seed)
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", b.Name, err)
	}
	if err := b.connect(bridge, a, owner, namespace); err != nil {
		return nil, fmt.Errorf("connect to bridge %s: %w", b.Name, err)
	}
	return b.pod(a), nil
}

// make makes the bridge, or what is missing of it.
func (b Bridge) make() (netlink.Link, error) {
	link, err := netlink.LinkByName(b.Name)
	if isNotFound(err) {
		if err := b.checkRoutes(); err != nil {
			return nil, err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Group, attrs.HardwareAddr = b.Name, linkGroup, hardware(gateway(b.Networks[0]))
		// No switch of ours has to know who listens to a multicast group.
		snooping := false
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
			return nil, fmt.Errorf("make bridge %s: %w", b.Name, err)
		}
		link, err = netlink.LinkByName(b.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", b.Name, err)
	}
	if err := b.checkLink(link); err != nil {
		return nil, err
	}
	for _, p := range b.hostPrefixes() {
		if err := netlink.AddrReplace(link, address(p)); err != nil {
			return nil, fmt.Errorf("give %s the address %v: %w", b.Name, p, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("turn %s on: %w", b.Name, err)
	}
	return link, nil
}

// address is one that nobody else can have: there is no need to look for duplicates.
func address(p netip.Prefix) *netlink.Addr {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

// connect makes a pod's cable. Its port is turned on when there are rules for it.
func (b Bridge) connect(bridge netlink.Link, a netip.Addr, owner string, namespace *os.File) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = portName(a), bridge.Attrs().Index
	port := netlink.NewVeth(attrs)
	port.PeerName, port.PeerHardwareAddr, port.PeerNamespace = podInterface, hardware(a), netlink.NsFd(namespace.Fd())
	if err := netlink.LinkAdd(port); err != nil {
		return fmt.Errorf("make interface %s: %w", attrs.Name, err)
	}
	if err := netlink.LinkSetAlias(port, portAlias+owner); err != nil {
		return fmt.Errorf("interface %s: %w", attrs.Name, err)
	}
	if err := refresh(bridge); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(port); err != nil {
		return fmt.Errorf("turn %s on: %w", attrs.Name, err)
	}
	return b.configure(b.pod(a), namespace)
}

// configure gives the pod's side of its cable its addresses and routes.
func (b Bridge) configure(addrs []netip.Addr, namespace *os.File) error {
	inside, err := netlink.NewHandleAt(netns.NsHandle(namespace.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter the pod's network: %w", err)
	}
	defer inside.Close()
	link, err := inside.LinkByName(podInterface)
	if err != nil {
		return fmt.Errorf("interface %s in the pod: %w", podInterface, err)
	}
	for i, a := range addrs {
		if err := inside.AddrAdd(link, address(netip.PrefixFrom(a, b.Networks[i].Bits()))); err != nil {
			return fmt.Errorf("give the pod the address %v: %w", a, err)
		}
	}
	if err := inside.LinkSetUp(link); err != nil {
		return fmt.Errorf("turn %s in the pod on: %w", podInterface, err)
	}
	for _, n := range b.Networks {
		if n.Addr().Is6() && !forwardsIPv6() {
			continue // what has no route fails at once, and IPv4 is tried
		}
		if err := inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway(n).AsSlice()}); err != nil {
			return fmt.Errorf("route from the pod to %v: %w", gateway(n), err)
		}
	}
	return nil
}

// Owners are all who have a cable on this host.
func Owners() (owners []string, err error) {
	links, err := dump(netlink.LinkList)
	for _, l := range links {
		if owner, ok := strings.CutPrefix(l.Attrs().Alias, portAlias); ok {
			owners = append(owners, owner)
		}
	}
	return owners, err
}

// Leave takes an owner's cable away, and a bridge with its rules when nobody is left
// there. It is idempotent.
func Leave(ctx context.Context, owner, bridge string) (err error) {
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	links, err := dump(netlink.LinkList)
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().Alias != portAlias+owner {
			continue
		}
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove interface %s: %w", l.Attrs().Name, err)
		}
	}
	return settle(bridge)
}

// settle removes a bridge without ports, or gives one the rules for those it has.
func settle(name string) error {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return removeRules(name)
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	if !ours(link) {
		return nil
	}
	links, err := dump(netlink.LinkList)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().MasterIndex == link.Attrs().Index }) {
		return refresh(link)
	}
	if err := stopForwarding(link); err != nil {
		return err
	}
	if err := removeRules(name); err != nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove bridge %s: %w", name, err)
	}
	return nil
}

// refresh gives a bridge the rules and the forwarding for the ports that it has now.
func refresh(bridge netlink.Link) error {
	uplinks, err := startForwarding(bridge)
	if err != nil {
		return err
	}
	b := Bridge{Name: bridge.Attrs().Name}
	has, err := hostPrefixes(bridge)
	if err != nil {
		return err
	}
	for _, p := range has {
		b.Networks = append(b.Networks, p.Masked())
	}
	links, err := dump(netlink.LinkList)
	if err != nil {
		return err
	}
	var pods []netip.Addr
	for _, l := range links {
		if a, ok := portAddress(l.Attrs().Name); ok && l.Attrs().MasterIndex == bridge.Attrs().Index {
			pods = append(pods, a)
		}
	}
	return b.setRules(pods, uplinks)
}

// hostPrefixes are the addresses of a bridge that are not link-local, IPv4 first.
func hostPrefixes(bridge netlink.Link) (ps []netip.Prefix, err error) {
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(bridge, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", bridge.Attrs().Name, err)
	}
	for _, a := range addrs {
		if p := prefix(a.IPNet); !p.Addr().IsLinkLocalUnicast() {
			ps = append(ps, p)
		}
	}
	slices.SortFunc(ps, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return ps, nil
}

// dump asks again when the answer changed while it was given.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}

func isNotFound(err error) bool {
	_, ok := errors.AsType[netlink.LinkNotFoundError](err)
	return ok
}
