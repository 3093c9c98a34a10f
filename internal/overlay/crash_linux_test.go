package overlay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/internal/overlay"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// churnDir is the environment variable that makes the test binary a process
// that changes the storage in that directory until it is killed.
const churnDir = "JETPACK_TEST_CHURN"

func churn(dir string) {
	for i := 0; ; i++ {
		if err := churnOnce(dir, fmt.Sprintf("pods/p%d", i%3)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

func churnOnce(dir, name string) error {
	ctx := context.Background()
	d, err := overlay.Open(dir)
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

// A process that is killed at any moment leaves trees that are whole, or listed
// as partial, and that can be destroyed or replaced; and no lock.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "place")
	d := open(t, dir)
	ctx := t.Context()
	image(t, d, "images/a")
	partial := 0
	for range 40 {
		killed(t, dir)
		trees, err := d.List(ctx, "pods")
		do(t, err)
		for _, tree := range trees {
			if tree.Partial {
				partial++
			} else {
				_, err := d.Mount(ctx, tree.Name)
				do(t, err)
			}
			do(t, d.Unmount(ctx, tree.Name))
			if tree.Partial && rand.N(2) == 0 {
				do(t, d.Clone(ctx, "images/a", tree.Name, storage.Options{}))
			}
			do(t, d.Destroy(ctx, tree.Name))
		}
		if left, err := os.ReadDir(filepath.Join(dir, "pods")); err != nil || len(left) > 0 {
			t.Fatalf("left behind: %v, %v", left, err)
		}
	}
	t.Logf("%d partial trees in 40 kills", partial)
	root, err := d.Mount(ctx, "images/a")
	do(t, err)
	if data, err := os.ReadFile(filepath.Join(root, "file")); err != nil || string(data) != "x" {
		t.Errorf("file is %q, %v", data, err)
	}
	do(t, d.Unmount(ctx, "images/a"))
	do(t, d.Destroy(ctx, "images/a"))
}

// killed runs churn for a while: three rounds, as long as this machine takes for them,
// and a bit.
func killed(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), churnDir+"="+dir)
	cmd.Stderr = os.Stderr
	rounds, err := cmd.StdoutPipe()
	do(t, err)
	start := time.Now()
	do(t, cmd.Start())
	_, err = io.ReadFull(rounds, make([]byte, len("0\n1\n2\n")))
	do(t, err)
	time.Sleep(rand.N(time.Since(start)))
	do(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("ended by itself: %v", err)
	}
}
