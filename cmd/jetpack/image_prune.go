package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image"
)

func newImagePruneCommand(c *cli) *cobra.Command {
	var all, force bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images that nothing needs and a newer one replaces; print their IDs",
		Long: "Remove images that no pod uses, no image depends on and no tag names, if their name\n" +
			"means a newer image of the same os and arch by now; with --all, also if it does not.\n" +
			"What only they depended on is looked at, too.",
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force {
				question := "Remove all images that nothing needs and a newer one replaces?"
				if all {
					question = "Remove all images that nothing needs?"
				}
				if err := c.confirm(cmd.Context(), question); err != nil {
					return err
				}
			}
			return c.pruneImages(cmd.Context(), all)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also images that no newer one replaces")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}

func (c *cli) pruneImages(ctx context.Context, all bool) error {
	h, err := c.open()
	if err != nil {
		return err
	}
	tried := map[image.ID]bool{}
	var errs []error // one that cannot go does not keep the others
	for {
		unneeded, err := c.unneeded(ctx, h, all)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		removed := 0
		for _, id := range unneeded {
			if tried[id] {
				continue
			}
			tried[id] = true
			if err := h.images.Remove(ctx, id); err != nil {
				errs = append(errs, err)
				continue
			}
			removed++
			if _, err := fmt.Fprintln(c.stdout, id); err != nil {
				return err
			}
		}
		if removed == 0 {
			return errors.Join(errs...)
		}
	}
}

// unneeded gives the images that may go as things are.
func (c *cli) unneeded(ctx context.Context, h *host, all bool) ([]image.ID, error) {
	pods, err := c.podsByImage(ctx, h)
	if err != nil {
		return nil, err
	}
	users, err := h.images.Users(ctx)
	if err != nil {
		return nil, err
	}
	images, err := h.images.List(ctx)
	if err != nil {
		return nil, err
	}
	meant := map[[3]string]bool{} // name, os and arch of which the first, the newest, was seen
	var unneeded []image.ID
	for _, img := range images {
		key := [3]string{img.Name(), img.Label("os"), img.Label("arch")}
		replaced := meant[key]
		meant[key] = true
		if (all || replaced) && pods[img.ID] == "" && len(users[img.ID]) == 0 && len(img.Tags) == 0 {
			unneeded = append(unneeded, img.ID)
		}
	}
	return unneeded, nil
}
