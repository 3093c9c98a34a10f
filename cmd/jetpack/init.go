package main

import (
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
		Args:  exactly(0, "no arguments"),
		RunE:  func(*cobra.Command, []string) error { return c.runInit() },
	}
}

func (c *cli) runInit() error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	root, did, err := platform.Init(c.cfg.Root, c.cfg.StorageDriver)
	if err != nil {
		return err
	}
	for _, line := range did {
		c.notice(line)
	}
	if _, err := platform.Storage(c.cfg.Root, root); err != nil {
		return err
	}
	if err := image.Init(imagesDir(c.cfg.Root)); err != nil {
		return err
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
