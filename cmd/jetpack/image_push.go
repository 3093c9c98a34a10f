package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"golang.org/x/term"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/internal/platform"
)

func newImagePushCommand(c *cli) *cobra.Command {
	var waived insecure
	cmd := &cobra.Command{
		Use:   "push IMAGE docker://REGISTRY/NAME[:TAG]",
		Short: "Send an image to a registry, as an OCI image",
		Long: "Send an image to a registry, as 'jetpack image export --format oci' makes it, but what\n" +
			"is there already, and print REGISTRY/NAME@DIGEST. Credentials are those of Docker's\n" +
			"configuration ($DOCKER_CONFIG, ~/.docker/config.json) and its helpers, or podman's.",
		Args: exactly(2, "IMAGE and docker://REGISTRY/NAME[:TAG]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, w := range waived {
				if w != "http" && w != "tls" {
					return usagef("--insecure=%s: want a list of http, tls", w)
				}
			}
			if !strings.HasPrefix(args[1], "docker://") {
				return usagef("push to %s: want docker://REGISTRY/NAME[:TAG]", args[1])
			}
			l, err := oci.ParseLocation(args[1], waived.has("http"))
			if err != nil {
				return usageError{err}
			}
			return c.eachImage(cmd.Context(), args[:1], func(h *host, img *image.Image) error {
				return c.runPush(cmd.Context(), h, img, l, waived)
			})
		},
	}
	cmd.Flags().StringSliceVar((*[]string)(&waived), "insecure", nil, "waive checks of the registry: http, tls (`LIST`)")
	return cmd
}

func (c *cli) runPush(ctx context.Context, h *host, img *image.Image, l oci.Location, waived insecure) error {
	client, err := c.httpClient(waived)
	if err != nil {
		return err
	}
	return c.withOCI(ctx, h, img, func(x *oci.Export) error {
		progress, done := c.pushMeter(l.String())
		digest, err := oci.Push(ctx, client, x, l, progress)
		done()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.stdout, digest)
		return err
	})
}

// pushMeter shows how far a push is: a bar on a terminal, else a line.
func (c *cli) pushMeter(location string) (progress func(complete, total int64), done func()) {
	if !c.logs("info") {
		return nil, func() {}
	}
	if c.logger != nil || !term.IsTerminal(int(c.stderr.Fd())) {
		var once sync.Once
		return func(_, total int64) {
			once.Do(func() { c.notice("pushing " + location + " " + amount(0, total)) })
		}, func() {}
	}
	var bar *mpb.Bar
	last := time.Now()
	return func(complete, total int64) {
		if bar == nil {
			bar = c.newBar(location, total)
		}
		// News comes in bursts, which say nothing of the rate.
		if since := time.Since(last); since > time.Second/2 || complete == total {
			bar.EwmaSetCurrent(complete, since)
			bar.SetTotal(total, complete == total)
			last = time.Now()
		}
	}, c.endBars
}

// withOCI gives do an image as an OCI image.
func (c *cli) withOCI(ctx context.Context, h *host, img *image.Image, do func(*oci.Export) error) (err error) {
	x, err := oci.Exporter{Store: h.images, Driver: h.driver, OS: platform.OS(), Arch: platform.Arch()}.Open(ctx, img)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close(ctx)) }()
	for _, w := range x.Warnings {
		c.warn(imageTitle(img) + ": " + w)
	}
	return do(x)
}

// exportOCI writes an image in a form that other tools read.
func (c *cli) exportOCI(ctx context.Context, h *host, img *image.Image, format, path string) error {
	ref := oci.RefName(img)
	return c.withOCI(ctx, h, img, func(x *oci.Export) error {
		switch format {
		case "oci":
			return oci.WriteLayout(path, x, ref)
		case "oci-archive":
			return c.writeFile(path, func(w io.Writer) error { return oci.WriteLayoutArchive(ctx, w, x, ref) })
		}
		return c.writeFile(path, func(w io.Writer) error { return oci.WriteDockerArchive(w, x, ref) })
	})
}
