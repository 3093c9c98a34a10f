// Package platform picks the backends: it alone knows which storage driver and
// which sandbox engine serve a root on this operating system, and it alone reads
// runtime.GOOS.
//
// Not for: how a backend works (their own packages), what is done with it
// (image, runtime).
package platform

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/gofrs/flock"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/plaindir"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/zfs"
)

// ErrNotInitialized says that the root has not been made by Init.
var ErrNotInitialized = errors.New("not initialized")

// OS and Arch are this host's, in the appc spec's words.
func OS() string { return goruntime.GOOS }

// Arch is "amd64" or "aarch64", say; for an architecture that appc has no word
// for, Go's own.
func Arch() string {
	if arch, ok := manifest.Arch(goruntime.GOOS, goruntime.GOARCH); ok {
		return arch
	}
	return goruntime.GOARCH
}

// Root is what a root directory was made with: <root>/jetpack.json.
type Root struct {
	// Version is that of the layout below the root.
	Version int `json:"version"`
	// ID, 8 hexadecimal digits, is in the name of everything outside the root, so
	// that two roots on a host never meet.
	ID string `json:"id"`
	// Storage is the name of the driver that has the trees.
	Storage string `json:"storage"`
	// Dataset is the ZFS dataset that they are in, of the driver zfs.
	Dataset string `json:"dataset,omitempty"`
}

const (
	layoutVersion = 1
	rootFile      = "jetpack.json"
	lockFile      = "lock"
)

// ours is what a root may hold (ARCHITECTURE.md, "State").
var ours = []string{rootFile, lockFile, "storage", "images", "pods", "run"}

// Init makes a root directory with the wanted storage driver ("auto" for the best
// that works there) and ZFS dataset ("auto" for the platform's, if there is any), or what
// is missing of the one that is there. It tells what it did, a line each.
func Init(ctx context.Context, dir, driver, dataset string) (root Root, did []string, err error) {
	root, err = ReadRoot(dir)
	if err == nil {
		did, err = root.mend(ctx, dir, driver, dataset)
		return root, did, err
	}
	if !errors.Is(err, ErrNotInitialized) {
		return root, nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return root, nil, fmt.Errorf("init: %w", err)
	}
	unlock, err := lockRoot(dir)
	if err != nil {
		return root, nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if root, err := ReadRoot(dir); err == nil {
		return root, nil, nil // made by another init meanwhile
	}
	// Images hold set-id programs: nobody else may reach them.
	if err := os.Chmod(dir, 0o700); err != nil {
		return root, nil, fmt.Errorf("init: %w", err)
	}
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails since Go 1.24
	root = Root{Version: layoutVersion, ID: hex.EncodeToString(id[:])}
	notice, err := root.choose(ctx, dir, driver, dataset)
	if err != nil {
		return root, nil, fmt.Errorf("init %s: %w", dir, err)
	}
	if notice != "" {
		did = append(did, notice)
	}
	raw, err := json.Marshal(root)
	if err != nil {
		return root, nil, err
	}
	if err := atomicfile.Write(filepath.Join(dir, rootFile), append(raw, '\n'), 0o600); err != nil {
		return root, nil, fmt.Errorf("init: %w", err)
	}
	return root, append(did, fmt.Sprintf("created %s with storage %s", dir, root.Storage)), nil
}

// mend makes what is missing of the storage of a root that is there. It refuses to
// change it.
func (r Root) mend(ctx context.Context, dir, driver, dataset string) (did []string, err error) {
	if driver != "auto" && driver != r.Storage {
		return nil, fmt.Errorf("%s: its storage is %s, not %s; use another --root", dir, r.Storage, driver)
	}
	if r.Storage != "zfs" {
		return nil, nil
	}
	if dataset != "auto" && dataset != r.Dataset {
		return nil, fmt.Errorf("%s: its storage is dataset %s, not %s; mend storage.dataset, or use another --root", dir, r.Dataset, dataset)
	}
	line, err := zfs.Init(ctx, r.Dataset, r.ID, dir)
	if err != nil {
		return nil, fmt.Errorf("init %s: %w", dir, err)
	}
	if line != "" {
		did = []string{line}
	}
	return did, nil
}

// choose settles where the trees of a new root are, and makes the dataset if it is ZFS.
func (r *Root) choose(ctx context.Context, dir, driver, dataset string) (notice string, err error) {
	switch {
	case driver != "auto" && driver != "zfs":
		dataset = ""
	case dataset == "auto":
		if dataset = defaultDataset(dir); driver == "auto" && dataset != "" && !zfs.Available(dataset) {
			dataset = ""
		}
	}
	if dataset != "" {
		r.Storage, r.Dataset = "zfs", dataset
		return zfs.Init(ctx, dataset, r.ID, dir)
	}
	if driver == "zfs" {
		return "", errors.New("storage zfs: name a dataset, such as --set storage.dataset=POOL/jetpack")
	}
	r.Storage, notice, err = chooseStorage(storageDir(dir), driver)
	return notice, err
}

// lockRoot serializes the making of a root. It refuses a directory that holds
// something else: it would be closed to its users.
func lockRoot(dir string) (unlock func() error, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	for _, e := range entries {
		// The second is the first of them while it is written.
		if !slices.Contains(ours, e.Name()) && !strings.HasPrefix(e.Name(), "."+rootFile) {
			return nil, fmt.Errorf("init: %s is not empty (%s); name a directory for jetpack alone", dir, e.Name())
		}
	}
	l := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	if err := l.Lock(); err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	return l.Close, nil
}

// ReadRoot tells what a root was made with. Errors: ErrNotInitialized.
func ReadRoot(dir string) (root Root, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, rootFile))
	if errors.Is(err, fs.ErrNotExist) {
		return root, fmt.Errorf("%s: %w", dir, ErrNotInitialized)
	}
	if err != nil {
		return root, err
	}
	if err := json.Unmarshal(raw, &root); err != nil {
		return root, fmt.Errorf("%s: %w", filepath.Join(dir, rootFile), err)
	}
	if root.Version != layoutVersion {
		return root, fmt.Errorf("%s: layout version %d; this jetpack knows %d", dir, root.Version, layoutVersion)
	}
	return root, nil
}

func storageDir(dir string) string { return filepath.Join(dir, "storage") }

// Storage opens the driver of a root.
func Storage(dir string, root Root) (storage.Driver, error) {
	if root.Storage == "zfs" {
		return zfs.Open(root.Dataset, storageDir(dir))
	}
	return openStorage(root.Storage, storageDir(dir))
}

// CheckStorage tells what keeps the trees of a root from being reached, and what to do
// about it.
func CheckStorage(ctx context.Context, root Root) error {
	if root.Storage == "zfs" {
		return zfs.Check(ctx, root.Dataset)
	}
	return nil
}

// lacksZFS says what a host with those pools lacks for ZFS instead of plaindir.
func lacksZFS(pools []string, err error) string {
	const copies = "storage plaindir: images are copied for every pod; "
	switch {
	case err != nil:
		return copies + err.Error()
	case len(pools) == 0:
		return copies + "there is no ZFS pool: run 'zpool create POOL DISK', then 'jetpack --root DIR --set storage.dataset=POOL/jetpack init'"
	}
	return copies + "'jetpack --root DIR --set storage.dataset=" + pools[0] + "/jetpack init' makes a root that spares that"
}

// EngineConfig is what the configuration says of the sandbox engine; each platform
// reads its part.
type EngineConfig struct {
	// Runtime names the OCI runtime (Linux).
	Runtime string
	// Bridge and Networks are where pods with addresses of their own are (Linux): see
	// network.NewBridge.
	Bridge, Networks string
	// Interface, Ruleset and Allow are for jails (FreeBSD): see jail.Config.
	Interface string
	Ruleset   int64
	Allow     []string
}

// Engine gives the sandbox engine of a root.
func Engine(dir string, root Root, cfg EngineConfig) (sandbox.Engine, error) {
	return newEngine(filepath.Join(dir, "run"), root.ID, cfg)
}

func openPlain(dir string) (storage.Driver, error) { return plaindir.Open(dir) }
