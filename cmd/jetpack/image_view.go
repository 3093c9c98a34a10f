package main

import (
	"encoding/json"
	"time"

	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/image"
)

// The views are what commands print as JSON. docs/json.md is made of their tags:
// doc says what a field means, null when it is null or, with omitempty, absent.

// imageView is an image as `image list` prints it.
type imageView struct {
	ID          string            `json:"id" doc:"\"sha512-\" and 128 hexadecimal digits: the hash of the uncompressed archive, of an OCI image that of its configuration"`
	Name        string            `json:"name" doc:"name, from the manifest"`
	Labels      map[string]string `json:"labels" doc:"labels, from the manifest: version, os, arch and others"`
	Tags        []string          `json:"tags" doc:"further names in this store, sorted"`
	Imported    time.Time         `json:"imported" doc:"when it was taken in"`
	Origin      string            `json:"origin" doc:"where it came from: an absolute path, a URL, a location by its digest for an OCI image, stdin, or the command that made it here"`
	Size        int64             `json:"size" doc:"bytes of the uncompressed archive, of an OCI image those of its layers"`
	FileSize    int64             `json:"fileSize" doc:"bytes of the archive as it came, of an OCI image those of its layers and configuration"`
	Compression string            `json:"compression" doc:"compression of the archive, of an OCI image that of its last layer, as it came: none, gzip, bzip2, xz or zstd"`
	Insecure    []string          `json:"insecure" doc:"checks that were waived when it was taken in: signature, http, tls"`
	Signature   *signatureView    `json:"signature" doc:"what vouched for it" null:"if that was waived, it was admitted by its digest, or it was made here"`
}

type signatureView struct {
	Fingerprint string    `json:"fingerprint" doc:"of the primary key of who signed it, lower-case hexadecimal"`
	Created     time.Time `json:"created" doc:"when it was signed, as the signer says"`
}

func viewImage(img *image.Image) imageView {
	view := imageView{
		ID: string(img.ID), Name: img.Name(), Labels: viewLabels(img.Parsed().Labels), Tags: notNil(img.Tags),
		Imported: img.Imported, Origin: img.Origin, Size: img.Size, FileSize: img.FileSize,
		Compression: img.Compression, Insecure: notNil(img.Insecure),
	}
	if s := img.Signature; s != nil {
		view.Signature = &signatureView{s.Fingerprint, s.Created}
	}
	return view
}

func viewLabels(labels types.Labels) map[string]string {
	view := map[string]string{}
	for _, l := range labels {
		view[l.Name.String()] = l.Value
	}
	return view
}

// notNil makes a list that JSON writes as one.
func notNil[E any](list []E) []E {
	if list == nil {
		return []E{}
	}
	return list
}

// imageDetailsView is an image as `image inspect` prints it.
type imageDetailsView struct {
	imageView
	Annotations   map[string]string `json:"annotations" doc:"annotations, from the manifest"`
	App           *appView          `json:"app" doc:"what running it means" null:"for an image that is only there to be depended on"`
	Dependencies  []dependencyView  `json:"dependencies" doc:"images that it depends on directly, in the manifest's order: the last overrides the others"`
	PathWhitelist []string          `json:"pathWhitelist" doc:"the only paths that are left in its root; empty if all are"`
	OCI           *ociView          `json:"oci" doc:"what it is as an OCI image" null:"for an ACI"`
	UsedBy        []string          `json:"usedBy" doc:"IDs of the images that depend on it directly"`
	Manifest      json.RawMessage   `json:"manifest" doc:"the manifest itself, as the App Container specification describes it"`
}

// ociView is what an OCI image is beside its manifest.
type ociView struct {
	Digest        string          `json:"digest" doc:"digest of its OCI manifest; empty if it came without one, from a docker-archive"`
	Configuration json.RawMessage `json:"configuration" doc:"its configuration, as the OCI image specification describes it"`
	Layers        []layerView     `json:"layers" doc:"its layers, the lowest first"`
}

// layerView is a layer of OCI images.
type layerView struct {
	ChainID   string `json:"chainID" doc:"ID of the tree that it and those below it make; images that have it share it"`
	DiffID    string `json:"diffID" doc:"digest of its uncompressed archive"`
	Digest    string `json:"digest" doc:"digest of the blob that is kept"`
	MediaType string `json:"mediaType" doc:"media type of the blob"`
	Size      int64  `json:"size" doc:"bytes of the blob"`
	Content   int64  `json:"content" doc:"bytes of its uncompressed archive"`
}

func viewOCI(img *image.Image) *ociView {
	if img.OCI == nil {
		return nil
	}
	return &ociView{img.OCI.Digest, img.OCI.Config, viewLayers(img)}
}

func viewLayers(img *image.Image) []layerView {
	views := []layerView{}
	for _, l := range img.Layers() {
		views = append(views, layerView{l.ChainID, l.DiffID, l.Digest, l.MediaType, l.Size, l.Content})
	}
	return views
}

// dependencyView is a dependency as declared and as found.
type dependencyView struct {
	ID            string            `json:"id" doc:"ID of the image that it was found to be"`
	Name          string            `json:"name" doc:"name that the manifest declares"`
	Labels        map[string]string `json:"labels" doc:"labels that the manifest declares"`
	DeclaredID    *string           `json:"declaredID" doc:"ID that the manifest declares" null:"if it declares none"`
	DeclaredBytes *int64            `json:"declaredBytes" doc:"size that the manifest declares, in bytes" null:"if it declares none"`
}

// appView is what an image says of running it.
type appView struct {
	Exec              []string           `json:"exec" doc:"executable and arguments"`
	User              string             `json:"user" doc:"user: name, number, or path of a file whose owner it is"`
	Group             string             `json:"group" doc:"group, likewise"`
	SupplementaryGIDs []int              `json:"supplementaryGIDs" doc:"further groups"`
	WorkingDirectory  string             `json:"workingDirectory" doc:"where it starts; \"\" for /"`
	Environment       []environmentView  `json:"environment" doc:"environment variables, in the manifest's order"`
	Ports             []portView         `json:"ports" doc:"ports that it listens on"`
	MountPoints       []mountPointView   `json:"mountPoints" doc:"where it wants volumes"`
	EventHandlers     []eventHandlerView `json:"eventHandlers" doc:"what is run before it starts and after it stops"`
	Isolators         []isolatorView     `json:"isolators" doc:"limits and privileges"`
	UserAnnotations   map[string]string  `json:"userAnnotations" doc:"annotations that mean nothing to jetpack"`
	UserLabels        map[string]string  `json:"userLabels" doc:"labels that mean nothing to jetpack"`
}

type environmentView struct {
	Name  string `json:"name" doc:"name"`
	Value string `json:"value" doc:"value"`
}

type portView struct {
	Name            string `json:"name" doc:"name"`
	Protocol        string `json:"protocol" doc:"tcp or udp"`
	Port            uint   `json:"port" doc:"number, of the first if there are several"`
	Count           uint   `json:"count" doc:"how many there are, one after the other"`
	SocketActivated bool   `json:"socketActivated" doc:"it expects to be handed the listening socket"`
}

type mountPointView struct {
	Name     string `json:"name" doc:"name"`
	Path     string `json:"path" doc:"absolute path in the image"`
	ReadOnly bool   `json:"readOnly" doc:"it does not write there"`
}

type eventHandlerView struct {
	Name string   `json:"name" doc:"pre-start or post-stop"`
	Exec []string `json:"exec" doc:"executable and arguments"`
}

type isolatorView struct {
	Name  string          `json:"name" doc:"name"`
	Value json.RawMessage `json:"value" doc:"value, as the App Container specification describes it for the name"`
}

func viewImageDetails(img *image.Image, users []*image.Image) imageDetailsView {
	m := img.Parsed()
	v := imageDetailsView{
		imageView: viewImage(img), Annotations: map[string]string{}, Dependencies: []dependencyView{},
		PathWhitelist: notNil(m.PathWhitelist), OCI: viewOCI(img), UsedBy: []string{}, Manifest: img.Manifest,
	}
	for _, a := range m.Annotations {
		v.Annotations[a.Name.String()] = a.Value
	}
	for i, d := range m.Dependencies {
		v.Dependencies = append(v.Dependencies, viewDependency(img, i, d))
	}
	for _, u := range users {
		v.UsedBy = append(v.UsedBy, string(u.ID))
	}
	if m.App != nil {
		v.App = viewApp(m.App)
	}
	return v
}

func viewDependency(img *image.Image, i int, d types.Dependency) dependencyView {
	v := dependencyView{ID: string(img.Dependencies[i]), Name: d.ImageName.String(), Labels: viewLabels(d.Labels)}
	if d.ImageID != nil {
		id := d.ImageID.String()
		v.DeclaredID = &id
	}
	if d.Size != 0 {
		size := int64(d.Size)
		v.DeclaredBytes = &size
	}
	return v
}

func viewApp(app *types.App) *appView {
	v := &appView{
		Exec: notNil(app.Exec), User: app.User, Group: app.Group, SupplementaryGIDs: notNil(app.SupplementaryGIDs),
		WorkingDirectory: app.WorkingDirectory, Environment: []environmentView{}, Ports: []portView{},
		MountPoints: []mountPointView{}, EventHandlers: []eventHandlerView{}, Isolators: []isolatorView{},
		UserAnnotations: app.UserAnnotations, UserLabels: app.UserLabels,
	}
	if v.UserAnnotations == nil {
		v.UserAnnotations = map[string]string{}
	}
	if v.UserLabels == nil {
		v.UserLabels = map[string]string{}
	}
	for _, e := range app.Environment {
		v.Environment = append(v.Environment, environmentView(e))
	}
	for _, p := range app.Ports {
		v.Ports = append(v.Ports, portView{p.Name.String(), p.Protocol, p.Port, max(p.Count, 1), p.SocketActivated})
	}
	for _, m := range app.MountPoints {
		v.MountPoints = append(v.MountPoints, mountPointView{m.Name.String(), m.Path, m.ReadOnly})
	}
	for _, e := range app.EventHandlers {
		v.EventHandlers = append(v.EventHandlers, eventHandlerView{e.Name, notNil(e.Exec)})
	}
	for _, i := range app.Isolators {
		v.Isolators = append(v.Isolators, isolatorView{i.Name.String(), *i.ValueRaw})
	}
	return v
}
