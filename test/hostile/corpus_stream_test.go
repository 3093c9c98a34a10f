//go:build unix

package hostile

import (
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/layer"
)

// gnuSparse makes an old GNU sparse header: the real size, then offsets and sizes
// of what is not a hole.
func gnuSparse(real int64, extents ...int64) func([]byte) {
	return func(hdr []byte) {
		copy(hdr[257:265], "ustar  \x00")
		for i, v := range extents {
			number(hdr[386+12*i:398+12*i], v)
		}
		number(hdr[483:495], real)
	}
}

// extended says that more extents follow in blocks of their own.
func extended(edit func([]byte)) func([]byte) {
	return func(hdr []byte) {
		edit(hdr)
		hdr[482] = 1
	}
}

// paxSparse is a sparse file of PAX format 1.0, whose content begins with the map.
func paxSparse(real, mapping, data string) entry {
	mapping += strings.Repeat("\x00", -len(mapping)&(block-1))
	return file("rootfs/GNUSparseFile.0/a", mapping+data).with("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=rootfs/a", "GNU.sparse.realsize="+real)
}

func sparse() []hostile {
	old := func(edit func([]byte)) source {
		return img(entry{name: "rootfs/a", typ: 'S', mode: 0o644, body: strings.Repeat("x", 1024)}.edited(edit))
	}
	benign := old(gnuSparse(8192, 0, 512, 4096, 512))
	oldCase := func(name string, want error, edit func([]byte)) hostile {
		return hostile{"sparse: " + name, errs{want}, old(edit), benign}
	}
	x := strings.Repeat("x", 512)
	paxCase := func(name string, want error, real, mapping string) hostile {
		return hostile{"sparse PAX: " + name, errs{want}, img(paxSparse(real, mapping, x)), img(paxSparse("8192", "1\n4096\n512\n", x))}
	}
	blocks := func(n int) source {
		ext := make([]byte, block)
		for i := range 21 {
			number(ext[24*i:24*i+12], int64(i+1)<<20)
			number(ext[24*i+12:24*i+24], 0)
		}
		ext[504] = 1
		return repeat(n, text(string(ext)))
	}
	return []hostile{
		oldCase("a file of 1 TiB", layer.ErrTooLarge, gnuSparse(1<<40, 0, 512, 4096, 512)),
		oldCase("a file of 8 EiB", layer.ErrTooLarge, gnuSparse(1<<63-1, 0, 512, 4096, 512)),
		oldCase("a negative size", aci.ErrFormat, gnuSparse(-1, 0, 512, 4096, 512)),
		oldCase("a negative offset", aci.ErrFormat, gnuSparse(8192, -512, 512, 4096, 512)),
		oldCase("a negative length", aci.ErrFormat, gnuSparse(8192, 0, -512, 4096, 1536)),
		oldCase("overlapping extents", aci.ErrFormat, gnuSparse(8192, 0, 768, 512, 256)),
		oldCase("extents out of order", aci.ErrFormat, gnuSparse(8192, 4096, 512, 0, 512)),
		oldCase("an extent beyond the end", aci.ErrFormat, gnuSparse(8192, 0, 512, 8000, 512)),
		oldCase("an extent that overflows", aci.ErrFormat, gnuSparse(8192, 0, 512, 1<<63-1, 512)),
		oldCase("more data than there is", aci.ErrFormat, gnuSparse(8192, 0, 512, 4096, 1024)),
		oldCase("more extents announced", aci.ErrFormat, extended(gnuSparse(8192, 0, 512, 4096, 512))),
		{"sparse: a million extents", errs{aci.ErrFormat}, gz(concat(
			open(start(entry{name: "rootfs/a", typ: 'S'}.edited(extended(gnuSparse(1<<20, 0, 0))))...), blocks(50_000), endMarker)), benign},
		paxCase("a file of 1 TiB", layer.ErrTooLarge, "1099511627776", "1\n4096\n512\n"),
		paxCase("a negative size", aci.ErrFormat, "-1", "1\n4096\n512\n"),
		paxCase("no number", aci.ErrFormat, "8192", "one\n4096\n512\n"),
		paxCase("a billion extents", aci.ErrTruncated, "8192", "1000000000\n4096\n512\n"),
		paxCase("extents that overflow", aci.ErrFormat, "8192", "4611686018427387905\n4096\n512\n"),
		paxCase("a negative count", aci.ErrFormat, "8192", "-1\n4096\n512\n"),
		paxCase("a negative offset", aci.ErrFormat, "8192", "1\n-4096\n512\n"),
		paxCase("overlapping extents", aci.ErrFormat, "8192", "2\n0\n300\n200\n212\n"),
		{"sparse PAX: a million extents", errs{aci.ErrFormat}, gz(img(paxSparse("1000000", "1000000\n"+strings.Repeat("1\n0\n", 1_000_000), ""))), img(paxSparse("8192", "1\n4096\n512\n", x))},
		{"sparse PAX: a name outside", badPlace,
			img(file("rootfs/x", "1\n0\n1\n"+strings.Repeat("\x00", 506)+"x").with("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=/etc/"+marker, "GNU.sparse.realsize=1")),
			img(file("rootfs/x", "1\n0\n1\n"+strings.Repeat("\x00", 506)+"x").with("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=rootfs/etc/"+marker, "GNU.sparse.realsize=1"))},
		{"sparse PAX: the manifest of 1 TiB", errs{aci.ErrLayout},
			archive(dir("rootfs"), file("manifest", "1\n0\n1\n"+strings.Repeat("\x00", 506)+"{").with("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=manifest", "GNU.sparse.realsize=1099511627776")),
			plain},
	}
}

// headers lie about what follows, or say the same thing in several ways.
func headers(h host) []hostile {
	lie := func(name string, want error, n int64) hostile {
		return hostile{"size: " + name, errs{want}, img(file("rootfs/a", "hello").edited(size(n)), file("rootfs/b", "x")), img(file("rootfs/a", "hello"), file("rootfs/b", "x"))}
	}
	f := file("rootfs/a", "hello")
	pax := func(name string, want error, bad, good string) hostile {
		return hostile{"PAX: " + name, errs{want}, img(f.with(bad)), img(f.with(good))}
	}
	record := func(name string, want error, bad string) hostile {
		return hostile{"PAX: " + name, errs{want}, img(paxHeader(bad), f), img(paxHeader("14 comment=xy\n"), f)}
	}
	anyGlobal := func(name string, records ...string) hostile {
		return hostile{"PAX global: " + name, errs{aci.ErrLayout}, archive(append([]entry{global(records...)}, start(f)...)...), archive(append([]entry{global("comment=0123456789abcdef")}, start(f)...)...)}
	}
	return []hostile{
		lie("larger than the archive", aci.ErrTruncated, 1<<20),
		lie("a block more", aci.ErrFormat, 512+5),
		lie("nothing", aci.ErrFormat, 0),
		lie("1 TiB", layer.ErrTooLarge, 1<<40),
		lie("8 EiB", layer.ErrTooLarge, 1<<63-1),
		lie("negative", aci.ErrFormat, -1),
		lie("most negative", aci.ErrFormat, -1<<62),
		{"size: of a directory", errs{aci.ErrFormat}, img(entry{name: "rootfs/a", typ: '5', body: "hello"}), img(entry{name: "rootfs/a", typ: '5'})},
		{"size: of a symbolic link", errs{aci.ErrFormat}, img(entry{name: "rootfs/a", typ: '2', link: "x", body: "hello"}), img(symlink("rootfs/a", "x"))},
		{"size: of the manifest", errs{aci.ErrLayout}, archive(file("manifest", manifestJSON("")).edited(size(1<<40)), dir("rootfs")), archive(file("manifest", manifestJSON("")), dir("rootfs"))},
		{"size: the manifest cut short by it", errs{aci.ErrTruncated}, archive(dir("rootfs"), file("manifest", manifestJSON("")).edited(size(1<<20))), archive(dir("rootfs"), file("manifest", manifestJSON("")))},
		pax("larger size", aci.ErrTruncated, "size=100000", "size=5"),
		pax("smaller size", aci.ErrFormat, "size=0", "size=5"),
		pax("negative size", aci.ErrFormat, "size=-5", "size=5"),
		pax("size that overflows", aci.ErrFormat, "size=9223372036854775808", "size=5"),
		pax("size of 1 TiB", layer.ErrTooLarge, "size=1099511627776", "size=5"),
		pax("time that is none", aci.ErrFormat, "mtime=soon", "mtime=-1.5"),
		pax("time that overflows", aci.ErrFormat, "mtime=99999999999999999999", "mtime=9999999999.999999999"),
		{"PAX: path outside", badPlace, img(f.with("path=../../" + marker)), img(f.with("path=rootfs/" + marker))},
		{"PAX: absolute path", badPlace, img(f.with("path=/tmp/" + marker)), img(f.with("path=rootfs/tmp/" + marker))},
		{"PAX: path at the top", errs{aci.ErrLayout}, img(f.with("path=" + marker)), img(f.with("path=rootfs/" + marker))},
		{"PAX: path of a second manifest", errs{aci.ErrLayout}, img(f.with("path=manifest")), img(f.with("path=rootfs/manifest"))},
		{"PAX: path twice", badPlace, img(f.with("path=rootfs/b", "path=/etc/"+marker)), img(f.with("path=/etc/"+marker, "path=rootfs/b"))},
		{"PAX: path of the last of two headers", badPlace, img(paxHeader(paxBody([]string{"path=rootfs/b"})), f.with("path=/etc/"+marker)), img(paxHeader(paxBody([]string{"path=/etc/" + marker})), f.with("path=rootfs/b"))},
		{"PAX: hard link to the host", badLink, img(f, hardlink("rootfs/b", "rootfs/a").with("linkpath="+h.canary("file"))), img(f, hardlink("rootfs/b", "rootfs/a").with("linkpath=rootfs/a"))},
		{"PAX: NUL in the target of a link", errs{aci.ErrFormat}, img(symlink("rootfs/b", "x").with("linkpath=a\x00b")), img(symlink("rootfs/b", "x").with("linkpath=ab"))},
		{"PAX: xattr of overlayfs by LIBARCHIVE and SCHILY", errs{layer.ErrXattr}, img(f.with("SCHILY.xattr.trusted.overlay.opaque=y")), img(f.with("LIBARCHIVE.xattr.trusted.overlay.opaque=eQ=="))},
		record("length too large", aci.ErrFormat, "99 comment=xy\n"),
		record("length too small", aci.ErrFormat, "9 comment=xy\n"),
		record("length that overflows", aci.ErrFormat, "99999999999999999999 comment=xy\n"),
		record("length negative", aci.ErrFormat, "-14 comment=xy\n"),
		record("no length", aci.ErrFormat, "comment=xy\n"),
		record("no equals sign", aci.ErrFormat, "14 comment-xy\n"),
		record("no newline", aci.ErrFormat, "14 comment=xyz"),
		record("no key", aci.ErrFormat, "5 =x\n"),
		record("key with NUL", aci.ErrFormat, "12 co\x00ent=xy\n"),
		{"PAX: header of 2 MiB", errs{aci.ErrFormat}, lazy(func() source { return img(f.with("comment=" + strings.Repeat("x", 2<<20))) }), lazy(func() source { return img(f.with("comment=" + strings.Repeat("x", 1<<19))) })},
		{"PAX: 90,000 records", errs{aci.ErrFormat}, lazy(func() source { return img(f.with(manyRecords(90_000)...)) }), lazy(func() source { return img(f.with(manyRecords(1_000)...)) })},
		anyGlobal("path", "path=rootfs/x"),
		anyGlobal("size", "size=0"),
		anyGlobal("comment and owner", "comment=x", "uid=0"),
		anyGlobal("nothing"),
		{"PAX global: in between", errs{aci.ErrLayout}, img(global("linkpath=/etc/passwd"), f), img(global("comment=x"), f)},
		{"GNU: long name outside", badPlace, img(longName("rootfs/../../"+marker), f), img(longName("rootfs/b/"+marker), f)},
		{"GNU: long name absolute", badPlace, img(longName(h.canary(marker)), f), img(longName("rootfs"+h.canary(marker)), f)},
		{"GNU: long name of the manifest", errs{aci.ErrLayout}, img(longName("manifest"), f), img(longName("rootfs/manifest"), f)},
		{"GNU: long name of 2 MiB", errs{aci.ErrFormat}, lazy(func() source { return img(longName(strings.Repeat("a", 2<<20)), f) }), lazy(func() source { return img(longName("rootfs/"+strings.Repeat("a", 200)), f) })},
		{"GNU: long name of 1 TiB", errs{aci.ErrTruncated}, img(longName("rootfs/b").edited(size(1<<40)), f), img(longName("rootfs/b"), f)},
		{"GNU: long link to the host", badLink, img(f, longLink(h.canary("file")), hardlink("rootfs/b", "rootfs/a")), img(f, longLink("./rootfs/a"), hardlink("rootfs/b", "rootfs/x"))},
		{"GNU: last of two long names", badPlace, img(longName("rootfs/b"), longName("/etc/"+marker), f), img(longName("/etc/"+marker), longName("rootfs/b"), f)},
		{"symbolic link to nothing", errs{layer.ErrSymlink}, img(symlink("rootfs/b", "")), img(symlink("rootfs/b", "."))},
		{"symbolic link to 1,024 bytes", errs{layer.ErrSymlink}, img(symlink("rootfs/b", strings.Repeat("/x", 512))), img(symlink("rootfs/b", strings.Repeat("/x", 511)))},
		{"symbolic link to 5,000 bytes", errs{layer.ErrSymlink}, img(symlink("rootfs/b", strings.Repeat("/x", 2500))), img(symlink("rootfs/b", strings.Repeat("/x", 500)))},
		{"checksum of the first header", errs{aci.ErrFormat}, flip(0, plain), plain},
		{"checksum of a later header", errs{aci.ErrFormat}, flip(2*block, plain), plain},
		{"version 7 with a bad checksum", errs{aci.ErrFormat}, flip(148, oldTar()), oldTar()},
		{"version 7 outside", badPlace, oldTar(file("../"+marker, "").edited(v7)), oldTar(file("rootfs/"+marker, "").edited(v7))},
	}
}

func manyRecords(n int) []string {
	records := make([]string, n)
	for i := range records {
		records[i] = fmt.Sprintf("SCHILY.x%06d=", i)
	}
	return records
}

// oldTar is an image in the format before POSIX.
func oldTar(more ...entry) source {
	entries := start(file(hello, "x"))
	for i := range entries {
		entries[i].edit = v7
	}
	return archive(append(entries, more...)...)
}

func truncations() []hostile {
	// Blocks: manifest 0 and 1, rootfs 2, hello 3 and 4, end 5 and 6.
	until := func(name string, n int) hostile {
		return hostile{"truncated " + name, errs{aci.ErrTruncated}, first(n, plain), plain}
	}
	after := func(name string, garbage source) hostile {
		return hostile{"after the end: " + name, errs{aci.ErrTrailing}, concat(plain, garbage), concat(plain, zeros(1))}
	}
	return []hostile{
		until("in the content of the manifest", block+20),
		until("in the padding of the manifest", block+500),
		until("after the manifest", 2*block),
		until("in a header", 2*block+100),
		until("after a header", 3*block),
		until("before the last header ends", 4*block-1),
		until("before the content", 4*block),
		until("in the content", 4*block+3),
		until("in the padding", 4*block+100),
		until("before the end marker", 5*block),
		until("in the end marker", 5*block+100),
		until("in the middle of the end marker", 6*block),
		until("a byte before the end", 7*block-1),
		after("a byte", text("x")),
		after("another image", plain),
		after("an entry", open(file("rootfs/late", "x"))),
		after("a byte after 9,000 zeros", concat(text(strings.Repeat("\x00", 9000)), text("x"))),
		after("a byte after a megabyte", concat(zeros(1), text("\x01"))),
		{"a single block of zeros in between", errs{aci.ErrFormat}, concat(open(start()...), text(strings.Repeat("\x00", block)), archive(file(hello, "x"))), plain},
		{"entries after the end marker", errs{aci.ErrTrailing}, concat(archive(start()...), archive(file(hello, "x"))), archive(start(file(hello, "x"))...)},
	}
}

// These were made with bzip2(1), since Go has no encoder: an image whose only file
// is empty, the same with a file of 65 MiB of zeros, the
// beginning of an archive without manifest, and 1 MiB of zeros.
const (
	smallBzip2 = `QlpoOTFBWSZTWZRRoBsAAMx/iMyABABQBf/QACoFYG/n3koAgAgIMAC5thqQAaAAAAAGQBpTSb0UyYBMhgACYCBJJJspo00A0AAyA0NPUj3snyUErDWskk6CBIz432LO5pxQVFLOUyQhkDBgm0+qq5LdLmr1G6eHz220uCB+FUqQBV1dZQUBksAYsQimQq0kZlKhSpQoIJxKTHawu4WUS5Bdl0DaFNFAgvTEVPiOthKAVVQ/RuTBo4KCuFBru4nOjnZCTeCQfoksHmZ6/RnykHEViRMRVyFG1CD+LuSKcKEhKKNANg==`
	largeBzip2 = `QlpoOTFBWSZTWZYS3yIFfkJfiNyAUAX/0AAqBWBv595KAIAICDAA2NsNUm1NoNAJ6IwAEaY9IA0kyj9FGAIYBHoRiNMmgioUn5UYNTTNTaRkBtTDRMabrsWbIXwOsIqKKKqJQFBUVUSvNPk1xhkHxavWqThFBUVUSCEHLhsu22y62RhbqNmOn/zhrMAhOp0sgG3b/WTBzxnRkESUY/Oku5k3iVTFsCBwWHCfMzCmkwIYSSCeUAGMinEEGqCaOF/1a04QdhWxakHVBAQ+gFbul8lE4DPPGB/ZiBwmb2vx5ykS9808i9wUy6wAVFVE7mKCskymsiOVaH4BVVmgAYAAAIAAEEAAYZgKU00UkkmwlJJJ4u5IpwoSB73hT0A=`
	emptyBzip2 = `QlpoOTFBWSZTWY8Y4XwAAETbgMiAQAD/gABgYQCeAAgAIAB0EqI9NIwjajJ6glNEj1DEADfDGqKA146FfIzUuIeRnCUOdlYZiCjgGGQBOpDIyXW6zoqqNzHbicE3IwMaBjR6OfDmSQ5Q/F3JFOFCQjxjhfA=`
	zerosBzip2 = `QlpoOTFBWSZTWThXHOUACAhAAMAEAAggADDMBSmmCAbEIB4u5IpwoSBwrjnK`
)

func encoded(s string) source {
	return func(w io.Writer) {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			panic(err)
		}
		put(w, string(b))
	}
}

func compressions() []hostile {
	no := func(name, content string) hostile {
		return hostile{"not an image: " + name, errs{aci.ErrFormat}, text(content), plain}
	}
	secret := func(name, start string) hostile {
		return hostile{"OpenPGP: " + name, errs{aci.ErrEncrypted}, concat(text(start), gz(plain)), gz(plain)}
	}
	all := []hostile{
		no("nothing", ""),
		no("a byte", "m"),
		no("511 bytes", strings.Repeat("m", 511)),
		no("a block of zeros", strings.Repeat("\x00", 512)),
		no("an end marker", strings.Repeat("\x00", 10240)),
		no("text", strings.Repeat("hello ", 200)),
		no("a program", "\x7fELF"+strings.Repeat("\x00", 1024)),
		no("a zip file", "PK\x03\x04"+strings.Repeat("\x00", 1024)),
		no("LZMA alone", "\x5d\x00\x00\x80\x00"+strings.Repeat("\xff", 1024)),
		no("lz4", "\x04\x22\x4d\x18"+strings.Repeat("\x00", 1024)),
		no("a manifest", manifestJSON("")),
		no("an OpenPGP signature", "-----BEGIN PGP SIGNATURE-----\n\niQEz\n"),
		secret("to a password, old packet", "\x8c\x0d\x04\x09\x03\x02"),
		secret("to a password, new packet", "\xc3\x0d\x04\x09\x03\x02"),
		secret("to a key", "\x85\x01\x0c\x03"),
		secret("encrypted data", "\xc9\xff\x00\x00\x10\x00"),
		secret("encrypted and protected data", "\xd2\xff\x00\x00\x10\x00\x01"),
		secret("armoured", "-----BEGIN PGP MESSAGE-----\n\njA0ECQMC\n"),
		{"gzip in gzip", errs{aci.ErrTruncated}, gz(gz(plain)), gz(plain)},
		{"xz in gzip", errs{aci.ErrTruncated}, gz(xzip(plain)), xzip(plain)},
		{"gzip: unknown method", errs{aci.ErrCompression}, edit(gz(plain), func(b []byte) []byte { b[2] = 7; return b }), gz(plain)},
		{"gzip: second member malformed", errs{aci.ErrCompression}, concat(gz(plain), flip(12, gz(text("")))), concat(gz(plain), gz(text("")))},
		{"gzip: name without an end", errs{aci.ErrCompression}, text("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff" + strings.Repeat("n", 1<<20)), gz(plain)},
		{"xz: dictionary of 128 MiB", errs{aci.ErrCompression}, xzDictionary(30, plain), xzDictionary(28, plain)},
		{"xz: dictionary of 4 GiB", errs{aci.ErrCompression}, xzDictionary(40, plain), xzDictionary(28, plain)},
		{"xz: no such dictionary", errs{aci.ErrCompression}, xzDictionary(63, plain), xzDictionary(24, plain)},
		{"xz: 2,000 blocks of nothing", errs{aci.ErrCompression}, xzBlocks(2000), concat(xzip(plain), repeat(20, xzip(text(""))))},
		{"xz: another filter", errs{aci.ErrCompression}, flip(14, xzip(plain)), xzip(plain)},
		{"zstd: window of 128 MiB", errs{aci.ErrCompression}, zstdWindow(17), zstWith(64<<20, plain)},
		{"zstd: 65 MiB in one piece", errs{aci.ErrCompression}, text("\x28\xb5\x2f\xfd\xa0\x00\x00\x10\x04\x01\x00\x00"), zst(plain)},
		{"zstd: window of 3 TiB", errs{aci.ErrCompression}, zstdWindow(31), zstWith(64<<20, plain)},
		{"zstd: with a dictionary", errs{aci.ErrCompression}, edit(zst(plain), func(b []byte) []byte {
			return append([]byte{b[0], b[1], b[2], b[3], b[4] | 1, b[5], 77}, b[6:]...)
		}), zst(plain)},
		{"zstd: a block without its end", errs{aci.ErrTruncated}, concat(zst(plain), text("\x28\xb5\x2f\xfd\x20\x00\x01")), concat(zst(plain), text(emptyZstd))},
		{"zstd: a frame to skip without its end", errs{aci.ErrTruncated}, concat(zst(plain), text("\x50\x2a\x4d\x18\x04\x00\x00\x00ski")), concat(zst(plain), text("\x5f\x2a\x4d\x18\x04\x00\x00\x00skip"), zst(text("")))},
		{"zstd: skippable frame only", errs{aci.ErrFormat}, text("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"), concat(zst(plain), text("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"))},
		{"bzip2: truncated", errs{aci.ErrTruncated}, cut(1, encoded(smallBzip2)), encoded(smallBzip2)},
		{"bzip2: cut in half", errs{aci.ErrTruncated}, half(encoded(smallBzip2)), encoded(smallBzip2)},
		{"bzip2: garbage after it", errs{aci.ErrTrailing}, concat(encoded(smallBzip2), text("garbage")), encoded(smallBzip2)},
		{"bzip2: damaged", errs{aci.ErrCompression}, flip(60, encoded(smallBzip2)), encoded(smallBzip2)},
		{"bzip2: level 0", errs{aci.ErrCompression}, edit(encoded(smallBzip2), func(b []byte) []byte { b[3] = '0'; return b }), encoded(smallBzip2)},
		{"bzip2: bomb", errs{layer.ErrTooLarge}, encoded(largeBzip2), encoded(smallBzip2)},
		{"bzip2: entries after the end", errs{aci.ErrTrailing}, concat(encoded(smallBzip2), encoded(smallBzip2)), encoded(smallBzip2)},
	}
	for _, c := range []struct {
		name     string
		compress func(source) source
		checksum int // an offset in a checksum of the contents
	}{{"gzip", gz, -8}, {"xz", xzip, -20}, {"zstd", zst, -4}} {
		z, twin := c.compress(plain), c.compress(plain)
		all = append(all,
			hostile{c.name + ": truncated", errs{aci.ErrTruncated}, cut(1, z), twin},
			hostile{c.name + ": cut in half", errs{aci.ErrTruncated}, half(z), twin},
			hostile{c.name + ": head only", errs{aci.ErrTruncated}, first(6, z), twin},
			hostile{c.name + ": wrong checksum", errs{aci.ErrCompression}, flip(c.checksum, z), twin},
			hostile{c.name + ": garbage after it", errs{aci.ErrTrailing}, concat(z, text("garbage garbage!")), concat(c.compress(first(700, plain)), c.compress(edit(plain, func(b []byte) []byte { return b[700:] })))},
			hostile{c.name + ": a byte after it", errs{aci.ErrTrailing}, concat(z, text("x")), twin},
			hostile{c.name + ": a tar archive after it", errs{aci.ErrTrailing}, concat(z, plain), concat(z, c.compress(zeros(1)))},
			hostile{c.name + ": second member truncated", errs{aci.ErrTruncated}, concat(z, cut(3, c.compress(zeros(1)))), concat(z, c.compress(zeros(1)))},
			hostile{c.name + ": garbage in the archive", errs{aci.ErrTrailing}, c.compress(concat(plain, text("x"))), c.compress(concat(plain, text("\x00")))},
			hostile{c.name + ": second image", errs{aci.ErrTrailing}, concat(z, z), concat(z, c.compress(text("")))},
			hostile{c.name + ": archive truncated", errs{aci.ErrTruncated}, c.compress(cut(700, plain)), twin},
		)
	}
	return all
}
