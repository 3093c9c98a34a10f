package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jetpack-run/jetpack/discovery"
	"github.com/jetpack-run/jetpack/discovery/repository"
	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/trust"
	"github.com/jetpack-run/jetpack/internal/httpclient"
	"github.com/jetpack-run/jetpack/runtime"
)

func TestExitCode(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"nothing", nil, 0},
		{"anything", errors.New("x"), 1},
		{"usage", usagef("x"), 2},
		{"no image", image.ErrNotFound, 3},
		{"no pod", runtime.ErrNotFound, 3},
		{"nothing discovered", discovery.ErrNotFound, 3},
		{"no repository", repository.ErrNone, 3},
		{"not published", repository.ErrNotFound, 3},
		{"no such key to remove", errNoSuchKey, 3},
		{"unsigned", image.ErrUntrusted, 4},
		{"no key", trust.ErrNoKey, 4},
		{"tampered", trust.ErrBadSignature, 4},
		{"refused by the user", errNotTrusted, 4},
		{"no key, and none to be discovered", errors.Join(trust.ErrNoKey, discovery.ErrNotFound), 4},
		{"in use", image.ErrInUse, 5},
		{"the server's failure", &httpclient.StatusError{Status: 500}, 1},
		{"no TLS", httpclient.ErrTLS, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.err
			if err != nil {
				err = fmt.Errorf("fetch x: %w", err)
			}
			if got := exitCode(err, false); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
			if got := exitCode(err, true); err != nil && got != exitJetpack {
				t.Errorf("of a command that runs apps: exit code %d, want %d", got, exitJetpack)
			}
		})
	}
}
