package main

import (
	"fmt"
	"runtime/debug"

	"github.com/appc/spec/schema"
	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/internal/platform"
)

// version is set by the linker (make build).
var version = "devel"

func newVersionCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:         "version",
		Short:       "Show jetpack's version",
		Args:        exactly(0, "no arguments"),
		Annotations: map[string]string{annotationNoConfig: "yes"},
		RunE: func(*cobra.Command, []string) error {
			goVersion := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
			}
			_, err := fmt.Fprintf(c.stdout, "jetpack %s (appc spec %s, %s %s/%s)\n",
				version, schema.AppContainerVersion, goVersion, platform.OS(), platform.Arch())
			return err
		},
	}
}
