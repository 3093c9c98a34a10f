package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/internal/config"
	"github.com/jetpack-run/jetpack/internal/descriptors"
	"github.com/jetpack-run/jetpack/internal/self"
	"github.com/jetpack-run/jetpack/mds"
	"github.com/jetpack-run/jetpack/runtime"
)

// metadata is the service of a root, as pods know it.
type metadata struct {
	c *cli
}

// Register is runtime.Metadata's.
func (m metadata) Register(ctx context.Context, p runtime.Described) (url string, forget func(), err error) {
	pod := mds.Pod{Token: mds.NewToken(), Addresses: p.Addresses, UUID: p.UUID, Manifest: p.Manifest, Images: map[string]json.RawMessage{}}
	for name, image := range p.Images {
		pod.Images[name] = image
	}
	dial := func(ctx context.Context) (net.Conn, error) { return dialMDS(ctx, m.c.cfg.Root, mdsRegister) }
	r, err := mds.Register(ctx, dial, pod)
	if mdsAbsent(err) {
		if m.c.cfg.MDSAutostart == "off" {
			return "", nil, nil
		}
		r, err = m.c.startMDS(ctx, func() (*mds.Registration, error) { return mds.Register(ctx, dial, pod) })
	}
	if err != nil {
		return "", nil, err
	}
	return r.URL, r.Close, nil
}

const (
	mdsName = "jetpack-mds"
	// mdsIdle is how long one that a pod has started waits for another.
	mdsIdle = time.Minute
	// mdsStart is how long it may take to start.
	mdsStart = 30 * time.Second
)

func init() { reexec.Register(mdsName, mdsMain) }

// startMDS starts a metadata service that outlives this process, and registers with it,
// or with one that another process was starting meanwhile.
func (c *cli) startMDS(ctx context.Context, register func() (*mds.Registration, error)) (*mds.Registration, error) {
	ctx, cancel := context.WithTimeout(ctx, mdsStart)
	defer cancel()
	answer, err := c.spawnMDS(ctx)
	switch {
	case err != nil:
	case answer == "":
		c.notice("started the metadata service, which ends a minute after its last pod")
	case answer != errMDSRuns.Error():
		err = errors.New(answer)
	}
	if err != nil {
		return nil, fmt.Errorf("start it: %w; --no-mds does without", err)
	}
	for {
		r, err := register()
		if !mdsAbsent(err) {
			return r, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// spawnMDS starts it in a session of its own, and gives what it answers: nothing when it
// is ready, or why it has ended.
func (c *cli) spawnMDS(ctx context.Context) (_ string, err error) {
	cfg, err := json.Marshal(c.cfg)
	if err != nil {
		return "", err
	}
	program, err := self.Path(mdsName)
	if err != nil {
		return "", err
	}
	order, theirOrder, err := os.Pipe()
	if err != nil {
		return "", err
	}
	answer, theirAnswer, err := os.Pipe()
	if err != nil {
		return "", errors.Join(err, order.Close(), theirOrder.Close())
	}
	defer func() { err = errors.Join(err, answer.Close()) }()
	cmd := exec.Command(program) //nolint:noctx // it is to live longer
	cmd.Args = []string{mdsName}
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.Stdin = order
	cmd.ExtraFiles = []*os.File{theirAnswer}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	err = errors.Join(err, order.Close(), theirAnswer.Close())
	if err != nil {
		return "", errors.Join(err, theirOrder.Close())
	}
	go func() { _ = cmd.Wait() }() // it may end before this process does
	_, err = theirOrder.Write(cfg)
	if err := errors.Join(err, theirOrder.Close()); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = answer.SetReadDeadline(time.Now()) })
	defer stop()
	said, err := io.ReadAll(answer)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return string(said), err
}

// mdsMain is the service that a pod has started.
func mdsMain() {
	answer := os.NewFile(3, "answer")
	if err := startedMDS(func() { _ = answer.Close() }); err != nil {
		_, _ = io.WriteString(answer, oneLine(err)) // fails when it was ready
		os.Exit(1)
	}
}

func startedMDS(ready func()) error {
	fds, err := descriptors.Inherited(4)
	for _, fd := range fds {
		err = errors.Join(err, syscall.Close(fd))
	}
	if err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	var cfg config.Config
	if err := json.NewDecoder(os.Stdin).Decode(&cfg); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	defer stop()
	c := &cli{stdout: os.Stdout, stderr: os.Stderr, cfg: &cfg}
	return c.serveMDS(ctx, mdsServing{anyPort: true, idle: mdsIdle, ready: ready})
}
