package main

import (
	"github.com/spf13/cobra"
)

func newCompletionCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:         "completion SHELL",
		Short:       "Print the completion script for bash, zsh or fish",
		Long:        "Print the completion script for a shell, as in: eval \"$(jetpack completion bash)\"",
		Args:        exactly(1, "one of bash, zsh, fish"),
		ValidArgs:   []string{"bash", "zsh", "fish"},
		Annotations: map[string]string{annotationNoConfig: "yes"},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.stdout, true)
			case "zsh":
				return root.GenZshCompletion(c.stdout)
			case "fish":
				return root.GenFishCompletion(c.stdout, true)
			}
			return usagef("completion: unknown shell %q; want bash, zsh or fish", args[0])
		},
	}
}
