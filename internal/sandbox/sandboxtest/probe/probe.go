//go:build unix

// Package probe is a program for tests of sandboxes: it tells what a process sees
// and tries what it must not be able to do. What it prints is JSON or raw bytes,
// on standard output; a failure is one line on standard error and exit code 1.
//
// Not for: use outside tests.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// System is what the probe runs on: the machine, or what an engine pretends.
type System struct {
	// Context ends when the process is killed.
	Context        context.Context
	Env            []string
	Getwd          func() (string, error)
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	ReadFile       func(path string) ([]byte, error)
	// Append appends to a file, which it creates.
	Append func(path string, data []byte) error
	// Catch gives the signals of a kind instead of their default action.
	Catch func(syscall.Signal) <-chan os.Signal
}

// Host is the machine.
func Host() System {
	return System{
		Context:  context.Background(),
		Env:      os.Environ(),
		Getwd:    os.Getwd,
		Stdin:    os.Stdin,
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		ReadFile: os.ReadFile,
		Append:   appendFile,
		Catch: func(sig syscall.Signal) <-chan os.Signal {
			c := make(chan os.Signal, 16)
			signal.Notify(c, sig)
			return c
		},
	}
}

func appendFile(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(data)
	return err
}

// exitError ends the probe with a code.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// Main runs the probe: args are its name, a command and the command's arguments.
// It returns the exit code.
func Main(args []string, sys System) int {
	err := run(args, sys)
	var code exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(sys.Stderr, "probe:", err)
	return 1
}

func run(args []string, sys System) error {
	if len(args) < 2 {
		return errors.New("no command")
	}
	name, rest := args[1], args[2:]
	if f, ok := everywhere[name]; ok {
		if len(rest) < f.args {
			return fmt.Errorf("%s: too few arguments", name)
		}
		return f.run(sys, args)
	}
	if f, ok := confined[name]; ok {
		if len(rest) < f.args {
			return fmt.Errorf("%s: too few arguments", name)
		}
		return f.run(sys, args)
	}
	return fmt.Errorf("no command %s", name)
}

// command is one thing that the probe does; args is how many arguments it needs.
type command struct {
	args int
	run  func(sys System, args []string) error
}

// everywhere are the commands that need nothing but a System.
var everywhere = map[string]command{
	"exit":  {1, exit},
	"args":  {0, func(sys System, args []string) error { return sys.print(args) }},
	"env":   {0, func(sys System, _ []string) error { return sys.print(sys.Env) }},
	"cwd":   {0, cwd},
	"cat":   {0, func(sys System, _ []string) error { _, err := io.Copy(sys.Stdout, sys.Stdin); return err }},
	"split": {0, split},
	"read":  {1, read},
	"write": {2, func(sys System, args []string) error { return sys.Append(args[2], []byte(args[3])) }},
	"await": {1, await},
	"sleep": {0, sleep},
	"tick":  {1, tick},
	"trap":  {1, trap},
}

func (sys System) print(v any) error { return json.NewEncoder(sys.Stdout).Encode(v) }

// sleepUntilKilled never ends by itself.
func (sys System) sleepUntilKilled() error {
	for sys.Context.Err() == nil {
		select {
		case <-sys.Context.Done():
		case <-time.After(time.Hour):
		}
	}
	return sys.Context.Err()
}

// exit CODE
func exit(_ System, args []string) error {
	code, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	return exitError(code)
}

func cwd(sys System, _ []string) error {
	dir, err := sys.Getwd()
	if err != nil {
		return err
	}
	return sys.print(dir)
}

// AllBytes is what split writes to standard output.
var AllBytes = func() (all [256]byte) {
	for i := range all {
		all[i] = byte(i)
	}
	return all
}()

// split writes to both outputs.
func split(sys System, _ []string) error {
	if _, err := sys.Stdout.Write(AllBytes[:]); err != nil {
		return err
	}
	_, err := io.WriteString(sys.Stderr, "to stderr\r\n")
	return err
}

// read PATH
func read(sys System, args []string) error {
	data, err := sys.ReadFile(args[2])
	if err != nil {
		return err
	}
	_, err = sys.Stdout.Write(data)
	return err
}

// await PATH waits until there is such a file.
func await(sys System, args []string) error {
	for sys.Context.Err() == nil {
		if _, err := sys.ReadFile(args[2]); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return sys.Context.Err()
}

// sleep prints "ready" and sleeps.
func sleep(sys System, _ []string) error {
	if err := sys.print("ready"); err != nil {
		return err
	}
	return sys.sleepUntilKilled()
}

// tick PATH: a sign of life appended to a file, for ever.
func tick(sys System, args []string) error {
	for sys.Context.Err() == nil {
		if err := sys.Append(args[2], []byte(".")); err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
	return sys.Context.Err()
}

// trap SIGNAL...: catches the signals, prints "ready" and then each one's number.
func trap(sys System, args []string) error {
	caught := make(chan os.Signal)
	for _, arg := range args[2:] {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		signals := sys.Catch(syscall.Signal(n))
		go func() {
			for sig := range signals {
				caught <- sig
			}
		}()
	}
	if err := sys.print("ready"); err != nil {
		return err
	}
	for {
		select {
		case sig := <-caught:
			if err := sys.print(int(sig.(syscall.Signal))); err != nil {
				return err
			}
		case <-sys.Context.Done():
			return sys.Context.Err()
		case <-time.After(time.Hour):
		}
	}
}
