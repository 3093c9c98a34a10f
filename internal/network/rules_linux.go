package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The rules of a bridge are in two tables of its name. They are made anew, in one
// transaction, whenever a pod comes or goes, from nothing but what there is then: who
// flushes all tables of the host loses them until the next pod.
//
// In the table of the family bridge, a port passes only what has the addresses of its
// pod: IPv4, ARP (RFC 826) and IPv6 with neighbour discovery (RFC 4861) but without what routers
// say. In the table of the family inet, only the host and the pods reach the networks of
// pods, or can seem to be in them; what leaves these gets the host's address; and
// interfaces that forward for the pods' sake do so for nobody else.
func (b Bridge) setRules(pods []netip.Addr, uplinks []string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	ports, routed := b.tables()
	for _, t := range []*nftables.Table{ports, routed} {
		c.AddTable(t)
		c.DelTable(t) // there is one for sure
		c.AddTable(t)
	}
	if err := b.portRules(c, ports, pods); err != nil {
		return err
	}
	b.routeRules(c, routed, uplinks)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("make nftables tables %s: %w", b.Name, err)
	}
	return nil
}

func (b Bridge) tables() (ports, routed *nftables.Table) {
	return &nftables.Table{Name: b.Name, Family: nftables.TableFamilyBridge},
		&nftables.Table{Name: b.Name, Family: nftables.TableFamilyINet}
}

// removeRules is idempotent.
func removeRules(name string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	there, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range there {
		if t.Name == name && (t.Family == nftables.TableFamilyBridge || t.Family == nftables.TableFamilyINet) {
			c.DelTable(t)
		}
	}
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove nftables tables %s: %w", name, err)
	}
	return nil
}

// checkRules tells whether the kernel has nftables.
func checkRules() error {
	c, err := nftables.New()
	if err == nil {
		_, err = c.ListTables()
	}
	if err != nil {
		return fmt.Errorf("nftables of this kernel: %w", err)
	}
	return nil
}

// The registers of a key of identities: the port, then who sends.
const (
	regPort     = unix.NFT_REG_1
	regHardware = unix.NFT_REG32_04
	regAddress  = unix.NFT_REG32_06
)

// Offsets in headers: Ethernet (IEEE 802.3), IPv4 (RFC 791), ARP of Ethernet and IPv4,
// IPv6 (RFC 8200), neighbour advertisements.
const (
	etherSource     = 6
	ip4Source       = 12
	arpHardware     = 8
	arpAddress      = 14
	ip6Source       = 8
	advertised      = 8
	routerSays      = 134 // ICMPv6 types
	neighbourSays   = 136
	redirect        = 137
	hardwareSize    = 6
	ip4Size         = 4
	ip6Size         = 16
	elementsAtATime = 256 // so many fit into one attribute of netlink(7)
)

// portRules let through what comes from where it says.
func (b Bridge) portRules(c *nftables.Conn, t *nftables.Table, pods []netip.Addr) error {
	names := &nftables.Set{Table: t, Name: "ports", KeyType: nftables.TypeIFName}
	own4 := &nftables.Set{
		Table: t, Name: "own4", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr),
	}
	own6 := &nftables.Set{
		Table: t, Name: "own6", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIP6Addr),
	}
	elements := map[*nftables.Set][]nftables.SetElement{}
	for _, pod := range pods {
		port, hw := interfaceName(portName(pod)), hardware(pod)
		elements[names] = append(elements[names], nftables.SetElement{Key: port})
		for _, a := range append(b.pod(pod), linkLocal(hw)) {
			set := own6
			if a.Is4() {
				set = own4
			}
			elements[set] = append(elements[set], nftables.SetElement{Key: slices.Concat(port, hw, []byte{0, 0}, a.AsSlice())})
		}
	}
	for _, s := range []*nftables.Set{names, own4, own6} {
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
		for some := range slices.Chunk(elements[s], elementsAtATime) {
			if err := c.SetAddElements(s, some); err != nil {
				return err
			}
		}
	}
	chain := c.AddChain(&nftables.Chain{
		Table: t, Name: "from-pods", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	rule := func(parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: slices.Concat(parts...)})
	}
	port, sender := meta(expr.MetaKeyIIFNAME), load(expr.PayloadBaseLLHeader, etherSource, hardwareSize, regHardware)
	network := func(offset, size, reg uint32) []expr.Any {
		return load(expr.PayloadBaseNetworkHeader, offset, size, reg)
	}
	icmp6 := func(kind byte) []expr.Any {
		return slices.Concat(meta(expr.MetaKeyL4PROTO), is([]byte{unix.IPPROTO_ICMPV6}),
			load(expr.PayloadBaseTransportHeader, 0, 1, regPort), is([]byte{kind}))
	}
	protocol := func(p uint16) []expr.Any {
		return slices.Concat(meta(expr.MetaKeyPROTOCOL), is(binaryutil.BigEndian.PutUint16(p)))
	}

	rule(port, in(names, false), accept)
	rule(protocol(unix.ETH_P_IP), port, sender, network(ip4Source, ip4Size, regAddress), in(own4, true), accept)
	rule(protocol(unix.ETH_P_ARP), port, sender, network(arpAddress, ip4Size, regAddress), in(own4, true),
		network(arpHardware, hardwareSize, regHardware), in(own4, true), accept)
	rule(protocol(unix.ETH_P_IPV6), icmp6(routerSays), drop)
	rule(protocol(unix.ETH_P_IPV6), icmp6(redirect), drop)
	rule(protocol(unix.ETH_P_IPV6), icmp6(neighbourSays), port, sender,
		load(expr.PayloadBaseTransportHeader, advertised, ip6Size, regAddress), in(own6, false), drop)
	rule(protocol(unix.ETH_P_IPV6), port, sender, network(ip6Source, ip6Size, regAddress), in(own6, true), accept)
	rule(drop)
	return nil
}

// routeRules are about what goes by the host.
func (b Bridge) routeRules(c *nftables.Conn, t *nftables.Table, uplinks []string) {
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) func(...[]expr.Any) {
		chain := c.AddChain(&nftables.Chain{Table: t, Name: name, Type: kind, Hooknum: hook, Priority: priority})
		return func(parts ...[]expr.Any) {
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: slices.Concat(parts...)})
		}
	}
	elsewhere := func(key expr.MetaKey) []expr.Any {
		return slices.Concat(meta(key), isNot(interfaceName(b.Name)), isNot(interfaceName("lo")))
	}
	outside := chain("from-outside", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	leaving := chain("to-outside", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	through := chain("through", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	for _, n := range b.Networks {
		outside(elsewhere(expr.MetaKeyIIFNAME), within(n, source), drop)
		outside(elsewhere(expr.MetaKeyIIFNAME), within(n, destination), drop)
		leaving(elsewhere(expr.MetaKeyOIFNAME), within(n, source), []expr.Any{&expr.Masq{}})
	}
	for _, name := range uplinks {
		through(meta(expr.MetaKeyNFPROTO), is([]byte{unix.NFPROTO_IPV4}), meta(expr.MetaKeyIIFNAME), is(interfaceName(name)), elsewhere(expr.MetaKeyOIFNAME), isNew, drop)
	}
}

// Expressions that rules are made of: some load a register, those behind them ask what
// is in there.
var (
	accept = []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop   = []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}

	// isNew is what belongs to no connection that is known.
	isNew = []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: regPort},
		&expr.Bitwise{
			SourceRegister: regPort, DestRegister: regPort, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW | expr.CtStateBitINVALID),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: regPort, Data: make([]byte, 4)},
	}
)

func meta(key expr.MetaKey) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: regPort}}
}

func load(base expr.PayloadBase, offset, size, reg uint32) []expr.Any {
	return []expr.Any{&expr.Payload{Base: base, Offset: offset, Len: size, DestRegister: reg}}
}

func is(data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: regPort, Data: data}}
}

func isNot(data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: regPort, Data: data}}
}

func in(s *nftables.Set, want bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: regPort, SetName: s.Name, SetID: s.ID, Invert: !want}}
}

// end is one of the two ends of a packet's way.
type end int

const (
	source end = iota
	destination
)

// within asks for an address of a network.
func within(n netip.Prefix, e end) []expr.Any {
	family, offset, size := byte(unix.NFPROTO_IPV4), uint32(ip4Source), uint32(ip4Size)
	if n.Addr().Is6() {
		family, offset, size = unix.NFPROTO_IPV6, ip6Source, ip6Size
	}
	return slices.Concat(
		meta(expr.MetaKeyNFPROTO), is([]byte{family}),
		load(expr.PayloadBaseNetworkHeader, offset+uint32(e)*size, size, regPort),
		[]expr.Any{&expr.Bitwise{
			SourceRegister: regPort, DestRegister: regPort, Len: size, Xor: make([]byte, size),
			Mask: net.CIDRMask(n.Bits(), n.Addr().BitLen()),
		}},
		is(n.Addr().AsSlice()))
}

// interfaceName is a name as the kernel compares it.
func interfaceName(name string) []byte {
	var padded [unix.IFNAMSIZ]byte
	copy(padded[:], name)
	return padded[:]
}
