package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/appc/spec/schema"
	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

type exportOptions struct {
	format      string
	flat        bool
	compression string
	signature   bool
}

var exportFormats = []string{"aci", "oci", "oci-archive", "docker-archive"}

func newImageExportCommand(c *cli) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export IMAGE FILE",
		Short: "Write an image to a file or standard output (-)",
		Long: "Write an image's archive, just as it came, to a file or standard output (-). With\n" +
			"--flat it is an archive of the image's whole root, which depends on no other image;\n" +
			"so it is in any case for an OCI image and what is made of one, since an archive cannot\n" +
			"name that as a dependency for others to fetch.\n\n" +
			"With --format oci-archive or docker-archive the file is for other tools, with oci FILE is\n" +
			"a directory, an image layout, to which the image is added as NAME:VERSION. An OCI\n" +
			"image has the layers with which it came; an ACI has one for itself and each first\n" +
			"dependency.",
		Args: exactly(2, "IMAGE and FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(exportFormats, o.format) {
				return usagef("--format %q: want %s", o.format, strings.Join(exportFormats, ", "))
			}
			if o.format != "aci" && (o.flat || o.compression != "") {
				return usagef("--format %s: --flat and --compression are for an ACI", o.format)
			}
			if o.signature && (o.format != "aci" || o.flat || o.compression != "" || args[1] == "-") {
				return usagef("--signature: is of an ACI as it came, in a file")
			}
			return c.eachImage(cmd.Context(), args[:1], func(h *host, img *image.Image) error {
				if o.format != "aci" {
					return c.exportOCI(cmd.Context(), h, img, o.format, args[1])
				}
				write, err := c.exporter(cmd.Context(), h, img, o)
				if err != nil {
					return err
				}
				if o.signature {
					return c.exportSigned(cmd.Context(), h, img, args[1], write)
				}
				return c.writeACI(args[1], write)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "aci", "`FORMAT`: "+strings.Join(exportFormats, ", "))
	f.BoolVar(&o.flat, "flat", false, "the whole root as it is rendered, without dependencies and pathWhitelist")
	f.BoolVar(&o.signature, "signature", false, "write the signature with which it came, too, to FILE.asc")
	f.StringVar(&o.compression, "compression", "", "compress an ACI with `NAME`: gzip, xz, none (default: as it came; written anew, image.compression)")
	return cmd
}

// exporter gives what writes an image as an ACI.
func (c *cli) exporter(ctx context.Context, h *host, img *image.Image, o exportOptions) (func(io.Writer) error, error) {
	flat, err := madeOfOCI(ctx, h, img)
	if err != nil {
		return nil, err
	}
	flat = flat || o.flat
	if !flat && o.compression == "" {
		return func(w io.Writer) error {
			return withArchive(h, img, func(in io.Reader) error {
				_, err := io.Copy(w, in)
				return err
			})
		}, nil
	}
	compression, err := c.compression(o.compression)
	if err != nil {
		return nil, err
	}
	if !flat {
		return func(w io.Writer) error {
			return withArchive(h, img, func(in io.Reader) error { return aci.Recompress(ctx, w, in, compression) })
		}, nil
	}
	raw, err := manifest.MarshalImage(flatManifest(img))
	if err != nil {
		return nil, err
	}
	latest, err := sourceDate()
	if err != nil {
		return nil, err
	}
	return func(w io.Writer) error {
		return packRoot(ctx, h, img, w, raw, aci.PackOptions{Latest: latest, Compression: compression})
	}, nil
}

// exportSigned writes an image, and the signature with which it came beside it.
func (c *cli) exportSigned(ctx context.Context, h *host, img *image.Image, path string, write func(io.Writer) error) error {
	if img.Signature == nil {
		return fmt.Errorf("%s: it came without a signature; 'jetpack image sign FILE' makes one", img.Name())
	}
	flat, err := madeOfOCI(ctx, h, img)
	if err != nil {
		return err
	}
	if flat {
		return fmt.Errorf("%s: it is made of an OCI image and so not written as it came: its signature fits no more; leave out --signature", img.Name())
	}
	if err := c.writeACI(path, write); err != nil {
		return err
	}
	return writeOut(path+".asc", func(w io.Writer) error {
		_, err := io.WriteString(w, img.Signature.Armored)
		return err
	})
}

// madeOfOCI tells whether an image is an OCI image or depends on one, of which others would
// find nothing by the ID that an ACI has to name it by.
func madeOfOCI(ctx context.Context, h *host, img *image.Image) (bool, error) {
	images, err := h.images.Walk(ctx, img)
	return slices.ContainsFunc(images, func(i *image.Image) bool { return i.OCI != nil }), err
}

// flatManifest is the manifest of an ACI with the whole root of an image.
func flatManifest(img *image.Image) *schema.ImageManifest {
	m := *img.Parsed()
	m.Dependencies, m.PathWhitelist = nil, nil
	return &m
}

// packRoot writes an ACI of the root of an image.
func packRoot(ctx context.Context, h *host, img *image.Image, w io.Writer, raw []byte, o aci.PackOptions) error {
	return h.images.WithRoot(ctx, img, func(root string) error {
		o.Root = root
		return aci.Pack(ctx, w, raw, o)
	})
}

// compression is what a flag says, or else the configuration.
func (c *cli) compression(flag string) (extract.Compression, error) {
	if flag == "" {
		flag = c.cfg.ImageCompression
	}
	compression, err := extract.ParseCompression(flag)
	if err != nil {
		return "", usagef("--compression: %w", err)
	}
	return compression, nil
}

// withArchive gives do the archive of an image as it came.
func withArchive(h *host, img *image.Image, do func(io.Reader) error) (err error) {
	in, err := h.images.File(img)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return do(in)
}

// writeACI writes an image to a file that the user named, or to standard output (-).
func (c *cli) writeACI(path string, write func(io.Writer) error) error {
	if path != "-" && !strings.HasSuffix(path, ".aci") && !strings.HasPrefix(path, "/dev/") {
		c.warn(path + ": other tools know an image by the suffix .aci")
	}
	return c.writeFile(path, write)
}

// writeFile writes to a file that the user named, or to standard output (-).
func (c *cli) writeFile(path string, write func(io.Writer) error) error {
	if path == "-" {
		// A reader that has gone must not keep us from clearing away what we write of.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
		return write(c.stdout)
	}
	if strings.HasPrefix(path, "-") {
		return usagef("write to %s: want a file, or - for standard output", path)
	}
	return writeOut(path, func(out io.Writer) error {
		if err := write(out); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		return nil
	})
}
