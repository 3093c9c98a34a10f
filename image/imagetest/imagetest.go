//go:build unix

// Package imagetest is storage that fails, or ends the process, when a test wants
// it to, so that what a failure leaves can be looked at.
//
// Not for: anything outside _test.go files.
package imagetest

import (
	"context"
	"errors"
	"fmt"
	"go/build"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/jetpack-run/jetpack/internal/storage"
)

// ErrFault is what an operation fails with that was made to fail.
var ErrFault = errors.New("injected fault")

// Mode is how operations fail.
type Mode string

// The modes. A test that goes through all of them, and in each fails operation 1,
// 2, 3… until nothing fails any more, has seen every failure there is.
const (
	Before  Mode = "before"  // one fails and has done nothing
	After   Mode = "after"   // one fails and is done all the same
	Onwards Mode = "onwards" // it and all that follow fail
	Full    Mode = "full"    // so do they, with ENOSPC
	NoRoom  Mode = "no-room" // so do they, but for what a full disk does not hinder
	Kill    Mode = "kill"    // the process is killed instead
)

// Faults counts operations and makes some of them fail. The zero value lets all
// pass. It is safe for concurrent use.
type Faults struct {
	mu     sync.Mutex
	mode   Mode
	left   int // operations up to the one that fails; 0 when disarmed
	failed string
	seen   map[string]bool
}

// Seen tells whether an operation of that name was ever asked for, failed or not.
func (f *Faults) Seen(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[name]
}

// Arm makes the k-th operation from now on fail, counted from 1.
func (f *Faults) Arm(mode Mode, k int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mode, f.left, f.failed = mode, k, ""
}

// Disarm lets all operations pass, and names the one that failed first, "" for none.
func (f *Faults) Disarm() (failed string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = 0
	return f.failed
}

// Op does an operation, or not.
func (f *Faults) Op(name string, do func() error) error {
	switch f.next(name) {
	case "":
		return do()
	case After:
		if err := do(); err != nil {
			f.Arm(After, 1) // this one failed by itself
			return err
		}
		return ErrFault
	case Kill:
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			return err
		}
		select {} // until the signal arrives
	case Full, NoRoom:
		return fmt.Errorf("%w: %w", ErrFault, syscall.ENOSPC)
	default:
		return ErrFault
	}
}

func (f *Faults) next(name string) Mode {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	f.seen[name] = true
	if f.left == 0 {
		return ""
	}
	if f.left > 1 {
		f.left--
		return ""
	}
	if f.mode == NoRoom && roomless.MatchString(name) {
		return ""
	}
	if f.failed == "" {
		f.failed = name
	}
	if f.mode == Before || f.mode == After {
		f.left = 0
	}
	return f.mode
}

// roomless finds the names of operations that look, lock, or give room back.
var roomless = regexp.MustCompile(`(?i)^(list|stat|lock|unshare|unmount|remove|destroy)\b`)

// steps finds the names of steps where packages do them.
var steps = regexp.MustCompile(`(?:failpoint\.Do\([^,"]+, |\b(?:write|mount|step)\()"([^"]+)"`)

// Steps lists the steps that the sources in a directory name, tests and what is for
// other platforms left out.
func Steps(dir string) (names []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		here, err := build.Default.MatchFile(dir, filepath.Base(file))
		if err != nil {
			return nil, err
		}
		if !here || strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, m := range steps.FindAllSubmatch(source, -1) {
			names = append(names, string(m[1]))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Driver is d with faults.
func Driver(d storage.Driver, f *Faults) storage.Driver { return &driver{d, f} }

type driver struct {
	storage.Driver
	faults *Faults
}

func (d *driver) Create(ctx context.Context, name string, opts storage.Options) error {
	return d.faults.Op("Create "+name, func() error { return d.Driver.Create(ctx, name, opts) })
}

func (d *driver) Clone(ctx context.Context, origin, name string, opts storage.Options) error {
	return d.faults.Op("Clone "+name, func() error { return d.Driver.Clone(ctx, origin, name, opts) })
}

func (d *driver) Seal(ctx context.Context, name string) error {
	return d.faults.Op("Seal "+name, func() error { return d.Driver.Seal(ctx, name) })
}

func (d *driver) Rename(ctx context.Context, from, to string) error {
	return d.faults.Op("Rename "+from, func() error { return d.Driver.Rename(ctx, from, to) })
}

func (d *driver) Destroy(ctx context.Context, name string) error {
	return d.faults.Op("Destroy "+name, func() error { return d.Driver.Destroy(ctx, name) })
}

func (d *driver) Unmount(ctx context.Context, name string) error {
	return d.faults.Op("Unmount "+name, func() error { return d.Driver.Unmount(ctx, name) })
}

func (d *driver) Stat(ctx context.Context, name string) (t storage.Tree, err error) {
	err = d.faults.Op("Stat "+name, func() error { t, err = d.Driver.Stat(ctx, name); return err })
	return t, err
}

func (d *driver) List(ctx context.Context, kind string) (ts []storage.Tree, err error) {
	err = d.faults.Op("List "+kind, func() error { ts, err = d.Driver.List(ctx, kind); return err })
	return ts, err
}

func (d *driver) Mount(ctx context.Context, name string) (dir string, err error) {
	err = d.faults.Op("Mount "+name, func() error { dir, err = d.Driver.Mount(ctx, name); return err })
	return dir, err
}
