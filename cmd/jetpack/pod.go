package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/moby/sys/signal"
	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/runtime"
)

func newPodCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "pod", Short: "Work with pods", RunE: group, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(
		newPodRunCommand(c), newPodPrepareCommand(c), newPodStartCommand(c),
		newPodBootCommand(c), newPodListCommand(c), newPodInspectCommand(c), newPodManifestCommand(c), newPodDiffCommand(c),
		newPodStopCommand(c), newPodKillCommand(c), newPodWaitCommand(c), newPodRmCommand(c), newPodGCCommand(c),
	)
	return cmd
}

// podView is a pod as `pod list` and `pod inspect` print it.
type podView struct {
	ID         string            `json:"id" doc:"UUID"`
	Name       string            `json:"name" doc:"name, or empty"`
	Status     runtime.Phase     `json:"status" doc:"embryo, prepared, running, exited, crashed, garbage or damaged"`
	ExitCode   *int              `json:"exitCode" doc:"the first of its apps' that is not 0" null:"until it has ended, and if it is damaged"`
	Hostname   string            `json:"hostname" doc:"host name"`
	Network    string            `json:"network" doc:"private, none or host; empty for an embryo, and for a damaged pod of which that is not known, like name and apps"`
	Addresses  []string          `json:"addresses" doc:"what it is reached at; empty unless it runs in a private network"`
	KeepRootfs bool              `json:"keepRootfs" doc:"a start goes on with the roots as they were left"`
	Boot       bool              `json:"boot" doc:"it is marked to be started when the host boots"`
	Created    time.Time         `json:"created" doc:"when it was made; for an embryo, and for a damaged pod of which that is not known, when its directory last changed"`
	Started    *time.Time        `json:"started" doc:"when it was last started" null:"if never"`
	Ended      *time.Time        `json:"ended" doc:"when it ended" null:"if it has not"`
	Profile    sandbox.Profile   `json:"profile" doc:"how closely it is confined: strict, default or relaxed"`
	Isolators  []sandbox.Outcome `json:"isolators" doc:"what became of each isolator when the pod was made, or last started"`
	Apps       []podAppView      `json:"apps" doc:"its apps, in the manifest's order"`
	Manifest   json.RawMessage   `json:"manifest,omitempty" doc:"reified pod manifest" null:"in pod list"`
}

type podAppView struct {
	Name    string `json:"name" doc:"name"`
	Image   string `json:"image" doc:"name of its image"`
	ImageID string `json:"imageID" doc:"ID of its image"`
	// How it ended.
	ExitCode *int   `json:"exitCode" doc:"exit code as shells report it; 255 when unknown" null:"until it has ended"`
	Signal   int    `json:"signal,omitempty" doc:"number of the signal that killed it" null:"if none has"`
	Error    string `json:"error,omitempty" doc:"why it did not run, or which event handler failed" null:"if all went well"`
}

func viewPod(p runtime.Info) podView {
	v := podView{
		ID: p.UUID, Name: p.Options.Name, Status: p.State.Phase, Hostname: p.Hostname(),
		Network: string(p.Options.Network), KeepRootfs: p.Options.KeepRootfs, Boot: p.Options.Boot, Created: p.Options.Created, Apps: []podAppView{}, Addresses: []string{},
		Profile: cmp.Or(p.Options.Profile, sandbox.ProfileDefault), Isolators: append([]sandbox.Outcome{}, p.State.Isolators...),
		Started: timeOrNull(p.State.Started), Ended: timeOrNull(p.State.Ended),
	}
	if p.State.Phase == runtime.Exited {
		status := p.Status()
		v.ExitCode = &status
	}
	if p.Manifest == nil {
		return v
	}
	for _, app := range p.Manifest.Apps {
		a := podAppView{Name: app.Name.String(), ImageID: app.Image.ID.String()}
		if app.Image.Name != nil {
			a.Image = app.Image.Name.String()
		}
		if s, ok := p.State.Apps[a.Name]; ok {
			a.ExitCode, a.Signal, a.Error = &s.Status, s.Signal, s.Error
		}
		v.Apps = append(v.Apps, a)
	}
	return v
}

// addAddresses adds those of a pod that runs; one that has just ended has none.
func (v *podView) addAddresses(ctx context.Context, rt *runtime.Runtime) error {
	if v.Status != runtime.Running {
		return nil
	}
	addrs, err := rt.Engine.Addresses(ctx, v.ID)
	for _, a := range addrs {
		v.Addresses = append(v.Addresses, a.String())
	}
	if errors.Is(err, sandbox.ErrNotFound) {
		return nil
	}
	return err
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func newPodListCommand(c *cli) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List pods",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, rt, err := c.pods()
			if err != nil {
				return err
			}
			pods, err := rt.List(cmd.Context())
			if err != nil {
				return err
			}
			rows := make([]row, len(pods))
			for i, p := range pods {
				v := viewPod(p)
				if err := v.addAddresses(cmd.Context(), rt); err != nil {
					return err
				}
				apps, exit := "", "-"
				for j, a := range v.Apps {
					if j > 0 {
						apps += ","
					}
					apps += a.Name
				}
				if v.ExitCode != nil {
					exit = fmt.Sprint(*v.ExitCode)
				}
				rows[i] = row{p.UUID, []string{p.UUID[:8], orDash(v.Name), string(v.Status), exit, apps, ago(v.Created)}, v}
			}
			return o.print(c.stdout, []string{"ID", "NAME", "STATUS", "EXIT", "APPS", "CREATED"}, rows)
		},
	}
	o.add(cmd)
	return cmd
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newPodInspectCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect POD...",
		Short: "Show all that is known of pods, as JSON",
		Args:  some("POD..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			views := []podView{}
			err := c.eachPodInfo(cmd.Context(), args, func(rt *runtime.Runtime, p runtime.Info) error {
				v := viewPod(p)
				if err := v.addAddresses(cmd.Context(), rt); err != nil {
					return err
				}
				if p.Manifest != nil {
					raw, err := manifest.MarshalPod(p.Manifest)
					if err != nil {
						return err
					}
					v.Manifest = raw
				}
				views = append(views, v)
				return nil
			})
			if err != nil {
				return err
			}
			return printJSON(c.stdout, views)
		},
	}
}

func (c *cli) eachPodInfo(ctx context.Context, names []string, do func(*runtime.Runtime, runtime.Info) error) error {
	_, rt, err := c.pods()
	if err != nil {
		return err
	}
	for _, name := range names {
		id, err := rt.Find(ctx, name)
		if err != nil {
			return err
		}
		p, err := rt.Inspect(ctx, id)
		if err != nil {
			return err
		}
		if err := do(rt, p); err != nil {
			return err
		}
	}
	return nil
}

func newPodManifestCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "manifest POD",
		Short: "Print a pod's reified manifest",
		Args:  exactly(1, "one POD"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachPodInfo(cmd.Context(), args, func(_ *runtime.Runtime, p runtime.Info) error {
				raw, err := manifest.MarshalPod(p.Manifest)
				if err != nil {
					return err
				}
				return printRaw(c.stdout, raw)
			})
		},
	}
}

// podChange is what `pod diff` prints.
type podChange struct {
	App  string             `json:"app" doc:"name of the app"`
	Path string             `json:"path" doc:"absolute path in the app's root"`
	Kind storage.ChangeKind `json:"kind" doc:"added, modified or deleted"`
}

func newPodDiffCommand(c *cli) *cobra.Command {
	var o listOptions
	var app string
	cmd := &cobra.Command{
		Use:   "diff POD",
		Short: "List what a pod has added (A), modified (M) and deleted (D) outside its volumes",
		Args:  exactly(1, "one POD"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachPod(cmd.Context(), args, func(rt *runtime.Runtime, id string) error {
				return c.runPodDiff(cmd.Context(), rt, id, app, &o)
			})
		},
	}
	o.add(cmd)
	cmd.Flags().Lookup("quiet").Usage = "only the paths, one a line"
	cmd.Flags().StringVar(&app, "app", "", "only the app of that `NAME`")
	return cmd
}

func (c *cli) runPodDiff(ctx context.Context, rt *runtime.Runtime, id, app string, o *listOptions) error {
	info, err := rt.Inspect(ctx, id)
	if err != nil {
		return err
	}
	changes, err := rt.Diff(ctx, id, app)
	if err != nil {
		return err
	}
	several := app == "" && len(info.Manifest.Apps) > 1
	rows := make([]row, len(changes))
	for i, change := range changes {
		path := printable(change.Path)
		cells := []string{changeLetters[change.Kind], path}
		if several {
			cells = append([]string{change.App}, cells...)
		}
		rows[i] = row{path, cells, podChange{change.App, change.Path, change.Kind}}
	}
	return o.printLines(c.stdout, rows)
}

// eachPod opens what runs pods and does something with each pod named: one that
// fails does not keep the others from it.
func (c *cli) eachPod(ctx context.Context, names []string, do func(rt *runtime.Runtime, id string) error) error {
	_, rt, err := c.pods()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		id, err := rt.Find(ctx, name)
		if err == nil {
			err = do(rt, id)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func newPodStopCommand(c *cli) *cobra.Command {
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "stop POD...",
		Short: "Stop pods: SIGTERM, and SIGKILL after a grace period",
		Args:  some("POD..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachPod(cmd.Context(), args, func(rt *runtime.Runtime, id string) error {
				if !cmd.Flags().Changed("grace") {
					grace = rt.Grace
				}
				return stopped(rt.Stop(cmd.Context(), id, grace))
			})
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", 0, "how long apps may take (`D`, as 10s; default pod.stop-grace)")
	return cmd
}

// stopped: a pod that was removed with its end (--rm) has stopped, too.
func stopped(err error) error {
	if isGone(err) {
		return nil
	}
	return err
}

func newPodKillCommand(c *cli) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "kill POD...",
		Short: "Send a signal to every app of pods",
		Args:  some("POD..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			sig, err := signal.ParseSignal(name)
			if err != nil {
				return usagef("--signal %q: want a name as TERM or a number", name)
			}
			return c.eachPod(cmd.Context(), args, func(rt *runtime.Runtime, id string) error {
				return rt.Kill(cmd.Context(), id, sig)
			})
		},
	}
	cmd.Flags().StringVarP(&name, "signal", "s", "KILL", "the `SIGNAL`, by name or number")
	return cmd
}

func newPodWaitCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:         "wait POD",
		Short:       "Wait for a pod to end; print its exit code and exit with it",
		Args:        exactly(1, "one POD"),
		Annotations: map[string]string{annotationRunsApps: "yes"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachPod(cmd.Context(), args, func(rt *runtime.Runtime, id string) error {
				p, err := rt.Wait(cmd.Context(), id)
				if err != nil {
					return err
				}
				if p.State.Phase == runtime.Prepared {
					return fmt.Errorf("%s: %w", id, runtime.ErrNotRunning)
				}
				status := p.Status()
				if p.State.Phase == runtime.Crashed {
					status = 255 // nobody was there to know
				}
				if _, err := fmt.Fprintln(c.stdout, status); err != nil {
					return err
				}
				return appStatus(status)
			})
		},
	}
}

// appStatus is an app's exit code as an error, for main to exit with.
func appStatus(status int) error {
	if status == 0 {
		return nil
	}
	return exitStatus(status)
}

func newPodRmCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm POD...",
		Short: "Remove pods that do not run",
		Args:  some("POD..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return c.eachPod(ctx, args, func(rt *runtime.Runtime, id string) error {
				if force {
					if err := rt.Stop(ctx, id, rt.Grace); err != nil && !isNotRunning(err) && !isGone(err) {
						return err
					}
				}
				err := rt.Remove(ctx, id)
				if isBusy(err) && !force {
					return fmt.Errorf("%w; stop it with 'jetpack pod stop %s', or use --force", err, id)
				}
				if force {
					return stopped(err)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "stop the pod first if it runs")
	return cmd
}

func newPodGCCommand(c *cli) *cobra.Command {
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove pods that have ended, and what crashes left; print their IDs",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, rt, err := c.pods()
			if err != nil {
				return err
			}
			removed, err := rt.GC(cmd.Context(), grace)
			for _, id := range removed {
				if _, err := fmt.Fprintln(c.stdout, id); err != nil {
					return err
				}
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&grace, "grace-period", 0, "keep pods that ended less than `D` ago")
	return cmd
}
