package jail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/inroot"
	"github.com/jetpack-run/jetpack/internal/network"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// What is in a pod's directory.
const (
	// lockFile is held shared by whoever makes something of the pod, until a process
	// that it starts is on its own: who has it exclusively knows that nothing new can
	// appear. It is never held by the owner, who may live on, and never replaced.
	lockFile = "lock"
	// rootDir is the root of the jail, with a directory per app.
	rootDir = "root"
)

const (
	// patience is how long Destroy waits for what it told the kernel to end.
	patience = 30 * time.Second
	// dying is how long it waits for a jail that was removed to go: connections that
	// linger keep it (jail(8)), but neither mounts nor addresses.
	dying = 2 * time.Second
)

// pod is a pod that this process owns.
type pod struct {
	spec  sandbox.Pod
	plan  plan
	dir   string
	jid   int
	own   map[string]int // jails of Linux apps, by their names
	tasks sync.WaitGroup // those that are waited for
}

// makeMountPoints makes the directories of the apps in the jail's root, and in
// the apps' roots those of the system.
func (p *pod) makeMountPoints(opts Options) error {
	if err := os.Mkdir(opts.Path, 0o755); err != nil {
		return err
	}
	for _, app := range p.spec.Apps {
		if err := os.Mkdir(AppRoot(opts.Path, app.Name), 0o755); err != nil {
			return err
		}
		if err := sandbox.CheckMountPoints(app.Root, "/dev", "/proc", "/sys"); err != nil {
			return fmt.Errorf("app %s: %w", app.Name, err)
		}
		points := []string{"/dev"}
		if slices.Contains(opts.Linux, app.Name) {
			points = append(points, "/proc", "/sys")
		}
		if err := makeDirs(app.Root, points); err != nil {
			return fmt.Errorf("app %s: %w", app.Name, err)
		}
	}
	return nil
}

func makeDirs(dir string, names []string) (err error) {
	root, err := inroot.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, name := range names {
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// make mounts, and makes sure that it went where it should (nmount(2) follows
// symbolic links) and that a /dev shows no more than it should.
func (m Mount) make() error {
	if err := m.mount(); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(m.Target, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", m.Target, err)
	}
	if at := unix.ByteSliceToString(st.Mntonname[:]); at != m.Target {
		// Nothing else would find it there.
		return errors.Join(fmt.Errorf("mount %s on %s: it went to %s", m.Source, m.Target, at), unmountID(st.Fsid, 0))
	}
	if m.Type == "devfs" {
		return checkDevices(m.Target)
	}
	return nil
}

// mounted is an entry of the mount table.
type mounted struct {
	path, kind string
	id         unix.Fsid
}

// mountTable reads what is mounted on the host, in the order of mounting.
func mountTable() ([]mounted, error) {
	var buf []unix.Statfs_t
	n, err := unix.Getfsstat(nil, unix.MNT_NOWAIT)
	for err == nil && n >= len(buf) { // there may be more by then, which would be left out
		buf = make([]unix.Statfs_t, n+16)
		n, err = unix.Getfsstat(buf, unix.MNT_NOWAIT)
	}
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	var table []mounted
	for _, st := range buf[:n] {
		table = append(table, mounted{
			unix.ByteSliceToString(st.Mntonname[:]), unix.ByteSliceToString(st.Fstypename[:]), st.Fsid,
		})
	}
	return table, nil
}

// unmountID unmounts by number, since a path may lead elsewhere by now.
func unmountID(id unix.Fsid, flags int) error {
	return unix.Unmount(fmt.Sprintf("FSID:%d:%d", id.Val[0], id.Val[1]), unix.MNT_BYFSID|flags)
}

// unmountRoots unmounts what is mounted in the directory of a pod's roots, the latest first.
func unmountRoots(dir, podID string) error {
	table, err := mountTable()
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(table) {
		if !within(m.path, dir) {
			continue
		}
		err := unmountID(m.id, 0)
		if errors.Is(err, unix.EBUSY) && filepath.Dir(m.path) == dir && isDying(appJailName(podID, filepath.Base(m.path))) {
			// Nothing runs in the jail of this app. Connections that linger keep it, and it its root.
			err = unmountID(m.id, unix.MNT_FORCE)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", m.path, err)
		}
	}
	return nil
}

// destroy removes a pod from the host, whoever its owner is or was.
func destroy(ctx context.Context, dir, id string) (err error) {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) { // the directory is the last thing to go, unless by hand
		return endJail(wait, jailName(id))
	}
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // which gives the lock back
	err = retry(wait, func() (bool, error) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, killJail(jailName(id))
		}
		return true, err
	})
	if err != nil {
		return fmt.Errorf("wait for those who work on it: %w", err)
	}
	if gone, err := unlinked(lock); gone || err != nil {
		return err // by another Destroy meanwhile
	}
	if err := endJail(wait, jailName(id)); err != nil {
		return err
	}
	var cause error
	err = retry(wait, func() (bool, error) {
		cause = unmountRoots(filepath.Join(dir, rootDir), id)
		if errors.Is(cause, unix.EBUSY) {
			return false, nil
		}
		return true, cause
	})
	if err != nil {
		return errors.Join(err, cause)
	}
	if err := releaseAddresses(ctx, dir); err != nil {
		return err
	}
	if err := removeRules(id); err != nil {
		return err
	}
	return removeDir(dir)
}

// isDying tells of a jail that was removed and is not gone.
func isDying(name string) bool {
	_, alive := find(name, 0)
	_, there := find(name, jailDying)
	return errors.Is(alive, unix.ENOENT) && there == nil
}

// killJail removes a jail, if it is there.
func killJail(name string) error {
	jid, err := find(name, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find jail: %w", err)
	}
	if err := removeJail(jid); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove jail: %w", err)
	}
	return nil
}

// endJail removes a jail as often as it takes, since a process that forks may
// slip through (FreeBSD-SA-21:04.jail_remove), and waits for its end. Processes may
// be left when it gives up on that: they keep their roots from being unmounted.
func endJail(ctx context.Context, name string) error {
	jid, err := find(name, jailDying)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find jail: %w", err)
	}
	err = retry(ctx, func() (bool, error) {
		if err := killJail(name); err != nil {
			return false, err
		}
		_, err := find(name, 0)
		if errors.Is(err, unix.ENOENT) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		return fmt.Errorf("wait for its processes to end: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, dying)
	defer cancel()
	err = retry(ctx, func() (bool, error) {
		there, err := exists(jid)
		return !there, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // nothing of it is in the way
	}
	return err
}

func releaseAddresses(ctx context.Context, dir string) error {
	held, err := network.ReadHeld(dir)
	if err != nil || len(held.Addresses) == 0 {
		return err
	}
	return network.Release(ctx, held.Interface, held.Addresses, func(a netip.Addr) (bool, error) {
		all, err := jailed()
		return slices.Contains(all, a), err
	})
}

// removeDir removes the directory of a pod. Nothing is removed recursively: what is
// in the way should not be there.
func removeDir(dir string) error {
	var paths []string
	for _, d := range []string{filepath.Join(dir, rootDir), dir} {
		entries, err := os.ReadDir(d)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			paths = append(paths, filepath.Join(d, e.Name()))
		}
	}
	lock := filepath.Join(dir, lockFile)
	paths = slices.DeleteFunc(paths, func(path string) bool { return path == lock })
	for _, path := range append(paths, lock, dir) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// retry calls f until it is done or fails.
func retry(ctx context.Context, f func() (done bool, err error)) error {
	for pause := 200 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// enter takes part in the pod's lock; flags may have O_CREATE. Errors: ErrNotFound
// (the pod was destroyed).
func (p *pod) enter(flags int) (_ *os.File, err error) {
	lock, err := os.OpenFile(filepath.Join(p.dir, lockFile), os.O_RDWR|flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, sandbox.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if gone, err := unlinked(lock); gone || err != nil {
		return nil, cmp.Or(err, sandbox.ErrNotFound)
	}
	return lock, nil
}

func unlinked(f *os.File) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Nlink == 0, err
}
