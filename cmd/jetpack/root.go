package main

import (
	"cmp"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/internal/config"
	"github.com/jetpack-run/jetpack/internal/platform"
)

// cli is what all commands share: the streams and the global options.
type cli struct {
	stdin          *os.File
	stdout, stderr *os.File
	logger         *slog.Logger // nil for plain text
	screen         screen

	configPath, root    string
	sets                []string
	logLevel, logFormat string
	cfg                 *config.Config
}

func newRootCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jetpack",
		Short: "Run App Container Images in pods",
		Long: "jetpack runs App Container Images (ACI) in pods: jails on ZFS clones on FreeBSD,\n" +
			"namespaces on overlayfs on Linux.\n\n" + exitHelp,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          group,
		Args:          cobra.ArbitraryArgs,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Annotations[annotationNoConfig] != "" {
				return nil
			}
			return c.loadConfig()
		},
	}
	f := cmd.PersistentFlags()
	f.StringVar(&c.configPath, "config", "", "configuration `FILE` (default $JETPACK_CONFIG, then "+config.DefaultPath(platform.OS())+")")
	f.StringVar(&c.root, "root", "", "`DIR` with jetpack's state (default from the configuration)")
	f.StringArrayVar(&c.sets, "set", nil, "set a configuration `KEY=VALUE`; may be repeated")
	f.StringVar(&c.logLevel, "log-level", "", "least `LEVEL` that is logged: debug, info, warn, error")
	f.StringVar(&c.logFormat, "log-format", "", "`FORMAT` of log lines: text, json")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(
		newInitCommand(c), newImageCommand(c), newPodCommand(c), newVolumeCommand(c), newTrustCommand(c), newRepoCommand(c), newMDSCommand(c), newSystemCommand(c),
		newConfigCommand(c), newVersionCommand(c), newCompletionCommand(c),
	)
	cmd.AddCommand(shortcuts(c)...)
	return cmd
}

// shortcuts are the verbs of everyday.
func shortcuts(c *cli) []*cobra.Command {
	run, list, images, fetch, build := newPodRunCommand(c), newPodListCommand(c), newImageListCommand(c), newImageFetchCommand(c), newImageBuildCommand(c)
	run.Short += " (pod run)"
	list.Short += " (pod list)"
	images.Use, images.Aliases, images.Short = "images", nil, images.Short+" (image list)"
	fetch.Short += " (image fetch)"
	build.Short += " (image build)"
	return []*cobra.Command{run, list, images, fetch, build}
}

// annotationNoConfig marks commands that work whatever the configuration says.
const annotationNoConfig = "no-config"

// group is what a command without a verb does: it shows its verbs.
func group(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command %q; see '%s --help'", args[0], cmd.CommandPath())
	}
	return cmd.Help()
}

// exactly, some, atLeast and atMost check the number of arguments.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("%s: want %s; see '%s --help'", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

func some(what string) cobra.PositionalArgs { return atLeast(1, what) }

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usagef("%s: want %s; see '%s --help'", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

func atMost(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("%s: want %s; see '%s --help'", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

func (c *cli) loadConfig() error {
	path, explicit := cmp.Or(c.configPath, os.Getenv("JETPACK_CONFIG")), true
	if path == "" {
		path, explicit = config.DefaultPath(platform.OS()), false
	}
	sets := c.sets
	if c.root != "" {
		abs, err := filepath.Abs(c.root)
		if err != nil {
			return err
		}
		sets = append(sets, "root="+abs)
	}
	for key, value := range map[string]string{"log.level": c.logLevel, "log.format": c.logFormat} {
		if value != "" {
			sets = append(sets, key+"="+value)
		}
	}
	cfg, err := config.Load(path, explicit, sets, platform.OS())
	if err != nil {
		return usageError{err}
	}
	c.cfg = cfg
	if cfg.LogFormat == "json" {
		c.logger = newJSONLogger(c.stderr)
	}
	return nil
}

var slogLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

func newJSONLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// logs tells whether lines of a level are wanted; before the configuration is
// read, all are.
func (c *cli) logs(level string) bool {
	return c.cfg == nil || slogLevels[level] >= slogLevels[c.cfg.LogLevel]
}

// notice tells the user something that needs no action.
func (c *cli) notice(line string) { c.log("info", line) }

// warn tells the user something that may.
func (c *cli) warn(line string) { c.log("warn", line) }
