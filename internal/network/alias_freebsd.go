package network

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Lease gives out one address of each network of an interface, which neither the
// host has nor others, such as jails without it. Under the lock, record is told the addresses before they exist, then they are made, then use
// takes them into use: one that fails with EADDRINUSE is called again with other
// addresses, after any other error they are gone again. Errors: ErrNoNetwork,
// ErrFull, those of record and use.
func Lease(ctx context.Context, name string, seed uint64, others func() ([]netip.Addr, error), record, use func([]netip.Addr) error) (err error) {
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	networks, err := Networks(name)
	if err != nil {
		return err
	}
	used, err := taken()
	if err != nil {
		return err
	}
	more, err := others()
	if err != nil {
		return err
	}
	for _, a := range more {
		used[a] = true
	}
	for {
		var addrs []netip.Addr
		for _, n := range networks {
			a, err := choose(n, used, seed)
			if err != nil {
				return fmt.Errorf("interface %s: %w", name, err)
			}
			addrs = append(addrs, a)
			used[a] = true
		}
		err := lease(ctx, name, addrs, record, use)
		if !errors.Is(err, unix.EADDRINUSE) || ctx.Err() != nil {
			return err
		}
	}
}

// taken are all addresses of the host.
func taken() (map[netip.Addr]bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of the host: %w", err)
	}
	all := map[netip.Addr]bool{}
	for _, p := range prefixes(addrs) {
		all[p.Addr()] = true
	}
	return all, nil
}

func lease(ctx context.Context, name string, addrs []netip.Addr, record, use func([]netip.Addr) error) (err error) {
	if err := record(addrs); err != nil {
		return err
	}
	for i, a := range addrs {
		if err := alias(name, a, add); err != nil {
			return errors.Join(err, remove(name, addrs[:i]))
		}
	}
	for _, a := range addrs {
		if err := settle(ctx, name, a); err != nil {
			return errors.Join(err, remove(name, addrs))
		}
	}
	if err := use(addrs); err != nil {
		return errors.Join(err, remove(name, addrs))
	}
	return nil
}

// settled is how long the kernel may look for others with an address: once it takes a second.
const settled = 10 * time.Second

// settle waits until an IPv6 address can be bound to: on all interfaces but loopback ones the
// kernel first asks whether somebody else has it (RFC 4862, 5.4; IN6_IFF_NODAD in a request
// does not keep it from that). Errors: EADDRINUSE if somebody has.
func settle(ctx context.Context, name string, a netip.Addr) error {
	if a.Is4() {
		return nil
	}
	r := request6{Addr: address6(a)}
	copy(r.Name[:], name)
	for end := time.Now().Add(settled); ; {
		b, err := control(unix.AF_INET6, siocGIfAFlagV6, r)
		if err != nil {
			return fmt.Errorf("address %v of interface %s: %w", a, name, err)
		}
		switch flags := binary.NativeEndian.Uint32(b[unix.IFNAMSIZ:]); {
		case flags&duplicated != 0:
			return fmt.Errorf("address %v of interface %s: another machine has it: %w", a, name, unix.EADDRINUSE)
		case flags&tentative == 0:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("address %v of interface %s cannot be used, since the interface is down; 'ifconfig %s up' mends it", a, name, name)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Release takes addresses off an interface, but those that are in use: a record
// of an address that was never made may name one that another has since got.
func Release(ctx context.Context, name string, addrs []netip.Addr, inUse func(netip.Addr) (bool, error)) (err error) {
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	for _, a := range addrs {
		used, err := inUse(a)
		if err != nil {
			return err
		}
		if used {
			continue
		}
		if err := remove(name, []netip.Addr{a}); err != nil {
			return err
		}
	}
	return nil
}

// remove is idempotent.
func remove(name string, addrs []netip.Addr) (err error) {
	for _, a := range addrs {
		e := alias(name, a, del)
		if !errors.Is(e, unix.EADDRNOTAVAIL) && !errors.Is(e, unix.ENXIO) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// The requests of netintro(4) and inet6(4), with their structures of 64-bit
// platforms, from net/if.h and netinet6/in6_var.h.
const (
	siocAIfAddr   = 0x8044692b // SIOCAIFADDR
	siocDIfAddr   = 0x80206919 // SIOCDIFADDR
	siocAIfAddrV6 = 0x8088691b // SIOCAIFADDR_IN6
	siocDIfAddrV6 = 0x81206919 // SIOCDIFADDR_IN6
	infinite      = 0xffffffff // ND6_INFINITE_LIFETIME

	siocGIfAFlagV6 = 0xc1206949 // SIOCGIFAFLAG_IN6
	tentative      = 2          // IN6_IFF_TENTATIVE
	duplicated     = 4          // IN6_IFF_DUPLICATED
)

type (
	sockaddr4 struct {
		Len, Family uint8
		Port        uint16
		Addr        [4]byte
		_           [8]byte
	}
	sockaddr6 struct {
		Len, Family uint8
		Port        uint16
		Flow        uint32
		Addr        [16]byte
		Scope       uint32
	}
	aliasRequest struct { // struct ifaliasreq
		Name                  [unix.IFNAMSIZ]byte
		Addr, Broadcast, Mask sockaddr4
		VHID                  int32
	}
	aliasRequest6 struct { // struct in6_aliasreq
		Name                    [unix.IFNAMSIZ]byte
		Addr, Destination, Mask sockaddr6
		Flags                   int32
		Expire, Preferred       int64
		ValidTime, PrefixTime   uint32
		VHID                    int32
		_                       [4]byte
	}
	request struct { // struct ifreq
		Name [unix.IFNAMSIZ]byte
		Addr sockaddr4
	}
	request6 struct { // struct in6_ifreq
		Name [unix.IFNAMSIZ]byte
		Addr sockaddr6
		_    [244]byte // of its union
	}
)

func address4(a netip.Addr) sockaddr4 { return sockaddr4{Len: 16, Family: unix.AF_INET, Addr: a.As4()} }
func address6(a netip.Addr) sockaddr6 {
	return sockaddr6{Len: 28, Family: unix.AF_INET6, Addr: a.As16()}
}

type operation bool

const (
	add operation = true
	del operation = false
)

// alias adds an address to an interface, as one of no network, or takes it away.
func alias(name string, a netip.Addr, op operation) error {
	return setAddress(name, netip.PrefixFrom(a, a.BitLen()), op)
}

func setAddress(name string, p netip.Prefix, op operation) error {
	var n [unix.IFNAMSIZ]byte
	if len(name) >= len(n) {
		return fmt.Errorf("interface name %q is too long", name)
	}
	copy(n[:], name)
	a := p.Addr()
	ones, _ := netip.AddrFromSlice(bytes.Repeat([]byte{0xff}, a.BitLen()/8)) // its length is right
	mask := netip.PrefixFrom(ones, p.Bits()).Masked().Addr()
	var err error
	switch {
	case a.Is4() && op == add:
		_, err = control(unix.AF_INET, siocAIfAddr, aliasRequest{Name: n, Addr: address4(a), Mask: address4(mask)})
	case a.Is4():
		_, err = control(unix.AF_INET, siocDIfAddr, request{Name: n, Addr: address4(a)})
	case op == add:
		_, err = control(unix.AF_INET6, siocAIfAddrV6, aliasRequest6{
			Name: n, Addr: address6(a), Mask: address6(mask), ValidTime: infinite, PrefixTime: infinite,
		})
	default:
		_, err = control(unix.AF_INET6, siocDIfAddrV6, request6{Name: n, Addr: address6(a)})
	}
	if err != nil {
		verb := map[operation]string{add: "add", del: "remove"}[op]
		return fmt.Errorf("%s address %v of interface %s: %w", verb, a, name, err)
	}
	return nil
}

// control makes a request with a structure, and returns what the kernel made of it.
func control(family int, req uintptr, arg any) ([]byte, error) {
	b, err := binary.Append(nil, binary.NativeEndian, arg)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()                                                         // nothing was written to it
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(&b[0]))) //nolint:gosec // no wrapper in x/sys
	if errno != 0 {
		return nil, errno
	}
	return b, nil
}

// flagsRequest is a struct ifreq with flags.
type flagsRequest struct {
	Name  [unix.IFNAMSIZ]byte
	Flags uint16
	High  uint16
	_     [12]byte
}

const (
	siocSIfFlags = 0x80206910 // SIOCSIFFLAGS
	siocGIfFlags = 0xc0206911 // SIOCGIFFLAGS
)

// UpLoopback gives the loopback interface of the calling process's own network
// stack (vnet(9)) its address, and turns it on; the kernel adds ::1 then.
func UpLoopback() error {
	if err := setAddress("lo0", netip.MustParsePrefix("127.0.0.1/8"), add); err != nil {
		return err
	}
	r := flagsRequest{}
	copy(r.Name[:], "lo0")
	b, err := control(unix.AF_INET, siocGIfFlags, r)
	if err == nil {
		_, err = binary.Decode(b, binary.NativeEndian, &r)
	}
	if err != nil {
		return fmt.Errorf("flags of lo0: %w", err)
	}
	r.Flags |= unix.IFF_UP
	if _, err := control(unix.AF_INET, siocSIfFlags, r); err != nil {
		return fmt.Errorf("turn lo0 on: %w", err)
	}
	return nil
}
