package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/storage"
)

// Bounds of what an image may be made of. An image that is depended on through two
// paths is applied, and counts, twice.
const (
	maxDepth = 64  // images from one that depends on nothing up to the top, both included
	maxWalk  = 256 // images applied, one after the other
)

// Depend finds what a manifest depends on (appc spec, aci.md, "Dependency
// Matching"), in its order, and warns where the declared size is another. What a
// name means is decided here, once: the image stays with what it was made of.
// Errors: ErrNotFound, ErrMismatch, ErrTooDeep, wrapped with the dependency's name.
func (s *Store) Depend(ctx context.Context, dependencies []types.Dependency) (found []*Image, warnings []string, err error) {
	depth, applied := 1, 1
	for _, d := range dependencies {
		img, err := s.dependency(ctx, d)
		if err != nil {
			return nil, nil, fmt.Errorf("dependency %w", err)
		}
		walk, deep, err := s.walk(ctx, img)
		if err != nil {
			return nil, nil, fmt.Errorf("dependency %s: %w", d.ImageName, err)
		}
		depth, applied = max(depth, deep+1), applied+len(walk)
		if d.Size != 0 && int64(d.Size) != img.FileSize && int64(d.Size) != img.Size {
			warnings = append(warnings, fmt.Sprintf("dependency %s: declared with %d bytes, but %s has %d", d.ImageName, d.Size, img.ID.Short(), img.FileSize))
		}
		found = append(found, img)
	}
	return found, warnings, checkBounds(depth, applied)
}

func (s *Store) dependency(ctx context.Context, d types.Dependency) (*Image, error) {
	ref := manifest.Ref{Name: d.ImageName.String(), Labels: map[string]string{}}
	for _, l := range d.Labels {
		ref.Labels[l.Name.String()] = l.Value
	}
	if d.ImageID == nil {
		images, err := s.List(ctx)
		if err != nil {
			return nil, err
		}
		return byRef(images, ref)
	}
	id, err := ParseID(d.ImageID.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	img, err := s.Get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if !ref.Matches(img.parsed) {
		return nil, fmt.Errorf("%s: %w: %s is %s", ref, ErrMismatch, id.Short(), img.ref())
	}
	return img, nil
}

// ref is the image's name with all its labels.
func (i *Image) ref() manifest.Ref {
	ref := manifest.Ref{Name: i.Name(), Labels: map[string]string{}}
	for _, l := range i.parsed.Labels {
		ref.Labels[l.Name.String()] = l.Value
	}
	return ref
}

func checkBounds(depth, applied int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: more than %d levels of dependencies", ErrTooDeep, maxDepth)
	}
	if applied > maxWalk {
		return fmt.Errorf("%w: more than %d images to apply", ErrTooDeep, maxWalk)
	}
	return nil
}

// Walk gives what an image is made of in the order of override (appc spec, ace.md,
// "Filesystem Setup"): depth first, the lowest first, the image itself last; what
// is depended on twice is there twice. Errors: ErrDamaged when a dependency is gone.
func (s *Store) Walk(ctx context.Context, img *Image) ([]*Image, error) {
	images, _, err := s.walk(ctx, img)
	return images, err
}

func (s *Store) walk(ctx context.Context, img *Image) (images []*Image, depth int, err error) {
	seen := map[ID]*Image{}
	var visit func(img *Image, level int) error
	visit = func(img *Image, level int) error {
		depth = max(depth, level)
		if err := checkBounds(level, len(images)+1); err != nil {
			return err
		}
		for _, id := range img.Dependencies {
			dep := seen[id]
			if dep == nil {
				var err error
				if dep, err = s.get(ctx, img, id); err != nil {
					return err
				}
				seen[id] = dep
			}
			if err := visit(dep, level+1); err != nil {
				return err
			}
		}
		images = append(images, img)
		return ctx.Err()
	}
	err = visit(img, 1)
	return images, depth, err
}

// get gives a dependency of an image. Errors: ErrDamaged when it is gone.
func (s *Store) get(ctx context.Context, img *Image, id ID) (*Image, error) {
	dep, err := s.Get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("image %s: %w: its dependency %s is gone; import that again", img.ID.Short(), ErrDamaged, id.Short())
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: its dependency: %w", img.ID.Short(), err)
	}
	return dep, nil
}

// Check looks whether an image has its tree and all that it depends on, without
// reading them. Errors: ErrDamaged, with what mends it.
func (s *Store) Check(ctx context.Context, img *Image) error {
	if _, err := s.driver.Stat(ctx, Tree(img.ID)); errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("image %s: %w: it has lost its tree; import it again", img.ID.Short(), ErrDamaged)
	} else if err != nil {
		return err
	}
	for _, id := range img.Dependencies {
		if _, err := s.get(ctx, img, id); err != nil {
			return err
		}
	}
	return nil
}

// Users gives the images that depend directly on each image, damaged ones left out.
func (s *Store) Users(ctx context.Context) (map[ID][]*Image, error) {
	images, _, err := s.scan(ctx)
	if err != nil {
		return nil, err
	}
	return usersOf(images), nil
}

func usersOf(images []*Image) map[ID][]*Image {
	users := map[ID][]*Image{}
	for _, img := range images {
		seen := map[ID]bool{}
		for _, id := range img.Dependencies {
			if !seen[id] {
				users[id] = append(users[id], img)
			}
			seen[id] = true
		}
	}
	return users
}

// checkUnused refuses to take away what another image depends on.
func (s *Store) checkUnused(ctx context.Context, id ID) error {
	users, err := s.Users(ctx)
	if err != nil {
		return err
	}
	if u := users[id]; len(u) > 0 {
		return fmt.Errorf("%s: %w by image %s (%s)", id.Short(), ErrInUse, u[0].ID.Short(), u[0].Name())
	}
	return nil
}
