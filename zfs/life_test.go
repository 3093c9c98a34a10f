package zfs

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/internal/storage"
)

func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: error is %v, want %v", what, got, want)
	}
}

// life is a life of trees without mounts: those are no commands, and so not in a
// transcript. The commands of each step are what a transcript is compared with, so a
// further one is seen.
func life(t *testing.T, dataset string, system map[string]string) {
	ctx := t.Context()
	did, err := Init(ctx, dataset, "12345678", "/root")
	do(t, err)
	if did != "created dataset "+dataset {
		t.Errorf("Init: %q", did)
	}
	did, err = Init(ctx, dataset, "12345678", "/root")
	if err != nil || did != "" {
		t.Errorf("Init again: %q, %v", did, err)
	}
	did, err = Init(ctx, dataset, "87654321", "/root")
	if err != nil || did != "took over dataset "+dataset {
		t.Errorf("Init of an empty one: %q, %v", did, err)
	}
	d, err := Open(dataset, t.TempDir())
	do(t, err)
	d.system = system

	do(t, d.Create(ctx, "images/a", storage.Options{Quota: 64 << 20}))
	wantError(t, "Create again", d.Create(ctx, "images/a", storage.Options{}), storage.ErrExists)
	wantError(t, "Clone of an unsealed tree", d.Clone(ctx, "images/a", "pods/a", storage.Options{}), storage.ErrNotSealed)
	do(t, d.Seal(ctx, "images/a"))
	do(t, d.Seal(ctx, "images/a"))
	meta := map[string]string{"app": "web", "image.name": `example.com/a b, "c"=d:e`}
	do(t, d.Clone(ctx, "images/a", "pods/a", storage.Options{Quota: 1 << 20, Meta: meta}))
	wantError(t, "Clone again", d.Clone(ctx, "images/a", "pods/a", storage.Options{}), storage.ErrExists)
	wantError(t, "Clone of nothing", d.Clone(ctx, "images/b", "pods/b", storage.Options{}), storage.ErrNotFound)
	tree, err := d.Stat(ctx, "pods/a")
	do(t, err)
	if tree.Origin != "images/a" || tree.Sealed || tree.Mounted || tree.Partial || tree.Created.IsZero() || !maps.Equal(tree.Meta, meta) {
		t.Errorf("Stat is %+v", tree)
	}
	wantError(t, "Rename of an origin", d.Rename(ctx, "images/a", "images/b"), storage.ErrBusy)
	wantError(t, "Destroy of an origin", d.Destroy(ctx, "images/a"), storage.ErrBusy)
	do(t, d.Rename(ctx, "pods/a", "other/b"))
	usage, err := d.Usage(ctx, "other/b")
	do(t, err)
	if usage.Own < 0 || usage.Own > 1<<20 || usage.Logical <= 0 || usage.Logical > 1<<20 {
		t.Errorf("Usage is %+v", usage)
	}

	do(t, change(ctx, "create", d.fs("images/debris")))
	wantTrees(t, d, "images/a sealed", "images/debris partial", "other/b")
	wantError(t, "Seal of debris", d.Seal(ctx, "images/debris"), storage.ErrNotFound)
	do(t, d.Rename(ctx, "other/b", "images/debris"))
	wantError(t, "Init for another root", initError(ctx, dataset), nil)
	do(t, change(ctx, "create", d.fs("images/debris/below")))
	wantError(t, "Destroy with a dataset below", d.Destroy(ctx, "images/debris"), storage.ErrBusy)
	do(t, change(ctx, "destroy", d.fs("images/debris/below")))
	do(t, d.Destroy(ctx, "images/debris"))
	wantError(t, "Destroy again", d.Destroy(ctx, "images/debris"), storage.ErrNotFound)
	do(t, change(ctx, "create", d.fs("images/debris")))
	do(t, d.Destroy(ctx, "images/debris"))
	do(t, d.Destroy(ctx, "images/a"))
	wantTrees(t, d)
	lost(t, dataset+"/lost", "dataset "+dataset+"/lost is not there")
	lost(t, "jetpacknopool/lost", "run 'zpool import jetpacknopool'")
}

// initError is nil when Init refuses the dataset to another root as it should.
func initError(ctx context.Context, dataset string) error {
	_, err := Init(ctx, dataset, "12345678", "/root")
	if err == nil || !strings.Contains(err.Error(), "belongs to another root, with ID 87654321") {
		return errors.Join(errors.New("not refused"), err)
	}
	return nil
}

func wantTrees(t *testing.T, d *Driver, want ...string) {
	t.Helper()
	trees, err := d.List(t.Context(), "")
	do(t, err)
	var got []string
	for _, tree := range trees {
		line := tree.Name
		if tree.Sealed {
			line += " sealed"
		}
		if tree.Partial {
			line += " partial"
		}
		got = append(got, line)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("trees are %q, want %q", got, want)
	}
}

// lost wants all calls to fail for a dataset that is not there, and none to say that
// it is a tree that is not.
func lost(t *testing.T, dataset, want string) {
	t.Helper()
	ctx := t.Context()
	d, err := Open(dataset, t.TempDir())
	do(t, err)
	d.system = nil
	_, list := d.List(ctx, "images")
	_, stat := d.Stat(ctx, "images/a")
	for what, err := range map[string]error{"List": list, "Stat": stat, "Destroy": d.Destroy(ctx, "images/a")} {
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: error is %v, want %q", what, err, want)
		}
	}
}
