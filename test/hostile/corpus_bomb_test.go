//go:build unix

package hostile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/layer"
)

// large is an image with files of so many MiB of zeros.
func large(sizes ...int) source {
	return func(w io.Writer) {
		open(start()...)(w)
		for i, n := range sizes {
			put(w, file(fmt.Sprintf("rootfs/%d", i), "").edited(size(int64(n)<<20)).header())
			zeros(n)(w)
		}
		endMarker(w)
	}
}

// many is an image with n entries.
func many(n int, entry func(i int) entry) source {
	return func(w io.Writer) {
		open(start()...)(w)
		for i := range n {
			entry(i).write(w)
		}
		endMarker(w)
	}
}

func bombs() []hostile {
	tooLarge, tooMany := errs{layer.ErrTooLarge}, errs{layer.ErrTooManyEntries}
	mib := text(strings.Repeat("\x00", 1<<20))
	empty := func(i int) entry { return file(fmt.Sprintf("rootfs/%d/%d", i/1000, i), "") }
	null := func(i int) entry { return device('3', fmt.Sprintf("rootfs/dev/%d", i), 1, 3) }
	deep := func(i int) entry { return file(fmt.Sprintf("rootfs/%d/%sx", i, strings.Repeat("d/", 450)), "") }
	changing := func(i int) entry { return file(fmt.Sprintf("rootfs/%d/%s%d", i%2, strings.Repeat("d/", 450), i), "") }
	long := func(i int) entry {
		return dir(fmt.Sprintf("rootfs/%s/%s/%s%0100d", strings.Repeat("a", 250), strings.Repeat("b", 250), strings.Repeat("c", 150), i))
	}
	header := func(i int) entry {
		return file(fmt.Sprintf("rootfs/%d", i), "").with("comment=" + strings.Repeat("x", 1<<20-100))
	}
	attribute := func(i int) entry {
		e := symlink(fmt.Sprintf("rootfs/%d", i), "x")
		for j := range 100 {
			e = e.with(fmt.Sprintf("SCHILY.xattr.user.%d.%d=x", i, j))
		}
		return e
	}
	huge := file("rootfs/a", "").edited(size(1 << 30))
	padded := func(pad source) source { return concat(plain, pad) }
	return []hostile{
		{"bomb: a file of 65 MiB, gzip", tooLarge, gz(large(65)), gz(large(64))},
		{"bomb: a file of 1 GiB, gzip", tooLarge, concat(gz(open(start(huge)...)), repeat(1024, gz(mib)), gz(endMarker)), gz(large(63))},
		{"bomb: a file of 1 GiB, zstd", tooLarge, concat(zst(open(start(huge)...)), repeat(1024, zst(mib)), zst(endMarker)), zst(large(63))},
		{"bomb: a file of 100 MiB, xz", tooLarge, concat(xzip(open(start(file("rootfs/a", "").edited(size(100<<20)))...)), repeat(100, xzip(mib)), xzip(endMarker)), xzip(large(10))},
		{"bomb: many files of 40 MiB", tooLarge, gz(large(40, 40)), gz(large(32, 32))},
		{"bomb: the file that comes", tooLarge, large(80), large(60)},
		{"bomb: no end, gzip", tooLarge, gz(padded(zeros(150))), gz(padded(zeros(60)))},
		{"bomb: no end, zstd", tooLarge, zst(padded(zeros(150))), zst(padded(zeros(60)))},
		{"bomb: no end, zstd with a window of 64 MiB", tooLarge, zstWith(64<<20, padded(zeros(150))), zstWith(64<<20, padded(zeros(60)))},
		{"bomb: no end, xz", tooLarge, concat(xzip(plain), repeat(150, xzip(mib))), concat(xzip(plain), repeat(50, xzip(mib)))},
		{"bomb: no end, bzip2", tooLarge, concat(encoded(smallBzip2), repeat(150, encoded(zerosBzip2))), concat(encoded(smallBzip2), repeat(50, encoded(zerosBzip2)))},
		{"bomb: no manifest, gzip", tooLarge, gz(concat(open(dir("rootfs"), file("rootfs/a", "").edited(size(1<<40))), zeros(150))), gz(plain)},
		{"bomb: no manifest, bzip2", tooLarge, concat(encoded(emptyBzip2), repeat(150, encoded(zerosBzip2))), encoded(smallBzip2)},
		{"bomb: 25,000 empty files", tooMany, gz(many(25_000, empty)), gz(many(10_000, empty))},
		{"bomb: 25,000 skipped devices", tooMany, gz(many(25_000, null)), gz(many(10_000, null))},
		{"large: a million skipped devices and one", tooMany, gz(many(1_000_000, null)), gz(many(100_000, null))},
		{"bomb: 25,000 long names", tooMany, gz(many(25_000, long)), gz(many(5_000, long))},
		{"bomb: 25,000 implied directories", tooMany, gz(many(60, deep)), gz(many(20, deep))},
		{"bomb: deep directories left and entered", errs{layer.ErrDuplicate}, gz(many(1_000, func(i int) entry { return changing(min(i, 998)) })), gz(many(1_000, changing))},
		{"bomb: 150 MiB of extended headers", tooLarge, gz(many(150, header)), gz(many(20, header))},
		{"bomb: 100,000 warnings", errs{layer.ErrDuplicate}, gz(many(1000, func(i int) entry { return attribute(i % 999) })), gz(many(10, attribute))},
		{"bomb: 100,000 members of gzip", errs{aci.ErrTrailing}, concat(gz(plain), repeat(100_000, text(emptyGzip)), text("garbage garbage!")), concat(gz(plain), repeat(100_000, text(emptyGzip)))},
		{"bomb: 100,000 frames of zstd", errs{aci.ErrTrailing}, concat(zst(plain), repeat(100_000, text(emptyZstd)), text("garbage garbage!")), concat(zst(plain), repeat(100_000, text(emptyZstd)))},
	}
}

const (
	emptyGzip = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x01\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"
	// emptyZstd is a frame of one raw block without contents (RFC 8878, section 3.1.1).
	emptyZstd = "\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"
)

// xzDictionary compresses and makes the file ask for a dictionary of a coded size
// (The .xz File Format, version 1.2.1, section 5.3.1).
func xzDictionary(code byte, s source) source {
	return edit(xzip(s), func(b []byte) []byte {
		header := b[12 : 12+(int(b[12])+1)*4]
		header[bytes.Index(header, []byte{0x21, 1})+2] = code
		binary.LittleEndian.PutUint32(header[len(header)-4:], crc32.ChecksumIEEE(header[:len(header)-4]))
		return b
	})
}

// xzBlocks is the beginning of a file of empty blocks, each with a dictionary of
// 64 MiB.
func xzBlocks(n int) source {
	return edit(xzDictionary(28, text("x")), func(b []byte) []byte {
		head := b[:12]
		head[7] = 0 // no checks
		binary.LittleEndian.PutUint32(head[8:], crc32.ChecksumIEEE(head[6:8]))
		empty := append(bytes.Clone(b[12:12+(int(b[12])+1)*4]), 0, 0, 0, 0) // end of chunks, padding
		return append(head[:12:12], bytes.Repeat(empty, n)...)
	})
}

// zstdWindow is the beginning of a frame with a window of 2^(10+exponent) bytes
// (RFC 8878, section 3.1.1.1.2).
func zstdWindow(exponent byte) source {
	return text("\x28\xb5\x2f\xfd\x00" + string([]byte{exponent << 3}) + "\x01\x00\x00\x00\x00\x00\x00\x00")
}

// races are images that take long enough for somebody who changes the tree
// meanwhile: directories are left and entered again all the time.
func races(h host) []hostile {
	const n = 1500
	back := func(last entry) source {
		return many(n, func(i int) entry {
			name := fmt.Sprintf("rootfs/%d/%d/%d", i%3, i%5, i)
			switch {
			case i == n-1:
				return last
			case i < 50:
				return dir(fmt.Sprintf("rootfs/%d/%d/%d/d", i%3, i%5, i))
			case i%7 == 6:
				return hardlink(name, fmt.Sprintf("rootfs/%d/%d/%d", (i-1)%3, (i-1)%5, i-1))
			case i%7 == 5:
				return file(name, "hello").with("SCHILY.xattr.user.x=y")
			case i%7 == 4:
				return symlink(name, h.canary("dir"))
			case i%7 == 3:
				return fifo(name)
			case i%7 == 2:
				return dir(name)
			}
			return file(name, strings.Repeat("x", i))
		})
	}
	return []hostile{
		{"race: a link at the end", badLink, back(hardlink("rootfs/x", h.canary("file"))), back(hardlink("rootfs/x", "rootfs/2/0/50"))},
		{"race: a device at the end", errs{layer.ErrDevice}, back(device('3', "rootfs/x", 1, 3)), back(file("rootfs/x", "x"))},
	}
}
