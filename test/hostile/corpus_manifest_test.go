//go:build unix

package hostile

import (
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/aci"
	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/manifest"
)

// manifestJSON is a manifest with more fields, each after a comma.
func manifestJSON(fields string) string {
	return `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a"` + fields + `}`
}

// appJSON is a manifest with an app that has more fields.
func appJSON(fields string) string {
	return manifestJSON(`,"app":{"exec":["/hello"],"user":"0","group":"0"` + fields + `}`)
}

// doc is an image with that manifest.
func doc(json string) source {
	return archive(file("manifest", json), dir("rootfs"), file(hello, "x"))
}

// longDoc is an image whose manifest has exactly a certain size: before, as often
// as there is room filler with a number in it, blanks, and after.
func longDoc(size int, before, filler, after string) source {
	return func(w io.Writer) {
		var b strings.Builder
		b.WriteString(before)
		for i := 0; filler != ""; i++ {
			next := filler
			if strings.Contains(filler, "%") {
				next = fmt.Sprintf(filler, i)
			}
			if i > 0 {
				next = "," + next
			}
			if b.Len()+len(next)+len(after) > size {
				break
			}
			b.WriteString(next)
		}
		b.WriteString(strings.Repeat(" ", size-b.Len()-len(after)))
		b.WriteString(after)
		doc(b.String())(w)
	}
}

func documents() []hostile {
	is := func(name, bad, good string) hostile {
		return hostile{"manifest: " + name, errs{manifest.ErrInvalid}, doc(bad), doc(good)}
	}
	field := func(name, bad, good string) hostile {
		return is(name, manifestJSON(","+bad), manifestJSON(","+good))
	}
	app := func(name, bad, good string) hostile { return is(name, appJSON(","+bad), appJSON(","+good)) }
	whole := manifestJSON("")
	swap := func(name, old, bad, good string) hostile {
		return is(name, strings.Replace(whole, old, bad, 1), strings.Replace(whole, old, good, 1))
	}
	isolator := func(name, bad, good string) hostile {
		return app("isolator "+name, `"isolators":[`+bad+`]`, `"isolators":[`+good+`]`)
	}
	nested := func(n int) string { return strings.Repeat(`{"x":`, n) + "1" + strings.Repeat("}", n) }
	const max = manifest.MaxSize
	paths := whole[:len(whole)-1] + `,"pathWhitelist":[`
	apps := strings.TrimSuffix(appJSON(","), "}}")
	many := func(name string, badSize, goodSize int, before, bad, good, after string) hostile {
		return hostile{"manifest: " + name, errs{manifest.ErrInvalid}, longDoc(badSize, before, bad, after), longDoc(goodSize, before, good, after)}
	}
	return []hostile{
		is("empty", "", "{"+whole[1:]),
		is("not JSON", "hello", whole),
		is("not an object", "["+whole+"]", whole),
		is("null", "null", whole),
		is("cut short", whole[:40], whole),
		is("byte order mark", "\xef\xbb\xbf"+whole, " "+whole),
		is("UTF-16", "\xff\xfe{\x00}\x00", whole),
		is("NUL after it", whole+"\x00", whole+"\n"),
		is("a second document", whole+whole, whole+"\n"),
		is("a comment", whole+"// x", whole),
		field("not UTF-8", `"annotations":[{"name":"a","value":"`+"\xff"+`"}]`, `"annotations":[{"name":"a","value":"ÿ"}]`),
		field("duplicate key", `"name":"example.com/b"`, `"labels":[]`),
		field("duplicate key, escaped", `"n\u0061me":"example.com/b"`, `"l\u0061bels":[]`),
		field("duplicate key in another case", `"NAME":"example.com/b"`, `"names":"example.com/b"`),
		field("key in another case", `"Labels":[]`, `"labels":[]`),
		field("key with a long s", `"label\u017f":[]`, `"labels":[]`),
		swap("key with a Kelvin sign", `"acKind"`, `"ac`+"\u212a"+`ind"`, `"acKind"`),
		app("duplicate key below", `"user":"1"`, `"userLabels":{}`),
		app("duplicate user label", `"userLabels":{"a":"1","a":"2"}`, `"userLabels":{"a":"1","A":"2"}`),
		field("unknown key with an escape sequence, twice", `"\u001b[2J":1,"\u001b[2J":2`, `"\u001b[2J":1`),
		field("33 levels", `"x":`+nested(32), `"x":`+nested(31)),
		field("33 levels of lists", `"x":`+strings.Repeat("[", 32)+strings.Repeat("]", 32), `"x":`+strings.Repeat("[", 31)+strings.Repeat("]", 31)),
		{"manifest: 8 million levels", errs{manifest.ErrInvalid}, doc8(max/2 - 100), doc8(30)},
		// Only a whitelist may be so large, as in the twin.
		{"manifest: 16 MiB and a byte", errs{aci.ErrLayout}, longDoc(max+1, paths, `"/usr/share/%d"`, "]}"), longDoc(max, paths, `"/usr/share/%d"`, "]}")},
		{"manifest: a million paths and some", errs{manifest.ErrInvalid},
			longDoc(max, paths, `"/%06x"`, "]}"), longDoc(10<<20, paths, `"/%06x"`, "]}")},
		{"manifest: 16 MiB of relative paths", errs{manifest.ErrInvalid},
			longDoc(max, paths, `"usr/share/%d"`, "]}"), longDoc(max, paths, `"/usr/share/%07x"`, "]}")},
		{"manifest: 4 MiB and a byte", errs{manifest.ErrInvalid}, longDoc(max/4+1, whole[:len(whole)-1], "", "}"), longDoc(max/4, whole[:len(whole)-1], "", "}")},
		many("16 MiB of the same key", max, 1<<18, whole[:len(whole)-1]+",", `"x":1`, `"%d":1`, "}"),
		many("the same label", 1<<20, 1<<18, whole[:len(whole)-1]+`,"labels":[`, `{"name":"a","value":"1"}`, `{"name":"a%d","value":"1"}`, "]}"),
		many("empty lists", max, 1<<18, whole[:len(whole)-1]+`,"x":[`, `[]`, `[]`, "]}"),
		many("isolators without value", 1<<20, 1<<18, apps+`"isolators":[`, `{"name":"example.com/x%d"}`, `{"name":"example.com/x%d","value":1}`, "]}}"),
		many("mount points of one name", 1<<20, 1<<18, apps+`"mountPoints":[`, `{"name":"a","path":"/a"}`, `{"name":"a%d","path":"/a"}`, "]}}"),
		many("ports of one name", 1<<20, 1<<18, apps+`"ports":[`, `{"name":"a","protocol":"tcp","port":1}`, `{"name":"a%d","protocol":"tcp","port":1}`, "]}}"),
		many("variables of one name", 1<<20, 1<<18, apps+`"environment":[`, `{"name":"A","value":"1"}`, `{"name":"A%d","value":"1"}`, "]}}"),
		swap("no kind", `"acKind":"ImageManifest",`, "", `"acKind":"ImageManifest",`),
		swap("wrong kind", "ImageManifest", "Image", "ImageManifest"),
		swap("kind with an escape sequence", "ImageManifest", `\u001b]0;x\u0007\n`, "ImageManifest"),
		is("of a pod", `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"a","image":{"name":"a"}}]}`, whole),
		swap("no version", `"acVersion":"0.8.11",`, "", `"acVersion":"0.8.11",`),
		swap("version 0.0.0", "0.8.11", "0.0.0", "0.5.1"),
		swap("version 1.0.0", "0.8.11", "1.0.0", "0.9.0"),
		swap("version that is none", "0.8.11", "0.8", "0.8.11+git"),
		swap("version that overflows", "0.8.11", "0.99999999999999999999.0", "0.99.0"),
		swap("no name", `,"name":"example.com/a"`, "", `,"name":"a"`),
		swap("empty name", "example.com/a", "", "a"),
		swap("name with ..", "example.com/a", "a/../../b", "a/b"),
		swap("absolute name", "example.com/a", "/etc/passwd", "etc/passwd"),
		swap("name with //", "example.com/a", "a//b", "a/b"),
		swap("name with --", "example.com/a", "a--b", "a-b"),
		swap("name with an upper-case letter", "example.com/a", "Example.com/a", "example.com/a"),
		swap("name with a newline", "example.com/a", `a\nb`, "a.b"),
		swap("name with an escape sequence", "example.com/a", `a\u001b[2J`, "a2j"),
		swap("name with NUL", "example.com/a", `a\u0000b`, "ab"),
		swap("name that ends in a newline", "example.com/a", `example.com/a\n`, "example.com/a"),
		swap("name of 100,000 bytes, malformed", "example.com/a", strings.Repeat("a", 100_000)+"/", strings.Repeat("a", 1000)),
		field("label called name", `"labels":[{"name":"name","value":"x"}]`, `"labels":[{"name":"names","value":"x"}]`),
		field("label twice", `"labels":[{"name":"a","value":"1"},{"name":"a","value":"1"}]`, `"labels":[{"name":"a","value":"1"},{"name":"b","value":"1"}]`),
		field("label with a bad name", `"labels":[{"name":"../a","value":""}]`, `"labels":[{"name":"a","value":""}]`),
		field("label with a control character", `"labels":[{"name":"a","value":"\u001b[2J"}]`, `"labels":[{"name":"a","value":"[2J"}]`),
		field("architecture unknown", `"labels":[{"name":"os","value":"linux"},{"name":"arch","value":"z80"}]`, `"labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]`),
		field("annotation twice", `"annotations":[{"name":"a","value":"1"},{"name":"a","value":"2"}]`, `"annotations":[{"name":"a","value":"1"}]`),
		field("annotation with a bad name", `"annotations":[{"name":"a..b","value":""}]`, `"annotations":[{"name":"a.b","value":""}]`),
		field("created at no time", `"annotations":[{"name":"created","value":"yesterday"}]`, `"annotations":[{"name":"created","value":"2015-10-18T12:00:00Z"}]`),
		field("homepage that is a program", `"annotations":[{"name":"homepage","value":"javascript:alert(1)"}]`, `"annotations":[{"name":"homepage","value":"https://example.com"}]`),
		field("labels no list", `"labels":{}`, `"labels":[]`),
		field("null in a list", `"annotations":[null]`, `"annotations":null`),
		isolator("null", `null`, ``),
		isolator("without value", `{"name":"resource/memory"}`, `{"name":"resource/memory","value":{"limit":"1G"}}`),
		isolator("with null", `{"name":"os/linux/no-new-privileges","value":null}`, `{"name":"os/linux/no-new-privileges","value":true}`),
		isolator("unknown, without value", `{"name":"example.com/x"}`, `{"name":"example.com/x","value":{}}`),
		isolator("with a bad name", `{"name":"a//b","value":1}`, `{"name":"a/b","value":1}`),
		isolator("capabilities with null", `{"name":"os/linux/capabilities-retain-set","value":{"set":null}}`, `{"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_KILL"]}}`),
		isolator("seccomp twice", `{"name":"os/linux/seccomp-retain-set","value":{"set":["a"]}},{"name":"os/linux/seccomp-remove-set","value":{"set":["a"]}}`, `{"name":"os/linux/seccomp-retain-set","value":{"set":["a"]}}`),
		isolator("quantity null", `{"name":"resource/memory","value":{"limit":null}}`, `{"name":"resource/memory","value":{"limit":"1K"}}`),
		isolator("quantity negative", `{"name":"resource/memory","value":{"limit":"-1"}}`, `{"name":"resource/memory","value":{"limit":"1"}}`),
		isolator("quantity zero", `{"name":"resource/cpu","value":{"limit":"0"}}`, `{"name":"resource/cpu","value":{"limit":"1m"}}`),
		isolator("quantity that overflows", `{"name":"resource/memory","value":{"limit":"16E"}}`, `{"name":"resource/memory","value":{"limit":"7Ei"}}`),
		isolator("quantity with a huge exponent", `{"name":"resource/memory","value":{"limit":"1e999999999"}}`, `{"name":"resource/memory","value":{"limit":"1E"}}`),
		isolator("quantity of 100,000 digits", `{"name":"resource/memory","value":{"limit":"`+strings.Repeat("1", 100_000)+`"}}`, `{"name":"resource/memory","value":{"limit":"111111"}}`),
		app("exec with NUL", `"eventHandlers":[],"workingDirectory":"/\u0000"`, `"eventHandlers":[],"workingDirectory":"/"`),
		is("argument with NUL", strings.Replace(appJSON(""), "/hello", `/hello","a\u0000b`, 1), strings.Replace(appJSON(""), "/hello", `/hello","a\nb`, 1)),
		is("empty program", strings.Replace(appJSON(""), "/hello", "", 1), strings.Replace(appJSON(""), `"/hello"`, "", 1)),
		is("exec a string", strings.Replace(appJSON(""), `["/hello"]`, `"/hello"`, 1), appJSON("")),
		is("no user", strings.Replace(appJSON(""), `"user":"0",`, "", 1), appJSON("")),
		is("user with a newline", strings.Replace(appJSON(""), `"user":"0"`, `"user":"root\n0"`, 1), strings.Replace(appJSON(""), `"user":"0"`, `"user":"root"`, 1)),
		app("supplementary group negative", `"supplementaryGIDs":[-1]`, `"supplementaryGIDs":[1]`),
		app("supplementary group none", `"supplementaryGIDs":[4294967295]`, `"supplementaryGIDs":[4294967294]`),
		app("supplementary group a fraction", `"supplementaryGIDs":[1.5]`, `"supplementaryGIDs":[1]`),
		app("working directory relative", `"workingDirectory":"tmp"`, `"workingDirectory":"/tmp"`),
		app("working directory with ..", `"workingDirectory":"/../tmp"`, `"workingDirectory":"/..tmp"`),
		app("environment twice", `"environment":[{"name":"A","value":"1"},{"name":"A","value":"2"}]`, `"environment":[{"name":"A","value":"1"},{"name":"B","value":"2"}]`),
		app("environment with NUL", `"environment":[{"name":"A","value":"\u0000"}]`, `"environment":[{"name":"A","value":"a\nB=1"}]`),
		app("environment name with =", `"environment":[{"name":"A=B","value":""}]`, `"environment":[{"name":"A_B","value":""}]`),
		app("environment name with NUL", `"environment":[{"name":"A\u0000","value":""}]`, `"environment":[{"name":"A","value":""}]`),
		app("mount point with ..", `"mountPoints":[{"name":"a","path":"/a/../../etc"}]`, `"mountPoints":[{"name":"a","path":"/a/etc"}]`),
		app("mount point at /", `"mountPoints":[{"name":"a","path":"/"}]`, `"mountPoints":[{"name":"a","path":"/a"}]`),
		app("mount point at //.", `"mountPoints":[{"name":"a","path":"//."}]`, `"mountPoints":[{"name":"a","path":"//a/."}]`),
		app("mount point relative", `"mountPoints":[{"name":"a","path":"etc"}]`, `"mountPoints":[{"name":"a","path":"/etc"}]`),
		app("mount point with NUL", `"mountPoints":[{"name":"a","path":"/etc\u0000/x"}]`, `"mountPoints":[{"name":"a","path":"/etc/x"}]`),
		app("mount point twice", `"mountPoints":[{"name":"a","path":"/a"},{"name":"a","path":"/b"}]`, `"mountPoints":[{"name":"a","path":"/a"},{"name":"b","path":"/b"}]`),
		app("mount point with a bad name", `"mountPoints":[{"name":"../a","path":"/a"}]`, `"mountPoints":[{"name":"a","path":"/a"}]`),
		app("port range that overflows", `"ports":[{"name":"a","protocol":"tcp","port":2,"count":18446744073709551615}]`, `"ports":[{"name":"a","protocol":"tcp","port":2,"count":65534}]`),
		app("port range too long", `"ports":[{"name":"a","protocol":"tcp","port":65535,"count":2}]`, `"ports":[{"name":"a","protocol":"tcp","port":65535,"count":1}]`),
		app("port 0", `"ports":[{"name":"a","protocol":"tcp","port":0}]`, `"ports":[{"name":"a","protocol":"tcp","port":1}]`),
		app("port negative", `"ports":[{"name":"a","protocol":"tcp","port":-1}]`, `"ports":[{"name":"a","protocol":"tcp","port":1}]`),
		app("port twice", `"ports":[{"name":"a","protocol":"tcp","port":1},{"name":"a","protocol":"tcp","port":2}]`, `"ports":[{"name":"a","protocol":"tcp","port":1},{"name":"b","protocol":"tcp","port":2}]`),
		app("protocol with a newline", `"ports":[{"name":"a","protocol":"tcp\n","port":1}]`, `"ports":[{"name":"a","protocol":"tcp","port":1}]`),
		app("event handler unknown", `"eventHandlers":[{"name":"exec","exec":["/a"]}]`, `"eventHandlers":[{"name":"pre-start","exec":["/a"]}]`),
		app("event handler twice", `"eventHandlers":[{"name":"post-stop","exec":["/a"]},{"name":"post-stop","exec":["/b"]}]`, `"eventHandlers":[{"name":"post-stop","exec":["/a"]},{"name":"pre-start","exec":["/b"]}]`),
		app("event handler with NUL", `"eventHandlers":[{"name":"pre-start","exec":["/a\u0000"]}]`, `"eventHandlers":[{"name":"pre-start","exec":["/a"]}]`),
		app("user label no string", `"userLabels":{"a":1}`, `"userLabels":{"a":"1"}`),
		field("whitelist relative", `"pathWhitelist":["hello"]`, `"pathWhitelist":["/hello"]`),
		field("whitelist with ..", `"pathWhitelist":["/../../canary/file"]`, `"pathWhitelist":["/canary/file"]`),
		field("whitelist with .. inside", `"pathWhitelist":["/a/../hello"]`, `"pathWhitelist":["/a/hello"]`),
		field("whitelist with NUL", `"pathWhitelist":["/hello\u0000"]`, `"pathWhitelist":["/hello"]`),
		field("whitelist empty string", `"pathWhitelist":[""]`, `"pathWhitelist":[]`),
		field("whitelist no strings", `"pathWhitelist":[1]`, `"pathWhitelist":["/"]`),
	}
}

// doc8 is an image with lists in lists.
func doc8(depth int) source {
	return func(w io.Writer) {
		doc(manifestJSON(`,"x":` + strings.Repeat("[", depth) + strings.Repeat("]", depth)))(w)
	}
}

// baseImage is an image that others depend on, with symbolic links to the canary.
func baseImage(h host) source {
	return archive(file("manifest", strings.Replace(manifestJSON(`,"labels":[{"name":"version","value":"1"}]`), "example.com/a", "example.com/base", 1)),
		dir("rootfs"), dir("rootfs/real"), file("rootfs/real/file", "base"), file("rootfs/plain", "base"),
		symlink("rootfs/dir", h.canary("dir")), symlink("rootfs/file", h.canary("file")), symlink("rootfs/relative", h.relative("dir")),
		symlink("rootfs/real/up", h.relative("dir")), hardlink("rootfs/real/hard", "rootfs/plain"))
}

func idOf(s source) string {
	sum := sha512.Sum512(buffer(s))
	return "sha512-" + hex.EncodeToString(sum[:])
}

func dependencies(h host) []hostile {
	base := idOf(baseImage(h))
	other := "sha512-" + strings.Repeat("0123456789abcdef", 8)
	const onBase = `,"dependencies":[{"imageName":"example.com/base"}]`
	needs := func(name string, want error, bad, good string) hostile {
		return hostile{"dependency: " + name, errs{want}, doc(manifestJSON(`,"dependencies":[` + bad + `]`)), doc(manifestJSON(`,"dependencies":[` + good + `]`))}
	}
	above := func(name string, want error, bad, good []entry) hostile {
		m := []entry{file("manifest", manifestJSON(onBase)), dir("rootfs")}
		return hostile{"above a dependency: " + name, errs{want}, archive(append(m[:2:2], bad...)...), archive(append(m[:2:2], good...)...)}
	}
	list := func(name, bad, good string) hostile {
		return hostile{"above a dependency: whitelist " + name, errs{manifest.ErrInvalid},
			doc(manifestJSON(onBase + `,"pathWhitelist":[` + bad + `]`)), doc(manifestJSON(onBase + `,"pathWhitelist":[` + good + `]`))}
	}
	own := `{"imageName":"example.com/base"}`
	byID := func(name, id string) string { return `{"imageName":"` + name + `","imageID":"` + id + `"}` }
	labelled := func(more, version string) string {
		return `{"imageName":"example.com/base"` + more + `,"labels":[{"name":"version","value":"` + version + `"}]}`
	}
	return []hostile{
		needs("unknown", image.ErrNotFound, `{"imageName":"example.com/other"}`, own),
		needs("itself", image.ErrNotFound, `{"imageName":"example.com/a"}`, own),
		needs("itself by ID", image.ErrNotFound, byID("example.com/a", other), byID("example.com/base", base)),
		needs("the second one unknown", image.ErrNotFound, own+`,{"imageName":"other"}`, own+","+own),
		needs("another version", image.ErrNotFound, labelled("", "2"), labelled("", "1")),
		needs("another name of an ID", image.ErrMismatch, byID("example.com/other", base), byID("example.com/base", base)),
		needs("another version of an ID", image.ErrMismatch, labelled(`,"imageID":"`+base+`"`, "2"), labelled(`,"imageID":"`+base+`"`, "1")),
		needs("300 times", manifest.ErrInvalid, strings.Repeat(own+",", 299)+own, own+","+own+","+own),
		needs("without a name", manifest.ErrInvalid, `{}`, own),
		needs("null", manifest.ErrInvalid, `null`, own),
		needs("with a bad name", manifest.ErrInvalid, `{"imageName":"../../etc"}`, own),
		needs("with an ID as path", manifest.ErrInvalid, byID("example.com/base", "sha512-../../etc/passwd"), byID("example.com/base", base)),
		needs("with a short ID", manifest.ErrInvalid, byID("example.com/base", base[:39]), byID("example.com/base", base)),
		needs("with an ID in upper case", manifest.ErrInvalid, byID("example.com/base", "sha512-"+strings.ToUpper(base[7:])), byID("example.com/base", base)),
		needs("with another hash", manifest.ErrInvalid, byID("example.com/base", "md5-"+base[7:39]), byID("example.com/base", base)),
		needs("with a negative size", manifest.ErrInvalid, `{"imageName":"example.com/base","size":-1}`, `{"imageName":"example.com/base","size":1}`),
		needs("with a label called name", manifest.ErrInvalid, `{"imageName":"example.com/base","labels":[{"name":"name","value":"x"}]}`, labelled("", "1")),
		needs("with a key in another case", manifest.ErrInvalid, `{"imageName":"example.com/base","ImageID":"`+other+`"}`, byID("example.com/base", base)),
		above("hard link through its symbolic link", layer.ErrHardLink,
			[]entry{hardlink("rootfs/a", "rootfs/dir/file")}, []entry{file("rootfs/dir/file", "x"), hardlink("rootfs/a", "rootfs/dir/file")}),
		above("hard link to its symbolic link", layer.ErrHardLink,
			[]entry{hardlink("rootfs/a", "rootfs/file")}, []entry{file("rootfs/file", "x"), hardlink("rootfs/a", "rootfs/file")}),
		above("its directory becomes a symbolic link", layer.ErrThroughLink,
			[]entry{symlink("rootfs/real", h.canary("dir")), file("rootfs/real/file", "x")}, []entry{symlink("rootfs/real", h.canary("dir")), file("rootfs/relative/file", "x")}),
		above("its symbolic link becomes one again", layer.ErrThroughLink,
			[]entry{symlink("rootfs/dir", h.relative("dir")), file("rootfs/dir/file", "x")}, []entry{dir("rootfs/dir"), file("rootfs/dir/file", "x")}),
		above("its directory becomes a file", layer.ErrThroughLink,
			[]entry{file("rootfs/real", "x"), file("rootfs/real/file", "x")}, []entry{file("rootfs/real", "x"), file("rootfs/file/file", "x")}),
		above("a device on its symbolic link", layer.ErrDevice,
			[]entry{device('3', "rootfs/file", 1, 3)}, []entry{fifo("rootfs/file")}),
		above("a whiteout of its file", layer.ErrWhiteout,
			[]entry{device('3', "rootfs/plain", 0, 0)}, []entry{file("rootfs/.wh.plain", "")}),
		above("an opaque directory", layer.ErrXattr,
			[]entry{dir("rootfs/real").with("SCHILY.xattr.trusted.overlay.opaque=y")}, []entry{dir("rootfs/real").with("SCHILY.xattr.user.opaque=y")}),
		list("with .. behind a symbolic link", `"/dir/../file"`, `"/dir/file","/relative/file","/real/up/file","/hello"`),
		list("with a relative path", `"dir/file"`, `"/dir"`),
	}
}
