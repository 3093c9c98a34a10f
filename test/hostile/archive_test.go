//go:build unix

package hostile

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// source writes an image file. It is called only in the process that builds the
// corpus, so that what a large file takes is not counted where it is imported.
// It panics when w fails.
type source func(w io.Writer)

// entry is a tar entry as it is to appear, whether tar(1) would write it or not.
type entry struct {
	name, link     string
	typ            byte // 0 is a regular file
	mode, uid, gid int64
	body           string
	pax            []string         // records of an extended header before it: "key=value"
	edit           func(hdr []byte) // changes the header; the checksum is made after it
}

func file(name, body string) entry     { return entry{name: name, mode: 0o644, body: body} }
func dir(name string) entry            { return entry{name: name, typ: '5', mode: 0o755} }
func symlink(name, to string) entry    { return entry{name: name, typ: '2', link: to, mode: 0o777} }
func hardlink(name, to string) entry   { return entry{name: name, typ: '1', link: to, mode: 0o644} }
func fifo(name string) entry           { return entry{name: name, typ: '6', mode: 0o644} }
func typed(typ byte, n string) entry   { return entry{name: n, typ: typ, mode: 0o644} }
func longName(name string) entry       { return entry{name: "././@LongLink", typ: 'L', body: name + "\x00"} }
func longLink(name string) entry       { return entry{name: "././@LongLink", typ: 'K', body: name + "\x00"} }
func global(records ...string) entry   { return entry{name: "g", typ: 'g', body: paxBody(records)} }
func paxHeader(body string) entry      { return entry{name: "x", typ: 'x', body: body} }
func (e entry) with(r ...string) entry { e.pax = append(e.pax, r...); return e }
func (e entry) edited(edit func(hdr []byte)) entry {
	e.edit = edit
	return e
}

func device(typ byte, name string, major, minor int64) entry {
	return typed(typ, name).edited(func(hdr []byte) {
		octal(hdr[329:337], major)
		octal(hdr[337:345], minor)
	})
}

const block = 512

func paxBody(records []string) string {
	var b strings.Builder
	for _, r := range records {
		n := len(r) + 3
		for len(fmt.Sprintf("%d %s\n", n, r)) != n {
			n++
		}
		fmt.Fprintf(&b, "%d %s\n", n, r)
	}
	return b.String()
}

func octal(field []byte, v int64) { copy(field, fmt.Sprintf("%0*o\x00", len(field)-1, v)) }

// base256 is GNU's encoding of numbers that octal digits have no place for.
func base256(field []byte, v int64) {
	fill := byte(0)
	if v < 0 {
		fill = 0xff
	}
	for i := range field {
		field[i] = fill
	}
	binary.BigEndian.PutUint64(field[len(field)-8:], uint64(v))
	field[0] |= 0x80
}

func number(field []byte, v int64) {
	if v < 0 || v >= 1<<(3*(len(field)-1)) {
		base256(field, v)
		return
	}
	octal(field, v)
}

// size makes a header tell another size than the content has.
func size(n int64) func([]byte) { return func(hdr []byte) { number(hdr[124:136], n) } }

func (e entry) write(w io.Writer) {
	records := e.pax
	if len(e.name) > 100 && e.typ != 'L' {
		records = append([]string{"path=" + e.name}, records...)
	}
	if len(e.link) > 100 {
		records = append([]string{"linkpath=" + e.link}, records...)
	}
	if len(records) > 0 {
		paxHeader(paxBody(records)).write(w)
	}
	put(w, e.header())
	put(w, e.body)
	put(w, strings.Repeat("\x00", -len(e.body)&(block-1)))
}

func (e entry) header() string {
	hdr := make([]byte, block)
	copy(hdr[0:100], e.name)
	octal(hdr[100:108], e.mode)
	number(hdr[108:116], e.uid)
	number(hdr[116:124], e.gid)
	number(hdr[124:136], int64(len(e.body)))
	octal(hdr[136:148], 1445169600)
	hdr[156] = e.typ
	if e.typ == 0 {
		hdr[156] = '0'
	}
	copy(hdr[157:257], e.link)
	copy(hdr[257:265], "ustar\x0000")
	if e.edit != nil {
		e.edit(hdr)
	}
	return string(summed(hdr))
}

// summed gives a header its checksum.
func summed(hdr []byte) []byte {
	copy(hdr[148:156], "        ")
	sum := 0
	for _, b := range hdr {
		sum += int(b)
	}
	copy(hdr[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return hdr
}

// v7 strips what POSIX added to a header.
func v7(hdr []byte) { clear(hdr[257:]) }

// lazy makes a source when it is called, since what it is made of is large.
func lazy(s func() source) source { return func(w io.Writer) { s()(w) } }

func put(w io.Writer, s string) {
	if _, err := io.WriteString(w, s); err != nil {
		panic(err)
	}
}

func text(s string) source { return func(w io.Writer) { put(w, s) } }

// zeros is n MiB of zeros.
func zeros(n int) source { return repeat(n, text(strings.Repeat("\x00", 1<<20))) }

func repeat(n int, s source) source {
	return func(w io.Writer) {
		once := string(buffer(s))
		for range n {
			put(w, once)
		}
	}
}

func concat(sources ...source) source {
	return func(w io.Writer) {
		for _, s := range sources {
			s(w)
		}
	}
}

// open is an archive without the blocks that mark its end.
func open(entries ...entry) source {
	return func(w io.Writer) {
		for _, e := range entries {
			e.write(w)
		}
	}
}

var endMarker = text(strings.Repeat("\x00", 2*block))

func archive(entries ...entry) source { return concat(open(entries...), endMarker) }

// start is the beginning of a good image.
func start(entries ...entry) []entry {
	return append([]entry{file("manifest", manifestJSON("")), dir("rootfs")}, entries...)
}

// img is an image whose root file system has these entries.
func img(entries ...entry) source { return archive(start(entries...)...) }

func buffer(s source) []byte {
	var b bytes.Buffer
	s(&b)
	return b.Bytes()
}

// edit is what a source writes, changed.
func edit(s source, change func([]byte) []byte) source {
	return func(w io.Writer) { put(w, string(change(buffer(s)))) }
}

// cut leaves the last n bytes away.
func cut(n int, s source) source {
	return edit(s, func(b []byte) []byte { return b[:len(b)-n] })
}

// first is the first n bytes.
func first(n int, s source) source { return edit(s, func(b []byte) []byte { return b[:n] }) }

// half is the first half.
func half(s source) source { return edit(s, func(b []byte) []byte { return b[:len(b)/2] }) }

// flip damages the byte at an offset, from the end if negative.
func flip(offset int, s source) source {
	return edit(s, func(b []byte) []byte {
		b[(offset+len(b))%len(b)] ^= 0x55
		return b
	})
}

func compressed(s source, open func(io.Writer) (io.WriteCloser, error)) source {
	return func(w io.Writer) {
		z, err := open(w)
		if err != nil {
			panic(err)
		}
		s(z)
		if err := z.Close(); err != nil {
			panic(err)
		}
	}
}

func gz(s source) source {
	return compressed(s, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.BestSpeed) })
}

func xzip(s source) source {
	return compressed(s, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
}

func zst(s source) source { return zstWith(8<<20, s) }

func zstWith(window int, s source) source {
	return compressed(s, func(w io.Writer) (io.WriteCloser, error) {
		return zstd.NewWriter(w, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	})
}
