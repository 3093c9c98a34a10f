package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

type createOptions struct {
	rootfs, manifest string
	outputOptions
}

// outputOptions say where an image that is made here goes.
type outputOptions struct {
	output, compression string
}

func (o *outputOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "write the image to `FILE` (- for standard output) instead of taking it in")
	f.StringVar(&o.compression, "compression", "", "compress with `NAME`: gzip, xz, none (default image.compression)")
}

func newImageCreateCommand(c *cli) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create --rootfs {TAR | DIR} --manifest FILE",
		Short: "Make an image of a root file system and a manifest",
		Long: "Make an image of a tar archive, compressed or not, or of a directory, and of an image\n" +
			"manifest, in which acKind and acVersion may be missing. It is taken into the store,\n" +
			"without a signature, and its ID is printed; with --output it is only written to a\n" +
			"file, which needs neither a store nor, of an archive, root. Times later than\n" +
			"SOURCE_DATE_EPOCH, if that is set, become that: equal input gives equal images.",
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.rootfs == "" || o.manifest == "" {
				return usagef("say of what: with --rootfs TAR or DIR, and --manifest FILE")
			}
			if o.rootfs == "-" && o.manifest == "-" {
				return usagef("--rootfs -: standard input is the manifest already")
			}
			return c.runCreate(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.rootfs, "rootfs", "", "the root file system: a tar `ARCHIVE`, - for standard input, or a directory")
	f.StringVar(&o.manifest, "manifest", "", "the image manifest, a JSON `FILE`, - for standard input")
	o.add(cmd)
	return cmd
}

func (c *cli) runCreate(ctx context.Context, o createOptions) error {
	raw, err := c.readImageManifest(o.manifest)
	if err != nil {
		return err
	}
	latest, err := sourceDate()
	if err != nil {
		return err
	}
	compression, err := c.compression(o.compression)
	if err != nil {
		return err
	}
	return c.putImage(ctx, o.outputOptions, "image create", func(w io.Writer) error {
		return c.pack(ctx, w, raw, o.rootfs, latest, compression)
	})
}

// readImageManifest reads an image manifest that the user wrote, from a file or
// standard input (-), and completes it.
func (c *cli) readImageManifest(file string) ([]byte, error) {
	raw, err := c.readJSON(file)
	if err != nil {
		return nil, err
	}
	raw = manifest.CompleteImage(raw)
	_, warnings, err := manifest.ParseImage(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, w := range warnings {
		c.warn(file + ": " + w)
	}
	return raw, nil
}

// pack writes an image of an archive or a directory.
func (c *cli) pack(ctx context.Context, w io.Writer, raw []byte, rootfs string, latest time.Time, compression extract.Compression) (err error) {
	in := c.stdin
	if rootfs != "-" {
		if in, err = os.Open(rootfs); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.Close()) }()
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		root, err := filepath.Abs(rootfs)
		if err != nil {
			return err
		}
		return aci.Pack(ctx, w, raw, aci.PackOptions{Root: root, Latest: latest, Compression: compression})
	}
	warnings, err := aci.PackTar(ctx, w, raw, in, aci.TarOptions{Limits: limits(c.cfg), Latest: latest, Compression: compression})
	if err != nil {
		return fmt.Errorf("%s: %w", rootfs, err)
	}
	for _, line := range warnings {
		c.warn(rootfs + ": " + line)
	}
	return nil
}

// sourceDate is the time that $SOURCE_DATE_EPOCH gives, zero without one
// (https://reproducible-builds.org/specs/source-date-epoch/).
func sourceDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, usagef("SOURCE_DATE_EPOCH=%.40q: want seconds since 1970", text)
	}
	return time.Unix(seconds, 0), nil
}

// putImage writes an image that is made here to a file, or takes it in and prints its ID.
func (c *cli) putImage(ctx context.Context, o outputOptions, origin string, write func(io.Writer) error) error {
	if o.output != "" {
		return c.writeACI(o.output, write)
	}
	h, err := c.open()
	if err != nil {
		return err
	}
	img, err := c.takeInMade(ctx, h, origin, write)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.stdout, img.ID)
	return err
}

// takeInMade takes in an image that write makes. Nothing vouches for it but who made it.
func (c *cli) takeInMade(ctx context.Context, h *host, origin string, write func(io.Writer) error) (*image.Image, error) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(extract.Memory))
	img, warnings, err := aci.ImportWritten(ctx, h.images, write, aci.ImportOptions{Origin: origin, Limits: limits(c.cfg)})
	if err != nil {
		return nil, err
	}
	for _, line := range warnings {
		c.warn(img.Name() + ": " + line)
	}
	return img, nil
}
