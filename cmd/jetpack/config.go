package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newConfigCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "config [KEY]",
		Short: "Show the configuration, or the value of one key",
		Long:  "Show the configuration in force, or the value of one key. Secrets are never shown.",
		Args:  atMost(1, "at most one KEY"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				value, err := c.cfg.Get(args[0])
				if err != nil {
					return usageError{err}
				}
				_, err = fmt.Fprintln(c.stdout, value)
				return err
			}
			for _, s := range c.cfg.All() {
				if _, err := fmt.Fprintf(c.stdout, "%s = %s\n", s.Key, s.Value); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
