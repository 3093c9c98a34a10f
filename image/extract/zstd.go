package extract

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxZstdWindow is that of zstd --long=26; without --long, zstd -19 takes 8 MiB and
// zstd --ultra -22 takes 128 MiB for files that are larger.
const maxZstdWindow = 64 << 20

func newZstdReader(r *bufio.Reader) (*zstd.Decoder, error) {
	g := &zstdGuard{r: r}
	g.next = g.frame
	return zstd.NewReader(g, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindow))
}

// closeZstd gives the window back at once: the next decoder's would otherwise come
// on top of it, and an image is read several times.
func closeZstd(z *zstd.Decoder) {
	z.Close()
	runtime.GC()
}

// zstdGuard hands on a Zstandard file as it is, and follows its structure (RFC 8878,
// section 3.1) to refuse a large window by its size and to tell what follows the
// last frame from one that is cut short. All else is the library's to check.
type zstdGuard struct {
	r        *bufio.Reader
	left     int64        // bytes until the next header
	next     func() error // looks at that header, and says what is left to the one after it
	checksum int64        // bytes of this frame's checksum
}

func (g *zstdGuard) Read(p []byte) (int, error) {
	for g.left == 0 {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	n, err := g.r.Read(p[:min(int64(len(p)), g.left)])
	g.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// frame looks at the header of a frame, if there is one more.
func (g *zstdGuard) frame() error {
	head, err := g.r.Peek(zstd.HeaderMaxSize)
	if len(head) == 0 {
		return err
	}
	if !isZstdFrame(head) {
		return fmt.Errorf("%w of the zstd data", ErrTrailing)
	}
	var h zstd.Header
	if err := h.Decode(head); err != nil {
		return err
	}
	if h.Skippable {
		g.left = int64(h.HeaderSize) + int64(h.SkippableSize)
		return nil
	}
	if window := max(h.WindowSize, singleSegment(h)); window > maxZstdWindow {
		return fmt.Errorf("a window of %d bytes is too large, at most %d are granted", window, maxZstdWindow)
	}
	g.checksum = 0
	if h.HasCheckSum {
		g.checksum = 4
	}
	g.left, g.next = int64(h.HeaderSize), g.block
	return nil
}

// singleSegment is the window of a frame that has its content in one piece.
func singleSegment(h zstd.Header) uint64 {
	if h.SingleSegment {
		return h.FrameContentSize
	}
	return 0
}

// isZstdFrame says whether this is, as far as it goes, the beginning of a frame or
// of one that is to be skipped.
func isZstdFrame(head []byte) bool {
	magic := string(head[:min(len(head), 4)])
	return strings.HasPrefix(magics[Zstd], magic) ||
		magic[0]&0xf0 == 0x50 && strings.HasPrefix("\x2a\x4d\x18", magic[1:])
}

// block looks at the header of a block: three bytes, of which the lowest bit marks
// the last block, the next two are the type and all others the size.
func (g *zstdGuard) block() error {
	head, err := g.r.Peek(3)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	header := int64(head[0]) | int64(head[1])<<8 | int64(head[2])<<16
	size := header >> 3
	const repeated = 1 // a block of one byte as often as its size says
	if header>>1&3 == repeated {
		size = 1
	}
	g.left = 3 + size
	if header&1 != 0 {
		g.left += g.checksum
		g.next = g.frame
	}
	return nil
}
