package main

import (
	"context"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/treecmp"
)

// changeView is a path that differs, as `image diff` prints it.
type changeView struct {
	Path string             `json:"path" doc:"absolute path in the root; \"/\" is the root itself"`
	Kind storage.ChangeKind `json:"kind" doc:"added, modified or deleted"`
}

func newImageDiffCommand(c *cli) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "diff IMAGE [IMAGE2]",
		Short: "List what an image changes in its first dependency, or how IMAGE2 differs from it",
		Long: "List the paths that an image adds (A), modifies (M) or deletes (D) in what its first\n" +
			"dependency left, all it has if it depends on none; or, with IMAGE2, how the root of\n" +
			"IMAGE2 differs from that of IMAGE. Two images are compared byte by byte, whatever\n" +
			"their times.",
		Args: cobra.MatchAll(some("IMAGE [IMAGE2]"), atMost(2, "IMAGE [IMAGE2]")),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			var h *host
			var images []*image.Image
			err := c.eachImage(ctx, args, func(opened *host, img *image.Image) error {
				h, images = opened, append(images, img)
				return nil
			})
			if err != nil {
				return err
			}
			changes, err := imageDiff(ctx, h, images)
			if err != nil {
				return err
			}
			rows := make([]row, len(changes))
			for i, change := range changes {
				path := printable(change.Path)
				rows[i] = row{path, []string{changeLetters[change.Kind], path}, changeView(change)}
			}
			return o.printLines(c.stdout, rows)
		},
	}
	o.add(cmd)
	cmd.Flags().Lookup("quiet").Usage = "only the paths, one a line"
	return cmd
}

func imageDiff(ctx context.Context, h *host, images []*image.Image) ([]storage.Change, error) {
	if len(images) == 1 {
		return h.driver.Diff(ctx, image.Tree(images[0].ID))
	}
	var changes []storage.Change
	err := h.images.WithRoot(ctx, images[0], func(a string) error {
		return h.images.WithRoot(ctx, images[1], func(b string) (err error) {
			changes, err = treecmp.Compare(ctx, a, b, treecmp.IgnoreTimes)
			return err
		})
	})
	return changes, err
}

var changeLetters = map[storage.ChangeKind]string{storage.Added: "A", storage.Modified: "M", storage.Deleted: "D"}

// printable is a path that an image chose, fit for a terminal and for one line.
func printable(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(path)
	}
	return path
}
