package main

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/jetpack-run/jetpack/runtime"
)

// endSignals are the signals that ask a command to end, less those that whoever
// started it wants ignored (nohup(1)).
func endSignals() []os.Signal {
	return slices.DeleteFunc([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, signal.Ignored)
}

// interrupts turns the signals that end a command into the end of its pod: the
// first asks, the second kills. What comes before there is a pod ends with the
// command's context.
type interrupts struct {
	signals chan os.Signal

	mu    sync.Mutex
	run   *runtime.Run
	grace time.Duration
	count int
}

func catchInterrupts(grace time.Duration) *interrupts {
	in := &interrupts{signals: make(chan os.Signal, 4), grace: grace}
	signal.Notify(in.signals, endSignals()...)
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
	return in
}

func (in *interrupts) act() {
	switch {
	case in.run == nil:
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
}
