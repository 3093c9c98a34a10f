package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/jetpack-run/jetpack/image/fetch"
	"github.com/jetpack-run/jetpack/internal/platform"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

func newSystemCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "system", Short: "Look after the host", RunE: group, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(newSystemInfoCommand(c), newSystemDfCommand(c), newSystemCheckCommand(c), newSystemPruneCommand(c))
	return cmd
}

// systemInfo is what `system info` prints.
type systemInfo struct {
	Version string `json:"version" doc:"jetpack's version"`
	OS      string `json:"os" doc:"operating system"`
	Arch    string `json:"arch" doc:"architecture, as App Containers name it"`
	Kernel  string `json:"kernel" doc:"kernel and its release"`
	Root    string `json:"root" doc:"directory with jetpack's state"`
	RootID  string `json:"rootID" doc:"ID of that directory"`
	Storage string `json:"storage" doc:"storage driver"`
	Dataset string `json:"dataset" doc:"ZFS dataset that the storage is in, or empty"`
	Engine  string `json:"engine" doc:"what isolates pods; empty where none can run"`
	Runtime string `json:"runtime" doc:"OCI runtime and its version, or empty"`
	Images  int    `json:"images" doc:"how many there are"`
	Pods    int    `json:"pods" doc:"how many there are"`
}

func newSystemInfoCommand(c *cli) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show the host, the root and what serves it",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, err := c.systemInfo(cmd.Context())
			if err != nil {
				return err
			}
			switch format {
			case "json":
				return printJSON(c.stdout, info)
			case "table":
				return printTable(c.stdout, []string{"version", info.Version}, []row{
					{cells: []string{"host", info.OS + " " + info.Arch}},
					{cells: []string{"kernel", info.Kernel}},
					{cells: []string{"root", info.Root + " (" + info.RootID + ")"}},
					{cells: []string{"storage", strings.TrimSpace(info.Storage + " " + info.Dataset)}},
					{cells: []string{"engine", orDash(info.Engine)}},
					{cells: []string{"runtime", orDash(info.Runtime)}},
					{cells: []string{"images", fmt.Sprint(info.Images)}},
					{cells: []string{"pods", fmt.Sprint(info.Pods)}},
				})
			}
			return usagef("--format %q: want table or json", format)
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT`: table, json")
	return cmd
}

func (c *cli) systemInfo(ctx context.Context) (systemInfo, error) {
	h, err := c.open()
	if err != nil {
		return systemInfo{}, err
	}
	info := systemInfo{
		Version: version, OS: platform.OS(), Arch: platform.Arch(), Root: c.cfg.Root, RootID: h.root.ID,
		Storage: h.driver.Info().Name, Dataset: h.root.Dataset,
	}
	if info.Kernel, err = platform.Kernel(); err != nil {
		return info, err
	}
	images, err := h.images.List(ctx)
	if err != nil {
		return info, err
	}
	pods, err := c.runtime(h, nil).List(ctx)
	if err != nil {
		return info, err
	}
	info.Images, info.Pods = len(images), len(pods)
	if err := platform.CheckStorage(ctx, h.root); err != nil {
		c.warn(err.Error())
	}
	engine, err := platform.Engine(c.cfg.Root, h.root, c.engineConfig())
	if err != nil {
		c.warn(err.Error())
		return info, nil
	}
	info.Engine = engine.Info().Name
	info.Runtime = c.runtimeVersion(ctx, h.root, engine)
	return info, nil
}

// runtimeVersion tells what isolates pods, and warns of what it lacks on this host.
func (c *cli) runtimeVersion(ctx context.Context, root platform.Root, engine sandbox.Engine) string {
	v, err := platform.RuntimeVersion(ctx, engine)
	if err != nil {
		c.warn(err.Error())
	}
	lacks := platform.Lacks(ctx, engine, v)
	if c.cfg.StorageDriver == "auto" {
		lacks = append(lacks, platform.LacksStorage(ctx, root)...)
	}
	for _, lack := range lacks {
		c.warn(lack)
	}
	return v
}

var errUnclean = errors.New("not clean; 'jetpack system prune' mends what can be mended")

func newSystemCheckCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Compare what exists with what ought to; exit 0 when clean",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, rt, err := c.pods()
			if err != nil {
				return err
			}
			c.runtimeVersion(cmd.Context(), h.root, rt.Engine)
			if err := platform.CheckStorage(cmd.Context(), h.root); err != nil {
				return err
			}
			found, err := rt.Check(cmd.Context())
			if err != nil {
				return err
			}
			debris, err := h.images.Debris(cmd.Context())
			if err != nil {
				return err
			}
			for _, d := range debris {
				found = append(found, d.What)
			}
			strays, err := h.volumes.Debris(cmd.Context())
			if err != nil {
				return err
			}
			for _, d := range strays {
				found = append(found, d.What)
			}
			for _, line := range found {
				if _, err := fmt.Fprintln(c.stdout, line); err != nil {
					return err
				}
			}
			if len(found) > 0 {
				return fmt.Errorf("%s: %w", c.cfg.Root, errUnclean)
			}
			return nil
		},
	}
}

func newSystemPruneCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove pods that have ended and what interrupted commands left",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force {
				if err := c.confirm(cmd.Context(), "Remove all pods that have ended and what interrupted commands left?"); err != nil {
					return err
				}
			}
			return c.runPrune(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}

func (c *cli) runPrune(ctx context.Context) error {
	h, rt, err := c.pods()
	if err != nil {
		return err
	}
	removed, err := rt.GC(ctx, 0)
	for _, id := range removed {
		fmt.Fprintln(c.stdout, "pod "+id)
	}
	debris, derr := h.images.Debris(ctx)
	errs := []error{err, derr}
	for _, d := range debris {
		if err := d.Remove(ctx); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(c.stdout, d.What)
	}
	left, err := fetch.Left(downloadsDir(c.cfg.Root))
	errs = append(errs, err)
	for _, kept := range left {
		if err := kept.Remove(); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(c.stdout, "download %s, %s of it\n", cmp.Or(kept.URL, "(unknown)"), units.BytesSize(float64(kept.Size)))
	}
	return errors.Join(errs...)
}

// confirm asks on the terminal; without one there is nobody to ask.
func (c *cli) confirm(ctx context.Context, question string) error {
	if !term.IsTerminal(int(c.stdin.Fd())) {
		return usagef("standard input is no terminal to ask on; use --force")
	}
	answer, err := c.ask(ctx, question+" [y/N] ")
	if err != nil {
		return err
	}
	if a := strings.ToLower(answer); a != "y" && a != "yes" {
		return errors.New("nothing was removed")
	}
	return nil
}

// ask reads one line from the terminal; none is an empty one.
func (c *cli) ask(ctx context.Context, question string) (string, error) {
	c.say(question)
	answers := make(chan string, 1)
	go func() {
		answer, _ := bufio.NewReader(c.stdin).ReadString('\n')
		answers <- answer
	}()
	select {
	case answer := <-answers:
		if !strings.HasSuffix(answer, "\n") {
			c.say("\n")
		}
		return strings.TrimSpace(answer), nil
	case <-ctx.Done():
		c.say("\n")
		return "", ctx.Err()
	}
}
