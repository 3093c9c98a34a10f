package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/internal/config"
)

func newImageCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Work with images", RunE: group, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(
		newImageFetchCommand(c), newImageImportCommand(c), newImageListCommand(c), newImageInspectCommand(c),
		newImageManifestCommand(c), newImageExportCommand(c), newImageRmCommand(c), newImagePruneCommand(c),
		newImageCreateCommand(c), newImageEditCommand(c), newImagePushCommand(c),
		newImageTreeCommand(c), newImageHistoryCommand(c), newImageDiffCommand(c),
		newImageTagCommand(c), newImageUntagCommand(c), newImageVerifyCommand(c), newImageValidateCommand(c), newImageBuildCommand(c), newImageSignCommand(c),
	)
	return cmd
}

// insecure is what --insecure waives.
type insecure []string

var waivable = []string{"signature", "http", "tls"}

func (i *insecure) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar((*[]string)(i), "insecure", nil, "waive checks: signature, http, tls (`LIST`); what is waived is recorded")
}

func (i insecure) check() error {
	for _, w := range i {
		if !slices.Contains(waivable, w) {
			return usagef("--insecure=%s: want a list of %s", w, strings.Join(waivable, ", "))
		}
	}
	return nil
}

func (i insecure) has(what string) bool { return slices.Contains(i, what) }

func newImageImportCommand(c *cli) *cobra.Command {
	var waived insecure
	var strict bool
	var signature, platform string
	cmd := &cobra.Command{
		Use:   "import LOCATION",
		Short: "Take an image from a file, a URL, a registry or standard input (-)",
		Long: "Take an image into the store and print its ID. LOCATION is a file, an https URL, or -.\n" +
			"Its signature, LOCATION.asc unless --sig says otherwise, has to be by a key that is\n" +
			"trusted for the image's name ('jetpack trust add'). What it depends on is fetched.\n\n" +
			ociLong,
		Args: exactly(1, "one LOCATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := waived.check(); err != nil {
				return err
			}
			if signature == "-" && args[0] == "-" {
				return usagef("--sig -: standard input is the image already")
			}
			isOCI := oci.IsLocation(args[0])
			if isOCI && signature != "" {
				return usagef("--sig: there are no signatures of OCI images so far")
			}
			if !isOCI && platform != "" {
				return usagef("--platform is for OCI images")
			}
			h, err := c.open()
			if err != nil {
				return err
			}
			var img *image.Image
			if isOCI {
				img, err = c.bringOCI(cmd.Context(), h, args[0], ociOptions{waived, strict, pullNewer, platform})
			} else {
				img, err = c.takeIn(cmd.Context(), h, args[0], signature, waived, strict)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.stdout, img.ID)
			return err
		},
	}
	waived.add(cmd)
	cmd.Flags().StringVar(&signature, "sig", "", "the detached signature, a `LOCATION` as well")
	cmd.Flags().BoolVar(&strict, "strict", false, "refuse a manifest that there are warnings about")
	addPlatform(cmd, &platform)
	return cmd
}

// takeIn admits an image, or refuses it for want of a signature.
func (c *cli) takeIn(ctx context.Context, h *host, location, signature string, waived insecure, strict bool) (*image.Image, error) {
	f, done, err := c.fetcher(h, waived, strict)
	if err != nil {
		return nil, err
	}
	defer done()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(extract.Memory))
	img, err := f.Import(ctx, location, signature, c.stdin)
	if err != nil {
		return nil, err
	}
	c.noteInsecure(img)
	if location != "-" && !strings.HasSuffix(location, ".aci") {
		c.warn(location + ": its name does not end in .aci, as an image's should")
	}
	return img, nil
}

func limits(cfg *config.Config) layer.Limits {
	return layer.Limits{MaxBytes: cfg.ImageMaxSize, MaxEntries: cfg.ImageMaxEntries}
}

func newImageListCommand(c *cli) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List images",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.open()
			if err != nil {
				return err
			}
			images, damaged, err := h.images.ListAll(cmd.Context())
			if err != nil {
				return err
			}
			for _, err := range damaged {
				c.warn(err.Error())
			}
			rows := make([]row, len(images))
			for i, img := range images {
				rows[i] = row{string(img.ID), []string{
					img.ID.Short(), img.Name(), orDash(img.Label("version")), orDash(img.Label("os")), orDash(img.Label("arch")),
					units.BytesSize(float64(img.Size)), ago(img.Imported), orDash(strings.Join(img.Tags, ",")),
				}, viewImage(img)}
			}
			return o.print(c.stdout, []string{"ID", "NAME", "VERSION", "OS", "ARCH", "SIZE", "IMPORTED", "TAGS"}, rows)
		},
	}
	o.add(cmd)
	return cmd
}

func newImageInspectCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect IMAGE...",
		Short: "Show all that is known of images, as JSON",
		Args:  some("IMAGE..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			views := []imageDetailsView{}
			err := c.eachImage(cmd.Context(), args, func(h *host, img *image.Image) error {
				users, err := h.images.Users(cmd.Context())
				if err != nil {
					return err
				}
				views = append(views, viewImageDetails(img, users[img.ID]))
				return nil
			})
			if err != nil {
				return err
			}
			return printJSON(c.stdout, views)
		},
	}
}

func (c *cli) eachImage(ctx context.Context, names []string, do func(*host, *image.Image) error) error {
	h, err := c.open()
	if err != nil {
		return err
	}
	for _, name := range names {
		img, err := h.images.Find(ctx, name)
		if err != nil {
			return err
		}
		if err := do(h, img); err != nil {
			return err
		}
	}
	return nil
}

func newImageManifestCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "manifest IMAGE",
		Short: "Print an image's manifest",
		Args:  exactly(1, "one IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachImage(cmd.Context(), args, func(_ *host, img *image.Image) error {
				return printRaw(c.stdout, img.Manifest)
			})
		},
	}
}

// printRaw indents JSON without touching its order or its values.
func printRaw(w io.Writer, raw []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(raw), "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(w)
	return err
}

func newImageRmCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "rm IMAGE...",
		Short: "Remove images that no pod uses and no image depends on, with their tags",
		Args:  some("IMAGE..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			h, err := c.open()
			if err != nil {
				return err
			}
			pods, err := c.podsByImage(ctx, h)
			if err != nil {
				return err
			}
			var errs []error // one that fails does not keep the others
			for _, name := range args {
				errs = append(errs, c.removeImage(ctx, h, name, pods))
			}
			return errors.Join(errs...)
		},
	}
}

// podsByImage gives a pod for each image that one uses.
func (c *cli) podsByImage(ctx context.Context, h *host) (map[image.ID]string, error) {
	pods, err := c.runtime(h, nil).List(ctx)
	if err != nil {
		return nil, err
	}
	users := map[image.ID]string{}
	for _, p := range pods {
		if p.Manifest == nil {
			continue
		}
		for _, app := range p.Manifest.Apps {
			users[image.ID(app.Image.ID.String())] = p.UUID
		}
	}
	return users, nil
}

func (c *cli) removeImage(ctx context.Context, h *host, name string, pods map[image.ID]string) error {
	img, err := h.images.Find(ctx, name)
	if id, idErr := image.ParseID(name); idErr == nil && errors.Is(err, image.ErrDamaged) {
		img = &image.Image{ID: id} // all that is known of it
	} else if err != nil {
		return err
	}
	title := imageTitle(img)
	if pod := pods[img.ID]; pod != "" {
		return fmt.Errorf("%s: %w by pod %s; remove that with 'jetpack pod rm %s'", title, image.ErrInUse, pod, pod)
	}
	users, err := h.images.Users(ctx)
	if err != nil {
		return err
	}
	if u := users[img.ID]; len(u) > 0 {
		return fmt.Errorf("%s: %w by image %s (%s); remove that with 'jetpack image rm %s'",
			title, image.ErrInUse, u[0].ID.Short(), u[0].Name(), u[0].ID.Short())
	}
	if err := h.images.Remove(ctx, img.ID); err != nil {
		return err
	}
	if len(img.Tags) > 0 {
		c.notice(fmt.Sprintf("%s: its tags are gone, too: %s", title, strings.Join(img.Tags, ", ")))
	}
	return nil
}

// imageTitle names an image, which may be damaged, in messages.
func imageTitle(img *image.Image) string {
	if img.Parsed() == nil {
		return img.ID.Short()
	}
	return fmt.Sprintf("%s (%s)", img.ID.Short(), img.Name())
}
