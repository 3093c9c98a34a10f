//go:build unix

package hostile

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// dockerFirst is what files begin with that are docker-archives.
const dockerFirst = "manifest.json\x00"

// docker is an archive as docker save makes it, of an image with these layers. change
// changes its configuration.
func docker(change func(config string) string, layers ...source) source {
	return func(w io.Writer) {
		var names, diffIDs []string
		var parts []entry
		for i, l := range layers {
			content := string(buffer(l))
			names = append(names, fmt.Sprintf("%q", fmt.Sprintf("%d.tar", i)))
			diffIDs = append(diffIDs, fmt.Sprintf(`"sha256:%x"`, sha256.Sum256([]byte(content))))
			parts = append(parts, file(fmt.Sprintf("%d.tar", i), content))
		}
		config := `{"os":"linux","architecture":"amd64","config":{},"rootfs":{"type":"layers","diff_ids":[` + strings.Join(diffIDs, ",") + `]}}`
		index := `[{"Config":"config.json","RepoTags":null,"Layers":[` + strings.Join(names, ",") + `]}]`
		archive(append([]entry{file("manifest.json", index), file("config.json", change(config))}, parts...)...)(w)
	}
}

// layers is what only the layers of OCI images can have.
func layers(h host) []hostile {
	same := func(config string) string { return config }
	replace := func(old, with string) func(string) string {
		return func(config string) string { return strings.Replace(config, old, with, 1) }
	}
	other := func(config string) string { // another diff ID
		at := strings.Index(config, "sha256:") + len("sha256:")
		return config[:at] + strings.Repeat("0", 64) + config[at+64:]
	}
	lower := archive(symlink("out", h.canary("")), symlink("in", "etc"), symlink("loop", "loop"), symlink("file", "f"), dir("etc"), file("etc/f", "f"), file("f", "f"))
	over := func(entries ...entry) source { return docker(same, lower, archive(entries...)) }
	good := over(file("etc/.wh.f", ""), hardlink("g", "f"), file(".wh.out", ""))
	// What lower links lead out to is inside.
	inside := over(file("in/x", "x"), file("out/x", "x"), file("out/.wh.secret", ""), file("out/.wh..wh..opq", ""), hardlink("out/g", "f"))
	throughLink, badName := errs{layer.ErrThroughLink}, errs{layer.ErrName}
	return []hostile{
		{"oci: below a lower link to itself", throughLink, over(file("loop/x", "x")), inside},
		{"oci: whiteout below a lower link to itself", throughLink, over(file("loop/.wh.x", "")), inside},
		{"oci: below a lower link to a file", throughLink, over(file("file/x", "x")), inside},
		{"oci: below a link of the layer to a lower link", throughLink, over(symlink("l", "out"), file("l/x", "x")), inside},
		{"oci: whiteout below a link of the layer", throughLink, over(symlink("l", h.canary("")), file("l/.wh.secret", "")), good},
		{"oci: whiteout of ..", badName, over(file("etc/.wh...", "")), good},
		{"oci: whiteout of .", badName, over(file("etc/.wh..", "")), good},
		{"oci: whiteout of nothing", badName, over(file(".wh.", "")), good},
		{"oci: below a whiteout", badName, over(file(".wh.etc/f", "")), good},
		{"oci: out of the root", badName, over(file("../../x", "x")), good},
		{"oci: hard link through a lower link", errs{layer.ErrHardLink}, over(hardlink("h", "out/secret")), good},
		{"oci: hard link to a lower directory", errs{layer.ErrHardLink}, over(hardlink("h", "etc")), good},
		{"oci: hard link out of the root", badLink, over(hardlink("h", "../x")), good},
		{"oci: overlayfs whiteout", errs{layer.ErrWhiteout}, over(device('3', "etc/f", 0, 0)), good},
		{"oci: overlayfs attribute", errs{layer.ErrXattr}, over(dir("etc").with("SCHILY.xattr.trusted.overlay.opaque=y")), good},
		{"oci: device", errs{layer.ErrDevice}, over(device('4', "etc/sda", 8, 0)), good},
		{"oci: directory in place of a link of the layer", errs{layer.ErrDuplicate}, over(symlink("l", h.canary("")), dir("l")), good},
		{"oci: another content", errs{oci.ErrFormat}, docker(other, lower), docker(same, lower)},
		{"oci: a layer too few", errs{oci.ErrFormat}, docker(func(c string) string { return c[:strings.Index(c, `"diff_ids":[`)] + `"diff_ids":[]}}` }, lower), docker(same, lower)},
		{"oci: another platform", errs{oci.ErrPlatform}, docker(replace("amd64", "arm64"), lower), docker(same, lower)},
		{"oci: key twice", errs{oci.ErrFormat, manifest.ErrInvalid}, docker(replace(`{"os"`, `{"os":"freebsd","os"`), lower), docker(same, lower)},
	}
}
