package main

import (
	"bufio"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// host is a machine with a directory for the tests.
type host struct {
	remote   remote
	uname    string // system, release and machine
	os, arch string // as Go names them

	keeper *exec.Cmd
	held   io.Closer      // the keeper's standard input
	said   *bufio.Scanner // what it prints
}

//go:embed keep.sh
var keepScript string

// goNames are uname's names of systems and machines as Go names them.
var goNames = map[string]string{
	"Linux": "linux", "FreeBSD": "freebsd",
	"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64",
}

// connect opens one connection, which everything else goes through, and has a
// directory made there, and a pool and an interface where there can be.
func connect(ctx context.Context, o options, socket string) (_ *host, err error) {
	h := &host{remote: remote{SSH: []string{
		"ssh", "-T", "-o", "LogLevel=ERROR", "-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", "ControlPath=" + socket,
		"-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=20",
		// What listens there is a virtual machine, each time another.
		"-o", "NoHostAuthenticationForLocalhost=yes",
	}}}
	if o.key != "" {
		h.remote.SSH = append(h.remote.SSH, "-i", o.key)
	}
	h.remote.SSH = append(h.remote.SSH, o.destination)
	uname := h.remote.command(ctx, "uname -srm")
	uname.Stderr = os.Stderr
	out, err := uname.Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its system: %w", o.destination, err)
	}
	h.uname = strings.TrimSpace(string(out))
	words := strings.Fields(h.uname)
	if len(words) == 3 {
		h.os, h.arch = goNames[words[0]], goNames[words[2]]
	}
	if h.os == "" || h.arch == "" {
		return nil, fmt.Errorf("%s is %q, which is not tested", o.destination, h.uname)
	}

	id := strings.ToLower(rand.Text()[:8])
	// The id is in its command line, by which another run knows that this one lives.
	h.keeper = h.remote.command(context.WithoutCancel(ctx), "exec /bin/sh -s "+id+" "+o.disk)
	h.keeper.Stderr = os.Stderr
	// Not in the terminal's process group: an interrupt is for us, who end it.
	h.keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := h.keeper.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := h.keeper.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.keeper.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", h.keeper, err)
	}
	h.held, h.said = stdin, bufio.NewScanner(stdout)
	if _, err := io.WriteString(stdin, keepScript); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", o.destination, err), h.close())
	}
	for h.said.Scan() {
		key, value, _ := strings.Cut(h.said.Text(), " ")
		switch key {
		case "env":
			h.remote.Env = append(h.remote.Env, value)
		case "ready":
			h.remote.Dir = value
			return h, nil
		default:
			fmt.Fprintln(os.Stderr, "remote:", h.said.Text())
		}
	}
	return nil, errors.Join(fmt.Errorf("prepare %s: it has said why", o.destination), h.close())
}

// close has everything taken away there, and ends the connection.
func (h *host) close() error {
	stuck := time.AfterFunc(2*time.Minute, func() { _ = h.keeper.Process.Kill() })
	defer stuck.Stop()
	_ = h.held.Close()
	for h.said.Scan() {
		fmt.Fprintln(os.Stderr, "remote:", h.said.Text())
	}
	err := h.keeper.Wait()
	if err != nil {
		err = fmt.Errorf("clean the machine up: %w", err)
	}
	end := h.remote.command(context.Background(), "-O", "exit")
	_ = end.Run() // by itself it ends a minute later
	return err
}
