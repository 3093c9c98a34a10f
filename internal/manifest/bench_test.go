package manifest

import (
	"fmt"
	"strings"
	"testing"
)

// largeWhitelist is an image manifest of nearly MaxSize, with n paths.
func largeWhitelist(n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"/usr/%07d",`, i)
	}
	return []byte(image(`"pathWhitelist":[` + strings.TrimSuffix(b.String(), ",") + `]`))
}

func BenchmarkParseImageLargeWhitelist(b *testing.B) {
	data := largeWhitelist(1_040_000)
	if len(data) > MaxSize {
		b.Fatal(len(data))
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseImage(data); err != nil {
			b.Fatal(err)
		}
	}
}
