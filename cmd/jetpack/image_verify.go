package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/image/trust"
)

func newImageVerifyCommand(c *cli) *cobra.Command {
	var deep bool
	cmd := &cobra.Command{
		Use:   "verify IMAGE...",
		Short: "Check that images are still what they were",
		Long: "Check that the archives kept of images still have the hash that is their ID, or the\n" +
			"layers of an OCI image the digests that it names, and that\n" +
			"their signatures are by keys that are trusted now. With --deep, do so for what the\n" +
			"images depend on, too, and make each root anew to compare it byte by byte with the\n" +
			"one that pods start from. Prints a line for each image that is sound and for each\n" +
			"difference; exits 1 if there is any, 4 for a signature that is not trusted.",
		Args: some("IMAGE..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.runVerify(cmd.Context(), args, deep)
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "make the roots anew and compare them")
	return cmd
}

func (c *cli) runVerify(ctx context.Context, names []string, deep bool) error {
	seen := map[image.ID]bool{}
	var damaged []error
	err := c.eachImage(ctx, names, func(h *host, img *image.Image) error {
		images := []*image.Image{img}
		if deep {
			all, err := h.images.Walk(ctx, img)
			if errors.Is(err, image.ErrDamaged) {
				damaged = append(damaged, err)
				return c.printFinding(img, oneLine(err))
			}
			if err != nil {
				return err
			}
			images = all
		}
		for _, img := range images {
			if seen[img.ID] {
				continue
			}
			seen[img.ID] = true
			damage, err := c.verifyImage(ctx, h, img, deep)
			if err != nil {
				return err
			}
			damaged = append(damaged, damage)
		}
		return nil
	})
	return errors.Join(append(damaged, err)...)
}

// verifyImage prints what it finds, and says how an image that is damaged is mended;
// err is that it could not tell.
func (c *cli) verifyImage(ctx context.Context, h *host, img *image.Image, deep bool) (damage, err error) {
	verify := aci.Verify
	if img.OCI != nil {
		verify = oci.Verify
	}
	changes, err := verify(ctx, h.images, img, limits(c.cfg), deep)
	if errors.Is(err, image.ErrDamaged) {
		return err, c.printFinding(img, oneLine(err))
	}
	if err != nil {
		return nil, err
	}
	for _, change := range changes {
		if err := c.printFinding(img, fmt.Sprintf("%s: %s", printable(change.Path), change.Kind)); err != nil {
			return nil, err
		}
	}
	if len(changes) > 0 {
		return fmt.Errorf("image %s (%s): %w: its tree; remove the pods and images that use it, then it, and import it again",
			img.ID.Short(), img.Name(), image.ErrDamaged), nil
	}
	return c.verifySignature(ctx, h, img)
}

// verifySignature checks the signature of a sound image once more, against what is
// trusted now.
func (c *cli) verifySignature(ctx context.Context, h *host, img *image.Image) (refusal, err error) {
	if img.OCI != nil && !slices.Contains(img.Insecure, "signature") {
		return nil, c.printFinding(img, "ok (its digest vouches for it)")
	}
	if img.Signature == nil {
		return nil, c.printFinding(img, "ok (nobody's signature vouches for it)")
	}
	file, err := h.images.File(img)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = trust.Open(keysDir(c.cfg.Root)).Verify(ctx, img.Name(), file, []byte(img.Signature.Armored), c.trustPolicy())
	if errors.Is(err, trust.ErrUntrusted) {
		return fmt.Errorf("image %s: %w", img.ID.Short(), err), c.printFinding(img, oneLine(err))
	}
	if err != nil {
		return nil, err
	}
	return nil, c.printFinding(img, "ok")
}

func (c *cli) printFinding(img *image.Image, what string) error {
	_, err := fmt.Fprintf(c.stdout, "%s (%s): %s\n", img.ID.Short(), img.Name(), what)
	return err
}
