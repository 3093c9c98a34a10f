package main

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/runtime/build"
)

type buildOptions struct {
	dir, saveID, network, pull string
	copies, env                []string
	keep                       bool
	waived                     insecure
}

func newImageBuildCommand(c *cli) *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build [FLAGS] BASE [--] COMMAND [ARG...]",
		Short: "Run a command on a copy of an image, and make an image of what it changes",
		Long: "Run COMMAND as root on a copy of the image BASE, make an image of what it has changed\n" +
			"there, which depends on BASE, and print its ID. The command finds the content of the\n" +
			"build directory in its own and leaves " + build.ManifestFile + " there, the image's manifest: its\n" +
			"name at least. A command that fails leaves nothing behind.\n\n" +
			"With SOURCE_DATE_EPOCH in the environment nothing in the image is later than that time.",
		Args: atLeast(2, "BASE and a COMMAND"),
		RunE: func(cmd *cobra.Command, args []string) error {
			base, command := args[0], args[1:]
			if command[0] == "--" {
				command = command[1:]
			}
			if len(command) == 0 || command[0] == "" {
				return usagef("build: want a COMMAND after BASE")
			}
			return c.runBuild(cmd.Context(), &o, base, command)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the image is the command's
	f.StringVar(&o.dir, "dir", ".", "the build `DIR`")
	f.StringArrayVar(&o.copies, "cp", nil, "copy `FILE`, or a directory, to the build directory as well; may be repeated")
	f.StringVar(&o.saveID, "save-id", "", "write the image's ID to `FILE`, too")
	f.BoolVar(&o.keep, "keep", false, "keep the pod of a build that failed")
	f.StringVar(&o.network, "net", string(sandbox.NetworkHost), "`NETWORK`: host, or none (loopback only)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set `NAME=VALUE` for the command; may be repeated")
	f.StringVar(&o.pull, "pull", pullMissing, "`WHEN` to ask servers for BASE by its name: never, missing (here), newer")
	o.waived.add(cmd)
	return cmd
}

func (c *cli) runBuild(ctx context.Context, o *buildOptions, base string, command []string) error {
	if err := checkPull(o.pull); err != nil {
		return err
	}
	if err := o.waived.check(); err != nil {
		return err
	}
	network := sandbox.Network(o.network)
	if network != sandbox.NetworkHost && network != sandbox.NetworkNone {
		return usagef("--net %q: want host or none", o.network)
	}
	epoch, err := sourceDate()
	if err != nil {
		return err
	}
	h, rt, err := c.pods()
	if err != nil {
		return err
	}
	rt.Images = c.fetching(h, o.waived, false, o.pull)
	if base, err = c.bringIn(ctx, h, base, ociOptions{o.waived, false, o.pull, ""}); err != nil {
		return err
	}
	interrupts := catchInterrupts(rt.Grace)
	defer interrupts.release()
	b := &build.Builder{Runtime: rt, Store: h.images, Notice: c.notice}
	// Standard output is for the ID.
	stdio := c.stdio()
	stdio.Stdout = stdio.Stderr
	running, err := b.Start(ctx, build.Options{
		Base: base, Command: command, Dir: o.dir, Copy: o.copies, Env: o.env, Network: network, Keep: o.keep,
		Epoch: epoch, Compression: extract.Compression(c.cfg.ImageCompression), Limits: limits(c.cfg),
	}, stdio)
	if err != nil {
		return err
	}
	interrupts.mind(running.Run)
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(extract.Memory))
	img, err := running.Finish(ctx)
	if err != nil {
		return err
	}
	if err := writeID(o.saveID, string(img.ID)); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.stdout, img.ID)
	return err
}
