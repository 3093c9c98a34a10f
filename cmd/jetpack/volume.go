package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/runtime"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

func newVolumeCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Work with named volumes",
		Long: "Work with named volumes: directories that outlive the pods that use them. A pod gets one with\n" +
			"--volume NAME,source=volume:NAMED or, if it has a single app, with --volume NAMED:/PATH.",
		RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(
		newVolumeCreateCommand(c), newVolumeListCommand(c), newVolumeInspectCommand(c),
		newVolumeRmCommand(c), newVolumePruneCommand(c),
	)
	return cmd
}

// volumeView is a volume as `volume list` prints it.
type volumeView struct {
	Name    string    `json:"name" doc:"name"`
	Created time.Time `json:"created" doc:"when it was made"`
	Mode    string    `json:"mode" doc:"permissions that its directory was made with, in octal"`
	UID     int       `json:"uid" doc:"user that it was made for; what runs in pods may have changed that"`
	GID     int       `json:"gid" doc:"group, likewise"`
	InUse   bool      `json:"inUse" doc:"a pod that runs uses it"`
	Pods    []string  `json:"pods" doc:"IDs of the pods that refer to it, running or not"`
}

// volumeDetailsView is a volume as `volume inspect` prints it.
type volumeDetailsView struct {
	volumeView
	Size       int64   `json:"size" doc:"bytes of storage that it takes"`
	MountPoint *string `json:"mountPoint" doc:"where it is on the host" null:"while it is not mounted"`
}

func viewVolume(v volume.Volume, pods []runtime.Info) volumeView {
	view := volumeView{
		Name: v.Name, Created: v.Created, Mode: fmt.Sprintf("%04o", v.Mode), UID: v.UID, GID: v.GID,
		InUse: v.InUse, Pods: []string{},
	}
	for _, p := range pods {
		view.Pods = append(view.Pods, p.UUID)
	}
	return view
}

// podsByVolume gives the pods that refer to each volume, and those that may refer to
// any, as their manifests cannot be read.
func (c *cli) podsByVolume(ctx context.Context, h *host) (users map[string][]runtime.Info, unknown []runtime.Info, err error) {
	pods, err := c.runtime(h, nil).List(ctx)
	if err != nil {
		return nil, nil, err
	}
	users = map[string][]runtime.Info{}
	for _, p := range pods {
		if p.Manifest == nil {
			if p.State.Phase != runtime.Embryo { // which looks for its volumes once more
				unknown = append(unknown, p)
			}
			continue
		}
		named := map[string]bool{} // a pod may have a volume under several names
		for _, a := range p.Manifest.Annotations {
			if strings.HasPrefix(a.Name.String(), volume.AnnotationPrefix) && !named[a.Value] {
				named[a.Value] = true
				users[a.Value] = append(users[a.Value], p)
			}
		}
	}
	return users, unknown, nil
}

// volumes opens the volumes of a root.
func (c *cli) volumes(h *host) *volume.Store {
	return &volume.Store{
		Dir: volumesDir(c.cfg.Root), Driver: h.driver,
		Referrer: func(ctx context.Context, name string) (string, error) {
			users, unknown, err := c.podsByVolume(ctx, h)
			switch {
			case err != nil:
				return "", err
			case len(users[name]) > 0:
				return byPod(users[name][0]), nil
			case len(unknown) > 0:
				return unknownUser(unknown[0]), nil
			}
			return "", nil
		},
	}
}

// byPod says which pod refers to a volume and what to do about it.
func byPod(p runtime.Info) string {
	if p.State.Phase == runtime.Running {
		return fmt.Sprintf("by pod %[1]s, which runs; stop it with 'jetpack pod stop %[1]s' and remove it with 'jetpack pod rm %[1]s'", p.UUID)
	}
	return fmt.Sprintf("by pod %[1]s; remove that with 'jetpack pod rm %[1]s'", p.UUID)
}

// unknownUser says that a pod may refer to any volume.
func unknownUser(p runtime.Info) string {
	return fmt.Sprintf("for all that is known: the manifest of pod %[1]s cannot be read; 'jetpack pod rm %[1]s' removes it", p.UUID)
}

func newVolumeCreateCommand(c *cli) *cobra.Command {
	var o volume.Options
	var mode, size string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make an empty volume; print its name",
		Args:  exactly(1, "one NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := strconv.ParseUint(mode, 8, 12)
			if err != nil || m == 0 {
				return usagef("--mode %q: want octal digits such as 0755", mode)
			}
			o.Mode = uint32(m)
			if size != "" {
				if o.Quota, err = units.RAMInBytes(size); err != nil || o.Quota <= 0 {
					return usagef("--size %q: want a number of bytes such as 512M or 64G", size)
				}
			}
			h, err := c.open()
			if err != nil {
				return err
			}
			v, err := h.volumes.Create(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.stdout, v.Name)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&mode, "mode", "0755", "permissions of its directory, in octal (`MODE`)")
	f.IntVar(&o.UID, "uid", 0, "user who owns it (`N`)")
	f.IntVar(&o.GID, "gid", 0, "group who owns it (`N`)")
	f.StringVar(&size, "size", "", "most that it may hold (`SIZE`, as 64G), where the storage can bound that")
	return cmd
}

func newVolumeListCommand(c *cli) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List volumes",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.open()
			if err != nil {
				return err
			}
			volumes, damaged := h.volumes.List(cmd.Context())
			if damaged != nil && !errors.Is(damaged, volume.ErrDamaged) {
				return damaged
			}
			users, _, err := c.podsByVolume(cmd.Context(), h)
			if err != nil {
				return err
			}
			rows := make([]row, len(volumes))
			for i, v := range volumes {
				var pods []string
				for _, p := range users[v.Name] {
					name := p.Options.Name
					if name == "" {
						name = p.UUID[:8]
					}
					pods = append(pods, name)
				}
				rows[i] = row{v.Name, []string{v.Name, ago(v.Created), orDash(strings.Join(pods, ","))}, viewVolume(v, users[v.Name])}
			}
			return errors.Join(o.print(c.stdout, []string{"NAME", "CREATED", "PODS"}, rows), damaged)
		},
	}
	o.add(cmd)
	return cmd
}

func newVolumeInspectCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME...",
		Short: "Show all that is known of volumes, as JSON",
		Args:  some("NAME..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := c.open()
			if err != nil {
				return err
			}
			users, _, err := c.podsByVolume(cmd.Context(), h)
			if err != nil {
				return err
			}
			views := make([]volumeDetailsView, len(args))
			for i, name := range args {
				d, err := h.volumes.Inspect(cmd.Context(), name)
				if err != nil {
					return err
				}
				views[i] = volumeDetailsView{volumeView: viewVolume(d.Volume, users[name]), Size: d.Size}
				if d.Dir != "" {
					views[i].MountPoint = &d.Dir
				}
			}
			return printJSON(c.stdout, views)
		},
	}
}

func newVolumeRmCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove volumes that no pod refers to, with all that is in them",
		Args:  some("NAME..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := c.open()
			if err != nil {
				return err
			}
			var errs []error // one that fails does not keep the others
			for _, name := range args {
				errs = append(errs, h.volumes.Remove(cmd.Context(), name))
			}
			return errors.Join(errs...)
		},
	}
}

func newVolumePruneCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove volumes that no pod refers to, with all that is in them; print their names",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force {
				if err := c.confirm(cmd.Context(), "Remove all volumes that no pod refers to, with all that is in them?"); err != nil {
					return err
				}
			}
			return c.pruneVolumes(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}

func (c *cli) pruneVolumes(ctx context.Context) error {
	h, err := c.open()
	if err != nil {
		return err
	}
	volumes, damaged := h.volumes.List(ctx)
	if damaged != nil && !errors.Is(damaged, volume.ErrDamaged) {
		return damaged
	}
	users, unknown, err := c.podsByVolume(ctx, h)
	if err != nil {
		return err
	}
	if len(unknown) > 0 {
		return fmt.Errorf("none is removed: %w %s", volume.ErrInUse, unknownUser(unknown[0]))
	}
	errs := []error{damaged} // one that cannot go does not keep the others
	for _, v := range volumes {
		if len(users[v.Name]) > 0 {
			continue
		}
		if err := h.volumes.Remove(ctx, v.Name); err != nil {
			errs = append(errs, err)
			continue
		}
		if _, err := fmt.Fprintln(c.stdout, v.Name); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}
