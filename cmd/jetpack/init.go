package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/platform"
	"github.com/jetpack-run/jetpack/runtime"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

func newInitCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make the state directory, or what is missing of it",
		Long: "Make the state directory, or what is missing of it. An index of images that is lost or\n" +
			"damaged is made anew of the images that are there, without their tags.",
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runInit(cmd.Context()) },
	}
}

func (c *cli) runInit(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	root, did, err := platform.Init(ctx, c.cfg.Root, c.cfg.StorageDriver, c.cfg.StorageDataset)
	if err != nil {
		return err
	}
	for _, line := range did {
		c.notice(line)
	}
	if _, err := platform.Storage(c.cfg.Root, root); err != nil {
		return err
	}
	mended, err := image.Init(ctx, imagesDir(c.cfg.Root))
	if err != nil {
		return err
	}
	for _, line := range mended {
		c.warn(line)
	}
	if err := runtime.Init(podsDir(c.cfg.Root)); err != nil {
		return err
	}
	if err := volume.Init(volumesDir(c.cfg.Root)); err != nil {
		return err
	}
	if len(did) == 0 {
		c.notice(fmt.Sprintf("%s is initialized, with storage %s", c.cfg.Root, root.Storage))
	}
	return nil
}
