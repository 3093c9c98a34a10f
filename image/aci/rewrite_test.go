package aci_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// Rewriting changes the entry of the manifest and no other byte, wherever the manifest is.
func TestRewrite(t *testing.T) {
	long := "rootfs/" + strings.Repeat("d/", 120) + "é"
	one, two := acitest.Manifest("example.com/one"), acitest.Manifest("example.com/two", `"labels":[{"name":"version","value":"`+strings.Repeat("2", 600)+`"}]`)
	// As Pack writes it, so that rewriting twice gives the first image again.
	manifest := acitest.File("manifest", one)
	manifest.Mode, manifest.Format = 0o644, tar.FormatPAX
	rest := []acitest.Entry{
		acitest.Dir("rootfs"), acitest.File("rootfs/block", strings.Repeat("x", 512)), acitest.File("rootfs/odd", strings.Repeat("y", 513)),
		acitest.File("rootfs/empty", ""), acitest.File(long, "long"), acitest.Symlink("rootfs/link", "odd"), acitest.Link("rootfs/hard", "rootfs/odd"),
	}
	for where := range len(rest) + 1 {
		original := acitest.Tar(t, slices.Insert(slices.Clone(rest), where, manifest)...)
		var changed, back bytes.Buffer
		if err := aci.Rewrite(t.Context(), &changed, bytes.NewReader(original), []byte(two), extract.Gzip); err != nil {
			t.Fatal(err)
		}
		res, err := aci.Validate(t.Context(), bytes.NewReader(changed.Bytes()), roomy)
		if err != nil || res.Manifest.Image.Name != "example.com/two" || res.Compression != extract.Gzip {
			t.Fatalf("manifest at %d: %+v, %v", where, res, err)
		}
		if err := aci.Rewrite(t.Context(), &back, &changed, []byte(one), extract.None); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(back.Bytes(), original) {
			t.Errorf("manifest at %d: %d bytes, not the %d of before", where, back.Len(), len(original))
		}
	}
	err := aci.Rewrite(t.Context(), io.Discard, bytes.NewReader(acitest.Tar(t, rest...)), []byte(one), extract.None)
	if !errors.Is(err, aci.ErrNoManifest) {
		t.Errorf("without a manifest: %v", err)
	}
	whole := acitest.Tar(t, append(rest, manifest)...)
	for _, n := range []int{600, len(whole) - 1024 - 512} {
		if err := aci.Rewrite(t.Context(), io.Discard, bytes.NewReader(whole[:n]), []byte(one), extract.None); err == nil {
			t.Errorf("%d bytes of %d: no error", n, len(whole))
		}
	}
}

// A file with holes keeps them, in the form in which its tar has them.
func TestRewriteSparse(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	for name, content := range map[string]string{"manifest": acitest.Manifest("example.com/one"), "rootfs/after": "x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, "rootfs", "holes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range int64(30) {
		if _, err := f.WriteAt([]byte("data"), i<<20); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []string{"gnu", "posix"} {
		archive, err := exec.Command("tar", "--sparse", "--format="+format, "-C", dir, "-cf", "-", "rootfs", "manifest").Output()
		if err != nil {
			t.Skip("no tar that writes holes: ", err)
		}
		var out bytes.Buffer
		if err := aci.Rewrite(t.Context(), &out, bytes.NewReader(archive), []byte(acitest.Manifest("example.com/two")), extract.None); err != nil {
			t.Fatal(err)
		}
		if out.Len() > 5<<20 {
			t.Errorf("%s: %d bytes", format, out.Len())
		}
		res, err := aci.Validate(t.Context(), &out, roomy)
		if err != nil || res.Manifest.Image.Name != "example.com/two" {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestPackTar(t *testing.T) {
	manifest := acitest.Manifest("example.com/a")
	owned := acitest.File("./bin/ls", "ls")
	owned.Uname, owned.Gname, owned.Uid, owned.Gid, owned.Mode = "root", "wheel", 3, 4, 0o4755
	owned.AccessTime, owned.PAXRecords, owned.Format = time.Unix(5, 0), map[string]string{"SCHILY.xattr.user.a": "b", "SCHILY.fflags": "schg"}, tar.FormatPAX
	top := acitest.Dir("./")
	top.Mode = 0o700
	for _, tt := range []struct {
		name    string
		entries []acitest.Entry
		want    []string
	}{
		{"with its top", []acitest.Entry{top, acitest.Dir("./bin/"), owned, acitest.Link("sh", "./bin/ls"), acitest.Symlink("l", "/bin")},
			[]string{"manifest", "rootfs/ 700", "rootfs/bin/ 755", "rootfs/bin/ls 4755", "rootfs/sh rootfs/bin/ls 755", "rootfs/l /bin 777"}},
		{"without", []acitest.Entry{acitest.File("f", "")}, []string{"manifest", "rootfs/f 755", "rootfs/ 755"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []extract.Compression{extract.None, extract.Gzip, extract.Zstd} {
				var out bytes.Buffer
				in := acitest.Compress(t, c, acitest.Tar(t, tt.entries...))
				_, err := aci.PackTar(t.Context(), &out, []byte(manifest), bytes.NewReader(in), aci.TarOptions{Limits: roomy, Compression: extract.None})
				if err != nil {
					t.Fatal(err)
				}
				if got := entries(t, out.Bytes()); !slices.Equal(got, tt.want) {
					t.Errorf("%s: got %q, want %q", c, got, tt.want)
				}
				if _, err := aci.Validate(t.Context(), &out, roomy); err != nil {
					t.Error(err)
				}
			}
		})
	}
	warnings, err := aci.PackTar(t.Context(), io.Discard, nil, bytes.NewReader(acitest.Tar(t, owned)), aci.TarOptions{Limits: roomy, Compression: extract.None})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "file flags") {
		t.Errorf("warnings %q, %v", warnings, err)
	}
	for name, tt := range map[string]struct {
		entries []acitest.Entry
		err     error
	}{
		"twice":        {[]acitest.Entry{acitest.File("f", ""), acitest.File("./f", "")}, layer.ErrDuplicate},
		"outside":      {[]acitest.Entry{acitest.File("../f", "")}, layer.ErrName},
		"through link": {[]acitest.Entry{acitest.Symlink("l", "/"), acitest.File("l/f", "")}, layer.ErrThroughLink},
		"link outside": {[]acitest.Entry{acitest.Link("l", "../f")}, layer.ErrHardLink},
		"device":       {[]acitest.Entry{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}}}, layer.ErrDevice},
	} {
		_, err := aci.PackTar(t.Context(), io.Discard, nil, bytes.NewReader(acitest.Tar(t, tt.entries...)), aci.TarOptions{Limits: roomy, Compression: extract.None})
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: got %v, want %v", name, err, tt.err)
		}
	}
	damaged := acitest.Compress(t, extract.Gzip, acitest.Tar(t, owned))
	damaged[len(damaged)-5] ^= 1
	if _, err := aci.PackTar(t.Context(), io.Discard, nil, bytes.NewReader(damaged), aci.TarOptions{Limits: roomy, Compression: extract.None}); !errors.Is(err, aci.ErrCompression) {
		t.Errorf("damaged: %v", err)
	}
}

// entries describes an archive, and checks that nothing is in it that depends on who
// made it.
func entries(t *testing.T, data []byte) (list []string) {
	t.Helper()
	for tr := tar.NewReader(bytes.NewReader(data)); ; {
		hdr, err := tr.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		if hdr.Uname+hdr.Gname != "" || !hdr.AccessTime.IsZero() || hdr.PAXRecords["SCHILY.fflags"] != "" {
			t.Errorf("%s: more than belongs in it: %+v", hdr.Name, hdr)
		}
		fields := []string{hdr.Name}
		if hdr.Linkname != "" {
			fields = append(fields, hdr.Linkname)
		}
		if hdr.Name != "manifest" {
			fields = append(fields, strconv.FormatInt(hdr.Mode, 8))
		}
		list = append(list, strings.Join(fields, " "))
	}
}
