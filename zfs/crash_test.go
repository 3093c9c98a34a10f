package zfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/internal/storage"
)

var backgroundContext = context.Background()

// churnPlace is the environment variable that makes the test binary a process that
// changes the storage in that dataset and directory until it is killed.
const churnPlace = "JETPACK_TEST_CHURN"

func churn(place string) {
	dataset, dir, _ := strings.Cut(place, " ")
	for i := 0; ; i++ {
		if err := churnOnce(dataset, dir, fmt.Sprintf("pods/p%d", i%3)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func churnOnce(dataset, dir, name string) error {
	ctx := context.Background()
	d, err := Open(dataset, dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Unmount(ctx, name), d.Destroy(ctx, name)); err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if err := d.Clone(ctx, "images/a", name, storage.Options{}); err != nil {
		return err
	}
	root, err := d.Mount(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(
		os.Remove(filepath.Join(root, "file")),
		os.WriteFile(filepath.Join(root, "new"), []byte("x"), 0o600),
		d.Unmount(ctx, name),
		d.Rename(ctx, name, name+".renamed"),
		d.Destroy(ctx, name+".renamed"))
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A process that is killed at any moment leaves trees that are whole, or listed as
// partial, and that can be destroyed or replaced; and no lock.
func TestKilled(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	do(t, d.Create(ctx, "images/a", storage.Options{}))
	root, err := d.Mount(ctx, "images/a")
	do(t, err)
	do(t, os.WriteFile(filepath.Join(root, "file"), []byte("x"), 0o600))
	do(t, d.Unmount(ctx, "images/a"))
	do(t, d.Seal(ctx, "images/a"))
	partial, whole := 0, 0
	for range 20 {
		killed(t, d)
		trees, err := d.List(ctx, "pods")
		do(t, err)
		for _, tree := range trees {
			if tree.Partial {
				partial++
			} else {
				whole++
				_, err := d.Mount(ctx, tree.Name)
				do(t, err)
			}
			do(t, d.Unmount(ctx, tree.Name))
			if tree.Partial && rand.N(2) == 0 {
				do(t, d.Clone(ctx, "images/a", tree.Name, storage.Options{}))
			}
			do(t, d.Destroy(ctx, tree.Name))
		}
	}
	t.Logf("%d partial and %d whole trees in 20 kills", partial, whole)
	root, err = d.Mount(ctx, "images/a")
	do(t, err)
	if data, err := os.ReadFile(filepath.Join(root, "file")); err != nil || string(data) != "x" {
		t.Errorf("file is %q, %v", data, err)
	}
	do(t, d.Unmount(ctx, "images/a"))
	do(t, d.Destroy(ctx, "images/a"))
}

// killed runs churn for a while. It returns when the zfs(8) that churn ran last has
// ended, too.
func killed(t *testing.T, d *place) {
	t.Helper()
	self, err := os.Executable()
	do(t, err)
	ended, inherited, err := os.Pipe()
	do(t, err)
	defer ended.Close()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), churnPlace+"="+d.dataset+" "+d.dir)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{inherited} // by what it runs as well
	err = cmd.Start()
	inherited.Close()
	do(t, err)
	time.Sleep(100*time.Millisecond + rand.N(3*time.Second))
	do(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("ended by itself: %v", err)
	}
	_, err = io.Copy(io.Discard, ended)
	do(t, err)
}
