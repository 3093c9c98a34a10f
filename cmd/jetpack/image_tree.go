package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/appc/spec/schema/types"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// treeView is an image with all that it is made of, as `image tree` prints it.
type treeView struct {
	ID           string            `json:"id" doc:"image ID"`
	Name         string            `json:"name" doc:"the image's name"`
	Labels       map[string]string `json:"labels" doc:"the image's labels"`
	Size         int64             `json:"size" doc:"bytes of its own uncompressed archive, of an OCI image those of its layers"`
	Total        int64             `json:"total" doc:"bytes of it and all that it depends on, what is there several times counted once"`
	Layers       []layerView       `json:"layers" doc:"layers of an OCI image, the lowest first"`
	Declared     *declaredView     `json:"declared" doc:"as the image above declares it" null:"at the top"`
	Dependencies []treeView        `json:"dependencies" doc:"what it depends on, in its manifest's order; an image that is depended on twice is there twice"`
}

// declaredView is what a manifest says of a dependency.
type declaredView struct {
	Name   string            `json:"name" doc:"name"`
	Labels map[string]string `json:"labels" doc:"labels that it must have"`
	ID     *string           `json:"id" doc:"ID that it must have" null:"if any will do"`
}

func newImageTreeCommand(c *cli) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "tree IMAGE",
		Short: "Show what an image depends on, directly and indirectly, and how large each part is",
		Args:  exactly(1, "one IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "json" {
				return usagef("--format %q: want table or json", format)
			}
			return c.eachImage(cmd.Context(), args, func(h *host, img *image.Image) error {
				tree, err := imageTree(cmd.Context(), h, img)
				if err != nil {
					return err
				}
				if format == "json" {
					return printJSON(c.stdout, tree)
				}
				rows := append(treeRows(nil, tree, 0), row{cells: []string{"total", "-", "-", units.BytesSize(float64(tree.Total)), "-"}})
				return printTable(c.stdout, []string{"NAME", "VERSION", "ID", "SIZE", "DECLARED"}, rows)
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT`: table, json")
	return cmd
}

// imageTree gives the tree of an image, the size of which the store bounds.
func imageTree(ctx context.Context, h *host, img *image.Image) (treeView, error) {
	images, err := h.images.Walk(ctx, img)
	if err != nil {
		return treeView{}, err
	}
	known := map[image.ID]*image.Image{}
	for _, i := range images {
		known[i.ID] = i
	}
	return viewTree(known, img, nil), nil
}

func viewTree(known map[image.ID]*image.Image, img *image.Image, declared *declaredView) treeView {
	v := treeView{
		ID: string(img.ID), Name: img.Name(), Labels: viewLabels(img.Parsed().Labels),
		Size: img.Size, Total: totalSize(known, img, map[string]bool{}),
		Layers: viewLayers(img), Declared: declared, Dependencies: []treeView{},
	}
	for i, d := range img.Parsed().Dependencies {
		v.Dependencies = append(v.Dependencies, viewTree(known, known[img.Dependencies[i]], viewDeclared(d)))
	}
	return v
}

// totalSize adds up the archives and layers that an image is made of, less those that are
// counted already.
func totalSize(known map[image.ID]*image.Image, img *image.Image, counted map[string]bool) (total int64) {
	add := func(id string, size int64) {
		if !counted[id] {
			total += size
		}
		counted[id] = true
	}
	if counted[string(img.ID)] {
		return 0
	}
	if img.OCI == nil {
		add(string(img.ID), img.Size)
	}
	for _, l := range img.Layers() {
		add(l.ChainID, l.Content)
	}
	for _, id := range img.Dependencies {
		total += totalSize(known, known[id], counted)
	}
	return total
}

func viewDeclared(d types.Dependency) *declaredView {
	v := &declaredView{Name: d.ImageName.String(), Labels: viewLabels(d.Labels)}
	if d.ImageID != nil {
		id := d.ImageID.String()
		v.ID = &id
	}
	return v
}

func treeRows(rows []row, v treeView, depth int) []row {
	declared := "-"
	if d := v.Declared; d != nil {
		declared = manifest.Ref{Name: d.Name, Labels: d.Labels}.String()
		if d.ID != nil {
			declared += " " + image.ID(*d.ID).Short()
		}
	}
	rows = append(rows, row{v.ID, []string{
		strings.Repeat("  ", depth) + v.Name, orDash(v.Labels["version"]), image.ID(v.ID).Short(),
		units.BytesSize(float64(v.Size)), declared,
	}, v})
	for _, l := range slices.Backward(v.Layers) {
		rows = append(rows, row{l.ChainID, []string{
			strings.Repeat("  ", depth+1) + "layer", "-", l.ChainID[:19], units.BytesSize(float64(l.Content)), "-",
		}, v})
	}
	for _, d := range v.Dependencies {
		rows = treeRows(rows, d, depth+1)
	}
	return rows
}

// historyView is one of the images that an image is made of, or a step in which an OCI
// image was made, as `image history` prints it.
type historyView struct {
	ID            string            `json:"id" doc:"image ID"`
	Name          string            `json:"name" doc:"the image's name"`
	Labels        map[string]string `json:"labels" doc:"the image's labels"`
	Created       *time.Time        `json:"created" doc:"when it was made, according to its annotation \"created\"" null:"if it does not say"`
	Size          int64             `json:"size" doc:"bytes of its own uncompressed archive"`
	PathWhitelist []string          `json:"pathWhitelist" doc:"the only paths that it leaves of itself and what it depends on; empty if all are left"`
	Step          *stepOfView       `json:"step" doc:"the step of an OCI image that this is, the last one first, behind the image itself" null:"for an image"`
}

// stepOfView is a step in which an OCI image was made, according to its configuration.
type stepOfView struct {
	CreatedBy string     `json:"createdBy" doc:"what made it, or empty"`
	Layer     *layerView `json:"layer" doc:"the layer that it made" null:"if it made none"`
}

func newImageHistoryCommand(c *cli) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "history IMAGE",
		Short: "List the images that an image is made of; each overrides those below it",
		Args:  exactly(1, "one IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachImage(cmd.Context(), args, func(h *host, img *image.Image) error {
				images, err := h.images.Walk(cmd.Context(), img)
				if err != nil {
					return err
				}
				slices.Reverse(images)
				var rows []row
				for _, img := range images {
					rows = append(append(rows, historyRow(img)), stepRows(img)...)
				}
				return o.print(c.stdout, []string{"ID", "NAME", "VERSION", "CREATED", "SIZE", "PATHS"}, rows)
			})
		},
	}
	o.add(cmd)
	return cmd
}

func historyRow(img *image.Image) row {
	m := img.Parsed()
	v := historyView{
		ID: string(img.ID), Name: img.Name(), Labels: viewLabels(m.Labels), Size: img.Size,
		PathWhitelist: notNil(m.PathWhitelist),
	}
	created := "-"
	if text, ok := m.Annotations.Get("created"); ok {
		if t, err := time.Parse(time.RFC3339, text); err == nil {
			v.Created, created = timeOrNull(t.UTC()), ago(t)
		}
	}
	paths := "all"
	if n := len(v.PathWhitelist); n > 0 {
		paths = fmt.Sprintf("%d listed", n)
	}
	return row{v.ID, []string{
		img.ID.Short(), v.Name, orDash(v.Labels["version"]), created, units.BytesSize(float64(v.Size)), paths,
	}, v}
}

// stepRows are the steps in which an OCI image was made. A configuration that tells of
// other steps than its layers is not believed.
func stepRows(img *image.Image) (rows []row) {
	if img.OCI == nil {
		return nil
	}
	layers := viewLayers(img)
	steps, err := oci.History(img)
	if err != nil {
		steps = nil
	}
	n := 0
	for _, s := range steps {
		if !s.EmptyLayer {
			n++
		}
	}
	if n != len(layers) {
		steps = make([]oci.Step, len(layers))
	}
	for i := range steps {
		s := &steps[i]
		v := historyView{
			ID: string(img.ID), Name: img.Name(), Labels: viewLabels(img.Parsed().Labels), PathWhitelist: []string{},
			Step: &stepOfView{CreatedBy: s.CreatedBy},
		}
		id, size, created := "-", "-", "-"
		if !s.EmptyLayer {
			v.Step.Layer, layers = &layers[0], layers[1:]
			v.Size = v.Step.Layer.Content
			id, size = v.Step.Layer.ChainID[:19], units.BytesSize(float64(v.Size))
		}
		if !s.Created.IsZero() {
			v.Created, created = timeOrNull(s.Created.UTC()), ago(s.Created.Time)
		}
		rows = append(rows, row{v.ID, []string{"  " + id, fmt.Sprintf("%.60s", printable(orDash(s.CreatedBy))), "-", created, size, "-"}, v})
	}
	slices.Reverse(rows)
	return rows
}
