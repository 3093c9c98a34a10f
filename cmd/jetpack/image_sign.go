package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/discovery/repository"
	"github.com/jetpack-run/jetpack/image/aci"
)

func newImageSignCommand(c *cli) *cobra.Command {
	var by signing
	cmd := &cobra.Command{
		Use:   "sign {--sign KEYFILE | --gpg USER} FILE...",
		Short: "Sign images that are files; the signature of FILE is FILE.asc",
		Args:  some("FILE..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := by.check(); err != nil {
				return err
			}
			signer, err := by.signer(c)
			if err != nil {
				return err
			}
			for _, file := range args {
				if err := c.sign(cmd.Context(), signer, file); err != nil {
					return err
				}
			}
			return nil
		},
	}
	by.add(cmd)
	return cmd
}

// sign signs what is an image, and nothing else.
func (c *cli) sign(ctx context.Context, signer repository.Signer, path string) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := aci.ReadManifest(ctx, file, limits(c.cfg)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return writeOut(path+".asc", func(w io.Writer) error { return signer.Sign(ctx, w, file) })
}
