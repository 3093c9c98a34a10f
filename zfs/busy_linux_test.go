package zfs

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/storage"
)

// A process in a mount namespace of its own keeps its copy of a mount that is gone here: a
// tree is destroyed when it has ended, and is what it was until then.
func TestDestroyWaits(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	// What is sealed is mounted by its snapshot.
	for _, seal := range []string{"never", "before it is mounted", "after it is mounted"} {
		do(t, d.Create(ctx, "images/a", storage.Options{}))
		if seal == "before it is mounted" {
			do(t, d.Seal(ctx, "images/a"))
		}
		_, err := d.Mount(ctx, "images/a")
		do(t, err)
		cat := exec.CommandContext(ctx, "cat")
		cat.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		stdin, err := cat.StdinPipe()
		do(t, err)
		do(t, cat.Start())
		do(t, d.Unmount(ctx, "images/a"))
		if seal == "after it is mounted" {
			do(t, d.Seal(ctx, "images/a"))
		}

		if err := d.tryRemove(ctx, "images/a", false); !errors.Is(err, unix.EBUSY) {
			t.Errorf("sealed %s: destroyed while it is mounted elsewhere: %v", seal, err)
		}
		if tree, err := d.Stat(ctx, "images/a"); err != nil || tree.Sealed != (seal != "never") {
			t.Errorf("sealed %s: it is %+v then, %v", seal, tree, err)
		}
		time.AfterFunc(time.Second, func() { _ = stdin.Close() })
		do(t, d.Destroy(ctx, "images/a"))
		do(t, cat.Wait())
	}
	// A hold is a wish, which does not end by itself.
	do(t, d.Create(ctx, "images/a", storage.Options{}))
	do(t, d.Seal(ctx, "images/a"))
	zfs(t, "hold", "test", d.fs("images/a")+sealSuffix)
	began := time.Now()
	if err := d.Destroy(ctx, "images/a"); !errors.Is(err, storage.ErrBusy) || time.Since(began) > copiesLinger {
		t.Errorf("held: %v, after %v", err, time.Since(began))
	}
	zfs(t, "release", "test", d.fs("images/a")+sealSuffix)
	do(t, d.Destroy(ctx, "images/a"))
}
