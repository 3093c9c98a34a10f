// Command jetpack runs App Container Images in pods.
//
// This package is the command line: one file per command, streams injected, no
// globals. What commands do is in the packages below; main alone turns errors
// into exit codes.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"

	"github.com/moby/sys/reexec"
)

func main() {
	if reexec.Init() {
		return // this process was the holder of a pod's namespaces
	}
	c := &cli{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	// The first signal lets a command clean up, a second one ends it.
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	context.AfterFunc(ctx, stop)
	os.Exit(c.main(ctx, os.Args[1:]))
}

// main runs one command line and gives the exit code.
func (c *cli) main(ctx context.Context, args []string) int {
	cmd := newRootCommand(c)
	cmd.SetArgs(args)
	cmd.SetIn(c.stdin)
	cmd.SetOut(c.stdout)
	cmd.SetErr(c.stderr)
	ran, err := cmd.ExecuteContextC(ctx)
	var status exitStatus
	switch {
	case err == nil || errors.As(err, &status):
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		c.log("error", "interrupted")
	default:
		c.log("error", oneLine(err)+mend(err))
	}
	return exitCode(err, runsApps(ran))
}

// oneLine makes joined errors one line: what failed first, then what failed in
// cleaning up.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// log writes one line to standard error, if its level is asked for.
func (c *cli) log(level, text string) {
	if !c.logs(level) {
		return
	}
	if c.logger != nil {
		c.logger.Log(context.Background(), slogLevels[level], text)
		return
	}
	c.say("jetpack: " + text + "\n")
}
