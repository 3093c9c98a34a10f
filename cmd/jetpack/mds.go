package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/jetpack-run/jetpack/internal/platform"
	"github.com/jetpack-run/jetpack/internal/unixsocket"
	"github.com/jetpack-run/jetpack/mds"
	"github.com/jetpack-run/jetpack/runtime"
)

func newMDSCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "mds", Short: "Tell pods who they are: the metadata service", RunE: group, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "serve",
			Short: "Run the metadata service, until interrupted",
			Long: "Run the metadata service for the pods of this root, until interrupted. Pods that start\n" +
				"while it runs find it by AC_METADATA_URL, and it may be stopped and started under them.\n" +
				"Requests are logged on standard output. Signatures are made with the newest key of\n" +
				"ROOT/mds/keys and verified with all of them.",
			Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.runMDSServe(cmd.Context()) },
		},
		&cobra.Command{
			Use:   "status",
			Short: "Tell whether the metadata service runs; exit status 3 if it does not",
			Args:  cobra.NoArgs,
			RunE:  func(*cobra.Command, []string) error { return c.runMDSStatus() },
		},
		&cobra.Command{
			Use:   "rotate",
			Short: "Add a key, which signs when the metadata service is started again",
			Args:  cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				if _, err := c.open(); err != nil {
					return err
				}
				return mds.Rotate(mdsKeys(c.cfg.Root))
			},
		},
	)
	return cmd
}

func mdsDir(root string) string  { return filepath.Join(root, "mds") }
func mdsKeys(root string) string { return filepath.Join(mdsDir(root), "keys") }

const (
	mdsLock   = "lock"
	mdsSocket = "socket"
)

var (
	errMDSRuns = errors.New("the metadata service runs already")
	errNoMDS   = errors.New("the metadata service does not run; 'jetpack mds serve' runs it")
)

// lockMDS takes the lock that the service holds. Errors: errMDSRuns.
func (c *cli) lockMDS() (*flock.Flock, error) {
	if err := os.MkdirAll(mdsDir(c.cfg.Root), 0o700); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(mdsDir(c.cfg.Root), mdsLock), flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err == nil && !ok {
		err = errMDSRuns
	}
	return lock, err
}

func (c *cli) runMDSStatus() error {
	if _, err := c.open(); err != nil {
		return err
	}
	lock, err := c.lockMDS()
	if errors.Is(err, errMDSRuns) {
		_, err := fmt.Fprintln(c.stdout, "running")
		return err
	}
	if err != nil {
		return err
	}
	return errors.Join(errNoMDS, lock.Close())
}

func (c *cli) runMDSServe(ctx context.Context) (err error) {
	if _, err := c.open(); err != nil {
		return err
	}
	uid, gid, err := unprivileged(c.cfg.MDSUser)
	if err != nil {
		return err
	}
	lock, err := c.lockMDS()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	keys, err := mds.OpenKeys(mdsKeys(c.cfg.Root))
	if err != nil {
		return err
	}
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			if closeErr := l.Close(); !errors.Is(closeErr, net.ErrClosed) {
				err = errors.Join(err, closeErr)
			}
		}
	}()
	var at []netip.AddrPort
	for _, a := range append(platform.HostAddresses(c.engineConfig()), netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()) {
		to := netip.AddrPortFrom(a, uint16(c.cfg.MDSPort))
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", to.String())
		if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
			continue // a host without IPv6
		}
		if err != nil {
			return err
		}
		listeners, at = append(listeners, l), append(at, to)
	}
	socket, err := c.listenMDS()
	if err != nil {
		return err
	}
	listeners = append(listeners, socket)
	if err := become(uid, gid); err != nil {
		return fmt.Errorf("become user %s: %w", c.cfg.MDSUser, err)
	}

	service := mds.New(keys)
	log := slog.New(slog.NewTextHandler(c.stdout, nil))
	if c.cfg.LogFormat == "json" {
		log = slog.New(slog.NewJSONHandler(c.stdout, nil))
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return service.AcceptPods(socket, at) })
	for _, l := range listeners[:len(at)] {
		group.Go(func() error { return service.Serve(ctx, l, log) })
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	c.notice(fmt.Sprintf("the metadata service answers pods at %s", list(at)))
	return group.Wait()
}

func list(at []netip.AddrPort) string {
	var all []string
	for _, a := range at {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}

// listenMDS makes the socket that pods are registered through, in place of one that a
// crash left.
func (c *cli) listenMDS() (_ net.Listener, err error) {
	dir, err := os.Open(mdsDir(c.cfg.Root))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := os.Remove(filepath.Join(dir.Name(), mdsSocket)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return unixsocket.Listen(dir, mdsSocket)
}

// unprivileged looks up a user that is not root.
func unprivileged(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err == nil {
		uid, err = strconv.Atoi(u.Uid)
	}
	if err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil || uid == 0 || gid == 0 {
		return 0, 0, fmt.Errorf("mds.user: %q is not a user of this host other than root; --set mds.user=NAME says another", name)
	}
	return uid, gid, nil
}

// become gives up root for good.
func become(uid, gid int) error {
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return err
	}
	if err := syscall.Setgid(gid); err != nil {
		return err
	}
	return syscall.Setuid(uid)
}

// metadata is the service of a root, as pods know it.
type metadata struct{ root string }

// Register is runtime.Metadata's.
func (m metadata) Register(ctx context.Context, p runtime.Described) (url string, forget func(), err error) {
	// Not kept open: FreeBSD refuses chroot(2) to a process with an open directory, which
	// those of the pod are for a moment after fork(2).
	dial := func(ctx context.Context) (_ net.Conn, err error) {
		dir, err := os.Open(mdsDir(m.root))
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, dir.Close()) }()
		return unixsocket.Dial(ctx, dir, mdsSocket)
	}
	pod := mds.Pod{Token: mds.NewToken(), Addresses: p.Addresses, UUID: p.UUID, Manifest: p.Manifest, Images: map[string]json.RawMessage{}}
	for name, image := range p.Images {
		pod.Images[name] = image
	}
	r, err := mds.Register(ctx, dial, pod)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return "", nil, nil // it does not run
	}
	if err != nil {
		return "", nil, err
	}
	return r.URL, r.Close, nil
}
