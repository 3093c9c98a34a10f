package httpclient

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
)

// vetoPrivate is a net.Dialer's Control: address is what will be connected to.
func vetoPrivate(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !public(to.Addr()) {
		return fmt.Errorf("%w: %s", ErrPrivate, address)
	}
	return nil
}

// vetoLiteral refuses hosts that name an address which is not public without
// asking a name server, in any of the ways that a proxy could understand: a last
// label that begins with a digit is the end of an address (inet_aton(3): "127.1",
// "0x7f000001").
func vetoLiteral(host string) error {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last != "localhost" && (last == "" || last[0] < '0' || last[0] > '9') && !strings.Contains(host, ":") {
		return nil
	}
	if addr, err := netip.ParseAddr(host); err != nil || !public(addr) {
		return fmt.Errorf("%w: %s", ErrPrivate, host)
	}
	return nil
}

// special4 and special6 are what is not globally reachable in the IANA
// special-purpose address registries (RFC 6890), beside what net/netip knows.
var (
	special4 = prefixes(
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	)
	unicast6 = netip.MustParsePrefix("2000::/3") // all that is handed out
	// Protocol assignments with Teredo, documentation, 6to4, documentation.
	special6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
	// nat64 is how hosts without IPv4 see it (RFC 6052).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// public says whether an address is one of the Internet's.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	special := special4
	if a.Is6() {
		if !unicast6.Contains(a) {
			return false
		}
		special = special6
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate()
}
