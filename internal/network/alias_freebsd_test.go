package network

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// An address can be bound to when it is given out, on an interface where others may have it
// as well: there the kernel asks for them first.
func TestLeaseCanBeBound(t *testing.T) {
	testenv.Root(t)
	ifconfig := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(context.Background(), "ifconfig", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ifconfig %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, kind := range []string{"lo", "bridge"} {
		t.Run(kind, func(t *testing.T) {
			name := ifconfig(kind, "create")
			t.Cleanup(func() { ifconfig(name, "destroy") })
			ifconfig(name, "inet6", "fd6a:6574:7061:6e::1/64", "up")
			none := func() ([]netip.Addr, error) { return nil, nil }
			err := Lease(t.Context(), name, 1, none, func([]netip.Addr) error { return nil }, func(addrs []netip.Addr) error {
				if len(addrs) != 1 {
					t.Errorf("addresses %v", addrs)
				}
				for _, a := range addrs {
					l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
					if err != nil {
						t.Error(err)
						continue
					}
					_ = l.Close() // nothing was sent
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}
