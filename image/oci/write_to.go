package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
)

// WriteLayout adds an image to the layout in a directory (OCI image-spec,
// image-layout.md), in the place of one of the same name; a directory that is not there, or
// empty, becomes one. What fails leaves no image there, but maybe blobs that no image has.
func WriteLayout(dir string, x *Export, ref string) error {
	l, err := openLayout(dir)
	if err != nil {
		return fmt.Errorf("image layout %s: %w", dir, err)
	}
	if err := addTo(l, x, ref); err != nil {
		return fmt.Errorf("image layout %s: %w", dir, err)
	}
	return nil
}

// addTo writes what an image consists of, then the index.
func addTo(l layout.Path, x *Export, ref string) error {
	if err := l.WriteImage(x); err != nil {
		return err
	}
	there, err := l.ImageIndex()
	if err != nil {
		return err
	}
	index, err := there.IndexManifest()
	if err != nil {
		return err
	}
	d, err := x.descriptor(ref)
	if err != nil {
		return err
	}
	index.Manifests = append(slices.DeleteFunc(index.Manifests, match.Name(ref)), d)
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return atomicfile.Replace(filepath.Join(string(l), "index.json"), raw, 0o644)
}

// descriptor is what an index says of the image.
func (x *Export) descriptor(ref string) (v1.Descriptor, error) {
	d, err := partial.Descriptor(x)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d.ArtifactType = "" // the library has the media type of the configuration there
	d.Platform, d.Annotations = &x.Platform, map[string]string{refName: ref}
	return *d, nil
}

func openLayout(dir string) (layout.Path, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return layout.Write(dir, empty.Index)
	}
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return "", errors.New("it is neither an image layout nor empty")
	}
	return layout.FromPath(dir)
}

// WriteLayoutArchive writes an image as a tar archive of a layout that has it alone. The
// same image gives the same bytes.
func WriteLayoutArchive(ctx context.Context, w io.Writer, x *Export, ref string) error {
	d, err := x.descriptor(ref)
	if err != nil {
		return err
	}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{d}})
	if err != nil {
		return err
	}
	a := archiver{ctx, tar.NewWriter(w), map[string]bool{}}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	if err := a.image(x); err != nil {
		return err
	}
	if err := a.file("index.json", index); err != nil {
		return err
	}
	if err := a.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return a.tar.Close()
}

// archiver writes what a layout has.
type archiver struct {
	ctx  context.Context // of the one archive
	tar  *tar.Writer
	done map[string]bool // blobs that are written
}

func (a *archiver) image(img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if err := a.layer(l); err != nil {
			return err
		}
	}
	for _, raw := range []func() ([]byte, error){img.RawConfigFile, img.RawManifest} {
		data, err := raw()
		if err != nil {
			return err
		}
		digest, _, err := v1.SHA256(bytes.NewReader(data))
		if err != nil {
			return err
		}
		if err := a.file("blobs/sha256/"+digest.Hex, data); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiver) layer(l v1.Layer) (err error) {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return a.blob("blobs/sha256/"+digest.Hex, size, r)
}

func (a *archiver) file(name string, data []byte) error {
	return a.blob(name, int64(len(data)), bytes.NewReader(data))
}

func (a *archiver) blob(name string, size int64, r io.Reader) error {
	if err := a.ctx.Err(); err != nil || a.done[name] {
		return err
	}
	a.done[name] = true
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := io.Copy(a.tar, r)
	return err
}

// WriteDockerArchive writes an image as 'docker save' does, under a name that Docker
// accepts.
func WriteDockerArchive(w io.Writer, x *Export, ref string) error {
	tag, err := parseTag(ref)
	if err != nil {
		return err
	}
	return tarball.Write(tag, x, w)
}

// parseTag reads what Docker calls an image: of NAME:VERSION not all are that.
func parseTag(ref string) (name.Tag, error) {
	tag, err := name.NewTag(ref)
	if err != nil {
		return name.Tag{}, fmt.Errorf("%w: %s is no name for Docker: %w; 'jetpack image edit' can give it another", ErrNoOCI, ref, err)
	}
	return tag, nil
}

// Push sends an image to a registry, but what is there already, and gives
// REGISTRY/NAME@DIGEST. progress, if it is not nil, is told how much of how many bytes is
// there, by one goroutine. Credentials are those of Docker's configuration and its
// helpers, or else of podman's.
func Push(ctx context.Context, web Web, x *Export, l Location, progress func(complete, total int64)) (_ string, err error) {
	if !l.IsRegistry() || l.Digest != "" {
		return "", fmt.Errorf("push to %s: want docker://REGISTRY/NAME[:TAG]", l)
	}
	host := l.repository.RegistryStr()
	updates := make(chan v1.Update, 16)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for u := range updates {
			if progress != nil && u.Error == nil {
				progress(u.Complete, u.Total)
			}
		}
	}()
	err = remote.Write(l.reference(), x,
		remote.WithContext(ctx), remote.WithJobs(parallel), remote.WithProgress(updates),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(web.RoundTripper(host, func(*http.Request) int64 { return maxDocument })),
	)
	<-told // remote.Write closes it
	if err != nil {
		return "", fmt.Errorf("push to %s: %w", l, explain(err, host))
	}
	digest, err := x.Digest()
	return l.repository.Digest(digest.String()).String(), err
}
