package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// usageView is an entry of `system df`.
type usageView struct {
	Type    string `json:"type" doc:"image, layer (of OCI images, which share it), pod, volume, or import for an import under way or interrupted"`
	ID      string `json:"id" doc:"ID of the image, chain ID of the layer, UUID of the pod, or name of the volume"`
	Name    string `json:"name" doc:"name, or empty"`
	Own     int64  `json:"own" doc:"bytes that removing it would free in the storage"`
	Logical int64  `json:"logical" doc:"bytes that its files add up to, shared ones included"`
	Archive int64  `json:"archive" doc:"bytes of an image's archive or a layer's blob, which is kept as it came; 0 for others"`
}

func newSystemDfCommand(c *cli) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "df",
		Short: "Show what images, pods and volumes take of the storage",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			views, err := c.usage(cmd.Context())
			if err != nil {
				return err
			}
			rows := make([]row, len(views))
			for i, v := range views {
				size := func(n int64) string { return units.BytesSize(float64(n)) }
				id, archive := v.ID, "-"
				switch v.Type {
				case "image":
					id, archive = image.ID(v.ID).Short(), size(v.Archive)
				case "layer":
					id, archive = v.ID[:19], size(v.Archive)
				case "pod":
					id = v.ID[:8]
				}
				rows[i] = row{v.ID, []string{v.Type, id, orDash(v.Name), size(v.Own), size(v.Logical), archive}, v}
			}
			return o.print(c.stdout, []string{"TYPE", "ID", "NAME", "OWN", "LOGICAL", "ARCHIVE"}, rows)
		},
	}
	o.add(cmd)
	return cmd
}

// usage measures every tree and adds it to whom it belongs, images first.
func (c *cli) usage(ctx context.Context) ([]usageView, error) {
	h, err := c.open()
	if err != nil {
		return nil, err
	}
	trees, err := h.driver.List(ctx, "")
	if err != nil {
		return nil, err
	}
	names, archives, err := c.usageNames(ctx, h)
	if err != nil {
		return nil, err
	}
	views := map[[2]string]*usageView{}
	for _, t := range trees {
		if t.Partial {
			continue // system prune tells of it
		}
		u, err := h.driver.Usage(ctx, t.Name)
		if errors.Is(err, storage.ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		kind, id := owner(t.Name)
		v := views[[2]string{kind, id}]
		if v == nil {
			v = &usageView{Type: kind, ID: id, Name: names[id], Archive: archives[id]}
			views[[2]string{kind, id}] = v
		}
		v.Own += u.Own
		v.Logical += u.Logical
	}
	var sorted []usageView
	for _, v := range views {
		sorted = append(sorted, *v)
	}
	order := []string{"image", "layer", "import", "pod", "volume"}
	slices.SortFunc(sorted, func(a, b usageView) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Type), slices.Index(order, b.Type)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return sorted, nil
}

// owner tells what a tree belongs to (ARCHITECTURE.md, "State").
func owner(tree string) (kind, id string) {
	kind, id, _ = strings.Cut(tree, "/")
	switch kind {
	case "images":
		return "image", id
	case "layers":
		return "layer", strings.Replace(id, "-", ":", 1)
	case "named":
		return "volume", id
	case "pods", "volumes":
		id, _, _ = strings.Cut(id, ".")
		return "pod", id
	}
	return "import", id
}

// usageNames gives the names of images and pods by their IDs, and the sizes of what is
// kept of images and layers as it came.
func (c *cli) usageNames(ctx context.Context, h *host) (names map[string]string, archives map[string]int64, err error) {
	names, archives = map[string]string{}, map[string]int64{}
	images, err := h.images.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, img := range images {
		names[string(img.ID)], archives[string(img.ID)] = img.Name(), img.FileSize
		for _, l := range img.Layers() {
			archives[string(img.ID)] -= l.Size
			archives[l.ChainID] = l.Size
		}
	}
	pods, err := c.runtime(h, nil).List(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range pods {
		names[p.UUID] = p.Options.Name
	}
	return names, archives, nil
}
