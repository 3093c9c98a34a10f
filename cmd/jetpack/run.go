package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/containerd/console"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/runtime"
)

// podOptions are the flags that describe a pod.
type podOptions struct {
	name, hostname string
	network        string
	volumes        []string
	annotations    []string
	labels         []string
	manifest       string
	uuidFile       string
	strict         bool
	remove         bool
	keepRootfs     bool
	boot           bool
	noMDS, withMDC bool
	dryRun         bool
	pull           string
	memory, cpus   string
	profile        string
	waived         insecure
	app            appOptions // given before the image of a single app
}

// appOptions are the flags that describe an app.
type appOptions struct {
	name, exec, user, group, workDir string
	env, envFiles, mounts, isolators []string
	readOnly, tty, interactive       bool
}

func (o *appOptions) add(f *pflag.FlagSet) {
	f.StringVar(&o.name, "app", "", "the app's `NAME` (default from the image's)")
	f.StringVar(&o.exec, "exec", "", "run `PATH` with the arguments, instead of the image's command")
	f.StringVar(&o.user, "user", "", "run as `USER`: a name, a number, or a path whose owner is meant")
	f.StringVar(&o.group, "group", "", "run as `GROUP`, likewise")
	f.StringVar(&o.workDir, "workdir", "", "working `DIR`")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set `NAME=VALUE`; may be repeated")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "read NAME=VALUE lines from `FILE`")
	f.StringArrayVar(&o.mounts, "mount", nil, "mount `VOLUME[:PATH]`; PATH may be a mount point's name")
	f.StringArrayVar(&o.isolators, "isolator", nil, "limit the app, or give it privileges, by an isolator: `JSON` as {\"name\": \"resource/memory\", \"value\": {\"limit\": \"64Mi\"}}; may be repeated")
	f.BoolVar(&o.readOnly, "readonly-rootfs", false, "make the app's root read-only")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the app a terminal")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "connect standard input")
}

func (o *podOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the image is the app's
	f.StringVar(&o.name, "name", "", "the pod's `NAME`")
	f.StringVar(&o.hostname, "hostname", "", "the pod's host `NAME` (default its UUID)")
	f.StringVar(&o.network, "net", "", "`NETWORK`: private (an address of its own), none (loopback only) or host (default private)")
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "a `VOLUME`: NAME[,kind=empty|host|volume][,source=PATH|volume:NAMED][,readOnly=true], or SRC:DST[:ro] with a single app, SRC being a path or the name of a volume")
	f.StringArrayVar(&o.annotations, "annotation", nil, "annotate the pod with `NAME=VALUE`")
	f.StringArrayVar(&o.labels, "label", nil, "label the pod with `NAME=VALUE`")
	f.StringVar(&o.manifest, "manifest", "", "take the pod from a manifest `FILE` (- for standard input)")
	f.StringVar(&o.uuidFile, "uuid-file", "", "write the pod's UUID to `FILE`")
	f.StringVar(&o.memory, "memory", "", "limit the memory of the pod to `BYTES`, as 512M or 2G (of 1024)")
	f.StringVar(&o.cpus, "cpus", "", "limit the pod to so many processors (`NUMBER`, as 1.5)")
	f.StringVar(&o.profile, "profile", "", "how closely the pod is confined: `PROFILE` strict, default or relaxed (default pod.profile)")
	f.BoolVar(&o.strict, "strict", false, "refuse what would be ignored or filled in")
	f.BoolVar(&o.keepRootfs, "keep-rootfs", false, "a later start goes on with the roots and empty volumes as they were left")
	f.StringVar(&o.pull, "pull", "missing", "`WHEN` to ask servers for images by their names: never, missing (here), newer")
	f.BoolVar(&o.noMDS, "no-mds", false, "do without the metadata service")
	f.BoolVar(&o.withMDC, "with-mdc", false, "mount ac-mdc, which asks the metadata service, in all apps as /usr/local/bin/ac-mdc")
	f.BoolVar(&o.boot, "boot", false, "mark the pod to be started when the host boots")
	o.waived.add(cmd)
	o.app.add(f)
}

const runUsage = " [POD FLAGS] IMAGE [APP FLAGS] [-- ARG...] [--- IMAGE [APP FLAGS] [-- ARG...]]..."

const runLong = `IMAGE is the name or ID of an image in the store, a file or a URL. ARGs follow the
image's own command; with --exec PATH the command is PATH and the ARGs. Several apps are
separated by ---. The flags of a single app may stand before its image, too.`

func newPodRunCommand(c *cli) *cobra.Command {
	var o podOptions
	cmd := &cobra.Command{
		Use:         "run" + runUsage,
		Short:       "Run apps in a new pod",
		Long:        "Run apps in a new pod and wait for them.\n\n" + runLong,
		Args:        cobra.ArbitraryArgs,
		Annotations: map[string]string{annotationRunsApps: "yes"},
		RunE:        func(cmd *cobra.Command, args []string) error { return c.runRun(cmd.Context(), &o, args) },
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&o.remove, "rm", false, "remove the pod when it has ended")
	return cmd
}

func newPodPrepareCommand(c *cli) *cobra.Command {
	var o podOptions
	cmd := &cobra.Command{
		Use:   "prepare" + runUsage,
		Short: "Make a pod to be started later; print its UUID",
		Long:  "Make a pod to be started later with 'jetpack pod start', and print its UUID.\n\n" + runLong,
		Args:  cobra.ArbitraryArgs,
		RunE:  func(cmd *cobra.Command, args []string) error { return c.runPrepare(cmd.Context(), &o, args) },
	}
	o.add(cmd)
	cmd.Flags().BoolVarP(&o.dryRun, "dry-run", "n", false, "make nothing; print the reified manifest")
	return cmd
}

func newPodStartCommand(c *cli) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:         "start POD",
		Short:       "Start a pod that was prepared or has ended, from fresh copies, and wait for it",
		Args:        exactly(1, "one POD"),
		Annotations: map[string]string{annotationRunsApps: "yes"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachPod(cmd.Context(), args, func(rt *runtime.Runtime, id string) error {
				p, err := rt.Lock(cmd.Context(), id)
				if err != nil {
					return err
				}
				if cmd.Flags().Changed("keep-rootfs") {
					p.Options.KeepRootfs = keep
				}
				return c.runStart(cmd.Context(), rt, p)
			})
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-rootfs", false, "go on with the roots and empty volumes as they were left (default as for 'pod run')")
	return cmd
}

func (c *cli) runRun(ctx context.Context, o *podOptions, args []string) error {
	h, rt, err := c.pods()
	if err != nil {
		return err
	}
	rt.Images = c.fetching(h, o.waived, o.strict, o.pull)
	m, po, err := c.describe(ctx, h, rt, o, args)
	if err != nil {
		return err
	}
	interrupts := catchInterrupts(rt.Grace)
	defer interrupts.release()
	run, err := rt.Run(ctx, m, po, o.strict, c.stdio())
	if err != nil {
		return err
	}
	if err := writeID(o.uuidFile, run.UUID()); err != nil {
		run.Kill()
		_, waitErr := run.Wait()
		return errors.Join(err, waitErr, run.Remove(context.WithoutCancel(ctx)))
	}
	return c.see(run, interrupts, o.remove)
}

func (c *cli) runStart(ctx context.Context, rt *runtime.Runtime, p *runtime.Pod) error {
	interrupts := catchInterrupts(rt.Grace)
	defer interrupts.release()
	run, err := p.Start(ctx, c.stdio())
	if err != nil {
		return errors.Join(err, p.Close())
	}
	return c.see(run, interrupts, false)
}

func (c *cli) runPrepare(ctx context.Context, o *podOptions, args []string) error {
	h, rt, err := c.pods()
	if err != nil {
		return err
	}
	rt.Images = c.fetching(h, o.waived, o.strict, o.pull)
	m, po, err := c.describe(ctx, h, rt, o, args)
	if err != nil {
		return err
	}
	if o.dryRun {
		if err := rt.Reify(ctx, m, po, o.strict); err != nil {
			return err
		}
		raw, err := manifest.MarshalPod(m)
		if err != nil {
			return err
		}
		return printRaw(c.stdout, raw)
	}
	p, err := rt.Prepare(ctx, m, po, o.strict)
	if err != nil {
		return err
	}
	if err := errors.Join(p.Close(), writeID(o.uuidFile, p.UUID)); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.stdout, p.UUID)
	return err
}

// writeID writes an ID to the file that the user wants it in, if any.
func writeID(file, id string) error {
	if file == "" {
		return nil
	}
	return writeOut(file, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, id)
		return err
	})
}

func (c *cli) stdio() runtime.IO {
	files := runtime.IO{Stdin: c.stdin, Stdout: c.stdout, Stderr: c.stderr}
	if t, err := console.ConsoleFromFile(c.stdin); err == nil {
		if size, err := t.Size(); err == nil {
			files.Size = size
		}
	}
	return files
}

// see waits for a pod, minds the terminal and the signals meanwhile, and gives the
// pod's exit code.
func (c *cli) see(run *runtime.Run, in *interrupts, remove bool) error {
	restore := c.rawTerminal(run)
	in.mind(run)
	info, err := run.Wait()
	restore()
	if remove {
		err = errors.Join(err, run.Remove(context.Background()))
	} else {
		err = errors.Join(err, run.Close())
	}
	if err != nil {
		return err
	}
	return appStatus(info.Status())
}

// rawTerminal hands the user's terminal to the app that has one: keys go to it as
// they are pressed, and its size follows the window's.
func (c *cli) rawTerminal(run *runtime.Run) (restore func()) {
	t, err := console.ConsoleFromFile(c.stdin)
	if err != nil || !run.HasTerminal() {
		return func() {}
	}
	if err := t.SetRaw(); err != nil {
		c.warn("terminal: " + err.Error())
		return func() {}
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	go func() {
		for range resized {
			if size, err := t.Size(); err == nil {
				run.Resize(size)
			}
		}
	}()
	return func() {
		signal.Stop(resized)
		close(resized)
		if err := t.Reset(); err != nil {
			c.warn("terminal: " + err.Error())
		}
	}
}
