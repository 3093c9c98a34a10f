package ociengine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

const holderName = "jetpack-holder"

func init() { reexec.Register(holderName, holderMain) }

// holderMain is process 1 of a pod. It reaps orphans, is deaf to the pod's
// signals, and ends when the owner does: the kernel kills it then (prctl(2),
// PR_SET_PDEATHSIG), but not when the owner died before that was set up; the
// pipe is for this case.
func holderMain() {
	signal.Ignore() // ignoring SIGCHLD makes the kernel reap (wait(2))
	for reaped := 1; reaped > 0; {
		reaped, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil) // who ended earlier
	}
	_, _ = os.NewFile(3, "owner").Read(make([]byte, 1))
	os.Exit(0)
}

// holder is the owner's side of a pod's process 1 and namespaces.
type holder struct {
	cmd        *exec.Cmd
	owner      *os.File            // its end tells the holder that the owner ended
	namespaces map[string]*os.File // by their names in /proc/PID/ns
	stop       chan struct{}       // closed to end the thread
	ended      chan struct{}       // closed when the holder was reaped
}

// startHolder makes the namespaces of a pod and starts its holder, which keeps
// the lock (see pod) as long as it lives.
func startHolder(pod sandbox.Pod, lock *os.File) (*holder, error) {
	h := &holder{namespaces: map[string]*os.File{}, stop: make(chan struct{}), ended: make(chan struct{})}
	result := make(chan error)
	onOwnThread(func() {
		err := h.start(pod, lock)
		result <- err
		if err == nil {
			<-h.stop
		}
	})
	err := <-result
	if err != nil {
		h.close() // the thread has ended
	}
	go func() {
		if h.cmd != nil && h.cmd.Process != nil {
			_ = h.cmd.Wait() // how it ended is of no interest
		}
		close(h.ended)
	}()
	return h, err
}

// onOwnThread calls f on a thread that ends with it, for what changes a thread
// for ever: namespaces, and children that are told of its end.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		// The main thread cannot end. Occupy it until another one is found.
		defer runtime.UnlockOSThread()
		found := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(found)
			f()
		}()
		<-found
	}()
}

// start runs on the thread of the pod, which joins all of its namespaces but the
// PID namespace, in which it could have no other children.
func (h *holder) start(pod sandbox.Pod, lock *os.File) error {
	names := []string{"ipc", "uts"}
	flags := unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if pod.Network != sandbox.NetworkHost {
		names = append(names, "net")
		flags |= unix.CLONE_NEWNET
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(pod.Hostname)); err != nil {
		return fmt.Errorf("set host name %q: %w", pod.Hostname, err)
	}
	if pod.Network != sandbox.NetworkHost {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("bring loopback up: %w", err)
		}
	}
	for _, name := range names {
		if err := h.keep(name, "/proc/thread-self/ns/"+name); err != nil {
			return err
		}
	}
	if err := h.exec(lock); err != nil {
		return fmt.Errorf("start holder: %w", err)
	}
	return h.keep("pid", fmt.Sprintf("/proc/%d/ns/pid", h.cmd.Process.Pid))
}

// keep opens a namespace: what is kept open cannot be confused with another that
// comes to the same path.
func (h *holder) keep(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	h.namespaces[name] = f
	return nil
}

func (h *holder) exec(lock *os.File) error {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	h.owner = ours
	defer func() { _ = theirs.Close() }() // the holder has its own
	h.cmd = reexec.Command(holderName)
	h.cmd.Dir = "/"
	h.cmd.Env = []string{"GOMAXPROCS=1"}
	h.cmd.ExtraFiles = []*os.File{theirs, lock}
	h.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true, // no signals from our terminal
	}
	return h.cmd.Start()
}

// listen opens a socket in the pod's network.
func (h *holder) listen(ctx context.Context, protocol string, port uint16) (socket *os.File, err error) {
	network, own := h.namespaces["net"]
	if !own {
		return sandbox.Listen(ctx, protocol, netip.Addr{}, port)
	}
	done := make(chan struct{})
	onOwnThread(func() {
		defer close(done)
		if err = unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err == nil {
			socket, err = sandbox.Listen(ctx, protocol, netip.Addr{}, port)
		}
	})
	<-done
	return socket, err
}

// end ends the thread, and with it the holder.
func (h *holder) end() { close(h.stop) }

// close closes what is open.
func (h *holder) close() {
	if h.owner != nil {
		_ = h.owner.Close()
	}
	for _, f := range h.namespaces {
		_ = f.Close()
	}
}

// reapOthers reaps all of our children in the pod but the holder, which ends only
// after them (pid_namespaces(7)). A runtime that fails, because the pod is being
// destroyed, may leave us one that nobody knows.
func (h *holder) reapOthers() {
	namespace, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", h.namespaces["pid"].Fd()))
	if err != nil {
		return // tried again soon
	}
	processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	for _, dir := range processes {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == h.cmd.Process.Pid {
			continue
		}
		if ns, err := os.Readlink(dir + "/ns/pid"); err == nil && ns == namespace {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // fails for those that are not our children
		}
	}
}

// loopbackUp brings lo up in the thread's network namespace (netdevice(7)); the
// kernel then gives it its addresses.
func loopbackUp() (err error) {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(sock)) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(sock, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, lo)
}
