package zfs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/jetpack-run/jetpack/internal/lazyregexp"

	gozfs "github.com/mistifyio/go-zfs/v3"
)

// rootProperty has the ID of the root directory whose trees are in the dataset.
const rootProperty = "jetpack:root"

// maxRoot leaves room for a kind of 7 letters, an ID of 200 and the seal in the 255
// bytes of a name (zfs(8)).
const maxRoot = 255 - len("/volumes/") - 200 - len(sealSuffix)

var datasetPattern = lazyregexp.New(`^[a-zA-Z][a-zA-Z0-9_.:-]*(/[a-zA-Z0-9][a-zA-Z0-9_.:-]*)*$`)

// checkDataset accepts names of root datasets: those of ZFS without blanks, whose
// components do not begin with what could be taken for an option.
func checkDataset(name string) error {
	if !datasetPattern().MatchString(name) {
		return fmt.Errorf("%q is no name of a ZFS dataset", name)
	}
	if len(name) > maxRoot {
		return fmt.Errorf("dataset %s: its name has %d characters, and must not have more than %d", name, len(name), maxRoot)
	}
	return nil
}

// Init makes the root dataset for the root with that ID and directory, or adopts one
// that is there: its properties are kept, but it must not hold anything else. It tells
// what it did, or "" when it was that root's already.
func Init(ctx context.Context, dataset, id, dir string) (did string, err error) {
	if err := checkDataset(dataset); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	ds, err := gozfs.GetDataset(dataset)
	if err := library(err); errors.Is(err, errAbsent) {
		return create(ctx, dataset, id)
	} else if err != nil {
		return "", err
	}
	owner, err := ds.GetProperty(rootProperty)
	if err != nil {
		return "", library(err)
	}
	if owner == id {
		return "", nil
	}
	if err := adoptable(ds, owner, dir); err != nil {
		return "", err
	}
	if err := ds.SetProperty(rootProperty, id); err != nil {
		return "", library(err)
	}
	return "took over dataset " + dataset, nil
}

func create(ctx context.Context, dataset, id string) (did string, err error) {
	// Only what is below it is mounted.
	_, err = gozfs.CreateFilesystem(dataset, map[string]string{"mountpoint": "none", "canmount": "off", rootProperty: id})
	err = library(err)
	if errors.Is(err, errAbsent) { // no such pool
		return "", Check(ctx, dataset)
	}
	if errors.Is(err, errNoParent) {
		return "", fmt.Errorf("dataset %s: there is no dataset above it: run 'zfs create -p %s'", dataset, dataset)
	}
	if err != nil {
		return "", err
	}
	return "created dataset " + dataset, nil
}

// adoptable refuses a dataset that holds something else. What another root left there
// may be taken over once it is empty.
func adoptable(ds *gozfs.Dataset, owner, dir string) error {
	if ds.Type != gozfs.DatasetFilesystem {
		return fmt.Errorf("dataset %s is a %s; name a file system", ds.Name, ds.Type)
	}
	children, err := ds.Children(1)
	if err != nil {
		return library(err)
	}
	if len(children) > 0 {
		if owner != "-" {
			return fmt.Errorf("dataset %s belongs to another root, with ID %s: name another dataset, or run 'zfs destroy -r %s' if that root is gone", ds.Name, owner, ds.Name)
		}
		return fmt.Errorf("dataset %s is not empty (%s); name one for jetpack alone", ds.Name, children[0].Name)
	}
	mounted, err := ds.GetProperty("mounted")
	if err != nil {
		return library(err)
	}
	// The directory of the root itself may be in it.
	if mounted != "yes" || ds.Mountpoint == dir {
		return nil
	}
	entries, err := os.ReadDir(ds.Mountpoint)
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(dir+"/", ds.Mountpoint+"/"+e.Name()+"/") })
	if len(entries) > 0 {
		return fmt.Errorf("dataset %s is not empty (%s/%s); name one for jetpack alone", ds.Name, ds.Mountpoint, entries[0].Name())
	}
	return nil
}

// Available tells whether a root dataset could be made or is there: whether the pool is.
func Available(dataset string) bool {
	pool, _, _ := strings.Cut(dataset, "/")
	_, err := gozfs.GetZpool(pool)
	return err == nil
}

// Pools are those that are there, with the mend in the error where there can be none.
func Pools(ctx context.Context) ([]string, error) {
	out, err := run(ctx, "zpool", "list", "-H", "-o", "name")
	return strings.Fields(out), err
}

// Check tells what keeps the trees of a root dataset from being reached, and what to do
// about it. The error is none of package storage's.
func Check(ctx context.Context, dataset string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	pool, _, _ := strings.Cut(dataset, "/")
	_, err := gozfs.GetDataset(dataset)
	err = library(err)
	if !errors.Is(err, errAbsent) {
		return err
	}
	if _, err := gozfs.GetZpool(pool); err != nil {
		return fmt.Errorf("pool %s is not there: run 'zpool import %s'", pool, pool)
	}
	return fmt.Errorf("dataset %s is not there: restore it, or run 'jetpack init' to begin with an empty one", dataset)
}

func randomID() string { return strings.ToLower(rand.Text()) }
