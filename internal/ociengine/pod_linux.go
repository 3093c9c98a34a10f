package ociengine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/network"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// What is in a pod's directory, beside a bundle per process.
const (
	// lockFile is held shared by the holder, and by every runtime at work from before
	// it starts: who has it exclusively knows that nothing new can appear. It is
	// never held by the owner, who may live on, and never replaced.
	lockFile = "lock"
	// holderFile says who the holder is, as a holderID.
	holderFile = "holder.json"
	// shmDir is the mount point of the pod's /dev/shm.
	shmDir = "shm"
	// runtimeDir is the runtime's own state.
	runtimeDir = "runtime"
)

// patience is how long Destroy waits for the kernel to end what it was told to end.
const patience = 30 * time.Second

// pod is a pod that this process owns.
type pod struct {
	spec   sandbox.Pod
	plan   plan
	dir    string
	holder *holder

	next  atomic.Int64   // number of the next process
	tasks sync.WaitGroup // those that are waited for or cleaned up after
}

// holderID identifies a process beyond reuse of its number and reboots.
type holderID struct {
	BootID string `json:"bootID"`
	PID    int    `json:"pid"`
	Start  string `json:"start"` // clock ticks since boot, proc_pid_stat(5)
}

// newPod makes the isolation of a pod in its new directory. On error something
// may be left for Destroy.
func (e *Engine) newPod(ctx context.Context, dir string, spec sandbox.Pod, plan plan) (*pod, error) {
	if err := e.limit(spec.ID, plan); err != nil {
		return nil, err
	}
	if err := mountShm(filepath.Join(dir, shmDir)); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }() // which gives the lock back
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	h, err := startHolder(spec, lock)
	if err != nil {
		return nil, err
	}
	p := &pod{spec: spec, plan: plan, dir: dir, holder: h}
	err = recordHolder(dir, h.cmd.Process.Pid)
	if err == nil && spec.Network == sandbox.NetworkPrivate {
		err = e.join(ctx, p)
	}
	if err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

// owner is what network knows a pod by.
func (e *Engine) owner(podID string) string { return e.cfg.Scope + "/" + podID }

// join connects a pod to the bridge.
func (e *Engine) join(ctx context.Context, p *pod) error {
	held := network.Held{Interface: e.cfg.Bridge.Name}
	if err := held.Write(p.dir); err != nil {
		return err
	}
	var err error
	held.Addresses, err = e.cfg.Bridge.Join(ctx, e.owner(p.spec.ID), network.Seed(p.spec.ID), p.holder.namespaces["net"])
	if err != nil {
		return fmt.Errorf("network private: %w%s", err, otherwise)
	}
	return held.Write(p.dir)
}

// leave takes away what a pod has of a network.
func (e *Engine) leave(ctx context.Context, dir, id string) error {
	held, err := network.ReadHeld(dir)
	if err != nil || held.Interface == "" {
		return err
	}
	return network.Leave(ctx, e.owner(id), held.Interface)
}

// leaveStray does it for a pod whose directory was taken away by hand.
func (e *Engine) leaveStray(ctx context.Context, id string) error {
	owners, err := network.Owners()
	if err != nil || !slices.Contains(owners, e.owner(id)) {
		return err
	}
	return network.Leave(ctx, e.owner(id), e.cfg.Bridge.Name)
}

// mountShm mounts the memory that the apps of a pod share; the size is the usual
// one of containers.
func mountShm(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size=65536k")
	if err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

func recordHolder(dir string, pid int) error {
	id, err := identify(pid)
	if err != nil {
		return err
	}
	data, err := json.Marshal(id)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, holderFile), data, 0o600)
}

// identify describes the process that has a number now.
func identify(pid int) (holderID, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return holderID{}, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return holderID{}, err
	}
	// The second field is in parentheses and may hold anything; start is the 22nd.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return holderID{}, fmt.Errorf("cannot read /proc/%d/stat", pid)
	}
	return holderID{BootID: strings.TrimSpace(string(boot)), PID: pid, Start: fields[19]}, nil
}

// killHolder ends the recorded holder of a pod, and so all processes in the pod.
// A record that is not there, or not yet whole, is of an owner that was killed
// while it made the pod (the holder ends by itself) or that is still at it.
func killHolder(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, holderFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var id holderID
	if json.Unmarshal(data, &id) != nil || id.PID <= 1 {
		return nil
	}
	// What holds for the number while the descriptor is open holds for the process.
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", id.PID, err)
	}
	defer func() { _ = unix.Close(fd) }() // it was only looked through
	now, err := identify(id.PID)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || err == nil && now != id {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", id.PID, err)
	}
	return nil
}

// destroy removes a pod from the host, whoever its owner is or was.
func (e *Engine) destroy(ctx context.Context, dir, id string) (err error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return e.leaveStray(ctx, id) // the directory is the last thing to go
	}
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // which gives the lock back
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = retry(wait, func() (bool, error) {
		if err := killHolder(dir); err != nil {
			return false, err
		}
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return fmt.Errorf("wait for its process 1 and its runtimes to end: %w", err)
	}
	if err := retry(wait, func() (bool, error) { return e.cgroups.remove(e.podCgroup(id)) }); err != nil {
		return fmt.Errorf("wait for its processes to end: %w", err)
	}
	shm := filepath.Join(dir, shmDir)
	if err := unix.Unmount(shm, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", shm, err)
	}
	if err := e.leave(ctx, dir, id); err != nil {
		return err
	}
	return os.RemoveAll(dir)
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

// release lets go of what the owner has of a pod that was destroyed. It does not
// wait for long: all processes have ended.
func (p *pod) release() {
	defer p.holder.close()
	p.holder.end()
	p.tasks.Wait()
	for {
		select {
		case <-p.holder.ended:
			return
		case <-time.After(5 * time.Millisecond):
			p.holder.reapOthers()
		}
	}
}

// containerName names a process of a pod to the runtime. It has to be unique on the
// host: the runtime names a keyring after it.
func (e *Engine) containerName(podID, n string) string { return e.podCgroup(podID) + "-" + n }

// podCgroup is the cgroup of a pod. Below it is one for each app, and below that one for
// each process.
func (e *Engine) podCgroup(podID string) string { return "jetpack-" + e.cfg.Scope + "-" + podID }

// limit makes the cgroups that have limits; others come with what is below them.
func (e *Engine) limit(podID string, p plan) error {
	name := e.podCgroup(podID)
	if p.limits != (limits{}) {
		if err := e.cgroups.limit(name, p.limits); err != nil {
			return err
		}
	}
	for app, own := range p.apps {
		if own.limits == (limits{}) {
			continue
		}
		if err := e.cgroups.limit(filepath.Join(name, app), own.limits); err != nil {
			return err
		}
	}
	return nil
}

// enter takes part in the pod's lock. Errors: ErrNotFound (the pod was destroyed).
func (p *pod) enter() (_ *os.File, err error) {
	lock, err := os.OpenFile(filepath.Join(p.dir, lockFile), os.O_RDWR, 0)
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
	var st unix.Stat_t
	if err := unix.Fstat(int(lock.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Nlink == 0 {
		return nil, sandbox.ErrNotFound
	}
	return lock, nil
}
