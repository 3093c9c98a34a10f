// Package runtime runs pods: it turns a pod manifest into directories, trees and
// sandboxed processes, supervises them, and takes everything away again.
//
// Not for: how isolation or storage is done (internal/sandbox, internal/storage),
// where images come from (image), the command line (cmd/jetpack).
//
// A pod is a directory pods/<uuid> that never moves, with a lock that its
// supervising process holds. It is built and taken down in one order, so that
// what exists outside the directory (sandbox, mounts, trees) is always
// reachable from it: directory, trees, mounts, sandbox; and in reverse.
package runtime

import (
	"context"
	"errors"
	"time"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/failpoint"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

// Sentinels of this package, wrapped with the object.
var (
	// ErrNotFound: there is no such pod.
	ErrNotFound = errors.New("no such pod")
	// ErrAmbiguous: a UUID prefix stands for several pods.
	ErrAmbiguous = errors.New("ambiguous pod")
	// ErrBusy: the pod is running, or another command works on it.
	ErrBusy = errors.New("pod is busy")
	// ErrNotRunning: the pod has no supervisor to talk to.
	ErrNotRunning = errors.New("pod is not running")
	// ErrNotStarted: the pod has no roots yet.
	ErrNotStarted = errors.New("pod was never started")
	// ErrInvalid: the pod cannot be run as it is described.
	ErrInvalid = errors.New("invalid pod")
	// ErrNameTaken: another pod has the name.
	ErrNameTaken = errors.New("name is taken")
	// ErrDamaged: a file of the pod is not what jetpack has written.
	ErrDamaged = errors.New("is damaged")
	// ErrInterrupted: the user asked to stop before the pod was up.
	ErrInterrupted = errors.New("interrupted")
)

// Images is what runtime needs of the image store.
type Images interface {
	Find(ctx context.Context, name string) (*image.Image, error)
	Get(ctx context.Context, id image.ID) (*image.Image, error)
}

// Volumes is what runtime needs of the named volumes.
type Volumes interface {
	// Get tells whether a volume is there. Errors: volume.ErrNotFound, volume.ErrInvalid.
	Get(ctx context.Context, name string) (volume.Volume, error)
	// Acquire takes a volume into use and mounts it. Errors: as Get.
	Acquire(ctx context.Context, name string) (*volume.Lease, error)
	// Debris lists what interrupted commands left of volumes.
	Debris(ctx context.Context) ([]volume.Debris, error)
	// Damaged says what is wrong with volumes, a line each.
	Damaged(ctx context.Context) ([]string, error)
}

// Runtime is the pods of one root. Several processes may use it at a time.
type Runtime struct {
	Dir     string // the pods' directory, absolute
	Images  Images
	Volumes Volumes
	Storage storage.Driver
	Engine  sandbox.Engine
	// Metadata is the metadata service; nil for none.
	Metadata Metadata
	// OS and Arch are the host's, in the appc spec's words: "linux", "amd64".
	OS, Arch string
	// Grace is how long an app that was asked to stop may take.
	Grace time.Duration
	// Notice is told, a line a call, what a user should know but nobody must act on;
	// several goroutines may call it at a time.
	Notice func(line string)
	// Report is told what becomes of the isolators of a pod that has any; nil for nobody.
	Report func([]sandbox.Outcome)
	// BootID tells one boot of the host from the next.
	BootID string
	// Points are the steps that tests make fail; nil for none.
	Points failpoint.Points
}

// step does a step on what outlives the process.
func (r *Runtime) step(name string, do func() error) error {
	return failpoint.Do(r.Points, name, do)
}
