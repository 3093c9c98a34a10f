package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateNetwork(m)) }

const deadline = 10 * time.Second

// namespace makes a network namespace that ends with the test.
func namespace(t *testing.T) *os.File {
	t.Helper()
	var f *os.File
	onThread(t, func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if f, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// inside calls f in a network namespace.
func inside(t *testing.T, ns *os.File, f func() error) {
	t.Helper()
	onThread(t, func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// onThread calls f on a thread that ends with it.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func testBridge(t *testing.T) Bridge {
	t.Helper()
	testenv.Root(t)
	b, err := NewBridge("jptest0", "10.213.0.0/16 fd6a:6574:7061::/64")
	if err != nil {
		t.Fatal(err)
	}
	before := state(t)
	t.Cleanup(func() {
		if after := state(t); !slices.Equal(before, after) {
			t.Errorf("left behind: %q, was %q", after, before)
		}
	})
	return b
}

// state is all that a bridge may change.
func state(t *testing.T) (all []string) {
	t.Helper()
	links, err := dump(netlink.LinkList)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		on, err := forwarding(l.Attrs().Name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprint(l.Attrs().Name, " ", on))
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		all = append(all, "table "+table.Name)
	}
	return all
}

// pod is a namespace on a bridge.
type pod struct {
	ns    *os.File
	addrs []netip.Addr
}

func join(t *testing.T, b Bridge, owner string) pod {
	t.Helper()
	p := pod{ns: namespace(t)}
	t.Cleanup(func() { leave(t, b, owner) })
	var err error
	if p.addrs, err = b.Join(t.Context(), owner, Seed(owner), p.ns); err != nil {
		t.Fatal(err)
	}
	return p
}

func leave(t *testing.T, b Bridge, owner string) {
	t.Helper()
	if err := Leave(context.Background(), owner, b.Name); err != nil {
		t.Errorf("Leave: %v", err)
	}
}

// greet serves one connection in a namespace, or on the host, and gives where.
func greet(t *testing.T, ns *os.File, a netip.Addr) string {
	t.Helper()
	var l net.Listener
	listen := func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(a, 0).String())
		return err
	}
	if ns != nil {
		inside(t, ns, listen)
	} else if err := listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from := netip.MustParseAddrPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, from.Addr().String()) // the other side tells
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// seenAs connects from a namespace, or the host, and gives the address that the server
// sees, or "" when there is no way.
func seenAs(t *testing.T, ns *os.File, server string, wait time.Duration) (as string) {
	t.Helper()
	dial := func() error {
		c, err := net.DialTimeout("tcp", server, wait)
		if err != nil {
			return nil
		}
		defer func() { _ = c.Close() }()
		raw, err := io.ReadAll(c)
		as = string(raw)
		return err
	}
	if ns != nil {
		inside(t, ns, dial)
	} else if err := dial(); err != nil {
		t.Fatal(err)
	}
	return as
}

// short is how long is waited for what must not happen.
const short = 300 * time.Millisecond

func TestBridge(t *testing.T) {
	b := testBridge(t)
	p, q := join(t, b, "s/p"), join(t, b, "s/q")
	if len(p.addrs) != 2 || len(q.addrs) != 2 || p.addrs[0] == q.addrs[0] {
		t.Fatalf("addresses %v and %v", p.addrs, q.addrs)
	}
	host := b.Addresses()
	for i := range p.addrs {
		for _, tt := range []struct {
			name     string
			from, to *os.File
			at, as   netip.Addr
		}{
			{"host to pod", nil, p.ns, p.addrs[i], host[i]},
			{"pod to host", p.ns, nil, host[i], p.addrs[i]},
			{"pod to pod", p.ns, q.ns, q.addrs[i], p.addrs[i]},
			{"host to itself", nil, nil, host[i], host[i]},
			{"pod to itself", p.ns, p.ns, p.addrs[i], p.addrs[i]},
		} {
			if got := seenAs(t, tt.from, greet(t, tt.to, tt.at), deadline); got != tt.as.String() {
				t.Errorf("%s at %v: seen as %q, want %v", tt.name, tt.at, got, tt.as)
			}
		}
	}
	if owners, err := Owners(); err != nil || !slices.Equal(owners, []string{"s/p", "s/q"}) && !slices.Equal(owners, []string{"s/q", "s/p"}) {
		t.Errorf("Owners = %q, %v", owners, err)
	}
	leave(t, b, "s/p")
	if got := seenAs(t, nil, greet(t, q.ns, q.addrs[0]), deadline); got != host[0].String() {
		t.Errorf("after the other has left: seen as %q", got)
	}
}

// A namespace that ends without leaving keeps no address; the bridge goes with the
// next who leaves.
func TestNamespaceEnds(t *testing.T) {
	b := testBridge(t)
	p := join(t, b, "s/p")
	if err := p.ns.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(deadline); ; time.Sleep(time.Millisecond) {
		owners, err := Owners()
		if err != nil {
			t.Fatal(err)
		}
		if len(owners) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("owners %q", owners)
		}
	}
}

// What was flushed comes back with the next pod, also for those that there are.
func TestFlushed(t *testing.T) {
	b := testBridge(t)
	p := join(t, b, "s/p")
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	c.FlushRuleset()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	q := join(t, b, "s/q")
	ports, _ := b.tables()
	set, err := c.GetSetByName(ports, "own4")
	if err != nil {
		t.Fatal(err)
	}
	elements, err := c.GetSetElements(set)
	if err != nil || len(elements) != 2 {
		t.Errorf("rules for %d pods, %v", len(elements), err)
	}
	if got := seenAs(t, p.ns, greet(t, q.ns, q.addrs[0]), deadline); got != p.addrs[0].String() {
		t.Errorf("seen as %q", got)
	}
}

// A bridge may have as many pods as one likes.
func TestManyRules(t *testing.T) {
	b := testBridge(t)
	var pods []netip.Addr
	for i := range uint64(1000) {
		pods = append(pods, nth(b.Networks[0], 2+i))
	}
	if err := b.setRules(pods, nil); err != nil {
		t.Error(err)
	}
	leave(t, b, "nobody")
}

func TestRefused(t *testing.T) {
	b := testBridge(t)
	check := func(want string) {
		t.Helper()
		if err := b.Check(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check = %v, want %s", err, want)
		}
		if _, err := b.Join(t.Context(), "s/p", 0, namespace(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Join = %v, want %s", err, want)
		}
		leave(t, b, "s/p")
	}
	t.Run("route", func(t *testing.T) {
		link := dummy(t, "other0", "10.213.7.1/24")
		check("overlaps the host's route to 10.213.7.0/24; name a free one with linux.networks")
		if err := netlink.LinkDel(link); err != nil {
			t.Fatal(err)
		}
		if err := b.Check(t.Context()); err != nil {
			t.Errorf("Check of a free network = %v", err)
		}
	})
	t.Run("interface of another", func(t *testing.T) {
		link := dummy(t, b.Name, "")
		check("is not jetpack's; name another one with linux.bridge")
		if err := netlink.LinkDel(link); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("other networks", func(t *testing.T) {
		other := b
		other.Networks = []netip.Prefix{netip.MustParsePrefix("10.214.0.0/16")}
		join(t, other, "s/other")
		check("has the address 10.214.0.1/16, which linux.networks does not say")
	})
}

func dummy(t *testing.T, name, addr string) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Bridge{LinkAttrs: attrs} // every kernel that runs these tests has them
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	if addr != "" {
		if err := netlink.AddrAdd(link, address(netip.MustParsePrefix(addr))); err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	return link
}

// wire connects a new namespace, which has addresses and a route to everywhere else, to an
// interface of the host.
func wire(t *testing.T, name, hosts, theirs string) *os.File {
	t.Helper()
	ns := namespace(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := netlink.NewVeth(attrs)
	link.PeerName, link.PeerNamespace = "eth0", netlink.NsFd(ns.Fd())
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	})
	host := netip.MustParsePrefix(hosts)
	set := func(link netlink.Link, p netip.Prefix) error {
		return errors.Join(netlink.AddrAdd(link, address(p)), netlink.LinkSetUp(link))
	}
	if err := set(link, host); err != nil {
		t.Fatal(err)
	}
	inside(t, ns, func() error {
		peer, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(set(peer, netip.MustParsePrefix(theirs)), netlink.RouteAdd(&netlink.Route{LinkIndex: peer.Attrs().Index, Gw: host.Addr().AsSlice()}))
	})
	return ns
}

// The host has a world behind its default route, and another network beside.
func TestOutside(t *testing.T) {
	testenv.Root(t)
	world := wire(t, "up0", "192.0.2.2/24", "192.0.2.1/24")
	beside := wire(t, "side0", "198.51.100.1/24", "198.51.100.2/24")
	worldAddr, besideAddr := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	if err := netlink.RouteAdd(&netlink.Route{Gw: worldAddr.AsSlice()}); err != nil {
		t.Fatal(err)
	}
	b := testBridge(t)
	p := join(t, b, "s/p")
	if got := seenAs(t, p.ns, greet(t, world, worldAddr), deadline); got != "192.0.2.2" {
		t.Errorf("the world sees the pod as %q", got)
	}
	for _, tt := range []struct {
		name     string
		from, to *os.File
		at       netip.Addr
	}{
		{"the world reaches the pod", world, p.ns, p.addrs[0]},
		{"the world reaches the host's address of the bridge", world, nil, b.Addresses()[0]},
		{"the world is routed to another network", world, beside, besideAddr},
		{"another network is routed to the world", beside, world, worldAddr},
	} {
		if got := seenAs(t, tt.from, greet(t, tt.to, tt.at), short); got != "" {
			t.Errorf("%s, as %s", tt.name, got)
		}
	}
	if got := seenAs(t, world, greet(t, nil, netip.MustParseAddr("192.0.2.2")), deadline); got != "192.0.2.1" {
		t.Errorf("the host sees the world as %q", got)
	}
	// Somebody turns forwarding on for all: now it stays on.
	if err := setForwarding("all", "1"); err != nil {
		t.Fatal(err)
	}
	leave(t, b, "s/p")
	if on, err := forwarding("up0"); err != nil || !on {
		t.Errorf("forwarding is turned off: %v", err)
	}
	p = join(t, b, "s/p")
	if got := seenAs(t, p.ns, greet(t, beside, besideAddr), deadline); got != "198.51.100.1" {
		t.Errorf("another network sees the pod as %q", got)
	}
	if got := seenAs(t, world, greet(t, beside, besideAddr), deadline); got != "192.0.2.1" {
		t.Errorf("the world, in another network, is %q", got)
	}
	if got := seenAs(t, world, greet(t, p.ns, p.addrs[0]), short); got != "" {
		t.Errorf("the world reaches the pod, as %s", got)
	}
	leave(t, b, "s/p")
	if err := setForwarding("all", "0"); err != nil {
		t.Fatal(err)
	}
}

func TestDefaultLinks(t *testing.T) {
	to := func(text string) *net.IPNet {
		_, n, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	got := defaultLinks([]netlink.Route{
		{LinkIndex: 1, Dst: to("10.0.0.0/8")},
		{LinkIndex: 2},
		{LinkIndex: 3, Dst: to("0.0.0.0/0")},
		{LinkIndex: 4, Dst: to("0.0.0.0/1")}, // of a virtual private network
		{MultiPath: []*netlink.NexthopInfo{{LinkIndex: 5}, {LinkIndex: 6}}},
	})
	if want := []int{2, 3, 4, 0, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("default routes lead to %v, want %v", got, want)
	}
}
