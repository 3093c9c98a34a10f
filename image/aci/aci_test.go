package aci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/manifest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// roomy limits bound nothing that a test makes.
var roomy = layer.Limits{MaxBytes: 32 << 30, MaxEntries: 1_000_000}

var (
	small = layer.Limits{MaxBytes: 1 << 20, MaxEntries: 100}
	kinds = []extract.Compression{extract.None, extract.Gzip, extract.Bzip2, extract.Xz, extract.Zstd}
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

// extractBoth extracts a file in all ways, which must agree on all but the manifest.
func extractBoth(t testing.TB, file []byte) (aci.Result, string, error) {
	t.Helper()
	dir := t.TempDir()
	result, err := aci.Extract(t.Context(), bytes.NewReader(file), dir, aci.ExtractOptions{Limits: small})
	here, hereErr := aci.ExtractHere(t.Context(), bytes.NewReader(file), t.TempDir(), aci.ExtractOptions{Limits: small})
	valid, validErr := aci.Validate(t.Context(), bytes.NewReader(file), small)
	if errors.Is(validErr, manifest.ErrInvalid) {
		return valid, dir, validErr
	}
	if strip(err) != strip(hereErr) || strip(err) != strip(validErr) {
		t.Errorf("%q in a process, %q in this one, %q validating", strip(err), strip(hereErr), strip(validErr))
	}
	result.Manifest, here.Manifest = valid.Manifest, valid.Manifest
	if !reflect.DeepEqual(result, here) || !reflect.DeepEqual(result, valid) {
		t.Errorf("%+v in a process,\n%+v in this one,\n%+v validating", result, here, valid)
	}
	return result, dir, err
}

// strip gives the message of err, less what was tried.
func strip(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "extract image: "), "validate image: ")
}

// once is a reader that is read but once.
type once struct{ io.Reader }

func (once) Seek(int64, int) (int64, error) { return 0, nil }

func idOf(archive []byte) string {
	sum := sha512.Sum512(archive)
	return "sha512-" + hex.EncodeToString(sum[:])
}

func TestExtract(t *testing.T) {
	testenv.Root(t)
	archive := acitest.Image(t, "example.com/a",
		acitest.WithFile("/bin/a", "hello"),
		acitest.WithEntry(acitest.Link("rootfs/bin/b", "./rootfs/bin/a")),
		acitest.WithEntry(acitest.Symlink("rootfs/c", "/bin/a")))
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			file := acitest.Compress(t, kind, archive)
			result, dir, err := extractBoth(t, file)
			if err != nil {
				t.Fatal(err)
			}
			if result.ID != idOf(archive) || result.Size != int64(len(archive)) || result.Compression != kind {
				t.Errorf("got %s, %d bytes, %s", result.ID, result.Size, result.Compression)
			}
			if _, err := image.ParseID(result.ID); err != nil {
				t.Error(err)
			}
			if got := result.Manifest.Image.Name; got != "example.com/a" {
				t.Errorf("name %q", got)
			}
			for _, name := range []string{"bin/a", "bin/b"} {
				if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != "hello" {
					t.Errorf("%s: %q, %v", name, data, err)
				}
			}
			if target, err := os.Readlink(filepath.Join(dir, "c")); err != nil || target != "/bin/a" {
				t.Errorf("c: %q, %v", target, err)
			}
		})
	}
}

func TestReadManifest(t *testing.T) {
	body := acitest.Manifest("example.com/a", `"bogus":1`)
	archives := map[string][]byte{
		"first": acitest.Build(t, body, acitest.File("rootfs/a", "x")),
		"last":  acitest.Tar(t, acitest.Dir("rootfs"), acitest.File("rootfs/a", "x"), acitest.File("manifest", body)),
	}
	for place, archive := range archives {
		for _, kind := range kinds {
			t.Run(place+"/"+string(kind), func(t *testing.T) {
				m, err := aci.ReadManifest(t.Context(), bytes.NewReader(acitest.Compress(t, kind, archive)), roomy)
				if err != nil {
					t.Fatal(err)
				}
				if string(m.Raw) != body || m.Image.Name != "example.com/a" || len(m.Warnings) != 1 {
					t.Errorf("got %+v", m)
				}
			})
		}
	}
}

// A manifest that comes first is all that is read.
func TestReadManifestStops(t *testing.T) {
	archive := acitest.Image(t, "example.com/a")
	head := bytes.NewReader(archive[:1024+512])
	r := io.MultiReader(head, iotest.ErrReader(errors.New("read too far")))
	if _, err := aci.ReadManifest(t.Context(), r, roomy); err != nil {
		t.Error(err)
	}
}

// What other writers of tar make.
func TestBenignVariants(t *testing.T) {
	testenv.Root(t)
	body := acitest.Manifest("example.com/a")
	old := acitest.Build(t, body)
	for i := range 4 { // without "ustar" and with the checksum that follows
		makeV7(old, i)
	}
	comment := acitest.Entry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "deadbeef"}}}
	long := strings.Repeat(strings.Repeat("d", 50)+"/", 5) + "a"
	for name, archive := range map[string][]byte{
		"tar -c .":            acitest.Tar(t, acitest.Dir("./"), acitest.Dir("./rootfs/"), acitest.File("./rootfs/a", ""), acitest.File("./manifest", body)),
		"files before rootfs": acitest.Tar(t, acitest.File("rootfs/a", ""), acitest.File("manifest", body), acitest.Dir("rootfs")),
		"padded":              append(acitest.Build(t, body), make([]byte, 10240)...),
		"version 7":           old,
		"git archive":         acitest.Tar(t, comment, acitest.Dir("rootfs"), acitest.File("manifest", body)),
		"long name":           acitest.Build(t, body, acitest.File("rootfs/"+long, "")),
		"long name first":     acitest.Tar(t, acitest.File("rootfs/"+long, ""), acitest.Dir("rootfs"), acitest.File("manifest", body)),
		"whiteout name":       acitest.Build(t, body, acitest.File("rootfs/.wh.a", "")),
		"device in dev":       acitest.Build(t, body, device("rootfs/dev/null")),
	} {
		t.Run(name, func(t *testing.T) {
			result, _, err := extractBoth(t, archive)
			if err != nil {
				t.Fatal(err)
			}
			if result.ID != idOf(archive) {
				t.Errorf("ID %s", result.ID)
			}
		})
	}
}

// makeV7 strips what POSIX added from block i of an archive, if it is a header.
func makeV7(archive []byte, i int) {
	block := archive[i*512 : (i+1)*512]
	if string(block[257:262]) != "ustar" {
		return
	}
	clear(block[257:])
	copy(block[148:156], "        ")
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func device(name string) acitest.Entry {
	return acitest.Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: name, Mode: 0o666, Devmajor: 1, Devminor: 3}}
}

type badFile struct {
	name string
	file []byte
	want error
}

// badFiles are faulty variants of an image that is good but for the fault.
func badFiles(t testing.TB) []badFile {
	body := acitest.Manifest("example.com/a")
	m, rootfs := acitest.File("manifest", body), acitest.Dir("rootfs")
	with := func(entries ...acitest.Entry) []byte { return acitest.Build(t, body, entries...) }
	of := func(entries ...acitest.Entry) []byte { return acitest.Tar(t, entries...) }
	good := with(acitest.File("rootfs/a", "hello"))
	content := len(good) - 1024
	edit := func(offset int, b byte) []byte {
		c := bytes.Clone(good)
		c[offset] ^= b
		return c
	}
	bad := []badFile{
		{"empty", nil, aci.ErrFormat},
		{"text", []byte(strings.Repeat("hello ", 200)), aci.ErrFormat},
		{"short", []byte("manifest"), aci.ErrFormat},
		{"zeros", make([]byte, 10240), aci.ErrFormat},
		{"ELF", append([]byte("\x7fELF"), make([]byte, 1024)...), aci.ErrFormat},
		{"wrong checksum", edit(0, 1), aci.ErrFormat},
		{"wrong checksum later", edit(1024, 1), aci.ErrFormat},
		{"OpenPGP, old packet", append([]byte{0x8c, 0x0d, 0x04}, good...), aci.ErrEncrypted},
		{"OpenPGP, new packet", append([]byte{0xc3, 0x0d, 0x04}, good...), aci.ErrEncrypted},
		{"OpenPGP, to a key", append([]byte{0x85, 0x01, 0x0c}, good...), aci.ErrEncrypted},
		{"OpenPGP, armour", []byte("-----BEGIN PGP MESSAGE-----\n\nhQEM\n"), aci.ErrEncrypted},
		{"OpenPGP signature is no image", []byte("-----BEGIN PGP SIGNATURE-----\n\niQEz\n"), aci.ErrFormat},
		{"no manifest", of(rootfs), aci.ErrNoManifest},
		{"no rootfs", of(m), aci.ErrNoRootfs},
		{"rootfs implied only", of(m, acitest.File("rootfs/a", "")), aci.ErrNoRootfs},
		{"second manifest", of(m, rootfs, m), aci.ErrLayout},
		{"second manifest spelt otherwise", of(m, rootfs, acitest.File("./manifest", body)), aci.ErrLayout},
		{"second rootfs", of(m, rootfs, acitest.Dir("./rootfs/")), aci.ErrLayout},
		{"second top", of(acitest.Dir("./"), m, rootfs, acitest.Dir("./")), aci.ErrLayout},
		{"manifest a link", of(acitest.Symlink("manifest", "rootfs/a"), rootfs), aci.ErrLayout},
		{"manifest a hard link", of(rootfs, acitest.File("rootfs/a", body), acitest.Link("manifest", "rootfs/a")), aci.ErrLayout},
		{"manifest a directory", of(acitest.Dir("manifest"), rootfs), aci.ErrLayout},
		{"manifest with contents", of(m, rootfs, acitest.File("manifest/a", "")), aci.ErrLayout},
		{"rootfs a link", of(m, acitest.Symlink("rootfs", "/")), aci.ErrLayout},
		{"rootfs a file", of(m, acitest.File("rootfs", "")), aci.ErrLayout},
		{"top a link", of(acitest.Symlink(".", "/"), m, rootfs), aci.ErrLayout},
		{"third entry", of(m, rootfs, acitest.File("README", "")), aci.ErrLayout},
		{"third directory", of(m, rootfs, acitest.Dir("etc")), aci.ErrLayout},
		{"rootfs-evil", of(m, rootfs, acitest.File("rootfs-evil/a", "")), aci.ErrLayout},
		{"device at the top", of(m, rootfs, device("null")), aci.ErrLayout},
		{"parent", of(m, rootfs, acitest.File("../a", "")), aci.ErrLayout},
		{"parent below rootfs", with(acitest.File("rootfs/../../a", "")), layer.ErrName},
		{"parent that comes back", with(acitest.File("rootfs/../rootfs/a", "")), layer.ErrName},
		{"absolute", with(acitest.File("/rootfs/a", "")), layer.ErrName},
		{"component too long", with(acitest.File("rootfs/"+strings.Repeat("a", 256), "")), layer.ErrName},
		{"name too long", with(acitest.File("rootfs/"+strings.Repeat("a/", 600)+"a", "")), layer.ErrName},
		{"global header", of(acitest.Entry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"path": "rootfs/x"}}}, m, rootfs), aci.ErrLayout},
		{"manifest not JSON", of(acitest.File("manifest", "x"), rootfs), manifest.ErrInvalid},
		{"manifest empty", of(acitest.File("manifest", ""), rootfs), manifest.ErrInvalid},
		{"manifest of a pod", of(acitest.File("manifest", `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[]}`), rootfs), manifest.ErrInvalid},
		{"manifest with a key twice", of(acitest.File("manifest", acitest.Manifest("a", `"name":"b"`)), rootfs), manifest.ErrInvalid},
		{"manifest too large", of(acitest.File("manifest", body+strings.Repeat(" ", manifest.MaxSize)), rootfs), aci.ErrLayout},
		{"file twice", with(acitest.File("rootfs/a", ""), acitest.File("rootfs/a", "")), layer.ErrDuplicate},
		{"file twice spelt otherwise", with(acitest.File("rootfs/a", ""), acitest.File("./rootfs//a", "")), layer.ErrDuplicate},
		{"file under a file", with(acitest.File("rootfs/a", ""), acitest.File("rootfs/a/b", "")), layer.ErrThroughLink},
		{"file through a link", with(acitest.Symlink("rootfs/a", "/"), acitest.File("rootfs/a/b", "")), layer.ErrThroughLink},
		{"hard link to the manifest", with(acitest.Link("rootfs/a", "manifest")), layer.ErrHardLink},
		{"hard link to outside", with(acitest.Link("rootfs/a", "rootfs/../../etc/passwd")), layer.ErrHardLink},
		{"hard link to an absolute name", with(acitest.Link("rootfs/a", "/etc/passwd")), layer.ErrHardLink},
		{"hard link to a sibling of rootfs", with(acitest.Link("rootfs/a", "rootfs2/b")), layer.ErrHardLink},
		{"hard link through a link", with(acitest.Symlink("rootfs/a", "/etc"), acitest.Link("rootfs/b", "rootfs/a/passwd")), layer.ErrHardLink},
		{"device", with(device("rootfs/null")), layer.ErrDevice},
		{"too large", with(acitest.File("rootfs/a", strings.Repeat("x", 1<<20+1))), layer.ErrTooLarge},
		{"padding too long", append(bytes.Clone(good), make([]byte, 64<<20)...), layer.ErrTooLarge},
		{"garbage after the end", append(bytes.Clone(good), "x"...), aci.ErrTrailing},
		{"second archive after the end", append(bytes.Clone(good), good...), aci.ErrTrailing},
		{"garbage in the padding", append(append(bytes.Clone(good), make([]byte, 9000)...), 1), aci.ErrTrailing},
		{"truncated in a file", good[:content-512], aci.ErrTruncated},
		{"truncated in a header", good[:content-1024-100], aci.ErrTruncated},
		{"no end marker", good[:content], aci.ErrTruncated},
		{"half an end marker", good[:content+512], aci.ErrTruncated},
		{"gzip in gzip", acitest.Compress(t, extract.Gzip, acitest.Compress(t, extract.Gzip, good)), aci.ErrFormat},
		{"bzip2 magic only", []byte("BZh9"), aci.ErrTruncated},
		{"bzip2 text", []byte("BZhello, this is no bzip2 at all"), aci.ErrCompression},
		{"xz with a dictionary of 128 MiB", xzWithDictionary(t, good, 30), aci.ErrCompression},
		{"xz with a dictionary of 4 GiB", xzWithDictionary(t, good, 40), aci.ErrCompression},
		{"xz with blocks of nothing", xzOfNothing(t, 2000), aci.ErrCompression},
		{"zstd with a window of 256 MiB", zstdWithWindow(256 << 20), aci.ErrCompression},
		{"too many entries", with(manyFiles(small.MaxEntries + 1)...), layer.ErrTooManyEntries},
	}
	for _, kind := range kinds[1:] {
		if kind == extract.Bzip2 {
			continue // needs a program; see TestBzip2
		}
		file := acitest.Compress(t, kind, good)
		flipped := bytes.Clone(file)
		flipped[len(file)-4] ^= 0x55 // in the checksums
		bad = append(bad,
			badFile{string(kind) + " truncated", file[:len(file)-1], aci.ErrTruncated},
			badFile{string(kind) + " cut in half", file[:len(file)/2], aci.ErrTruncated},
			badFile{string(kind) + " header only", file[:6], aci.ErrTruncated},
			badFile{string(kind) + " with garbage after it", append(bytes.Clone(file), "garbage garbage!"...), aci.ErrTrailing},
			badFile{string(kind) + " damaged", flipped, aci.ErrCompression},
			badFile{string(kind) + " with garbage in the archive", acitest.Compress(t, kind, append(bytes.Clone(good), 'x')), aci.ErrTrailing},
		)
	}
	return bad
}

func manyFiles(n int64) []acitest.Entry {
	entries := make([]acitest.Entry, n)
	for i := range entries {
		entries[i] = acitest.File(fmt.Sprintf("rootfs/%d", i), "")
	}
	return entries
}

// zstdWithWindow is the head of a frame (RFC 8878, section 3.1.1).
func zstdWithWindow(size int) []byte {
	exponent := 0
	for 1<<(10+exponent) < size {
		exponent++
	}
	return append([]byte("\x28\xb5\x2f\xfd\x00"), byte(exponent<<3), 1, 0, 0, 0, 0, 0, 0, 0)
}

func TestBadFiles(t *testing.T) {
	testenv.Root(t)
	if _, _, err := extractBoth(t, acitest.Image(t, "example.com/a", acitest.WithFile("/a", "hello"))); err != nil {
		t.Fatalf("benign twin: %v", err)
	}
	for _, tt := range badFiles(t) {
		t.Run(tt.name, func(t *testing.T) {
			_, dir, err := extractBoth(t, tt.file)
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 2 {
				t.Errorf("beside rootfs: %v, %v", entries, err)
			}
			// Must not panic; may well succeed.
			if _, err := aci.ReadManifest(t.Context(), bytes.NewReader(tt.file), roomy); err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("control character in %q", err)
			}
		})
	}
}

// Several members are one file (gzip(1), xz(1), zstd(1)).
func TestMembers(t *testing.T) {
	testenv.Root(t)
	archive := acitest.Image(t, "example.com/a", acitest.WithFile("/a", strings.Repeat("hello", 1000)))
	for _, kind := range kinds[1:] {
		t.Run(string(kind), func(t *testing.T) {
			half := len(archive) / 2
			file := append(acitest.Compress(t, kind, archive[:half]), acitest.Compress(t, kind, archive[half:])...)
			if kind == extract.Xz {
				file = append(file, make([]byte, 8)...) // stream padding
			}
			result, _, err := extractBoth(t, file)
			if err != nil {
				t.Fatal(err)
			}
			if result.ID != idOf(archive) {
				t.Error("not all members were read")
			}
		})
	}
}

// testdata/actool.aci was made by actool 0.8.11, which writes the manifest last,
// from bin/a, a hard link to it, a symbolic link and a fifo.
func TestActool(t *testing.T) {
	testenv.Root(t)
	file, err := os.ReadFile("testdata/actool.aci")
	if err != nil {
		t.Fatal(err)
	}
	result, dir, err := extractBoth(t, file)
	if err != nil {
		t.Fatal(err)
	}
	if got := result.Manifest.Image.Name; got != "example.com/built" {
		t.Errorf("name %q", got)
	}
	for name, want := range map[string]fs.FileMode{"bin/a": 0o644, "bin/h": 0o644, "bin/l": fs.ModeSymlink | 0o777, "f": fs.ModeNamedPipe | 0o644} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		mode := info.Mode()
		if want&fs.ModeSymlink != 0 {
			mode |= 0o777 // FreeBSD keeps permissions of links, which are good for nothing
		}
		if mode != want {
			t.Errorf("%s: mode %s", name, mode)
		}
	}
}

// testdata/small.aci.bz2 is acitest.Image(t, "example.com/a"), for machines without bzip2.
func TestBzip2(t *testing.T) {
	testenv.Root(t)
	file, err := os.ReadFile("testdata/small.aci.bz2")
	if err != nil {
		t.Fatal(err)
	}
	result, _, err := extractBoth(t, file)
	if err != nil {
		t.Fatal(err)
	}
	if result.Compression != extract.Bzip2 || result.ID != idOf(acitest.Image(t, "example.com/a")) {
		t.Errorf("got %s, %s", result.Compression, result.ID)
	}
	flipped := bytes.Clone(file)
	flipped[len(file)/2] ^= 0x55
	for _, tt := range []badFile{
		{"truncated", file[:len(file)-1], aci.ErrTruncated},
		{"cut in half", file[:len(file)/2], aci.ErrTruncated},
		{"garbage after it", append(bytes.Clone(file), "garbage"...), aci.ErrTrailing},
		{"damaged", flipped, aci.ErrFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := extractBoth(t, tt.file); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

// A failing disk is not a bad image.
func TestReadError(t *testing.T) {
	testenv.Root(t)
	broken := errors.New("broken disk")
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			file := acitest.Compress(t, kind, acitest.Image(t, "example.com/a", acitest.WithFile("/a", strings.Repeat("x", 200<<10))))
			for _, n := range []int{0, len(file) / 2, len(file)} {
				r := io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(broken))
				_, err := aci.Extract(t.Context(), once{r}, t.TempDir(), aci.ExtractOptions{Limits: small})
				if !errors.Is(err, broken) || errors.Is(err, aci.ErrFormat) {
					t.Errorf("after %d bytes: %v", n, err)
				}
			}
		})
	}
}

// endless writes the head of an image and then the same megabyte for ever, compressed.
func endless(ctx context.Context, t *testing.T, name string) io.Reader {
	t.Helper()
	pr, pw := io.Pipe()
	context.AfterFunc(ctx, func() { pw.CloseWithError(ctx.Err()) })
	go func() {
		z := gzip.NewWriter(pw)
		w := tar.NewWriter(z)
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1 << 40})
		block := make([]byte, 1<<20)
		for err == nil {
			_, err = w.Write(block)
		}
	}()
	return pr
}

func TestCancel(t *testing.T) {
	testenv.Root(t)
	feed, stop := context.WithCancel(t.Context())
	defer stop()
	for _, tt := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"ReadManifest", func(ctx context.Context) error {
			_, err := aci.ReadManifest(ctx, endless(feed, t, "rootfs/a"), roomy)
			return err
		}},
		{"Extract", func(ctx context.Context) error {
			_, err := aci.Extract(ctx, once{endless(feed, t, "rootfs/a")}, t.TempDir(), aci.ExtractOptions{Limits: layer.Limits{MaxBytes: 1 << 50, MaxEntries: 10}})
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			if err := tt.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// large is an image whose one file has size bytes of zeros.
func large(t testing.TB, w io.WriteCloser, size int64) {
	t.Helper()
	tw := tar.NewWriter(w)
	body := acitest.Manifest("example.com/a")
	for _, hdr := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "manifest", Size: int64(len(body))},
		{Typeflag: tar.TypeDir, Name: "rootfs", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "rootfs/a", Mode: 0o644, Size: size},
	} {
		if err := tw.WriteHeader(&hdr); err != nil {
			t.Fatal(err)
		}
		switch hdr.Name {
		case "manifest":
			if _, err := io.WriteString(tw, body); err != nil {
				t.Fatal(err)
			}
		case "rootfs/a":
			block := make([]byte, 1<<20)
			for range size >> 20 {
				if _, err := tw.Write(block); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := errors.Join(tw.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestBomb(t *testing.T) {
	testenv.Root(t)
	var file bytes.Buffer
	z, err := gzip.NewWriterLevel(&file, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	large(t, z, 1<<30)
	start := time.Now()
	if _, _, err := extractBoth(t, file.Bytes()); !errors.Is(err, layer.ErrTooLarge) {
		t.Errorf("error %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
}

// sampler reports the largest heap that it saw at the reads that it hands on.
type sampler struct {
	r    io.Reader
	peak uint64
}

func (s *sampler) Read(p []byte) (int, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.peak = max(s.peak, m.HeapAlloc)
	return s.r.Read(p)
}

func TestMemory(t *testing.T) {
	testenv.Root(t)
	for _, kind := range []extract.Compression{extract.Gzip, extract.Xz, extract.Zstd} {
		t.Run(string(kind), func(t *testing.T) {
			file, err := os.Create(filepath.Join(t.TempDir(), "file"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			large(t, compressor(t, kind, file), 80<<20)
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			runtime.GC()
			s := &sampler{r: file}
			if _, err := aci.Extract(t.Context(), once{s}, t.TempDir(), aci.ExtractOptions{Limits: roomy}); err != nil {
				t.Fatal(err)
			}
			if s.peak > 64<<20 {
				t.Errorf("heap of %d MiB", s.peak>>20)
			}
		})
	}
}

func compressor(t testing.TB, kind extract.Compression, w io.Writer) io.WriteCloser {
	t.Helper()
	switch kind {
	case extract.Gzip:
		return gzip.NewWriter(w)
	case extract.Zstd:
		z, err := zstd.NewWriter(w)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	return newXzWriter(t, w)
}

// FuzzExtract: whatever the file, nothing outside of rootfs is touched, and
// Validate accepts what Extract accepts; a file system may refuse more.
func FuzzExtract(f *testing.F) {
	testenv.Root(f)
	for _, tt := range badFiles(f) {
		if len(tt.file) < 64<<10 {
			f.Add(tt.file)
		}
	}
	f.Add(acitest.Compress(f, extract.Xz, acitest.Image(f, "example.com/a", acitest.WithFile("/a", "x"))))
	f.Fuzz(func(t *testing.T, file []byte) {
		top := t.TempDir()
		rootfs := filepath.Join(top, "rootfs")
		if err := os.Mkdir(rootfs, 0o700); err != nil {
			t.Fatal(err)
		}
		canary := filepath.Join(top, "canary")
		if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := describe(t, top)
		result, err := aci.ExtractHere(t.Context(), bytes.NewReader(file), rootfs, aci.ExtractOptions{Limits: small})
		valid, validErr := aci.Validate(t.Context(), bytes.NewReader(file), small)
		badManifest := errors.Is(validErr, manifest.ErrInvalid)
		if _, system := errors.AsType[syscall.Errno](err); !system && !badManifest && strip(err) != strip(validErr) {
			t.Fatalf("extracting: %v, validating: %v", err, validErr)
		}
		if validErr == nil && (valid.Manifest.Image == nil || valid.ID == "") {
			t.Fatalf("accepted without manifest or ID: %+v", valid)
		}
		if err == nil && validErr == nil && (valid.ID != result.ID || valid.Size != result.Size) {
			t.Fatalf("extracted %s, validated %s", result.ID, valid.ID)
		}
		if after := describe(t, top); after != before {
			t.Fatalf("before %s, after %s", before, after)
		}
	})
}

// describe lists what is beside rootfs.
func describe(t *testing.T, top string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "rootfs" && d.IsDir() {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s %d", path, info.Mode(), info.Size())
		if d.Name() == "canary" {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q %v", data, info.ModTime())
		}
		b.WriteString("; ")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
