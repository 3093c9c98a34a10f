package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// The kernel passes on what comes in by interfaces whose forwarding is on
// (net.ipv4.conf.INTERFACE.forwarding, ip-sysctl.rst): that of pods by the bridge, the
// answers by the interfaces with a default route. net.ipv4.ip_forward, which stands for
// all of them, stays as it is. What was turned on for the pods is in the
// alias of the bridge, and is turned off with it.
const uplinkAlias = "jetpack uplinks"

// startForwarding gives the interfaces whose forwarding is on for the pods' sake.
func startForwarding(bridge netlink.Link) (uplinks []string, err error) {
	if err := setForwarding(bridge.Attrs().Name, "1"); err != nil {
		return nil, err
	}
	if on, err := forwarding("all"); err != nil {
		return nil, err
	} else if on { // now others rely on it as well
		return nil, netlink.LinkSetAlias(bridge, uplinkAlias)
	}
	if uplinks, err = forwarded(bridge); err != nil {
		return nil, err
	}
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	for _, index := range defaultLinks(routes) {
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			continue // it has gone
		}
		name := link.Attrs().Name
		if on, err := forwarding(name); err == nil && !on && !slices.Contains(uplinks, name) {
			uplinks = append(uplinks, name)
		}
	}
	alias := strings.Join(append([]string{uplinkAlias}, uplinks...), " ")
	if err := netlink.LinkSetAlias(bridge, alias); err != nil {
		return nil, fmt.Errorf("interface %s: %w", bridge.Attrs().Name, err)
	}
	for _, name := range uplinks {
		if err := setForwarding(name, "1"); err != nil {
			return nil, err
		}
	}
	return uplinks, nil
}

// defaultLinks are the indices of the interfaces that default routes lead to.
func defaultLinks(routes []netlink.Route) (indices []int) {
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		indices = append(indices, r.LinkIndex)
		for _, hop := range r.MultiPath {
			indices = append(indices, hop.LinkIndex)
		}
	}
	return indices
}

// stopForwarding undoes startForwarding, unless forwarding was turned on for all meanwhile.
func stopForwarding(bridge netlink.Link) error {
	on, err := forwarding("all")
	if on || err != nil {
		return err
	}
	uplinks, err := forwarded(bridge)
	for _, name := range uplinks {
		err = errors.Join(err, setForwarding(name, "0"))
	}
	return err
}

// forwarded reads the alias of a bridge.
func forwarded(bridge netlink.Link) ([]string, error) {
	link, err := netlink.LinkByIndex(bridge.Attrs().Index)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", bridge.Attrs().Name, err)
	}
	names, _ := strings.CutPrefix(link.Attrs().Alias, uplinkAlias)
	return strings.Fields(names), nil
}

func forwardingFile(name string) string { return "/proc/sys/net/ipv4/conf/" + name + "/forwarding" }

func forwarding(name string) (on bool, err error) {
	raw, err := os.ReadFile(forwardingFile(name))
	return strings.TrimSpace(string(raw)) == "1", err
}

// setForwarding ignores interfaces that have gone.
func setForwarding(name, value string) error {
	err := os.WriteFile(forwardingFile(name), []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// hasIPv6 tells whether interfaces of the host get addresses of IPv6.
func hasIPv6() bool {
	raw, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/disable_ipv6")
	return err == nil && strings.TrimSpace(string(raw)) == "0"
}

// forwardsIPv6 tells whether the host passes IPv6 on. It is not turned on for pods: an
// interface that forwards does not heed router advertisements any more, by which the host may
// have its own address.
func forwardsIPv6() bool {
	raw, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/forwarding")
	return err == nil && strings.TrimSpace(string(raw)) != "0"
}
