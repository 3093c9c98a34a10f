package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/config"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/platform"
)

func newImageValidateCommand(c *cli) *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check files against the App Container specification",
		Long: "Check images, compressed or not, directories with the layout of an image, image\n" +
			"manifests and pod manifests; - is standard input. What a file is, it tells itself.\n" +
			"Nothing is taken in. This needs neither root nor a configuration, and reads none:\n" +
			"the limits are the default ones, or those of --set.",
		Args:        some("FILE..."),
		Annotations: map[string]string{annotationNoConfig: "yes"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load("", false, c.sets, platform.OS())
			if err != nil {
				return usageError{err}
			}
			v := validator{stdin: c.stdin, limits: limits(cfg)}
			invalid := false
			for _, file := range args { // every one is looked at
				what, warnings, err := v.validate(cmd.Context(), file)
				for _, w := range warnings {
					c.warn(file + ": " + w)
				}
				if err == nil && strict && len(warnings) > 0 {
					err = errors.New("there are warnings, and --strict allows none")
				}
				if err != nil {
					c.log("error", file+": "+oneLine(unwrapPath(err)))
					invalid = true
					continue
				}
				if _, err := fmt.Fprintf(c.stdout, "%s: valid %s\n", file, what); err != nil {
					return err
				}
			}
			if invalid {
				return exitStatus(exitFailed) // all is said
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "count what there are warnings about as invalid")
	return cmd
}

// unwrapPath leaves the name of the file out of an error that says it again.
func unwrapPath(err error) error {
	if e, ok := err.(*os.PathError); ok { //nolint:errorlint // what wraps one says more
		return e.Err
	}
	return err
}

type validator struct {
	stdin  *os.File
	limits layer.Limits
}

// validate says what a file is, if it is valid, and what is odd about it.
func (v *validator) validate(ctx context.Context, file string) (what string, warnings []string, err error) {
	if file == "-" {
		return v.stream(ctx, v.stdin)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	if !info.IsDir() {
		return v.stream(ctx, f)
	}
	m, err := aci.ValidateLayout(ctx, file, v.limits)
	if err != nil {
		return "", nil, err
	}
	return "layout " + m.Image.Name.String(), m.Warnings, nil
}

// stream tells a manifest from an image by its first character: an archive and what
// compresses one begin otherwise.
func (v *validator) stream(ctx context.Context, r io.Reader) (what string, warnings []string, err error) {
	in := bufio.NewReader(r)
	start, err := in.Peek(64)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", nil, err
	}
	if bytes.HasPrefix(bytes.TrimLeft(start, " \t\r\n"), []byte("{")) {
		return validateManifest(in)
	}
	res, err := aci.Validate(ctx, in, v.limits)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("image %s %s", res.Manifest.Image.Name, res.ID), slices.Concat(res.Manifest.Warnings, res.Warnings), nil
}

func validateManifest(r io.Reader) (what string, warnings []string, err error) {
	raw, err := io.ReadAll(io.LimitReader(r, manifest.MaxSize+1))
	if err != nil {
		return "", nil, err
	}
	if manifest.Kind(raw) == "PodManifest" {
		_, warnings, err := manifest.ParsePod(raw)
		return "pod manifest", warnings, err
	}
	m, warnings, err := manifest.ParseImage(raw)
	if err != nil {
		return "", warnings, err
	}
	return "image manifest " + m.Name.String(), warnings, nil
}
