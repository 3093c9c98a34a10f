//go:build unix

package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofrs/flock"
)

// lockFile is taken by whoever gives out addresses on this host.
const lockFile = "/var/run/jetpack-addresses.lock"

// lockPatience is for one that was stopped while it had the lock: many at once may have to wait
// for long, and none has it for long.
const lockPatience = 2 * time.Minute

func lock(ctx context.Context) (unlock func() error, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience,
		fmt.Errorf("another jetpack has it, for %v: look for one that is stopped", lockPatience))
	defer cancel()
	l := flock.New(lockFile, flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, 5*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", lockFile, err), l.Close())
	}
	return l.Close, nil
}
