package main

import (
	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/runtime"
)

func newPodBootCommand(c *cli) *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use:   "boot POD...",
		Short: "Mark pods to be started when the host boots",
		Long: "Mark pods, running or not, to be started when the host boots, as --boot of 'pod run' and\n" +
			"'pod prepare' does. 'pod gc' keeps marked pods that have ended or crashed. On FreeBSD\n" +
			"the service jetpack starts and stops them: enable it with 'sysrc jetpack_enable=YES'.",
		Args: some("POD..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachPod(cmd.Context(), args, func(rt *runtime.Runtime, id string) error {
				return rt.SetBoot(cmd.Context(), id, !off)
			})
		},
	}
	cmd.Flags().BoolVar(&off, "off", false, "take the mark away")
	return cmd
}
