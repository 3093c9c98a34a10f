package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// Socket activation: an app gets the sockets of its ports from descriptor 3 on, and is told
// so by LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID (sd_listen_fds(3)). The last one is the
// app's own number, which exists only once the process does: jetpack itself, mounted into
// the root, is what is executed there, and becomes the app.

// activator is where an app that is activated finds jetpack.
const activator = "/.jetpack-activate"

func init() { reexec.Register(activator, activatorMain) }

// activatorMain becomes the command that follows its name: a file, and its arguments.
func activatorMain() {
	err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	if err == nil {
		err = unix.Exec(os.Args[1], os.Args[2:], os.Environ())
	}
	fmt.Fprintf(os.Stderr, "jetpack: %s: %v\n", os.Args[1], err)
	os.Exit(126)
}

// activated tells whether an app has a socket-activated port.
func (a *app) activated() bool {
	for _, p := range a.own.Ports {
		if p.SocketActivated {
			return true
		}
	}
	return false
}

// sockets are those of an app's activated ports, in their order, with the ports' names.
type sockets struct {
	files []*os.File
	names []string
}

// listen opens the sockets of an app, before any app runs that may want to reach it.
func (a *appRun) listen(ctx context.Context) error {
	pod := a.run.pod
	for _, p := range a.own.Ports {
		if !p.SocketActivated {
			continue
		}
		for n := range max(p.Count, 1) {
			files, err := pod.rt.Engine.Listen(ctx, pod.UUID, p.Protocol, uint16(p.Port+n))
			if err != nil {
				return fmt.Errorf("port %s: %w", p.Name, err)
			}
			for _, f := range files {
				a.sockets.files = append(a.sockets.files, f)
				a.sockets.names = append(a.sockets.names, p.Name.String())
			}
		}
	}
	return nil
}

// activate has a process of an app get its sockets.
func (a *appRun) activate(p *sandbox.Process) error {
	if len(a.sockets.files) == 0 {
		return nil
	}
	command, err := sandbox.ResolveCommand(sandbox.App{Name: a.name, Root: a.root, Mounts: a.mounts}, *p)
	if err != nil {
		return err
	}
	p.Args = append([]string{activator, command}, p.Args...)
	p.Files = a.sockets.files
	p.Env = slices.DeleteFunc(p.Env, func(entry string) bool { return strings.HasPrefix(entry, "LISTEN_") })
	p.Env = append(p.Env, fmt.Sprintf("LISTEN_FDS=%d", len(p.Files)), "LISTEN_FDNAMES="+strings.Join(a.sockets.names, ":"))
	return nil
}

// close gives up what is left of the sockets; the app has its own copies.
func (s *sockets) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	s.files = nil
	return errors.Join(errs...)
}
