package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/jetpack-run/jetpack/runtime"
)

// interrupts turns the signals that end a command into the end of the pod: the
// first asks, the second kills. Before there is a pod, the first cancels its making.
type interrupts struct {
	signals chan os.Signal
	cancel  context.CancelFunc

	mu    sync.Mutex
	run   *runtime.Run
	grace time.Duration
	count int
}

func catchInterrupts(ctx context.Context, grace time.Duration) (context.Context, *interrupts) {
	ctx, cancel := context.WithCancel(ctx)
	in := &interrupts{signals: make(chan os.Signal, 4), cancel: cancel, grace: grace}
	signal.Notify(in.signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	// A reader of our output that has gone must not take the pod's supervisor with
	// it. Caught, not ignored: apps would inherit that (execve(2)).
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		for range in.signals {
			in.mu.Lock()
			in.count++
			in.act()
			in.mu.Unlock()
		}
	}()
	return ctx, in
}

func (in *interrupts) act() {
	switch {
	case in.run == nil:
		in.cancel()
	case in.count == 1:
		in.run.Stop(in.grace)
	default:
		in.run.Kill()
	}
}

// mind names the pod that signals are for from now on.
func (in *interrupts) mind(run *runtime.Run) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.run = run
	if in.count > 0 {
		in.act()
	}
}

func (in *interrupts) release() {
	signal.Stop(in.signals)
	close(in.signals)
	in.cancel()
}
