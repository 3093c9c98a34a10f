// Package sandbox is the contract between jetpack and whatever isolates pods:
// an OCI runtime with namespaces on Linux, jails on FreeBSD.
//
// A pod is one isolation (processes, IPC, host name, network) in which several
// apps run, each in its own root directory with its own mounts.
//
// Not for: where roots come from (internal/storage), what a manifest means
// (runtime), choosing an engine (internal/platform).
package sandbox

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/containerd/console"
)

// Sentinels that engines return, wrapped with the operation and the object.
var (
	// ErrNotFound: there is no such pod or app.
	ErrNotFound = errors.New("not found")
	// ErrExists: a pod of that id exists.
	ErrExists = errors.New("already exists")
	// ErrCommandNotFound: the program, or the interpreter it names, is not in
	// the app's root (exit code 127).
	ErrCommandNotFound = errors.New("command not found")
	// ErrCommandNotExecutable: the program is there and cannot be executed (126).
	ErrCommandNotExecutable = errors.New("command cannot be executed")
	// ErrNoWorkDir: the working directory is not there or is not a directory.
	ErrNoWorkDir = errors.New("bad working directory")
	// ErrBadRoot: the root has something else than a directory where the system is
	// mounted (/dev, /proc, /sys).
	ErrBadRoot = errors.New("unusable root")
	// ErrBadPod: what the pod asks for is wrong wherever it would run.
	ErrBadPod = errors.New("invalid pod")
	// ErrUnsupported: the engine lacks the capability; Info says so beforehand.
	ErrUnsupported = errors.New("not supported by this engine")
	// ErrExited: the process to be signalled has ended.
	ErrExited = errors.New("process has ended")
)

// Engine isolates pods. Implementations are safe for concurrent use.
//
// The process that creates a pod is its owner: it alone starts tasks in it and
// waits for them. Where Info.DiesWithOwner holds, the end of the owner, by
// SIGKILL too, ends every process of the pod. Destroy and List work from any
// process, so that what a dead owner left can be removed.
type Engine interface {
	// Info names the engine and declares what it can do. It is constant.
	Info() Info

	// Check says whether this host can isolate such a pod, before anything of it is
	// made: roots and mounts need not exist yet. It tells what becomes of each isolator:
	// the pod's, then each app's, in their order. Errors: ErrUnsupported, ErrBadPod.
	Check(ctx context.Context, pod Pod) ([]Outcome, error)

	// Create makes the isolation of a pod: its identity, network and mounts, but
	// no process of an app. Roots exist, are mounted and on a writable file system,
	// whatever App.ReadOnly says: the engine makes missing mount points of the
	// system (/dev, /proc) in them. Targets of App.Mounts exist (runtime made them,
	// inside the root). On error nothing is left. Errors: ErrExists, ErrBadRoot, and
	// those of Check.
	Create(ctx context.Context, pod Pod) error

	// Start starts a process in an app and returns when it runs, or with the
	// reason why it cannot. Several processes may run in one app at a time; they
	// see the same root and what is in its mounts. Every process gets a session of
	// its own, no descriptor above 2 but Files, umask 022, default signal dispositions, and
	// is a child of nothing inside the pod. Orphans of the pod are reaped. The end
	// of ctx does not end the process, and does not interrupt a start under way.
	// Errors: ErrNotFound (pod or app), ErrCommandNotFound,
	// ErrCommandNotExecutable, ErrNoWorkDir, ErrBadRoot, ErrUnsupported.
	Start(ctx context.Context, podID string, p Process) (Task, error)

	// Listen opens what receives connections to a TCP port of the pod, or the packets of a UDP
	// port: in its network, and at all of its addresses, or those of the host with
	// NetworkHost. It may take several sockets, which block. A process of the pod is given
	// them in Process.Files; the caller closes them. Errors: ErrNotFound, ErrUnsupported.
	Listen(ctx context.Context, podID, protocol string, port uint16) ([]*os.File, error)

	// Destroy ends every process of the pod with SIGKILL, undoes its mounts and
	// network, and leaves nothing, also for a pod half made or left by a crash. It is
	// idempotent: a pod that does not exist is fine.
	Destroy(ctx context.Context, podID string) error

	// Addresses gives the addresses of a pod with NetworkPrivate; others have none.
	// Errors: ErrNotFound.
	Addresses(ctx context.Context, podID string) ([]netip.Addr, error)

	// List gives the ids of all pods of which anything exists, sorted, so that
	// they can be reconciled with what ought to exist.
	List(ctx context.Context) ([]string, error)
}

// Task is one process that Start started, with its descendants being none of
// its business. Its methods are safe for concurrent use.
type Task interface {
	// Wait returns how the process ended, as often as it is asked. The end of
	// ctx ends the waiting only.
	Wait(ctx context.Context) (Exit, error)
	// Signal sends a signal to the process. Errors: ErrExited.
	Signal(ctx context.Context, sig syscall.Signal) error
	// Console is the engine's side of the terminal, for reading, writing and
	// resizing; nil unless Process.Terminal. The caller closes it after Wait.
	Console() console.Console
}

// Info is what an engine says of itself.
type Info struct {
	// Name is the engine's name in reports: "oci".
	Name string
	// DiesWithOwner: the pod's processes end with the process that created it.
	DiesWithOwner bool
	// Isolates: processes are really confined (false for the fake).
	Isolates bool
	// HostNetwork: Pod.Network may be NetworkHost.
	HostNetwork bool
	// PrivateNetwork: Pod.Network may be NetworkPrivate.
	PrivateNetwork bool
	// Terminal: Process.Terminal may be set.
	Terminal bool
	// Emulates are the operating systems, other than the host's, whose programs it
	// may be able to run; Check tells whether it can.
	Emulates []string
	// Annotations are those of a pod that it heeds: names, or prefixes that end in a slash.
	Annotations []string
	// Isolators tells, for a table, how each that can take effect does so; others are
	// ignored. What this host can do, Check says.
	Isolators map[string]string
	// Profiles tells what each profile means.
	Profiles map[Profile]string
}

// Network is what of the network a pod sees.
type Network string

const (
	// NetworkNone is a loopback interface of its own and nothing else.
	NetworkNone Network = "none"
	// NetworkPrivate is an address of the pod's own, which the host reaches.
	NetworkPrivate Network = "private"
	// NetworkHost is the host's network, unprotected.
	NetworkHost Network = "host"
)

// Pod is what Create needs to know.
type Pod struct {
	ID       string // canonical UUID
	Hostname string
	Network  Network
	Profile  Profile // "" is ProfileDefault
	Apps     []App
	// Isolators are for all apps together; at most one of a name.
	Isolators []Isolator
	// Annotations are the operator's for the pod, never an image's. Those that mean
	// nothing to an engine are none of its business.
	Annotations map[string]string
}

// App is an app's file system.
type App struct {
	Name     string // AC Name, unique in the pod
	Root     string // absolute directory on the host
	ReadOnly bool   // the root refuses writes; mounts have their own switch
	Mounts   []Mount
	// OS is what the image is for, in the appc spec's words: "linux"; "" is the
	// host's. OSVersion is the release that its programs expect, "14.3", or "".
	OS, OSVersion string
	// Isolators are for the processes of the app; at most one of a name. Resources are
	// within the pod's.
	Isolators []Isolator
}

// Mount binds a host directory or file into an app's root.
type Mount struct {
	Source    string // absolute on the host; where it leads is the caller's to keep
	Target    string // absolute inside the root, clean, free of symbolic links
	ReadOnly  bool
	Recursive bool // with what is mounted below the source
}

// Process is what Start needs to know.
type Process struct {
	App    string
	Args   []string // Args[0] without a slash is searched in Env's PATH, inside the root
	Env    []string // NAME=value, complete: nothing is inherited; an engine may add a missing or empty HOME
	Dir    string   // absolute inside the root, must exist
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary

	// Terminal gives the process a terminal of its own as descriptors 0, 1 and 2;
	// Stdin, Stdout and Stderr are then nil. Otherwise they are the descriptors
	// themselves, passed unchanged; nil is /dev/null. They should not be a terminal
	// of the host: give a pipe instead.
	Terminal              bool
	Size                  console.WinSize // of the terminal when the process starts
	Stdin, Stdout, Stderr *os.File
	// Files become descriptors 3 and above, in this order.
	Files []*os.File
}

// Lookup gives the value of a variable of p.Env, the last one of that name.
func (p Process) Lookup(name string) (value string, ok bool) {
	for _, entry := range p.Env {
		if n, v, _ := strings.Cut(entry, "="); n == name {
			value, ok = v, true
		}
	}
	return value, ok
}

// Exit is how a process ended.
type Exit struct {
	Code    int            // meaningful when Signal is 0 and Unknown is false
	Signal  syscall.Signal // the signal that killed it, or 0
	Unknown bool           // nobody who could know was there (the owner died)
}

// Status is the exit code as shells report it: 128+N for signal N, 255 when unknown.
func (e Exit) Status() int {
	switch {
	case e.Unknown:
		return 255
	case e.Signal != 0:
		return 128 + int(e.Signal)
	}
	return e.Code
}
