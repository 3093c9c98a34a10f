package extract

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

const (
	// maxXzDictionary is that of xz -9. A file may ask for 4 GiB, and the library
	// allocates what the file asks for.
	maxXzDictionary = 64 << 20
	// Each block of a file has a dictionary of its own. Blocks with hardly any
	// contents would keep the machine busy with clearing memory and make the index,
	// which the library keeps, huge. So all dictionaries together, each counted as
	// minDictionary at least, may be maxDictionaryRatio times the contents, besides
	// freeDictionaries.
	minDictionary      = 1 << 20
	maxDictionaryRatio = 64
	freeDictionaries   = 1 << 30
)

func newXzReader(r io.Reader) (io.Reader, error) {
	g := &xzGuard{r: r}
	g.expect(4, g.startStream)
	// The least that the library permits; the file's own value overrides it.
	return xz.ReaderConfig{DictCap: lzma.MinDictCap}.NewReader(g)
}

// xzGuard hands on an .xz file as it is, and follows its structure (The .xz File
// Format, version 1.2.1) just enough to refuse a block before the library
// allocates its dictionary. All else is the library's to check.
type xzGuard struct {
	r       io.Reader
	skip    int64        // bytes of no interest
	part    []byte       // what there is of the next interesting bytes
	want    int          // how many there are to be in part
	handle  func() error // what looks at part then; it says what to expect next
	members int
	ended   bool // what comes is the next stream, padding or nothing

	checkSize    int64 // bytes of a block's check in this stream
	blockSize    int64 // bytes of this block's compressed data so far
	numbers      int64 // integers left in the index
	indexSize    int64 // bytes of the index so far
	dictionaries int64 // bytes of all dictionaries so far
	contents     int64 // bytes of all uncompressed data so far
	garbage      int64 // bytes of dictionaries since the last collection
}

func (g *xzGuard) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	for b := p[:n]; len(b) > 0; {
		if g.skip > 0 {
			k := min(g.skip, int64(len(b)))
			g.skip -= k
			b = b[k:]
			continue
		}
		k := min(g.want-len(g.part), len(b))
		g.part = append(g.part, b[:k]...)
		b = b[k:]
		if len(g.part) < g.want {
			continue
		}
		if bad := g.handle(); bad != nil {
			return 0, bad
		}
	}
	if err == io.EOF && g.ended && !bytes.HasPrefix([]byte(magics[Xz]), g.part) {
		return n, fmt.Errorf("%w of the xz data", ErrTrailing)
	}
	return n, err
}

// expect has handle called with the next n bytes in part.
func (g *xzGuard) expect(n int, handle func() error) {
	g.part, g.want, g.handle = g.part[:0], n, handle
}

// extend has handle called with n bytes more in part.
func (g *xzGuard) extend(n int, handle func() error) {
	g.want, g.handle = g.want+n, handle
}

// startStream has the first four bytes of a stream header or of padding.
func (g *xzGuard) startStream() error {
	switch {
	case bytes.Equal(g.part, []byte{0, 0, 0, 0}) && g.members > 0:
		g.expect(4, g.startStream)
	case bytes.HasPrefix([]byte(magics[Xz]), g.part):
		g.ended = false
		g.extend(8, g.streamHeader)
	default:
		return fmt.Errorf("%w of the xz data", ErrTrailing)
	}
	return nil
}

func (g *xzGuard) streamHeader() error {
	g.checkSize = 0
	if id := g.part[7] & 0x0f; id > 0 { // section 2.1.1.2
		g.checkSize = 4 << ((id - 1) / 3)
	}
	g.members++
	g.expect(1, g.startBlock)
	return nil
}

// startBlock has the size of a block header, or the indicator of the index.
func (g *xzGuard) startBlock() error {
	if g.part[0] == 0 {
		g.indexSize = 1
		g.numbers = 0
		g.expect(1, g.indexCount)
		return nil
	}
	g.extend((int(g.part[0])+1)*4-1, g.blockHeader)
	return nil
}

var errXzHeader = errors.New("malformed block header")

// blockHeader: section 3.1, with LZMA2 as the only filter.
func (g *xzGuard) blockHeader() error {
	fields := g.part[2 : len(g.part)-4] // after size and flags, before the CRC
	for _, flag := range []byte{0x40, 0x80} {
		if g.part[1]&flag != 0 { // an optional size
			_, n := binary.Uvarint(fields)
			if n <= 0 {
				return errXzHeader
			}
			fields = fields[n:]
		}
	}
	if g.part[1]&0x3f != 0 || len(fields) < 3 || fields[0] != 0x21 || fields[1] != 1 {
		return errors.New("filters other than LZMA2 are not supported")
	}
	size, err := lzma.DecodeDictCap(fields[2])
	if err != nil {
		return err
	}
	g.dictionaries += max(size, minDictionary)
	if size > maxXzDictionary || g.dictionaries > freeDictionaries+maxDictionaryRatio*g.contents {
		return fmt.Errorf("a dictionary of %d bytes is too large", size)
	}
	if g.garbage += size; g.garbage > maxXzDictionary {
		// The library lets go of the last one, and allocates the next at once.
		runtime.GC()
		g.garbage = size
	}
	g.blockSize = 0
	g.expect(1, g.startChunk)
	return nil
}

// startChunk has the control byte of an LZMA2 chunk.
func (g *xzGuard) startChunk() error {
	g.blockSize++
	switch control := g.part[0]; {
	case control == 0:
		g.skip = -g.blockSize&3 + g.checkSize
		g.expect(1, g.startBlock)
	case control < 0x80:
		g.extend(2, g.plainChunk)
	case control < 0xc0:
		g.extend(4, g.lzmaChunk)
	default:
		g.extend(5, g.lzmaChunk) // with new properties
	}
	return nil
}

func (g *xzGuard) plainChunk() error {
	size := int64(binary.BigEndian.Uint16(g.part[1:])) + 1
	return g.skipChunk(size, size)
}

func (g *xzGuard) lzmaChunk() error {
	size := int64(g.part[0]&0x1f)<<16 + int64(binary.BigEndian.Uint16(g.part[1:])) + 1
	return g.skipChunk(int64(binary.BigEndian.Uint16(g.part[3:]))+1, size)
}

func (g *xzGuard) skipChunk(compressed, uncompressed int64) error {
	g.blockSize += int64(len(g.part)-1) + compressed
	g.contents += uncompressed
	g.skip = compressed
	g.expect(1, g.startChunk)
	return nil
}

// indexCount has the number of records of the index, each of two integers.
func (g *xzGuard) indexCount() error {
	done, err := g.integer(g.indexCount)
	if err != nil || !done {
		return err
	}
	count, _ := binary.Uvarint(g.part)
	if count > 1<<40 {
		return errors.New("malformed index")
	}
	g.numbers = int64(2 * count)
	return g.nextNumber()
}

func (g *xzGuard) indexNumber() error {
	done, err := g.integer(g.indexNumber)
	if err != nil || !done {
		return err
	}
	g.numbers--
	return g.nextNumber()
}

func (g *xzGuard) nextNumber() error {
	if g.numbers > 0 {
		g.expect(1, g.indexNumber)
		return nil
	}
	const crc, footer = 4, 12
	g.skip = -g.indexSize&3 + crc + footer
	g.ended = true
	g.expect(4, g.startStream)
	return nil
}

// integer collects an integer of variable length in part (section 1.2).
func (g *xzGuard) integer(again func() error) (done bool, err error) {
	g.indexSize++
	switch {
	case g.part[len(g.part)-1]&0x80 == 0:
		return true, nil
	case len(g.part) >= 9:
		return false, errors.New("malformed index")
	}
	g.extend(1, again)
	return false, nil
}
