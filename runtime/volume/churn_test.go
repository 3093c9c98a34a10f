package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/testenv"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

// churnMode is what an unmounted directory never has.
const churnMode = 0o2751

// churn uses, makes and removes the volume "data" once.
func churn(ctx context.Context, s *volume.Store) error {
	switch rand.N(8) {
	case 0:
		if err := s.Remove(ctx, "data"); err != nil && !errors.Is(err, volume.ErrInUse) && !errors.Is(err, volume.ErrNotFound) {
			return err
		}
		return nil
	case 1, 2:
		if _, err := s.Create(ctx, "data", volume.Options{Mode: churnMode}); err != nil && !errors.Is(err, volume.ErrExists) {
			return err
		}
		return nil
	}
	l, err := s.Acquire(ctx, "data")
	if errors.Is(err, volume.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	err = useLeased(l.Dir)
	return errors.Join(err, l.Release(ctx))
}

// useLeased checks that dir is the volume, now and a moment later.
func useLeased(dir string) error {
	file := filepath.Join(dir, fmt.Sprint(rand.Int64()))
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	time.Sleep(rand.N(2 * time.Millisecond))
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	if st.Mode&^unix.S_IFMT != churnMode {
		return fmt.Errorf("leased, and not mounted: %o", st.Mode)
	}
	return os.Remove(file)
}

// TestConcurrent: whoever has a lease has the volume under it, whatever others do.
func TestConcurrent(t *testing.T) {
	eachDriver(t, func(t *testing.T, s *volume.Store) {
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for range 10 {
					if err := churn(t.Context(), s); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if left := found(t, s); left != nil {
			t.Errorf("left: %q", left)
		}
		clean(t, s)
	})
}

// churned is a process that churns until it is killed: volume-churn ROOT DRIVER.
func churned() {
	s := reopen(os.Args[1], os.Args[2])
	for {
		exitOn(churn(context.Background(), s))
	}
}

// TestKilledUsers: processes that use a volume are killed; those that are left are
// not disturbed, and nothing of the dead is left.
func TestKilledUsers(t *testing.T) {
	testenv.Root(t)
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			root := t.TempDir()
			s := newStore(t, root, drivers[driver](t, root))
			for range 10 {
				killUsers(t, root, driver, s)
			}
		})
	}
}

func killUsers(t *testing.T, root, driver string, s *volume.Store) {
	var kills []func()
	for range 4 {
		cmd := reexec.Command("volume-churn", root, driver)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kills = append(kills, func() {
			_ = cmd.Process.Kill() // it may have ended by itself, which Wait tells
			if err := cmd.Wait(); cmd.ProcessState.Exited() {
				t.Errorf("%v: %s", err, stderr.Bytes())
			}
		})
	}
	time.Sleep(30*time.Millisecond + rand.N(40*time.Millisecond))
	for _, kill := range kills {
		kill()
		if err := churn(t.Context(), s); err != nil {
			t.Error(err)
		}
	}
	clean(t, s)
}
