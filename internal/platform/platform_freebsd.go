package platform

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/network"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/jail"
	"github.com/jetpack-run/jetpack/zfs"
)

// defaultDataset is used for the default root when its pool, that of the installer, is
// there; "" for others.
func defaultDataset(dir string) string {
	if dir == "/var/jetpack" {
		return "zroot/jetpack"
	}
	return ""
}

func chooseStorage(_, want string) (name, notice string, err error) {
	switch want {
	case "plaindir":
		return want, "", nil
	case "auto":
		return "plaindir", "storage plaindir: images are copied for every pod; a ZFS dataset, named with --set storage.dataset=POOL/jetpack, would spare that", nil
	}
	return "", "", fmt.Errorf("storage %s: no such driver on this platform", want)
}

func openStorage(name, dir string) (storage.Driver, error) {
	if name != "plaindir" {
		return nil, fmt.Errorf("storage %s: no such driver on this platform", name)
	}
	return openPlain(dir)
}

func newEngine(dir, _ string, cfg EngineConfig) (sandbox.Engine, error) {
	return jail.New(jail.Config{
		StateDir: dir, Root: filepath.Dir(dir), Interface: cfg.Interface, Ruleset: int32(cfg.Ruleset), Allow: cfg.Allow,
	})
}

// HostAddresses are those of the host that pods with addresses of their own reach.
func HostAddresses(cfg EngineConfig) []netip.Addr {
	var addrs []netip.Addr
	networks, _ := network.Networks(cfg.Interface) // without any there are no such pods
	for _, n := range networks {
		addrs = append(addrs, n.Addr())
	}
	return addrs
}

// Listen listens for TCP at an address of the host.
func Listen(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", at.String())
}

// RuntimeVersion tells what isolates pods, for reports.
func RuntimeVersion(context.Context, sandbox.Engine) (string, error) { return "", nil }

// Lacks says what pods want and this host does not have, a line each with what mends it.
func Lacks(_ context.Context, e sandbox.Engine, _ string) []string {
	if jails, ok := e.(*jail.Engine); ok {
		return jails.Lacks()
	}
	return nil
}

// LacksStorage says what this host does not have that a root wants which takes the best
// storage there is, with what mends it.
func LacksStorage(ctx context.Context, root Root) []string {
	if root.Storage != "plaindir" {
		return nil
	}
	return []string{lacksZFS(zfs.Pools(ctx))}
}

// Backends are all that this platform has, for the table of capabilities.
func Backends() ([]storage.Info, []sandbox.Info) {
	return []storage.Info{(*zfs.Driver)(nil).Info(), (*plaindir.Driver)(nil).Info()},
		[]sandbox.Info{jail.Info()}
}

// BootID tells one boot of the host from the next: it is when the host booted, which
// a clock that is set moves. Nothing but reports hang on it while locks are held.
func BootID() (string, error) {
	at, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return "", fmt.Errorf("kern.boottime: %w", err)
	}
	return strconv.FormatInt(at.Sec, 10), nil
}

// Kernel is the kernel's name and release.
func Kernel() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]), nil
}
