//go:build unix

package hostile

import (
	"runtime"
	"strings"

	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/layer"
)

// hostile is a file that must be refused, and its benign twin, which differs in
// the offending detail only.
type hostile struct {
	name string
	want errs // all of them, and no other sentinel
	bad  source
	good source
}

// isArchive says whether it is more than a manifest or a number that makes it hostile.
func (c hostile) isArchive() bool {
	return !strings.HasPrefix(c.name, "manifest: ") && !strings.HasPrefix(c.name, "large: ")
}

// limits are those that the case is imported within.
func (c hostile) limits() layer.Limits {
	if strings.HasPrefix(c.name, "large: ") {
		return roomy
	}
	return small
}

type errs []error

// What an entry outside of the layout is refused with when its name is bad, too.
var (
	badPlace = errs{aci.ErrLayout, layer.ErrName}
	badLink  = errs{layer.ErrHardLink, layer.ErrName}
)

// corpus is all cases. It is called in every process, so what is large is made by
// the sources.
func corpus(h host) []hostile {
	var all []hostile
	for _, part := range [][]hostile{
		names(h), layout(h), duplicates(h), parents(h), hardlinks(h), types(), attributes(), sparse(), headers(h),
		truncations(), compressions(), bombs(), documents(), dependencies(h), races(h), layers(h),
	} {
		all = append(all, part...)
	}
	return all
}

const hello = "rootfs/hello"

// plain is the simplest image there is with something in it.
var plain = img(file(hello, "hello"))

func names(h host) []hostile {
	outside := func(name string) hostile {
		return hostile{"name " + name, badPlace, img(file(name, "x")), img(file("rootfs/x/"+strings.Trim(strings.ReplaceAll(name, "..", "up"), "/"), "x"))}
	}
	component := strings.Repeat("c", 255)
	long := "rootfs/" + component + "/" + component + "/" + component + "/" + strings.Repeat("d", 1023-7-3*256)
	twin := long
	if runtime.GOOS != "linux" {
		twin = long[:600] // the host has to look at it, by paths that are longer
	}
	return []hostile{
		outside("/" + marker),
		outside("/etc/" + marker),
		outside("/rootfs/" + marker),
		outside("//rootfs/a"),
		outside(h.canary(marker)),
		outside("../" + marker),
		outside("./../" + marker),
		outside("../../../../../canary/" + marker),
		outside("rootfs/../" + marker),
		outside("rootfs/../../" + marker),
		outside("rootfs/" + h.relative("file")),
		outside("rootfs/" + index),
		outside("rootfs/a/../b"),
		outside("rootfs/a/.."),
		outside("rootfs/../rootfs/a"),
		outside("rootfs/.."),
		outside(".."),
		outside("rootfs/../manifest"),
		{"absolute directory", badPlace, img(dir(h.canary("new"))), img(dir("rootfs/canary"))},
		{"absolute symbolic link", badPlace, img(symlink(h.canary(marker), "x")), img(symlink("rootfs/x", h.canary(marker)))},
		{"empty name", badPlace, img(file("", "x")), img(file("rootfs/x", "x"))},
		{"NUL in a name", errs{aci.ErrFormat}, img(file("x", "x").with("path=rootfs/a\x00/../../" + marker)), img(file("x", "x").with("path=rootfs/a/" + marker))},
		{"name of a host file after NUL", badPlace, img(file("/etc/"+marker+"\x00rootfs/a", "x")), img(file("rootfs/a\x00/../../"+marker, "x"))},
		{"component of 256 bytes", badPlace, img(file("rootfs/"+component+"c", "x")), img(file("rootfs/"+component, "x"))},
		{"name of 1024 bytes", badPlace, img(file(long+"d", "x")), img(file(twin, "x"))},
		{"name of half a megabyte", badPlace, lazy(func() source { return img(file("rootfs/"+strings.Repeat("d/", 1<<18), "")) }), lazy(func() source { return img(file("rootfs/d", "")) })},
		{"slashes of half a megabyte", badPlace, lazy(func() source { return img(file("rootfs"+strings.Repeat("/", 1<<19)+"..", "")) }), lazy(func() source { return img(file("rootfs"+strings.Repeat("/", 1<<19)+"a", "")) })},
		{"backslashes at the top", errs{aci.ErrLayout}, img(file(`rootfs\..\..\`+marker, "x")), img(file(`rootfs/..\..\`+marker, "x"))},
		{"newline in a name, twice", errs{layer.ErrDuplicate}, img(file("rootfs/a\nb", ""), file("rootfs/a\nb", "")), img(file("rootfs/a\nb", ""))},
		{"escape sequence in a name, twice", errs{layer.ErrDuplicate}, img(file("rootfs/\x1b[2J\x1b]0;x\x07", ""), file("rootfs/\x1b[2J\x1b]0;x\x07", "")), img(file("rootfs/\x1b[2J\x1b]0;x\x07", ""))},
		{"bidirectional override in a name, twice", errs{layer.ErrDuplicate}, img(file("rootfs/\u202efdp.exe\u2028", ""), file("rootfs/\u202efdp.exe\u2028", "")), img(file("rootfs/\u202efdp.exe\u2028", ""))},
		{"name that is not UTF-8, twice", errs{layer.ErrDuplicate}, img(file("rootfs/\xff\xfe", ""), file("rootfs/\xff\xfe", "")), img(file("rootfs/\xff\xfe", ""))},
		{"escape sequence at the top", errs{aci.ErrLayout}, img(file("\x1b[2J\r\n", "")), img(file("rootfs/\x1b[2J\r\n", ""))},
		{"carriage return in a long name", badPlace, img(file("rootfs/"+strings.Repeat("\r\x1b", 200), "")), img(file("rootfs/"+strings.Repeat("\r\x1b", 100), ""))},
	}
}

func layout(h host) []hostile {
	m, rootfs, body := file("manifest", manifestJSON("")), dir("rootfs"), file(hello, "x")
	top := func(name string, bad ...entry) hostile {
		return hostile{name, errs{aci.ErrLayout}, archive(bad...), archive(m, rootfs, body)}
	}
	return []hostile{
		{"no manifest", errs{aci.ErrNoManifest}, archive(rootfs, body), archive(rootfs, body, m)},
		{"no rootfs", errs{aci.ErrNoRootfs}, archive(m), archive(m, rootfs)},
		{"rootfs implied only", errs{aci.ErrNoRootfs}, archive(m, body), archive(m, body, rootfs)},
		top("second manifest", m, rootfs, m),
		top("second manifest, another", m, rootfs, file("manifest", manifestJSON(`,"labels":[]`))),
		top("second manifest as ./manifest", m, rootfs, file("./manifest", manifestJSON(""))),
		top("manifest a symbolic link to the host", symlink("manifest", h.canary("file")), rootfs),
		top("manifest a symbolic link into rootfs", rootfs, file(hello, manifestJSON("")), symlink("manifest", hello)),
		top("manifest a hard link", rootfs, file(hello, manifestJSON("")), hardlink("manifest", hello)),
		top("manifest a directory", dir("manifest"), rootfs),
		top("manifest a fifo", fifo("manifest"), rootfs),
		top("manifest a device", device('3', "manifest", 1, 5), rootfs),
		top("manifest with a file below", m, file("manifest/a", ""), rootfs),
		top("manifest a contiguous file", entry{name: "manifest", typ: '7', body: manifestJSON("")}, rootfs),
		top("manifest a sparse file", entry{name: "manifest", typ: 'S', body: manifestJSON("")}.edited(gnuSparse(100, 0, 0)), rootfs),
		top("manifest.json", m, rootfs, file("manifest.json", "{}")),
		top("Manifest", m, rootfs, file("Manifest", "{}")),
		top("rootfs a symbolic link to the host", m, symlink("rootfs", h.canary("dir")), file("rootfs/file", "x")),
		top("rootfs a symbolic link to nowhere", m, symlink("rootfs", "/tmp/"+marker), file("rootfs/file", "x")),
		top("rootfs a relative symbolic link", m, symlink("rootfs", "../store"), file("rootfs/index.db", "x")),
		top("rootfs a file", m, file("rootfs", "x")),
		top("rootfs a fifo", m, fifo("rootfs")),
		top("rootfs a hard link", m, hardlink("rootfs", h.canary("dir"))),
		top("rootfs twice", m, rootfs, rootfs),
		top("rootfs twice, spelt otherwise", m, rootfs, body, dir("./rootfs//")),
		top("rootfs, then a symbolic link", m, rootfs, symlink("rootfs", h.canary("dir")), file("rootfs/file", "x")),
		top(". a symbolic link", symlink(".", h.canary("dir")), m, rootfs),
		top(". a file", file(".", ""), m, rootfs),
		top(". twice", dir("./"), m, rootfs, dir(".")),
		top("third entry", m, rootfs, file("README", "")),
		top("third directory", m, rootfs, dir("etc"), file("etc/passwd", "")),
		top("rootfs-evil", m, rootfs, file("rootfs-evil/a", "")),
		top("rootfsX", m, rootfs, dir("rootfsX")),
		top("rootfs with a blank", m, rootfs, dir("rootfs ")),
		top("Rootfs", m, rootfs, dir("Rootfs")),
		top("device at the top", m, rootfs, device('3', "null", 1, 3)),
	}
}

func duplicates(h host) []hostile {
	both := func(name string, a, b, other entry) hostile {
		return hostile{name + " twice", errs{layer.ErrDuplicate}, img(a, b), img(a, other)}
	}
	return []hostile{
		both("file", file("rootfs/a", "1"), file("rootfs/a", "2"), file("rootfs/A", "2")),
		both("file with ./", file("rootfs/a", ""), file("./rootfs/a", ""), file("./rootfs/b", "")),
		both("file with //", file("rootfs/b/a", ""), file("rootfs//b///a", ""), file("rootfs//b///c", "")),
		both("file with /./", file("rootfs/b/a", ""), file("rootfs/./b/./a", ""), file("rootfs/./b/./c", "")),
		both("file with a slash", file("rootfs/a", ""), file("rootfs/a/", ""), file("rootfs/b/", "")),
		both("file by PAX path", file("rootfs/a", ""), file("rootfs/b", "").with("path=rootfs/a"), file("rootfs/b", "")),
		both("directory", dir("rootfs/a"), dir("rootfs/a/"), dir("rootfs/b")),
		both("empty file", file("rootfs/a", ""), file("rootfs/a", ""), file("rootfs/a ", "")),
		both("directory and file", dir("rootfs/a"), file("rootfs/a", ""), file("rootfs/a/a", "")),
		both("file and directory", file("rootfs/a", ""), dir("rootfs/a"), dir("rootfs/b")),
		both("symbolic link to a host file and file", symlink("rootfs/a", h.canary("file")), file("rootfs/a", "x"), file("rootfs/b", "x")),
		both("symbolic link to a host directory and directory", symlink("rootfs/a", h.canary("dir")), dir("rootfs/a/"), dir("rootfs/b/")),
		both("symbolic link and fifo", symlink("rootfs/a", h.canary("fifo")), fifo("rootfs/a"), fifo("rootfs/b")),
		both("file and hard link", file("rootfs/a", ""), hardlink("rootfs/a", "rootfs/a"), hardlink("rootfs/b", "rootfs/a")),
		both("skipped device", device('3', "rootfs/dev/null", 1, 3), file("rootfs/dev/null", ""), file("rootfs/dev/zero", "")),
		both("parent and file", file("rootfs/a/b", ""), file("rootfs/a", ""), dir("rootfs/a")),
		both("parent and symbolic link", file("rootfs/a/b", ""), symlink("rootfs/a", h.canary("dir")), dir("rootfs/a")),
		both("parent and hard link", file("rootfs/a/b", ""), hardlink("rootfs/a", "rootfs/a/b"), hardlink("rootfs/b", "rootfs/a/b")),
		both("composed and decomposed letters", file("rootfs/\u00e9", ""), file("rootfs/\u00e9", ""), file("rootfs/e\u0301", "")),
	}
}

func parents(h host) []hostile {
	through := func(name string, parent entry, more ...entry) hostile {
		safe := dir(parent.name)
		return hostile{"through a " + name, errs{layer.ErrThroughLink},
			img(append([]entry{parent}, more...)...), img(append([]entry{safe}, more...)...)}
	}
	evil := file("rootfs/a/"+marker, "x")
	return []hostile{
		through("symbolic link to the host", symlink("rootfs/a", h.canary("dir")), file("rootfs/a/file", "x")),
		through("symbolic link to /", symlink("rootfs/a", "/"), evil),
		through("symbolic link to /etc", symlink("rootfs/a", "/etc"), evil),
		through("relative symbolic link to the host", symlink("rootfs/a", h.relative("dir")), file("rootfs/a/file", "x")),
		through("relative symbolic link to the store", symlink("rootfs/a", "../../../../store"), file("rootfs/a/index.db", "x")),
		through("relative symbolic link to the trees", symlink("rootfs/a", "../../../images"), evil),
		through("dangling symbolic link", symlink("rootfs/a", h.canary(marker)), evil),
		through("symbolic link to ..", symlink("rootfs/a", ".."), evil),
		through("symbolic link to .", symlink("rootfs/a", "."), evil),
		through("symbolic link to itself", symlink("rootfs/a", "a"), evil),
		through("symbolic link to /proc/self/cwd", symlink("rootfs/a", "/proc/self/cwd"), evil),
		through("symbolic link to /proc/self/root", symlink("rootfs/a", "/proc/self/root/tmp"), evil),
		through("symbolic link to a descriptor", symlink("rootfs/a", "/proc/self/fd/3"), evil),
		through("symbolic link to make a directory", symlink("rootfs/a", h.canary("dir")), dir("rootfs/a/sub")),
		through("symbolic link to make a symbolic link", symlink("rootfs/a", h.canary("dir")), symlink("rootfs/a/file", "x")),
		through("symbolic link to make a fifo", symlink("rootfs/a", h.canary("dir")), fifo("rootfs/a/"+marker)),
		through("symbolic link deeper", symlink("rootfs/a", h.canary("")), file("rootfs/a/dir/sub/deep", "x")),
		through("file", file("rootfs/a", "x"), file("rootfs/a/b", "x")),
		through("fifo", fifo("rootfs/a"), file("rootfs/a/b", "x")),
		through("skipped device", device('4', "rootfs/dev/a", 8, 0), file("rootfs/dev/a/b", "x")),
		{"through a symbolic link to a directory inside", errs{layer.ErrThroughLink},
			img(dir("rootfs/b"), symlink("rootfs/a", "b"), evil), img(dir("rootfs/b"), symlink("rootfs/c", "b"), evil)},
		{"through a chain of symbolic links", errs{layer.ErrThroughLink},
			img(symlink("rootfs/a", "b"), symlink("rootfs/b", "/c"), symlink("rootfs/c", h.canary("dir")), evil),
			img(symlink("rootfs/d", "b"), symlink("rootfs/b", "/c"), symlink("rootfs/c", h.canary("dir")), evil)},
		{"through a symbolic link in a symbolic link", errs{layer.ErrThroughLink},
			img(dir("rootfs/b"), symlink("rootfs/b/c", h.canary("dir")), file("rootfs/b/c/file", "x")),
			img(dir("rootfs/b"), symlink("rootfs/b/d", h.canary("dir")), file("rootfs/b/c/file", "x"))},
		{"through a hard link", errs{layer.ErrThroughLink},
			img(file(hello, ""), hardlink("rootfs/a", hello), evil), img(file(hello, ""), hardlink("rootfs/b", hello), evil)},
	}
}

func hardlinks(h host) []hostile {
	link := func(name, to string, want ...error) hostile {
		if want == nil {
			want = errs{layer.ErrHardLink}
		}
		return hostile{"hard link to " + name, want,
			img(file(hello, "x"), hardlink("rootfs/a", to)), img(file(hello, "x"), hardlink("rootfs/a", hello))}
	}
	behind := func(name string, before entry, to string) hostile {
		return hostile{"hard link to " + name, errs{layer.ErrHardLink},
			img(before, file(hello, "x"), hardlink("rootfs/a", to)), img(before, file(hello, "x"), hardlink("rootfs/a", hello))}
	}
	chmod := hardlink("rootfs/a", h.canary("program"))
	chmod.mode, chmod.uid = 0o777, 1000
	benign := hardlink("rootfs/a", hello)
	benign.mode, benign.uid = 0o777, 1000
	return []hostile{
		link("the canary", h.canary("file"), badLink...),
		link("/etc/passwd", "/etc/passwd", badLink...),
		link("/etc/shadow below rootfs", "rootfs//../../etc/shadow", badLink...),
		link("/rootfs", "/"+hello, badLink...),
		link("..", "rootfs/../manifest", badLink...),
		link("the canary, relative", "rootfs/"+h.relative("file"), badLink...),
		link("the index", "rootfs/"+index, badLink...),
		link("the manifest", "manifest", badLink...),
		link("a sibling of rootfs", "rootfs2/hello", badLink...),
		link("a name without rootfs", "hello", badLink...),
		link("nothing", "", badLink...),
		link("a name with NUL", "rootfs/a\x00", errs{layer.ErrHardLink}...),
		link("a name that is too long", "rootfs/"+strings.Repeat("a", 256), badLink...),
		link("rootfs", "rootfs"),
		link("itself", "rootfs/a"),
		link("itself, spelt otherwise", "./rootfs//a/"),
		link("a missing file", "rootfs/missing"),
		link("a file below a file", "rootfs/hello/a"),
		link("a missing directory", "rootfs/missing/a"),
		link("an escape sequence", "\x1b[2J\n", badLink...),
		behind("a symbolic link to the host", symlink("rootfs/s", h.canary("file")), "rootfs/s"),
		behind("a symbolic link inside", symlink("rootfs/s", "hello"), "rootfs/s"),
		behind("a file through a symbolic link", symlink("rootfs/s", h.canary("dir")), "rootfs/s/file"),
		behind("a file through a symbolic link to /", symlink("rootfs/s", "/"), "rootfs/s/etc/passwd"),
		behind("a file through a relative symbolic link", symlink("rootfs/s", h.relative("")), "rootfs/s/file"),
		behind("a file through a symbolic link inside", symlink("rootfs/s", "."), "rootfs/s/hello"),
		behind("a directory", dir("rootfs/d"), "rootfs/d"),
		behind("a fifo", fifo("rootfs/f"), "rootfs/f"),
		behind("a skipped device", device('3', "rootfs/dev/null", 1, 3), "rootfs/dev/null"),
		{"hard link to a later entry", errs{layer.ErrHardLink},
			img(hardlink("rootfs/a", "rootfs/z"), file("rootfs/z", "x")), img(file("rootfs/z", "x"), hardlink("rootfs/a", "rootfs/z"))},
		{"chain of hard links to the host", badLink,
			img(hardlink("rootfs/a", h.canary("file")), hardlink("rootfs/b", "rootfs/a")),
			img(file(hello, ""), hardlink("rootfs/a", hello), hardlink("rootfs/b", "rootfs/a"))},
		{"chmod through a hard link", badLink, img(file(hello, ""), chmod), img(file(hello, ""), benign)},
		{"chmod through a symbolic link", errs{layer.ErrDuplicate},
			img(symlink("rootfs/a", h.canary("program")), entry{name: "rootfs/a", mode: 0o777}),
			img(symlink("rootfs/a", h.canary("program")), entry{name: "rootfs/b", mode: 0o777})},
		{"hard link with content", errs{aci.ErrFormat},
			img(file(hello, "x"), entry{name: "rootfs/a", typ: '1', link: hello, body: "content"}), img(file(hello, "x"), hardlink("rootfs/a", hello))},
	}
}

func types() []hostile {
	kind := func(name string, want error, bad, good entry) hostile {
		return hostile{name, errs{want}, img(bad), img(good)}
	}
	unknown := func(name string, typ byte) hostile {
		return kind("type of "+name, layer.ErrType, typed(typ, "rootfs/a"), typed('0', "rootfs/a"))
	}
	setuid := device('4', "rootfs/disk", 8, 0)
	setuid.mode = 0o4666
	program := file("rootfs/program", "x")
	program.mode, program.uid = 0o6755, 12
	return []hostile{
		kind("character device", layer.ErrDevice, device('3', "rootfs/null", 1, 3), device('3', "rootfs/dev/null", 1, 3)),
		kind("block device", layer.ErrDevice, device('4', "rootfs/sda", 8, 0), device('4', "rootfs/dev/sda", 8, 0)),
		kind("setuid block device", layer.ErrDevice, setuid, program),
		kind("device as dev", layer.ErrDevice, device('3', "rootfs/dev", 1, 3), device('3', "rootfs/dev/dev", 1, 3)),
		kind("device in devices", layer.ErrDevice, device('3', "rootfs/devices/null", 1, 3), device('3', "rootfs/dev/ices/null", 1, 3)),
		kind("device in a deeper dev", layer.ErrDevice, device('3', "rootfs/a/dev/null", 1, 3), device('3', "rootfs/./dev/null", 1, 3)),
		kind("block device 0/0", layer.ErrDevice, device('4', "rootfs/a", 0, 0), device('4', "rootfs/dev/a", 0, 0)),
		kind("whiteout", layer.ErrWhiteout, device('3', "rootfs/a", 0, 0), file("rootfs/.wh.a", "")),
		kind("whiteout in dev", layer.ErrWhiteout, device('3', "rootfs/dev/a", 0, 0), device('3', "rootfs/dev/a", 0, 1)),
		kind("opaque whiteout", layer.ErrWhiteout, device('3', "rootfs/etc/.wh..wh..opq", 0, 0), file("rootfs/etc/.wh..wh..opq", "")),
		unknown("a contiguous file", '7'),
		unknown("a directory dump", 'D'),
		unknown("a continuation", 'M'),
		unknown("a volume header", 'V'),
		unknown("an old long name", 'N'),
		unknown("a Solaris header", 'X'),
		unknown("a socket", 's'),
		unknown("nothing known", 'Z'),
		unknown("an escape character", 0x1b),
		unknown("a newline", '\n'),
		unknown("no letter", 0xff),
	}
}

func attributes() []hostile {
	const x = "SCHILY.xattr."
	attr := func(name string, e entry, bad, good string) hostile {
		return hostile{"attribute " + name, errs{layer.ErrXattr}, img(file("rootfs/f", ""), e.with(x+bad)), img(file("rootfs/f", ""), e.with(x+good))}
	}
	f, d := file("rootfs/a", "x"), dir("rootfs/d")
	owner := func(name string, uid, gid, twin int64) hostile {
		bad, good := file("rootfs/a", ""), file("rootfs/a", "")
		bad.uid, bad.gid, good.uid, good.gid = uid, gid, twin, twin
		return hostile{name, errs{layer.ErrOwner}, img(bad), img(good)}
	}
	owned := func(e entry, uid int64) entry { e.uid = uid; return e }
	capability := "security.capability=\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	var formed []hostile // attributes with a form that the kernel knows
	if runtime.GOOS == "linux" {
		formed = []hostile{
			attr("security.capability, malformed", f, "security.capability=x", capability),
			attr("posix_acl_access, malformed", f, "system.posix_acl_access=x", "system.bogus=x"),
		}
	}
	return append(formed, []hostile{
		attr("trusted.overlay.opaque", d, "trusted.overlay.opaque=y", "user.opaque=y"),
		attr("trusted.overlay.redirect", d, "trusted.overlay.redirect=/../../../../canary", "user.redirect=/"),
		attr("trusted.overlay.metacopy", f, "trusted.overlay.metacopy=", "user.metacopy="),
		attr("trusted.overlay.whiteout", f, "trusted.overlay.whiteout=y", "trusted.whiteout=y"),
		attr("trusted.overlay.overlay.opaque", d, "trusted.overlay.overlay.opaque=y", "trusted.x.opaque=y"),
		attr("user.overlay.opaque", d, "user.overlay.opaque=y", "user.overlay=y"),
		attr("user.overlay.whiteout of a hard link", hardlink("rootfs/a", "rootfs/f"), "user.overlay.whiteout=", "user.x="),
		attr("trusted.overlay.opaque of a symbolic link", symlink("rootfs/a", "b"), "trusted.overlay.opaque=y", "trusted.x=y"),
		attr("without a name", f, "=x", "user.x=x"),
		attr("with a name of 256 bytes", f, "user."+strings.Repeat("n", 251)+"=x", "user."+strings.Repeat("n", 250)+"=x"),
		attr("of 70 kB", f, "user.x="+strings.Repeat("v", 70<<10), "user.x="+strings.Repeat("v", 1<<10)),
		attr("of half a megabyte", d, "user.x="+strings.Repeat("v", 512<<10), "user.x="+strings.Repeat("v", 1<<10)),
		{"attribute of the top directory", errs{layer.ErrXattr},
			archive(file("manifest", manifestJSON("")), dir("rootfs").with(x+"trusted.overlay.opaque=y")),
			archive(file("manifest", manifestJSON("")), dir("rootfs").with(x+"user.opaque=y"))},
		owner("negative user", -1, 0, 0),
		owner("negative group", 0, -1, 0),
		owner("most negative user", -1<<62, 0, 1),
		owner("user none", 1<<32-1, 0, 1<<32-2),
		owner("group none", 0, 1<<32-1, 1<<32-2),
		owner("user of 33 bits", 1<<32, 0, 1<<31),
		{"negative user by PAX", errs{layer.ErrOwner}, img(f.with("uid=-1")), img(f.with("uid=1"))},
		{"large group by PAX", errs{layer.ErrOwner}, img(f.with("gid=4294967295")), img(f.with("gid=4294967294"))},
		{"negative user of a symbolic link", errs{layer.ErrOwner}, img(owned(symlink("rootfs/a", "/"), -1)), img(owned(symlink("rootfs/a", "/"), 1))},
		{"negative user of a directory", errs{layer.ErrOwner}, img(owned(d, -1)), img(owned(d, 1))},
		{"user that overflows", errs{aci.ErrFormat}, img(f.with("uid=99999999999999999999")), img(f.with("uid=999999999"))},
		{"user that is no number", errs{aci.ErrFormat}, img(f.with("uid=root")), img(f.with("uname=root"))},
		{"mode that is no number", errs{aci.ErrFormat}, img(f.edited(func(b []byte) { copy(b[100:108], "rwxr-xr-x") })), img(f.edited(func(b []byte) { octal(b[100:108], 0o106755) }))},
	}...)
}
