package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/jetpack-run/jetpack/internal/config"
)

// newGenerateCommand writes what is installed beside the binary and made from it.
// The tree keeps the result, and the tests compare.
func newGenerateCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:    "generate DIR",
		Short:  "Write manual pages and completion scripts",
		Hidden: true,
		Args:   exactly(1, "one DIR"),
		RunE:   func(cmd *cobra.Command, args []string) error { return c.runGenerate(cmd.Root(), args[0]) },
	}
}

func (c *cli) runGenerate(root *cobra.Command, dir string) (err error) {
	for _, sub := range []string{"man/man1", "man/man5", "completions"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	root.DisableAutoGenTag = true
	date := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC) // the pages are the same on every day
	header := &doc.GenManHeader{Section: "1", Source: "jetpack", Manual: "jetpack", Date: &date}
	if err := doc.GenManTree(root, header, filepath.Join(dir, "man/man1")); err != nil {
		return err
	}
	comp := filepath.Join(dir, "completions")
	if err := errors.Join(
		root.GenBashCompletionFileV2(filepath.Join(comp, "jetpack.bash"), true),
		root.GenZshCompletionFile(filepath.Join(comp, "_jetpack")),
		root.GenFishCompletionFile(filepath.Join(comp, "jetpack.fish"), true),
	); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "man/man5/jetpack.toml.5"))
	if err != nil {
		return err
	}
	return errors.Join(config.ManPage(f), f.Close())
}
