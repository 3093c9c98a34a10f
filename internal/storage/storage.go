// Package storage is the contract between jetpack and whatever keeps its file
// trees: overlayfs, plain directories, ZFS.
//
// A tree is a directory tree with a name. It is created empty or cloned from a
// sealed tree, mounted to be used, sealed to become immutable, and destroyed.
// Images, the writable roots of apps and volumes are all trees.
//
// Not for: what a tree means (image and runtime know that), archives (image/layer),
// choosing a driver (internal/platform).
package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sentinels that drivers return, wrapped with the operation and the name.
// Any other error means that the driver could not tell or could not do it; it
// is never to be read as "absent".
var (
	// ErrNotFound: there is no such tree.
	ErrNotFound = errors.New("not found")
	// ErrExists: a tree of that name exists.
	ErrExists = errors.New("already exists")
	// ErrBusy: the tree is mounted, in use by a process, or has clones.
	ErrBusy = errors.New("busy")
	// ErrSealed: the operation needs a tree that is not sealed.
	ErrSealed = errors.New("sealed")
	// ErrNotSealed: the operation needs a sealed tree.
	ErrNotSealed = errors.New("not sealed")
	// ErrUnsupported: the driver lacks the capability; Info says so beforehand.
	ErrUnsupported = errors.New("not supported by this storage driver")
	// ErrBadName: the name is not of the form that CheckName accepts.
	ErrBadName = errors.New("invalid tree name")
)

// Driver keeps trees. Implementations are safe for concurrent use by several
// goroutines and by several processes that opened the same place.
//
// Life of a tree: Create or Clone → (Mount, write, Unmount)* → optionally Seal
// → (Mount read-only, Clone)* → Destroy. Creating is not mounting: a new tree
// is not reachable as a directory before Mount.
//
// Create, Clone, Rename and Destroy are atomic for other observers: a tree is
// there as a whole or not at all. What a crash in the middle of them leaves
// behind is listed with Partial set, is ErrNotFound for every other call but
// Destroy, and is replaced by a Create or Clone of the same name. The caller
// holds a lock of its own (an import's, a pod's) around a tree's life, so that
// a partial tree without a locker is debris. A tree whose own record, which the driver
// keeps of it, turns out to be damaged is partial, too: that is no other tree's
// problem. Destroy, Create and Clone of its name are ErrBusy while a mounted clone
// stands on it.
type Driver interface {
	// Info names the driver and declares what it can do. It is constant.
	Info() Info

	// Create makes an empty writable tree whose top directory is 0755, 0:0.
	// A partial tree of that name is replaced. Errors: ErrExists, ErrBadName,
	// ErrUnsupported (Quota without capability).
	Create(ctx context.Context, name string, opts Options) error

	// Clone makes a writable tree that starts with everything in origin, which
	// must be sealed: same bytes, modes, owners, times, links, extended attributes,
	// those of the top directory included. Writing to the clone never changes
	// the origin. Two things may differ from a copy, as they do on overlayfs:
	// writing to one of several hard links of the origin may part it from the
	// others, and rename(2) of a directory of the origin may fail with EXDEV, which
	// programs take as "copy it instead". Errors: ErrNotFound, ErrNotSealed
	// (origin), ErrExists (name), ErrBadName, ErrUnsupported.
	Clone(ctx context.Context, origin, name string, opts Options) error

	// Seal makes a tree immutable for ever and makes it a possible origin. The
	// tree must not be mounted (ErrBusy). Everything written before is on stable
	// storage when Seal returns. Sealing a sealed tree does nothing, mounted or
	// not. Errors: ErrNotFound, ErrBusy.
	Seal(ctx context.Context, name string) error

	// Rename gives a tree another name: this is how work is published. The tree
	// must be unmounted and without clones (ErrBusy). Errors: ErrNotFound,
	// ErrExists (to).
	Rename(ctx context.Context, from, to string) error

	// Destroy removes a tree, or a partial tree, and all it holds. It never
	// follows a mount or a symbolic link out of the tree. Errors: ErrNotFound;
	// ErrBusy while it is mounted or has clones, and then nothing has changed. A
	// mounted partial tree counts as a clone of every sealed one: nobody knows.
	Destroy(ctx context.Context, name string) error

	// Stat describes one tree. Errors: ErrNotFound.
	Stat(ctx context.Context, name string) (Tree, error)

	// List describes the trees of a kind ("" for all), partial ones included,
	// sorted by name. A storage that is gone is an error, not an empty list.
	List(ctx context.Context, kind string) ([]Tree, error)

	// Mount makes a tree reachable and returns its absolute directory, the same
	// one every time: read-only for a sealed tree, else writable, and always nodev.
	// It is idempotent, and right after a reboot. Errors: ErrNotFound.
	Mount(ctx context.Context, name string) (dir string, err error)

	// Unmount undoes Mount; a tree that is not mounted is fine, also when the
	// tree does not exist. Errors: ErrBusy while a process uses it.
	Unmount(ctx context.Context, name string) error

	// Usage measures a tree, in bytes of storage. It may walk the tree.
	// Errors: ErrNotFound.
	Usage(ctx context.Context, name string) (Usage, error)

	// Diff lists what an unsealed or sealed clone has that differs from its
	// origin, sorted by path (byte by byte); for a tree without origin, all its
	// paths as Added. It works whether the tree is mounted or not.
	//
	// A path is Modified when type, mode, owner, device number, extended attributes
	// or link target differ, or, except for a directory, size or modification
	// time. A path with none of these is unchanged, even when it was deleted and
	// made again. A rename is a Deleted and an Added. What was below a deleted
	// directory, or below one that became something else, is not listed; all
	// that is below an added one is. The top directory is "/".
	// Errors: ErrNotFound.
	Diff(ctx context.Context, name string) ([]Change, error)
}

// Preparer is a Driver whose Destroy takes long to begin.
type Preparer interface {
	// PrepareDestroy begins what the next Destroy of a tree through this value will
	// take, if it comes soon; the tree may still be mounted. It changes nothing, and if no
	// Destroy follows nothing comes of it.
	PrepareDestroy(name string)
}

// Remove destroys a tree, mounted or not, there or not. Errors: ErrBusy while a
// process uses it or it has clones.
func Remove(ctx context.Context, d Driver, name string) error {
	if err := d.Unmount(ctx, name); err != nil {
		return err
	}
	if err := d.Destroy(ctx, name); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// Info is what a driver says of itself.
type Info struct {
	// Name is the driver's name in configuration and reports: "overlay".
	Name string
	// SharedClones: a clone shares its origin's storage, and making one costs the
	// same whatever the size of the origin.
	SharedClones bool
	// Quota: Options.Quota is enforced with EDQUOT or ENOSPC.
	Quota bool
	// EnforcesSeal: a mounted sealed tree refuses writes, even root's (EROFS).
	EnforcesSeal bool
	// MountsTrees: Mount makes an entry in the mount table, so the tree's own mount
	// options (nodev) hold, Tree.Mounted tells, and a mounted tree is ErrBusy for
	// Seal, Rename and Destroy. Without it Unmount does nothing.
	MountsTrees bool
}

// Options are given when a tree is made and never change.
type Options struct {
	// Quota bounds what the tree itself may take, in bytes; 0 is unbounded.
	Quota int64
	// Meta are properties kept with the tree, for administrators who look at the
	// storage with its own tools. CheckMeta says what they may be.
	Meta map[string]string
}

// Tree describes a tree.
type Tree struct {
	Name    string
	Origin  string // the tree that it is a clone of, or ""
	Sealed  bool
	Mounted bool // always false without Info.MountsTrees
	Partial bool // debris of a crash, or damaged; only Name is meaningful
	Created time.Time
	Meta    map[string]string
}

// Usage is what a tree costs, in bytes.
type Usage struct {
	// Own is what destroying the tree would free.
	Own int64
	// Logical is what its files add up to, what is shared with origins included.
	Logical int64
}

// ChangeKind tells how a path differs from the origin.
type ChangeKind string

// The kinds of change.
const (
	Added    ChangeKind = "added"
	Modified ChangeKind = "modified"
	Deleted  ChangeKind = "deleted"
)

// Change is one path that differs: absolute inside the tree ("/etc/passwd").
type Change struct {
	Path string     `json:"path"`
	Kind ChangeKind `json:"kind"`
}

// CheckName accepts "KIND/ID", as in "images/sha512-…" or "pods/<uuid>.web":
// a kind of lower-case letters and one component of at most 200 letters,
// digits, dots, underscores and hyphens, which is safe as a file name, in a
// mount option and as a ZFS dataset. Errors: ErrBadName.
func CheckName(name string) error {
	kind, id, _ := strings.Cut(name, "/")
	if kind == "" || strings.Trim(kind, lower) != "" ||
		id == "" || len(id) > 200 || !strings.ContainsRune(lower+digits, rune(id[0])) || strings.Trim(id, lower+upper+digits+"._-") != "" {
		return fmt.Errorf("%w: %q", ErrBadName, name)
	}
	return nil
}

// These are looked for by hand: compiling patterns with such bounds would be half of
// the time that the program takes to start.
const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
)

// CheckMeta accepts properties that every driver can keep, as ZFS user
// properties for one: keys of up to 64 lower-case letters, digits, dots,
// underscores and hyphens; values of 1 to 1024 printable ASCII characters,
// without blanks at either end, and not "-" alone, which zfs(8) prints for "none".
func CheckMeta(meta map[string]string) error {
	for k, v := range meta {
		if k == "" || len(k) > 64 || !strings.ContainsRune(lower, rune(k[0])) || strings.Trim(k, lower+digits+"._-") != "" {
			return fmt.Errorf("invalid property name %q", k)
		}
		printable := !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' })
		if v == "" || len(v) > 1024 || v == "-" || !printable || strings.TrimSpace(v) != v {
			return fmt.Errorf("invalid value of property %s: %q", k, v)
		}
	}
	return nil
}
