package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/internal/unixsocket"
	"github.com/jetpack-run/jetpack/mds"
)

func newMDSCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "mds", Short: "Tell pods who they are: the metadata service", RunE: group, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "serve",
			Short: "Run the metadata service, until interrupted",
			Long: "Run the metadata service for the pods of this root, until interrupted. Pods that start\n" +
				"while it runs find it by AC_METADATA_URL, and it may be stopped and started under them.\n" +
				"Without it, the first pod starts one in the background, unless mds.autostart is off.\n" +
				"Requests are logged on standard output; GET /metrics on the Unix socket ROOT/mds/control\n" +
				"tells Prometheus how many there were. Signatures are made with the newest key of\n" +
				"ROOT/mds/keys and verified with all of them.",
			Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.serveMDS(cmd.Context(), mdsServing{}) },
		},
		&cobra.Command{
			Use:   "status",
			Short: "Tell whether the metadata service runs; exit status 3 if it does not",
			Args:  cobra.NoArgs,
			RunE:  func(*cobra.Command, []string) error { return c.runMDSStatus() },
		},
		&cobra.Command{
			Use:   "stop",
			Short: "End the metadata service; pods find it again when it is started at the same port",
			Args:  cobra.NoArgs,
			RunE:  func(cmd *cobra.Command, _ []string) error { return c.runMDSStop(cmd.Context()) },
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

// What is in mdsDir beside the keys.
const (
	mdsLock     = "lock"    // held while the service runs
	mdsRegister = "socket"  // for pods: mds.Register
	mdsControl  = "control" // for root: mds.Service.Control
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

// runMDSStop has the service end, and waits for that.
func (c *cli) runMDSStop(ctx context.Context) error {
	if _, err := c.open(); err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialMDS(ctx, c.cfg.Root, mdsControl)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://mds/stop", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if mdsAbsent(err) {
		return errNoMDS
	}
	// One that is just ending by itself may hang up.
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("stop metadata service: %w", err)
	}
	if err == nil {
		if err := resp.Body.Close(); err != nil {
			return err
		}
	}
	lock := flock.New(filepath.Join(mdsDir(c.cfg.Root), mdsLock))
	_, err = lock.TryLockContext(ctx, 10*time.Millisecond)
	return errors.Join(err, lock.Close())
}

// mdsAbsent tells whether connecting failed since nobody listens.
func mdsAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// dialMDS connects to a socket of the service.
func dialMDS(ctx context.Context, root, socket string) (_ net.Conn, err error) {
	// FreeBSD refuses chroot(2) to a process with an open directory, which an app's is
	// for a moment after fork(2) if one is open here: none forks meanwhile.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	dir, err := os.Open(mdsDir(root))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return unixsocket.Dial(ctx, dir, socket)
}
