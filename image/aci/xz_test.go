package aci_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/aci/acitest"
	"github.com/jetpack-run/jetpack/image/extract"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func newXzWriter(t testing.TB, w io.Writer) io.WriteCloser {
	t.Helper()
	z, err := xz.NewWriter(w)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// xzWithDictionary compresses data and makes the file ask for a dictionary of a
// coded size (The .xz File Format, section 5.3.1).
func xzWithDictionary(t testing.TB, data []byte, code byte) []byte {
	t.Helper()
	file := acitest.Compress(t, extract.Xz, data)
	header := file[12 : 12+(int(file[12])+1)*4]
	i := bytes.Index(header, []byte{0x21, 1})
	if i < 0 {
		t.Fatal("no LZMA2 filter in the block header")
	}
	header[i+2] = code
	binary.LittleEndian.PutUint32(header[len(header)-4:], crc32.ChecksumIEEE(header[:len(header)-4]))
	return file
}

// xzOfNothing is an endless looking file of empty blocks, each with a dictionary
// of 64 MiB.
func xzOfNothing(t testing.TB, blocks int) []byte {
	t.Helper()
	file := xzWithDictionary(t, nil, 28)
	head := file[:12]
	block := append(bytes.Clone(file[12:12+(int(file[12])+1)*4]), 0, 0, 0, 0) // end of chunks, padding
	head[7] = 0                                                               // no checks
	binary.LittleEndian.PutUint32(head[8:], crc32.ChecksumIEEE(head[6:8]))
	return append(head[:12:12], bytes.Repeat(block, blocks)...)
}

// The guard keeps step with files of xz(1) in all their forms.
func TestXzVariants(t *testing.T) {
	testenv.Root(t)
	path, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("needs xz: ", err)
	}
	text := strings.Repeat("the quick brown fox ", 20000)
	noise := make([]byte, 300<<10)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	archive := acitest.Image(t, "example.com/a", acitest.WithFile("/text", text), acitest.WithFile("/noise", string(noise)))
	for _, tt := range []struct {
		name string
		args []string
		want error
	}{
		{"-0", []string{"-0"}, nil},
		{"-9", []string{"-9"}, nil},
		{"no check", []string{"--check=none"}, nil},
		{"crc32", []string{"--check=crc32"}, nil},
		{"sha256", []string{"--check=sha256"}, nil},
		{"threads and blocks", []string{"-T2", "--block-size=50000"}, nil},
		{"many blocks", []string{"-T1", "--block-size=4096", "--lzma2=dict=4KiB"}, nil},
		{"dictionary of 128 MiB", []string{"--lzma2=dict=128MiB"}, aci.ErrCompression},
		{"x86 filter", []string{"--x86", "--lzma2"}, aci.ErrCompression},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), path, append([]string{"-c"}, tt.args...)...)
			cmd.Stdin = bytes.NewReader(archive)
			file, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			result, _, err := extractBoth(t, file)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil && result.ID != idOf(archive) {
				t.Error("wrong contents")
			}
		})
	}
}
