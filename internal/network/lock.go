//go:build unix

package network

import (
	"context"
	"fmt"
	"time"

	"github.com/gofrs/flock"
)

// lockFile is taken by whoever gives out addresses on this host.
const lockFile = "/var/run/jetpack-addresses.lock"

func lock(ctx context.Context) (unlock func() error, err error) {
	l := flock.New(lockFile, flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lockFile, err)
	}
	return l.Close, nil
}
