//go:build unix

package sandboxtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest/probe"
)

// podCases are about what the apps of a pod share.
var podCases = []testCase{
	{"host name", isolates, func(t *testing.T, s *setup) {
		s.create(t)
		for _, app := range []string{"a", "b"} {
			var got string
			if s.ask(t, process(app, "hostname"), &got); got != s.pod.Hostname {
				t.Errorf("host name in app %s is %q", app, got)
			}
		}
	}},
	{"processes see and signal each other", isolates, func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "pid"))
		var pid int
		r.next(t, &pid)
		s.succeed(t, process("b", "kill", strconv.Itoa(pid), "0"))
		s.succeed(t, process("b", "kill", strconv.Itoa(pid), "9"))
		if exit := r.wait(t); exit.Signal != syscall.SIGKILL {
			t.Errorf("ended with %+v", exit)
		}
	}},
	{"a user cannot signal another", isolates, func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "pid"))
		var pid int
		r.next(t, &pid)
		p := process("b", "kill", strconv.Itoa(pid), "9")
		p.UID = 1000
		s.refuse(t, p, "not permitted")
	}},
	{"signals to process 1 do not end the pod", isolates, func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "sleep"))
		r.ready(t)
		for _, sig := range []int{1, 2, 3, 9, 15} {
			s.run(t, process("b", "kill", "1", strconv.Itoa(sig))) // may be refused as well
		}
		s.succeed(t, process("b", "exit", "0"))
		if err := r.Signal(t.Context(), 0); err != nil {
			t.Errorf("the other app: %v", err)
		}
	}},
	{"loopback", isolates, func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "listen"))
		var port int
		r.next(t, &port)
		if got := string(s.succeed(t, process("b", "dial", strconv.Itoa(port))).stdout); !strings.HasPrefix(got, "hello ") {
			t.Errorf("heard %q", got)
		}
	}},
	{"no network but loopback", isolates, func(t *testing.T, s *setup) {
		var got []probe.Interface
		s.create(t).ask(t, process("a", "interfaces"), &got)
		up := slices.DeleteFunc(got, func(i probe.Interface) bool { return !i.Up })
		if len(up) != 1 || !up[0].Loopback {
			t.Errorf("interfaces that are up: %+v", up)
		}
	}},
	{"host network", hostNetwork, func(t *testing.T, s *setup) {
		var host, pod []probe.Interface
		s.pod.Network = sandbox.NetworkHost
		s.create(t).ask(t, process("a", "interfaces"), &pod)
		runHere(t, "interfaces", &host)
		if !slices.Equal(host, pod) {
			t.Errorf("interfaces %+v, on the host %+v", pod, host)
		}
	}},
	{"the host reaches a pod at its addresses", privateNetwork, func(t *testing.T, s *setup) {
		s.private().create(t)
		for _, a := range s.addresses(t) {
			port := s.listen(t, a)
			conn, err := net.Dial("tcp", netip.AddrPortFrom(a, port).String())
			if err != nil {
				t.Fatalf("the host does not reach the pod: %v", err)
			}
			defer conn.Close()
			if got, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(got), "hello ") {
				t.Errorf("heard %q, %v", got, err)
			}
		}
	}},
	{"pods reach each other, and know who it is", privateNetwork, func(t *testing.T, s *setup) {
		other := *s.private()
		other.pod.ID = uuid.NewString()
		s.create(t)
		other.create(t)
		defer other.destroy(t)
		from := other.addresses(t)
		for i, a := range s.addresses(t) {
			port := strconv.Itoa(int(s.listen(t, a)))
			if got := string(other.succeed(t, process("a", "dial", port, a.String())).stdout); got != "hello "+from[i].String() {
				t.Errorf("at %v: heard %q, want the address %v", a, got, from[i])
			}
		}
	}},
	{"no network is no way to a pod", privateNetwork, func(t *testing.T, s *setup) {
		other := *s
		other.pod.ID = uuid.NewString()
		other.create(t)
		defer other.destroy(t)
		s.private().create(t)
		for _, a := range s.addresses(t) {
			other.refuse(t, process("a", "dial", strconv.Itoa(int(s.listen(t, a))), a.String()), "")
		}
	}},
	{"loopback in a private network", privateNetwork, func(t *testing.T, s *setup) {
		r := s.private().create(t).start(t, process("a", "listen"))
		var port int
		r.next(t, &port)
		if got := string(s.succeed(t, process("b", "dial", strconv.Itoa(port))).stdout); !strings.HasPrefix(got, "hello ") {
			t.Errorf("heard %q", got)
		}
	}},
	{"sockets that listen in the pod", isolates, func(t *testing.T, s *setup) {
		if s.engine.Info().PrivateNetwork {
			s.pod.Network = sandbox.NetworkPrivate
		}
		s.create(t)
		const port = 80
		files := s.sockets(t, "tcp", port)
		// Who comes before there is a process waits for it.
		early := s.start(t, process("b", "dial", strconv.Itoa(port)))
		p := process("a", "accept", strconv.Itoa(len(files)))
		p.Files = files
		s.succeed(t, p)
		if res := early.finish(t); string(res.stdout) != "hello" {
			t.Errorf("heard %q: %s", res.stdout, res.stderr)
		}
		if _, err := s.engine.Listen(t.Context(), s.pod.ID, "tcp", port); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("Listen at the same port = %v", err)
		}
		s.sockets(t, "udp", port)
		if _, err := s.engine.Listen(t.Context(), s.pod.ID, "sctp", port); !errors.Is(err, sandbox.ErrUnsupported) {
			t.Errorf("Listen with another protocol = %v", err)
		}
		if _, err := s.engine.Listen(t.Context(), uuid.NewString(), "tcp", port); !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("Listen in no pod = %v", err)
		}
	}},
	{"sockets that listen in the host's network", hostNetwork, func(t *testing.T, s *setup) {
		s.pod.Network = sandbox.NetworkHost
		s.create(t)
		files := s.sockets(t, "tcp", 0)
		l, err := net.FileListener(files[0])
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r := s.start(t, process("b", "dial", strconv.Itoa(l.Addr().(*net.TCPAddr).Port)))
		p := process("a", "accept", "1")
		p.Files = files[:1]
		s.succeed(t, p)
		if res := r.finish(t); string(res.stdout) != "hello" {
			t.Errorf("heard %q: %s", res.stdout, res.stderr)
		}
	}},
	{"private addresses are a pod's own", privateNetwork, func(t *testing.T, s *setup) {
		s.private()
		const pods = 20
		var group sync.WaitGroup
		var mu sync.Mutex
		owner := map[netip.Addr]string{}
		for range pods {
			one := *s
			one.pod.ID = uuid.NewString()
			group.Go(func() {
				if err := s.engine.Create(t.Context(), one.pod); err != nil {
					t.Errorf("Create: %v", err)
					return
				}
				addrs, err := s.engine.Addresses(t.Context(), one.pod.ID)
				if err != nil || len(addrs) == 0 {
					t.Errorf("Addresses = %v, %v", addrs, err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, a := range addrs {
					if other := owner[a]; other != "" {
						t.Errorf("%v is the address of %s and %s", a, other, one.pod.ID)
					}
					owner[a] = one.pod.ID
				}
			})
			t.Cleanup(func() {
				if err := s.engine.Destroy(context.Background(), one.pod.ID); err != nil {
					t.Errorf("Destroy: %v", err)
				}
				one.nothingLeft(t)
			})
		}
		group.Wait()
	}},
	{"no addresses without a private network", "", func(t *testing.T, s *setup) {
		if addrs, err := s.create(t).engine.Addresses(t.Context(), s.pod.ID); err != nil || len(addrs) > 0 {
			t.Errorf("Addresses = %v, %v", addrs, err)
		}
		if _, err := s.engine.Addresses(t.Context(), uuid.NewString()); !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("Addresses of no pod = %v", err)
		}
	}},
	{"unknown network", "", func(t *testing.T, s *setup) {
		s.pod.Network = "moon"
		if _, err := s.engine.Check(t.Context(), s.pod); !errors.Is(err, sandbox.ErrUnsupported) {
			t.Errorf("Check = %v", err)
		}
		if err := s.engine.Create(t.Context(), s.pod); !errors.Is(err, sandbox.ErrUnsupported) {
			t.Errorf("Create = %v", err)
		}
	}},
	{"System V IPC", isolates, func(t *testing.T, s *setup) {
		s.create(t).succeed(t, process("a", "sysv-put", "4096"))
		s.succeed(t, process("b", "sysv-get", "4096"))
		s.other(t, "sysv-get", "4096")
	}},
	{"POSIX shared memory", isolates, func(t *testing.T, s *setup) {
		s.create(t).succeed(t, process("a", "shm-put", "text"))
		if got := string(s.succeed(t, process("b", "shm-get")).stdout); got != "text" {
			t.Errorf("read %q", got)
		}
		s.other(t, "shm-get")
	}},
	{"orphans are reaped", isolates, func(t *testing.T, s *setup) {
		s.create(t)
		var pid int
		s.ask(t, process("a", "orphan"), &pid)
		eventually(t, "orphan is gone", func() bool {
			return s.run(t, process("a", "kill", strconv.Itoa(pid), "0")).exit.Code != 0
		})
	}},
}

// private gives the pod addresses of its own.
func (s *setup) private() *setup {
	s.pod.Network = sandbox.NetworkPrivate
	return s
}

// listen starts a process in the app "a" that says hello once, and gives the port.
func (s *setup) listen(t *testing.T, a netip.Addr) (port uint16) {
	t.Helper()
	s.start(t, process("a", "listen", a.String())).next(t, &port)
	return port
}

// sockets gives those of a port, which must block.
func (s *setup) sockets(t *testing.T, protocol string, port uint16) []*os.File {
	t.Helper()
	files, err := s.engine.Listen(t.Context(), s.pod.ID, protocol, port)
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	for _, f := range files {
		t.Cleanup(func() { f.Close() })
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("flags of the socket: %#x, %v", flags, err)
		}
	}
	return files
}

// addresses gives those of the pod, of which there must be some, IPv4 first.
func (s *setup) addresses(t *testing.T) []netip.Addr {
	t.Helper()
	addrs, err := s.engine.Addresses(t.Context(), s.pod.ID)
	if err != nil || len(addrs) == 0 || !addrs[0].Is4() {
		t.Fatalf("Addresses = %v, %v", addrs, err)
	}
	return addrs
}

// other checks that a command fails in another pod at the same time.
func (s *setup) other(t *testing.T, args ...string) {
	t.Helper()
	other := *s
	other.pod.ID = uuid.NewString()
	other.create(t)
	defer func() {
		if err := s.engine.Destroy(t.Context(), other.pod.ID); err != nil {
			t.Error(err)
		}
	}()
	other.refuse(t, process("a", args...), "")
}

// lifeCases are about how tasks and pods live and end.
var lifeCases = []testCase{
	{"wait again and again", "", func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "cat"))
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Wait(cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait with a context that has ended = %v", err)
		}
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if exit, err := r.Wait(t.Context()); err != nil || exit != (sandbox.Exit{}) {
					t.Errorf("Wait = %+v, %v", exit, err)
				}
			})
		}
		closeAll(t, r.stdin)
		group.Wait()
		if exit, err := r.Wait(cancelled); err != nil || exit != (sandbox.Exit{}) {
			t.Errorf("Wait after the end, with a context that has ended = %+v, %v", exit, err)
		}
	}},
	{"context of start", "", func(t *testing.T, s *setup) {
		s.create(t)
		ctx, cancel := context.WithCancel(t.Context())
		task, err := s.engine.Start(ctx, s.pod.ID, process("a", "sleep"))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		time.Sleep(10 * time.Millisecond)
		if err := task.Signal(t.Context(), 0); err != nil {
			t.Errorf("the process ended with the context of its start: %v", err)
		}
		if _, err := s.engine.Start(ctx, s.pod.ID, process("a", "sleep")); !errors.Is(err, context.Canceled) {
			t.Errorf("Start with a context that has ended = %v", err)
		}
	}},
	{"signal", "", func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "sleep"))
		r.ready(t)
		if err := r.Signal(t.Context(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if exit := r.wait(t); exit.Status() != 143 {
			t.Errorf("ended with %+v", exit)
		}
	}},
	{"signal caught", "", func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "trap", "15", "10"))
		r.ready(t)
		for _, sig := range []syscall.Signal{15, 10, 15} {
			if err := r.Signal(t.Context(), sig); err != nil {
				t.Fatal(err)
			}
			var got int
			if r.next(t, &got); got != int(sig) {
				t.Errorf("caught signal %d, sent %d", got, sig)
			}
		}
	}},
	{"signal after the end", "", func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "exit", "0"))
		r.wait(t)
		if err := r.Signal(t.Context(), syscall.SIGTERM); !errors.Is(err, sandbox.ErrExited) {
			t.Errorf("Signal = %v", err)
		}
	}},
	{"several processes at once", "", func(t *testing.T, s *setup) {
		s.create(t)
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				task, err := s.engine.Start(t.Context(), s.pod.ID, process([]string{"a", "b"}[i%2], "exit", strconv.Itoa(i)))
				if err != nil {
					t.Errorf("Start: %v", err)
					return
				}
				if exit, err := task.Wait(t.Context()); err != nil || exit != (sandbox.Exit{Code: i}) {
					t.Errorf("Wait = %+v, %v, want code %d", exit, err, i)
				}
			})
		}
		group.Wait()
	}},
	{"pod outlives its processes", "", func(t *testing.T, s *setup) {
		s.create(t)
		for range 3 {
			s.succeed(t, process("a", "write", "/vol/x", "."))
		}
		if got := readFile(t, filepath.Join(s.volume, "x")); got != "..." {
			t.Errorf("volume has %q", got)
		}
	}},
	{"create twice", "", func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "sleep"))
		r.ready(t)
		if err := s.engine.Create(t.Context(), s.pod); !errors.Is(err, sandbox.ErrExists) {
			t.Errorf("second Create = %v", err)
		}
		if err := r.Signal(t.Context(), 0); err != nil {
			t.Errorf("the second Create ended a process: %v", err)
		}
	}},
	{"create after destroy", "", func(t *testing.T, s *setup) {
		for range 3 {
			s.create(t).succeed(t, process("a", "exit", "0"))
			s.destroy(t)
		}
	}},
	{"list", "", func(t *testing.T, s *setup) {
		second := *s
		second.pod.ID = uuid.NewString()
		s.create(t)
		second.create(t)
		want := []string{s.pod.ID, second.pod.ID}
		slices.Sort(want)
		if got, err := s.engine.List(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("List = %q, %v, want %q", got, err, want)
		}
		second.destroy(t)
		if got, err := s.engine.List(t.Context()); err != nil || !slices.Equal(got, []string{s.pod.ID}) {
			t.Errorf("List = %q, %v", got, err)
		}
		s.succeed(t, process("a", "exit", "0"))
	}},
	{"destroy is idempotent", "", func(t *testing.T, s *setup) {
		s.destroy(t)
		s.create(t)
		s.start(t, process("a", "sleep")).ready(t)
		s.destroy(t)
		s.destroy(t)
		s.nothingLeft(t)
	}},
	{"destroy at once from several sides", "", func(t *testing.T, s *setup) {
		s.create(t)
		s.start(t, process("a", "sleep")).ready(t)
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				if err := s.engine.Destroy(t.Context(), s.pod.ID); err != nil {
					t.Errorf("Destroy: %v", err)
				}
			})
		}
		group.Wait()
		s.nothingLeft(t)
	}},
	{"destroy ends processes that ignore signals", isolates, func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "fork", "5"))
		r.ready(t)
		if err := r.Signal(t.Context(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.destroy(t)
		if exit := r.wait(t); exit.Signal != syscall.SIGKILL {
			t.Errorf("ended with %+v", exit)
		}
		s.nothingLeft(t)
	}},
	{"destroy ends a fork storm", isolates, func(t *testing.T, s *setup) {
		s.create(t)
		for range 4 {
			s.run(t, process("a", "storm", "/vol/storm"))
		}
		file := filepath.Join(s.volume, "storm")
		eventually(t, "storm rages", func() bool { return size(t, file) > 100 })
		s.destroy(t)
		silent(t, file)
		s.nothingLeft(t)
	}},
	{"exit is known after destroy", "", func(t *testing.T, s *setup) {
		s.create(t)
		ended := s.start(t, process("a", "exit", "9"))
		ended.wait(t)
		killed := s.start(t, process("a", "sleep"))
		killed.ready(t)
		s.destroy(t)
		if exit := ended.wait(t); exit != (sandbox.Exit{Code: 9}) {
			t.Errorf("ended with %+v", exit)
		}
		if exit := killed.wait(t); exit.Status() != 137 {
			t.Errorf("killed with %+v", exit)
		}
		if err := killed.Signal(t.Context(), syscall.SIGTERM); !errors.Is(err, sandbox.ErrExited) {
			t.Errorf("Signal after Destroy = %v", err)
		}
	}},
	{"start after destroy", "", func(t *testing.T, s *setup) {
		s.create(t).destroy(t)
		s.fails(t, sandbox.ErrNotFound, s.pod.ID, func(*sandbox.Process) {})
	}},
	{"destroy during starts", "", func(t *testing.T, s *setup) {
		for range 5 {
			s.create(t)
			var group sync.WaitGroup
			for range 3 {
				group.Go(func() {
					if _, err := s.engine.Start(t.Context(), s.pod.ID, process("a", "tick", "/vol/tick")); err != nil {
						return // the pod went away under it
					}
				})
			}
			time.Sleep(rand.N(30 * time.Millisecond))
			s.destroy(t)
			group.Wait()
			silent(t, filepath.Join(s.volume, "tick"))
			s.nothingLeft(t)
		}
	}},
	{"destroy from another process", isolates, func(t *testing.T, s *setup) {
		s.startOwner(t, 3)
		s.destroy(t)
		silent(t, filepath.Join(s.volume, "tick"))
		s.nothingLeft(t)
	}},
	{"pod of another process exists", isolates, func(t *testing.T, s *setup) {
		s.startOwner(t, 2)
		if err := s.engine.Create(t.Context(), s.pod); !errors.Is(err, sandbox.ErrExists) {
			t.Errorf("Create = %v", err)
		}
		if ids, err := s.engine.List(t.Context()); err != nil || !slices.Contains(ids, s.pod.ID) {
			t.Errorf("List = %q, %v", ids, err)
		}
	}},
	{"dies with its owner", diesWithOwner, func(t *testing.T, s *setup) {
		owner := s.startOwner(t, 4)
		if err := owner.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = owner.Wait()
		file := filepath.Join(s.volume, "tick")
		eventually(t, "processes have ended", func() bool {
			before := size(t, file)
			time.Sleep(20 * time.Millisecond)
			return size(t, file) == before
		})
	}},
	{"owner killed at any moment", "", func(t *testing.T, s *setup) { s.killedOwners(t, 30) }},
	{"owner of a private network killed at any moment", privateNetwork, func(t *testing.T, s *setup) {
		s.private().killedOwners(t, 20)
	}},
}

// killedOwners kills owners of the pod at random moments; Destroy takes away what they left.
func (s *setup) killedOwners(t *testing.T, rounds int) {
	t.Helper()
	for round := range rounds {
		owner := s.startOwner(t, 1)
		time.Sleep(rand.N(70 * time.Millisecond))
		if err := owner.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if round%2 == 1 {
			s.destroy(t) // beside an owner that is dying, whose last system call may come after it
		}
		_ = owner.Wait()
		s.destroy(t)
		silent(t, filepath.Join(s.volume, "tick"))
		if s.nothingLeft(t); t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

func (s *setup) destroy(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := s.engine.Destroy(ctx, s.pod.ID); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
}

// terminalCases are about Process.Terminal.
var terminalCases = []testCase{
	{"no terminal", "", func(t *testing.T, s *setup) {
		if c := s.create(t).start(t, process("a", "sleep")).Console(); c != nil {
			t.Errorf("Console = %v", c)
		}
		s.refuse(t, process("a", "terminal"), "")
	}},
	{"terminal", terminal, func(t *testing.T, s *setup) {
		tty := s.create(t).startTerminal(t, "terminal")
		tty.expect(t, `{"Rows":24,"Columns":80}`)
		if exit := wait(t, tty.Task); exit != (sandbox.Exit{}) {
			t.Errorf("ended with %+v: %s", exit, tty.seen)
		}
	}},
	{"terminal for a user", terminal, func(t *testing.T, s *setup) {
		p := process("a", "terminal")
		p.UID, p.GID = 1000, 1000
		tty := s.create(t).startTerminalOf(t, p)
		tty.expect(t, `{"Rows":24,"Columns":80}`)
	}},
	{"terminal is resized", terminal, func(t *testing.T, s *setup) {
		tty := s.create(t).startTerminal(t, "resized")
		tty.expect(t, "ready")
		if err := tty.Console().Resize(console.WinSize{Height: 50, Width: 132}); err != nil {
			t.Fatal(err)
		}
		tty.expect(t, `{"Rows":50,"Columns":132}`)
	}},
	{"interrupt key", terminal, func(t *testing.T, s *setup) {
		tty := s.create(t).startTerminal(t, "raw-int")
		tty.expect(t, "ready")
		if _, err := tty.Console().Write([]byte{3}); err != nil {
			t.Fatal(err)
		}
		if exit := wait(t, tty.Task); exit != (sandbox.Exit{Code: 42}) {
			t.Errorf("ended with %+v: %s", exit, tty.seen)
		}
	}},
	{"two terminals", terminal, func(t *testing.T, s *setup) {
		first := s.create(t).startTerminal(t, "cat")
		second := s.startTerminal(t, "cat")
		for i, tty := range []*terminalTask{first, second} {
			word := fmt.Sprintf("word%d", i)
			if _, err := tty.Console().Write([]byte(word + "\n")); err != nil {
				t.Fatal(err)
			}
			tty.expect(t, word+"\r\n"+word)
		}
	}},
}

// terminalTask is a task with what came through its terminal.
type terminalTask struct {
	sandbox.Task
	seen string
}

func (s *setup) startTerminal(t *testing.T, args ...string) *terminalTask {
	t.Helper()
	return s.startTerminalOf(t, process("a", args...))
}

func (s *setup) startTerminalOf(t *testing.T, p sandbox.Process) *terminalTask {
	t.Helper()
	p.Terminal = true
	p.Size = console.WinSize{Height: 24, Width: 80}
	task, err := s.engine.Start(t.Context(), s.pod.ID, p)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		if err := task.Console().Close(); err != nil {
			t.Error(err)
		}
	})
	return &terminalTask{Task: task}
}

// expect reads until a text has come.
func (tty *terminalTask) expect(t *testing.T, text string) {
	t.Helper()
	buf := make([]byte, 1024)
	for !strings.Contains(tty.seen, text) {
		n, err := tty.Console().Read(buf)
		tty.seen += string(buf[:n])
		if err != nil && !strings.Contains(tty.seen, text) {
			t.Fatalf("terminal shows %q, then %v; want %q", tty.seen, err, text)
		}
	}
}

// runHere runs the probe on the host and decodes what it prints.
func runHere(t *testing.T, command string, v any) {
	t.Helper()
	var out bytes.Buffer
	sys := probe.Host()
	sys.Stdout, sys.Stderr = &out, &out
	probe.Main([]string{"probe", command}, sys)
	if err := json.Unmarshal(out.Bytes(), v); err != nil {
		t.Fatalf("probe %s: %s: %v", command, out.Bytes(), err)
	}
}
