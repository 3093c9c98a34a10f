package jail

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags of jail_set(2) and jail_get(2), from sys/jail.h.
const (
	jailCreate = 0x01
	jailDying  = 0x08
)

// vector are the parameters of jail_set(2), jail_get(2) and nmount(2): pairs of
// names and values.
type vector struct {
	iov    []unix.Iovec
	pinner runtime.Pinner
}

func (v *vector) bytes(b []byte) {
	var e unix.Iovec
	if len(b) > 0 {
		v.pinner.Pin(&b[0])
		e.Base = &b[0]
	}
	e.SetLen(len(b))
	v.iov = append(v.iov, e)
}

// add appends a parameter; a nil value is a name alone.
func (v *vector) add(name string, value []byte) {
	v.bytes(append([]byte(name), 0))
	v.bytes(value)
}

func (v *vector) text(name, value string) { v.add(name, append([]byte(value), 0)) }

// call does a system call of that kind. What the kernel says in errmsg is part of
// the error.
func (v *vector) call(trap uintptr, flags int) (int, error) {
	message := make([]byte, 1024)
	v.add("errmsg", message)
	defer v.pinner.Unpin()
	r, _, errno := unix.Syscall(trap, uintptr(unsafe.Pointer(&v.iov[0])), uintptr(len(v.iov)), uintptr(flags)) //nolint:gosec // no wrapper in x/sys
	if errno == 0 {
		return int(r), nil
	}
	if text := unix.ByteSliceToString(message); text != "" {
		return 0, fmt.Errorf("%s: %w", text, errno)
	}
	return 0, errno
}

// set creates a jail and returns its number.
func set(params []Param) (int, error) {
	var v vector
	for _, p := range params {
		v.add(p.Name, p.Bytes())
	}
	return v.call(unix.SYS_JAIL_SET, jailCreate)
}

// find returns the number of the jail of that name. Errors: ENOENT.
func find(name string, flags int) (int, error) {
	var v vector
	v.text("name", name)
	return v.call(unix.SYS_JAIL_GET, flags)
}

// exists tells whether there is a jail of that number, dying or not.
func exists(jid int) (bool, error) {
	var v vector
	v.add("jid", Param{Value: int32(jid)}.Bytes())
	_, err := v.call(unix.SYS_JAIL_GET, jailDying)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// info is what jail_get(2) says of a jail.
type info struct {
	name, path string
	addrs      []netip.Addr
}

// jails goes through all jails that are alive.
func jails() iter.Seq2[info, error] {
	return func(yield func(info, error) bool) {
		for last := 0; ; {
			var v vector
			name, path := make([]byte, 256), make([]byte, maxPath+1)
			v4, v6 := make([]byte, 4*maxAddresses), make([]byte, 16*maxAddresses)
			v.add("lastjid", Param{Value: int32(last)}.Bytes())
			v.add("name", name)
			v.add("path", path)
			v.add("ip4.addr", v4)
			v.add("ip6.addr", v6)
			jid, err := v.call(unix.SYS_JAIL_GET, 0)
			if errors.Is(err, unix.ENOENT) {
				return
			}
			found := info{name: unix.ByteSliceToString(name), path: unix.ByteSliceToString(path)}
			if err == nil {
				found.addrs = append(addresses(v4[:v.iov[7].Len], 4), addresses(v6[:v.iov[9].Len], 16)...)
			}
			if !yield(found, err) || err != nil {
				return
			}
			last = jid
		}
	}
}

// jailed are the addresses of all jails: jail_set(2) lets several have the same one.
func jailed() (addrs []netip.Addr, err error) {
	for j, err := range jails() {
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, j.addrs...)
	}
	return addrs, nil
}

func addresses(b []byte, size int) (addrs []netip.Addr) {
	for ; len(b) >= size; b = b[size:] {
		a, _ := netip.AddrFromSlice(b[:size]) // its length is right
		addrs = append(addrs, a)
	}
	return addrs
}

// removeJail is jail_remove(2): it sends SIGKILL to every process in the jail.
func removeJail(jid int) error {
	if _, _, errno := unix.Syscall(unix.SYS_JAIL_REMOVE, uintptr(jid), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// supports tells whether the kernel has a parameter of jails.
func supports(parameter string) bool {
	_, err := unix.SysctlRaw("security.jail.param." + parameter)
	return err == nil || !errors.Is(err, unix.ENOENT)
}

// mount mounts. The flag keeps it out of what df(1) shows.
func (m Mount) mount() error {
	var v vector
	v.text("fstype", m.Type)
	v.text("fspath", m.Target)
	v.text("from", m.Source)
	for _, option := range m.Options {
		name, value, ok := strings.Cut(option, "=")
		if !ok {
			v.add(name, nil)
			continue
		}
		v.text(name, value)
	}
	_, err := v.call(unix.SYS_NMOUNT, unix.MNT_IGNORE)
	if errors.Is(err, unix.EINVAL) && strings.HasPrefix(err.Error(), "Invalid fstype:") {
		err = unix.ENOENT // of source or target: the kernel takes it for the file system's
	}
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.Source, m.Target, err)
	}
	return nil
}
