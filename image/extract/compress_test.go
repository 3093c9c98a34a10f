package extract_test

import (
	"io"
	"testing"

	"github.com/jetpack-run/jetpack/image/extract"
)

func TestParseCompression(t *testing.T) {
	for name, want := range map[string]extract.Compression{
		"gzip": extract.Gzip, "gz": extract.Gzip, "xz": extract.Xz, "none": extract.None, "bzip2": "", "zstd": "", "": "", "GZIP": "",
	} {
		got, err := extract.ParseCompression(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", name, got, err)
		}
		if _, err := extract.Compress(io.Discard, extract.Compression(name)); (err == nil) != (want != "" && name != "gz") {
			t.Errorf("compress %q: %v", name, err)
		}
	}
}
