package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image"
)

func newImageTagCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "tag IMAGE NAME[:VERSION]",
		Short: "Give an image one more name in this store",
		Long: "Give an image one more name in this store. A tag goes before the names in manifests;\n" +
			"one that another image has moves. The image itself does not change.",
		Args: exactly(2, "IMAGE and NAME[:VERSION]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachImage(cmd.Context(), args[:1], func(h *host, img *image.Image) error {
				before, err := h.images.Tag(cmd.Context(), img.ID, args[1])
				if errors.Is(err, image.ErrBadTag) {
					return usageError{err}
				}
				if err != nil {
					return err
				}
				if before != "" && before != img.ID {
					c.notice(fmt.Sprintf("tag %s named %s before", args[1], before.Short()))
				}
				return nil
			})
		},
	}
}

func newImageUntagCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "untag NAME[:VERSION]...",
		Short: "Take tags away; the images stay",
		Args:  some("NAME[:VERSION]..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := c.open()
			if err != nil {
				return err
			}
			var errs []error // one that fails does not keep the others
			for _, tag := range args {
				errs = append(errs, h.images.Untag(cmd.Context(), tag))
			}
			return errors.Join(errs...)
		},
	}
}
