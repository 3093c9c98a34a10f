package zfs

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	gozfs "github.com/mistifyio/go-zfs/v3"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
)

const (
	createdProperty = "jetpack:created" // RFC 3339; whoever has it of its own is whole
	metaProperty    = "jetpack:meta"    // Options.Meta as JSON
	maxValue        = 8191              // bytes of a property, zfsprops(7)
	sealSuffix      = "@" + sealName
	sealName        = "sealed"
)

// Driver is a storage.Driver.
type Driver struct {
	dataset string            // the root dataset
	dir     string            // where trees are mounted
	system  map[string]string // systemProperties

	// unsealed are trees that this process has made and not sealed: Mount need not look
	// for their snapshot.
	unsealed sync.Map
	// destroys are the commands that PrepareDestroy has started, by tree; they wait as
	// long as patience for their Destroy.
	destroys sync.Map
	patience time.Duration
}

var (
	_ storage.Driver   = (*Driver)(nil)
	_ storage.Preparer = (*Driver)(nil)
)

const (
	makeLock  = ".make"  // shared by who makes a tree, exclusive to who removes a partial one
	mountLock = ".mount" // held by who mounts
	viewDir   = ".view"  // where Diff mounts
)

// Open opens the storage in a root dataset that Init has made, with dir, which must be
// absolute, to mount trees in. It asks ZFS nothing.
func Open(dataset, dir string) (*Driver, error) {
	if err := checkDataset(dataset); err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open storage: %s is not absolute", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	// The mount table names directories without symbolic links.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	return &Driver{dataset: dataset, dir: dir, system: systemProperties, patience: patience}, nil
}

// Info is storage.Driver's.
func (d *Driver) Info() storage.Info {
	return storage.Info{Name: "zfs", SharedClones: true, Quota: true, EnforcesSeal: true, MountsTrees: true}
}

// fs is the dataset of a tree.
func (d *Driver) fs(name string) string { return d.dataset + "/" + name }

// target is the directory of a tree when it is mounted.
func (d *Driver) target(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

// view is the directory on which Diff mounts a tree.
func (d *Driver) view(name string) string {
	return filepath.Join(d.dir, viewDir, filepath.FromSlash(name))
}

// lock takes one of the two locks, until unlock is called.
func (d *Driver) lock(ctx context.Context, file string, shared bool) (unlock func(), err error) {
	l := flock.New(filepath.Join(d.dir, file), flock.SetPermissions(0o600))
	try := l.TryLockContext
	if shared {
		try = l.TryRLockContext
	}
	if _, err := try(ctx, time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock storage: %w", err)
	}
	// Unlocking can fail only for a descriptor that is not open.
	return func() { _ = l.Close() }, nil
}

// Create is storage.Driver's.
func (d *Driver) Create(ctx context.Context, name string, opts storage.Options) error {
	args, err := options(name, opts)
	if err != nil {
		return fmt.Errorf("create tree: %w", err)
	}
	args = append([]string{"create"}, args...)
	err = d.add(ctx, name, append(args, d.fs(name)))
	if errors.Is(err, errAbsent) {
		// The pool is; or the tree was destroyed before zfs(8), having made it, looked.
		err = Check(ctx, d.dataset)
	}
	if err != nil {
		return fmt.Errorf("create tree %s: %w", name, err)
	}
	d.unsealed.Store(name, nil)
	return nil
}

// Clone is storage.Driver's.
func (d *Driver) Clone(ctx context.Context, origin, name string, opts storage.Options) error {
	if err := storage.CheckName(origin); err != nil {
		return fmt.Errorf("clone tree: %w", err)
	}
	args, err := options(name, opts)
	if err != nil {
		return fmt.Errorf("clone tree: %w", err)
	}
	args = append([]string{"clone"}, args...)
	err = d.add(ctx, name, append(args, d.fs(origin)+sealSuffix, d.fs(name)))
	if errors.Is(err, errAbsent) {
		// The origin is; or the clone was destroyed before zfs(8), having made it, looked.
		var o kept
		if o, err = d.whole(ctx, origin); err == nil && !o.Sealed {
			err = fmt.Errorf("%s: %w", origin, storage.ErrNotSealed)
		}
	}
	if err != nil {
		return fmt.Errorf("clone tree %s to %s: %w", origin, name, err)
	}
	d.unsealed.Store(name, nil)
	return nil
}

// options checks what is asked for a new tree, and gives the options of zfs(8) for it.
func options(name string, opts storage.Options) ([]string, error) {
	if err := storage.CheckName(name); err != nil {
		return nil, err
	}
	if err := storage.CheckMeta(opts.Meta); err != nil {
		return nil, err
	}
	// readonly and jetpack:created make it whole: the kernel sets all but the quota at
	// once, and the quota before (zfs_set_prop_nvlist in zfs_ioctl.c).
	args := []string{"-o", "readonly=off", "-o", createdProperty + "=" + time.Now().UTC().Format(time.RFC3339Nano)}
	if opts.Quota != 0 {
		args = append(args, "-o", "quota="+strconv.FormatInt(opts.Quota, 10))
	}
	if len(opts.Meta) > 0 {
		meta, err := json.Marshal(opts.Meta)
		if err != nil {
			return nil, err
		}
		if len(meta) > maxValue {
			return nil, fmt.Errorf("properties of %d bytes: ZFS takes %d", len(meta), maxValue)
		}
		args = append(args, "-o", metaProperty+"="+string(meta))
	}
	return args, nil
}

// add runs the command that makes a tree, making way for it as needed.
func (d *Driver) add(ctx context.Context, name string, args []string) error {
	return d.place(ctx, name, func() error {
		unlock, err := d.lock(ctx, makeLock, true)
		if err != nil {
			return err
		}
		defer unlock()
		return change(ctx, args...)
	})
}

// attempts bounds how often a name is tried which others keep taking.
const attempts = 10

// place runs put, which gives a tree its name, once the kind is there and debris of
// that name is not. Errors: ErrExists, ErrBusy, put's.
func (d *Driver) place(ctx context.Context, name string, put func() error) (err error) {
	for range attempts {
		err = put()
		switch {
		case errors.Is(err, errNoParent):
			err = d.makeKind(ctx, name)
		case errors.Is(err, errPresent):
			err = d.vacate(ctx, name)
		default:
			return err
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("gave up after %d attempts", attempts)
}

// makeKind makes the dataset of a tree's kind, with all that its trees inherit.
func (d *Driver) makeKind(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	properties := map[string]string{
		"mountpoint": "legacy", // nobody but Mount mounts trees
		"canmount":   "off",
		"readonly":   "on", // for trees that are not whole
		"setuid":     "on", "exec": "on", "devices": "off",
		"atime": "off", "snapdir": "hidden",
		// Names of files are bytes.
		"casesensitivity": "sensitive", "normalization": "none", "utf8only": "off",
	}
	maps.Copy(properties, d.system)
	kind, _, _ := strings.Cut(name, "/")
	_, err := gozfs.CreateFilesystem(d.fs(kind), properties)
	err = library(err)
	if errors.Is(err, errPresent) {
		return nil
	}
	if errors.Is(err, errNoParent) || errors.Is(err, errAbsent) {
		return d.lost(ctx, err)
	}
	return err
}

// vacate removes debris of that name. Errors: ErrExists for a tree, ErrBusy.
func (d *Driver) vacate(ctx context.Context, name string) error {
	unlock, err := d.lock(ctx, makeLock, false)
	if err != nil {
		return err
	}
	defer unlock()
	k, err := d.look(ctx, name)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if !k.Partial {
		return fmt.Errorf("%s: %w", name, storage.ErrExists)
	}
	err = d.remove(ctx, name, true)
	if errors.Is(err, errClones) {
		return d.pushAside(ctx, name)
	}
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return err
}

// pushAside renames debris that clones stand on, which cannot be destroyed before
// them. Errors: ErrBusy when one of these is mounted.
func (d *Driver) pushAside(ctx context.Context, name string) error {
	trees, err := d.list(ctx, "")
	if err != nil {
		return err
	}
	origins := make(map[string]string)
	for _, t := range trees {
		origins[t.Name] = t.Origin
	}
	for _, t := range trees {
		for origin := t.Origin; origin != "" && t.mounted; origin = origins[origin] {
			if origin == name {
				return fmt.Errorf("%s stands on it and is mounted: %w", t.Name, storage.ErrBusy)
			}
		}
	}
	kind, _, _ := strings.Cut(name, "/")
	return change(ctx, "rename", d.fs(name), d.fs(kind+"/damaged-"+randomID()))
}

// Seal is storage.Driver's.
func (d *Driver) Seal(ctx context.Context, name string) error {
	if err := d.seal(ctx, name); err != nil {
		return fmt.Errorf("seal tree %s: %w", name, err)
	}
	return nil
}

func (d *Driver) seal(ctx context.Context, name string) error {
	d.unsealed.Delete(name)
	k, err := d.whole(ctx, name)
	if err != nil {
		return err
	}
	ds := gozfs.Dataset{Name: d.fs(name)}
	if !k.Sealed {
		if k.mounted {
			return fmt.Errorf("mounted: %w", storage.ErrBusy)
		}
		// A snapshot is on stable storage when it is there.
		if _, err := ds.Snapshot(sealName, false); err != nil {
			return library(err)
		}
	}
	if k.readOnly {
		return nil
	}
	// For administrators; Mount goes by the snapshot.
	return library(ds.SetProperty("readonly", "on"))
}

// Rename is storage.Driver's.
func (d *Driver) Rename(ctx context.Context, from, to string) error {
	if err := d.rename(ctx, from, to); err != nil {
		return fmt.Errorf("rename tree %s to %s: %w", from, to, err)
	}
	return nil
}

func (d *Driver) rename(ctx context.Context, from, to string) error {
	if err := storage.CheckName(to); err != nil {
		return err
	}
	k, err := d.whole(ctx, from)
	if err != nil {
		return err
	}
	if k.mounted {
		return fmt.Errorf("mounted: %w", storage.ErrBusy)
	}
	if from == to { // to zfs(8) this is nothing to do
		return fmt.Errorf("%s: %w", to, storage.ErrExists)
	}
	if k.cloned {
		if _, err := d.deadClones(ctx, from); err != nil {
			return err
		}
	}
	err = d.place(ctx, to, func() error { return change(ctx, "rename", d.fs(from), d.fs(to)) })
	if errors.Is(err, errAbsent) {
		_, err = d.whole(ctx, from) // it went meanwhile
	}
	if err != nil {
		return err
	}
	d.forget(from)
	return nil
}

// deadClones lists the clones of a tree that are partial and not mounted, so that they
// can never be used again. Errors: ErrBusy when there are others.
func (d *Driver) deadClones(ctx context.Context, name string) ([]string, error) {
	trees, err := d.list(ctx, "")
	if err != nil {
		return nil, err
	}
	var dead []string
	for _, t := range trees {
		if t.Origin != name {
			continue
		}
		if !t.Partial || t.mounted {
			return nil, fmt.Errorf("%s is its clone: %w", t.Name, storage.ErrBusy)
		}
		dead = append(dead, t.Name)
	}
	return dead, nil
}

// forget removes the directories of a tree that is gone, as far as they are empty.
func (d *Driver) forget(name string) {
	d.unsealed.Delete(name)
	for _, dir := range []string{d.target(name), d.view(name)} {
		_ = os.Remove(dir) // it is no harm when it stays
	}
}

// Destroy is storage.Driver's.
func (d *Driver) Destroy(ctx context.Context, name string) error {
	if err := d.destroy(ctx, name); err != nil {
		return fmt.Errorf("destroy tree %s: %w", name, err)
	}
	return nil
}

func (d *Driver) destroy(ctx context.Context, name string) error {
	if err := storage.CheckName(name); err != nil {
		return err
	}
	debris := false
	err := d.remove(ctx, name, debris)
	if errors.Is(err, errPartial) {
		// It may be one that is just being made.
		unlock, lockErr := d.lock(ctx, makeLock, false)
		if lockErr != nil {
			return lockErr
		}
		defer unlock()
		debris = true
		err = d.remove(ctx, name, debris)
	}
	if errors.Is(err, errClones) {
		if err := d.cutOff(ctx, name); err != nil {
			return err
		}
		err = d.remove(ctx, name, debris)
	}
	return err
}

// cutOff gives what is left of clones that died their origin's place in the chain, so
// that the origin can be destroyed. Errors: ErrBusy when there are live ones.
func (d *Driver) cutOff(ctx context.Context, name string) error {
	dead, err := d.deadClones(ctx, name)
	if err != nil {
		return err
	}
	if len(dead) == 0 { // gone meanwhile
		return nil
	}
	if err := change(ctx, "promote", d.fs(dead[0])); err != nil {
		return err
	}
	// The snapshot is its own now; that must not be taken for a seal.
	err = change(ctx, "rename", d.fs(dead[0])+sealSuffix, d.fs(dead[0])+"@origin")
	if errors.Is(err, errAbsent) {
		return nil // it had another name: the origin was damaged, too
	}
	return err
}

// What remove is refused for, beside storage.ErrBusy and ErrNotFound.
var (
	errPartial = errors.New("not whole")
	errClones  = fmt.Errorf("it has clones: %w", storage.ErrBusy)
)

//go:embed destroy.lua
var destroyProgram string

// startDestroy starts the command that will destroy a tree once it gets its program:
// half of its time it takes to come to life.
func (d *Driver) startDestroy(name, what string) (*process, error) {
	pool, _, _ := strings.Cut(d.dataset, "/")
	return start("zfs", "program", "-j", pool, "-", d.fs(name), d.dataset, what)
}

// patience is how long a command waits for its Destroy: one for each pod that runs for
// days would be many.
const patience = 10 * time.Second

// PrepareDestroy is storage.Preparer's. A command that gets no program does nothing.
func (d *Driver) PrepareDestroy(name string) {
	if _, ok := d.destroys.Load(name); ok || storage.CheckName(name) != nil {
		return
	}
	p, err := d.startDestroy(name, "tree")
	if err != nil {
		return // Destroy will tell
	}
	d.destroys.Store(name, p)
	time.AfterFunc(d.patience, func() {
		if d.destroys.CompareAndDelete(name, p) {
			_, _ = p.finish(context.Background(), "")
		}
	})
}

// copiesLinger is how long a dataset is waited for that is mounted nowhere here: a process
// with a mount namespace of its own, as a pod that is starting has, got a copy of each mount,
// and needs a while to drop it when many of them start at once.
const copiesLinger = 20 * time.Second

// remove destroys a dataset; one that is not whole only as debris.
func (d *Driver) remove(ctx context.Context, name string, debris bool) error {
	return patiently(ctx, copiesLinger, func() error { return d.tryRemove(ctx, name, debris) })
}

// tryRemove is remove, with EBUSY for what may be otherwise in a moment.
func (d *Driver) tryRemove(ctx context.Context, name string, debris bool) error {
	// The kernel would say so, too, but this costs less. A view that a crash left goes.
	mounted, err := isMountpoint(d.target(name))
	if err != nil {
		return err
	}
	if mounted {
		return fmt.Errorf("mounted: %w", storage.ErrBusy)
	}
	_ = detach(d.view(name)) // most often it is none; one in use is told below
	what := "tree"
	if debris {
		what = "debris"
	}
	var p *process
	if prepared, ok := d.destroys.LoadAndDelete(name); ok && !debris {
		p = prepared.(*process)
	} else if p, err = d.startDestroy(name, what); err != nil {
		return err
	}
	out, err := p.finish(ctx, destroyProgram)
	if errors.Is(err, errAbsent) {
		return d.lost(ctx, err)
	}
	if err != nil {
		return err
	}
	var result struct {
		Return any `json:"return"`
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return fmt.Errorf("zfs program: %w", err)
	}
	switch result.Return {
	case "done":
		d.forget(name)
		return nil
	case "absent":
		return storage.ErrNotFound
	case "lost":
		return d.lost(ctx, errAbsent)
	case "partial":
		return errPartial
	case "cloned":
		if debris {
			return errClones
		}
		return fmt.Errorf("it has clones: %w", storage.ErrBusy)
	case "clones":
		return errClones
	case "children":
		return fmt.Errorf("there are datasets below it: %w", storage.ErrBusy)
	case "held":
		return fmt.Errorf("a snapshot of it is held: %w", storage.ErrBusy)
	case "busy":
		return unix.EBUSY
	}
	return fmt.Errorf("zfs program: error %v", result.Return)
}

// lost explains that a dataset is absent which has to be there: the root dataset or its
// pool. The error is none of package storage's.
func (d *Driver) lost(ctx context.Context, err error) error {
	if checkErr := Check(ctx, d.dataset); checkErr != nil {
		return checkErr
	}
	return fmt.Errorf("dataset %s was away for a moment: %v", d.dataset, err) //nolint:errorlint // not to be read as absent
}

// kept is what there is of a tree.
type kept struct {
	storage.Tree            // with Origin also when it is partial
	mounted, readOnly       bool
	cloned                  bool // it has clones
	used, logicalReferenced int64
}

func (k kept) tree() storage.Tree {
	if k.Partial {
		return storage.Tree{Name: k.Name, Partial: true}
	}
	k.Mounted = k.mounted
	return k.Tree
}

// look reads what there is of a tree, whole or not. Errors: ErrNotFound.
func (d *Driver) look(ctx context.Context, name string) (kept, error) {
	if err := storage.CheckName(name); err != nil {
		return kept{}, err
	}
	trees, err := d.read(ctx, d.fs(name), 1)
	if errors.Is(err, errAbsent) {
		if err := Check(ctx, d.dataset); err != nil {
			return kept{}, err
		}
		return kept{}, fmt.Errorf("%s: %w", name, storage.ErrNotFound)
	}
	if err != nil {
		return kept{}, err
	}
	for _, k := range trees {
		if k.Name == name {
			return k, nil
		}
	}
	return kept{}, fmt.Errorf("zfs get %s: no answer", d.fs(name))
}

// whole is look for trees that are whole. Errors: ErrNotFound for others.
func (d *Driver) whole(ctx context.Context, name string) (kept, error) {
	k, err := d.look(ctx, name)
	if err == nil && k.Partial {
		return k, fmt.Errorf("%s: %w: it has no property %s of its own", name, storage.ErrNotFound, createdProperty)
	}
	return k, err
}

// list reads all trees of a kind, "" for any, sorted by name.
func (d *Driver) list(ctx context.Context, kind string) ([]kept, error) {
	if kind == "" {
		trees, err := d.read(ctx, d.dataset, 3)
		if errors.Is(err, errAbsent) {
			return nil, d.lost(ctx, err)
		}
		return trees, err
	}
	if err := storage.CheckName(kind + "/x"); err != nil {
		return nil, err
	}
	trees, err := d.read(ctx, d.fs(kind), 2)
	if errors.Is(err, errAbsent) {
		return nil, Check(ctx, d.dataset) // nil when it is just that none of the kind was made
	}
	return trees, err
}

// readProperties are those that read asks for: all would take three times as long.
const readProperties = "origin,clones,used,logicalreferenced,readonly," + createdProperty + "," + metaProperty

// read reads the trees in a dataset down to a depth. A snapshot counts as being below
// its dataset.
func (d *Driver) read(ctx context.Context, dataset string, depth int) ([]kept, error) {
	// local are the properties that are not inherited, none those that are not settings.
	out, err := run(ctx, "zfs", "get", "-Hp", "-d", strconv.Itoa(depth), "-t", "filesystem,snapshot",
		"-s", "local,none", "-o", "name,property,value", readProperties, dataset)
	if err != nil {
		return nil, err
	}
	trees := d.parse(out)
	for i := range trees {
		if trees[i].mounted, err = isMountpoint(d.target(trees[i].Name)); err != nil {
			return nil, err
		}
	}
	return trees, nil
}

// parse reads what "zfs get" prints: a dataset, a property and its value a line. What
// is no tree, and whatever else an administrator may have put there, is passed over.
func (d *Driver) parse(out string) []kept {
	found := make(map[string]*kept)
	for line := range strings.Lines(out) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		path, ok := strings.CutPrefix(fields[0], d.dataset+"/")
		if !ok || len(fields) < 3 {
			continue
		}
		name, snapshot, _ := strings.Cut(path, "@")
		if storage.CheckName(name) != nil {
			continue
		}
		k := found[name]
		if k == nil {
			k = &kept{Tree: storage.Tree{Name: name, Partial: true}}
			found[name] = k
		}
		switch property, value := fields[1], fields[2]; snapshot {
		case "":
			k.set(property, value)
			if property == "origin" {
				k.Origin = d.origin(value)
			}
		case sealName:
			k.Sealed = true
			if property == "clones" {
				k.cloned = value != "" && value != "-"
			}
		}
	}
	var trees []kept
	for _, name := range slices.Sorted(maps.Keys(found)) {
		trees = append(trees, *found[name])
	}
	return trees
}

// origin is the tree that a snapshot belongs to; "-" is none.
func (d *Driver) origin(snapshot string) string {
	if snapshot == "-" {
		return ""
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(snapshot, d.dataset+"/"), "@")
	return name
}

func (k *kept) set(property, value string) {
	number := func() int64 {
		n, _ := strconv.ParseInt(value, 10, 64) // -p prints whole numbers
		return n
	}
	switch property {
	case createdProperty:
		if t, err := time.Parse(time.RFC3339Nano, value); err == nil {
			k.Created, k.Partial = t, false
		}
	case metaProperty:
		// Who asks for them finds that they are not as they were written.
		_ = json.Unmarshal([]byte(value), &k.Meta)
	case "readonly":
		k.readOnly = value == "on"
	case "used":
		k.used = number()
	case "logicalreferenced":
		k.logicalReferenced = number()
	}
}

// Stat is storage.Driver's.
func (d *Driver) Stat(ctx context.Context, name string) (storage.Tree, error) {
	k, err := d.whole(ctx, name)
	if err != nil {
		return storage.Tree{}, fmt.Errorf("stat tree: %w", err)
	}
	return k.tree(), nil
}

// List is storage.Driver's.
func (d *Driver) List(ctx context.Context, kind string) ([]storage.Tree, error) {
	found, err := d.list(ctx, kind)
	if err != nil {
		return nil, fmt.Errorf("list trees: %w", err)
	}
	var trees []storage.Tree
	for _, k := range found {
		trees = append(trees, k.tree())
	}
	return trees, nil
}

// Usage is storage.Driver's.
func (d *Driver) Usage(ctx context.Context, name string) (storage.Usage, error) {
	k, err := d.whole(ctx, name)
	if err == nil && k.mounted {
		// What was written in the last seconds is not in the numbers yet.
		pool, _, _ := strings.Cut(d.dataset, "/")
		if _, err = run(ctx, "zpool", "sync", pool); err == nil {
			k, err = d.whole(ctx, name)
		}
	}
	if err != nil {
		return storage.Usage{}, fmt.Errorf("measure tree: %w", err)
	}
	return storage.Usage{Own: k.used, Logical: k.logicalReferenced}, nil
}
