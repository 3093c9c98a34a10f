package platform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/network"
	"github.com/jetpack-run/jetpack/internal/ociengine"
	"github.com/jetpack-run/jetpack/internal/overlay"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/jail"
	"github.com/jetpack-run/jetpack/zfs"
)

// defaultDataset: ZFS is used on Linux when it is asked for.
func defaultDataset(string) string { return "" }

func chooseStorage(dir, want string) (name, notice string, err error) {
	if want == "plaindir" {
		return want, "", nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", err
	}
	err = overlay.Supported(dir)
	switch {
	case err == nil:
		return "overlay", "", nil
	case want == "overlay":
		return "", "", fmt.Errorf("storage overlay: %w", err)
	}
	return "plaindir", fmt.Sprintf("storage plaindir: images are copied for every pod, because overlayfs does not work here: %v", err), nil
}

func openStorage(name, dir string) (storage.Driver, error) {
	switch name {
	case "overlay":
		return overlay.Open(dir)
	case "plaindir":
		return openPlain(dir)
	}
	return nil, fmt.Errorf("storage %s: no such driver on this platform", name)
}

func newEngine(dir, id string, cfg EngineConfig) (sandbox.Engine, error) {
	bridge, err := network.NewBridge(cfg.Bridge, cfg.Networks)
	if err != nil {
		return nil, err
	}
	return ociengine.New(ociengine.Config{Runtime: cfg.Runtime, StateDir: dir, Scope: id, Bridge: bridge})
}

// HostAddresses are those of the host that pods with addresses of their own reach. It
// has them only while there is such a pod: see Listen.
func HostAddresses(cfg EngineConfig) []netip.Addr {
	bridge, err := network.NewBridge(cfg.Bridge, cfg.Networks)
	if err != nil {
		return nil // there are no such pods
	}
	return bridge.Addresses()
}

// Listen listens for TCP at an address that the host need not have yet (ip(7),
// IP_FREEBIND).
func Listen(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	freebind := func(_, _ string, c syscall.RawConn) error {
		var err error
		controlErr := c.Control(func(fd uintptr) {
			if at.Addr().Is4() {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
			}
		})
		return errors.Join(err, controlErr)
	}
	return (&net.ListenConfig{Control: freebind}).Listen(ctx, "tcp", at.String())
}

// RuntimeVersion tells what isolates pods, for reports.
func RuntimeVersion(ctx context.Context, e sandbox.Engine) (string, error) {
	if oci, ok := e.(*ociengine.Engine); ok {
		return oci.RuntimeVersion(ctx)
	}
	return "", nil
}

// safeRunc is the first release of runc without the escapes through masked paths
// and procfs writes (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).
const safeRunc = "1.2.8"

// Lacks says what pods want and this host does not have, a line each with what mends
// it; version is the runtime's. A distribution may have mended an old release, so this
// is for eyes only.
func Lacks(ctx context.Context, e sandbox.Engine, version string) (lacks []string) {
	v, ok := strings.CutPrefix(version, "runc version ")
	if ok && manifest.LessVersion(v, safeRunc) {
		lacks = append(lacks, fmt.Sprintf("runc %s is older than %s: make sure that your distribution has mended CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881 in it", v, safeRunc))
	}
	if oci, ok := e.(*ociengine.Engine); ok {
		if err := oci.CheckNetwork(ctx); err != nil {
			lacks = append(lacks, err.Error())
		}
	}
	return lacks
}

// LacksStorage has nothing to add: Init has said why it did not take overlay.
func LacksStorage(context.Context, Root) []string { return nil }

// Backends are all that there are, for the table of capabilities.
func Backends() ([]storage.Info, []sandbox.Info) {
	return []storage.Info{(*zfs.Driver)(nil).Info(), (*overlay.Driver)(nil).Info(), (*plaindir.Driver)(nil).Info()},
		[]sandbox.Info{(*ociengine.Engine)(nil).Info(), jail.Info()}
}

// BootID tells one boot of the host from the next (proc_sys_kernel(5)).
func BootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(raw)), err
}

// Kernel is the kernel's name and release.
func Kernel() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]), nil
}
