package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/appc/spec/schema/types"
)

const goodID = "sha512-" +
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" +
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// image is an image manifest with more fields: `"labels":[]`.
func image(fields string) string {
	return `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a"` + comma(fields) + `}`
}

// app is an image manifest whose app has more fields.
func app(fields string) string {
	return image(`"app":{"exec":["/bin/a"],"user":"0","group":"0"` + comma(fields) + `}`)
}

func isolators(list string) string { return app(`"isolators":[` + list + `]`) }

func isolator(name, value string) string {
	return fmt.Sprintf(`{"name":%q,"value":%s}`, name, value)
}

// pod is a pod manifest with one app, which has more fields, and more fields.
func pod(appFields, fields string) string {
	return `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"a","image":{"id":"` + goodID + `"}` +
		comma(appFields) + `}]` + comma(fields) + `}`
}

func podImage(image string) string {
	return `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"a","image":{` + image + `}}]}`
}

func volume(fields string) string { return pod("", `"volumes":[{`+fields+`}]`) }

func port(fields string) string { return app(`"ports":[{` + fields + `}]`) }

// twoPorts is a pod of two apps that have a port p, with a list of host ports.
func twoPorts(name, list string) string {
	own := `"app":{"user":"0","group":"0","ports":[{"name":"p","protocol":"tcp","port":1}]}`
	second := `{"name":"` + name + `","image":{"name":"x"},` + own + `},`
	return strings.Replace(pod(own, `"ports":[`+list+`]`), `"apps":[`, `"apps":[`+second, 1)
}

func hostPort(fields string) string { return pod("", `"ports":[{`+fields+`}]`) }

func comma(fields string) string {
	if fields == "" {
		return ""
	}
	return "," + fields
}

func nested(depth int) string {
	return strings.Repeat("[", depth) + strings.Repeat("]", depth)
}

// A document and its benign twin, which differs in nothing but the fault.
type twin struct {
	name, bad, good string
	want            string // part of the message
}

var imageTwins = []twin{
	{"empty", "", image(""), "end of JSON"},
	{"not JSON", "x", image(""), "invalid character"},
	{"byte order mark", "\xef\xbb\xbf" + image(""), image(""), "invalid character"},
	{"array", "[" + image("") + "]", image(""), "not a JSON object"},
	{"null", "null", image(""), "not a JSON object"},
	{"truncated", image("")[:20], image(""), "end of JSON"},
	{"trailing data", image("") + "{}", image("") + "\n ", "after top-level value"},
	{"not UTF-8", image(`"annotations":[{"name":"a","value":"` + "\xff" + `"}]`), image(`"annotations":[{"name":"a","value":"ÿ"}]`), "not UTF-8"},
	{"too large", image("") + strings.Repeat(" ", MaxSize), image("") + strings.Repeat(" ", 1<<20), "larger than"},
	{"too deep", image(`"x":` + nested(32)), image(`"x":` + nested(31)), "nested more than 32"},
	{"deepest", image(`"x":` + nested(9000)), image(`"x":[]`), "nested more than 32"},
	{"duplicate key", image(`"name":"example.com/b"`), image(""), "name: duplicate key"},
	{"duplicate key below", app(`"user":"1"`), app(""), "app.user: duplicate key"},
	{"escaped duplicate key", image(`"n\u0061me":"example.com/b"`), image(""), "name: duplicate key"},
	{"key repeated in another case", image(`"Name":"example.com/b"`), image(""), "Name: duplicate key"},
	{"key in another case", image(`"LABELS":[]`), image(`"labels":[]`), `misspelt key, should be "labels"`},
	{"key with a long s", image(`"label\u017f":[]`), image(`"labels":[]`), `misspelt key, should be "labels"`},
	{"key with a Kelvin sign", `{"ac\u212aind":"ImageManifest","acVersion":"0.8.11","name":"a"}`, image(""), `should be "acKind"`},
	{"key in another case below", app(`"workingdirectory":"/"`), app(`"workingDirectory":"/"`), `should be "workingDirectory"`},
	{"duplicate user label", app(`"userLabels":{"A":"1","A":"2"}`), app(`"userLabels":{"A":"1","a":"2"}`), "duplicate key"},
	{"user label not a string", app(`"userLabels":{"a":1}`), app(`"userLabels":{"a":"1"}`), "is out of place"},
	{"no kind", `{"acVersion":"0.8.11","name":"a"}`, image(""), "ACKind"},
	{"pod", pod("", ""), image(""), "ACKind"},
	{"unknown kind", strings.Replace(image(""), "ImageManifest", "Bogus\\n", 1), image(""), "bad ACKind: Bogus"},
	{"no version", `{"acKind":"ImageManifest","name":"a"}`, image(""), "acVersion must be set"},
	{"version not semantic", strings.Replace(image(""), "0.8.11", "0.8", 1), image(""), "SemVer is bad"},
	{"version zero", strings.Replace(image(""), "0.8.11", "0.0.0", 1), image(""), "SemVer cannot be zero"},
	{"other major version", strings.Replace(image(""), "0.8.11", "1.0.0", 1), strings.Replace(image(""), "0.8.11", "0.5.1", 1), "acVersion: \"1.0.0\" is not compatible"},
	{"no name", `{"acKind":"ImageManifest","acVersion":"0.8.11"}`, image(""), "name must be set"},
	{"name with ..", strings.Replace(image(""), "example.com/a", "a/../../b", 1), image(""), "name: not an AC Identifier"},
	{"name with //", strings.Replace(image(""), "example.com/a", "a//b", 1), image(""), "name: not an AC Identifier"},
	{"name with a newline", strings.Replace(image(""), "example.com/a", `a\nb`, 1), image(""), "ACIdentifier"},
	{"label name", image(`"labels":[{"name":"a--b","value":""}]`), image(`"labels":[{"name":"a-b","value":""}]`), "labels[0].name: not an AC"},
	{"label called name", image(`"labels":[{"name":"name","value":"x"}]`), image(`"labels":[{"name":"nam","value":"x"}]`), "invalid label name"},
	{"label twice", image(`"labels":[{"name":"a","value":"1"},{"name":"a","value":"2"}]`), image(`"labels":[{"name":"a","value":"1"},{"name":"b","value":"1"}]`), "duplicate labels"},
	{"label with an escape character", image(`"labels":[{"name":"a","value":"\u001b[2J"}]`), image(`"labels":[{"name":"a","value":"[2J"}]`), "labels[0].value: control character"},
	{"unknown os", image(`"labels":[{"name":"os","value":"plan9"}]`), image(`"labels":[{"name":"os","value":"freebsd"}]`), "bad os"},
	{"unknown arch", image(`"labels":[{"name":"os","value":"freebsd"},{"name":"arch","value":"arm65"}]`), image(`"labels":[{"name":"os","value":"freebsd"},{"name":"arch","value":"arm64"}]`), "bad arch"},
	{"annotation name", image(`"annotations":[{"name":"a/","value":""}]`), image(`"annotations":[{"name":"a/b_c","value":""}]`), "ACIdentifier"},
	{"annotation name inside", image(`"annotations":[{"name":"a..b","value":""}]`), image(`"annotations":[{"name":"a.b","value":""}]`), "annotations[0].name"},
	{"annotation twice", image(`"annotations":[{"name":"a","value":""},{"name":"a","value":""}]`), image(`"annotations":[{"name":"a","value":""}]`), "duplicate annotations"},
	{"created", image(`"annotations":[{"name":"created","value":"2015-01-01 00:00:00Z"}]`), image(`"annotations":[{"name":"created","value":"2015-01-01T00:00:00Z"}]`), "bad Date"},
	{"homepage", image(`"annotations":[{"name":"homepage","value":"javascript:x"}]`), image(`"annotations":[{"name":"homepage","value":"https://x"}]`), "bad URL"},
	{"documentation", image(`"annotations":[{"name":"documentation","value":"file:///x"}]`), image(`"annotations":[{"name":"documentation","value":"http://x"}]`), "bad URL"},
	{"dependency without name", image(`"dependencies":[{}]`), image(`"dependencies":[{"imageName":"a"}]`), "imageName"},
	{"dependency name", image(`"dependencies":[{"imageName":"a/../b"}]`), image(`"dependencies":[{"imageName":"a/b"}]`), "dependencies[0].imageName"},
	{"dependency ID", image(`"dependencies":[{"imageName":"a","imageID":"sha512-../../etc"}]`), image(`"dependencies":[{"imageName":"a","imageID":"` + goodID + `"}]`), "dependencies[0].imageID"},
	{"dependency ID in upper case", image(`"dependencies":[{"imageName":"a","imageID":"` + strings.Replace(goodID, "abc", "ABC", 1) + `"}]`), image(""), "dependencies[0].imageID"},
	{"dependency of another hash", image(`"dependencies":[{"imageName":"a","imageID":"sha256-` + goodID[7:71] + `"}]`), image(""), "unrecognized hash"},
	{"dependency label", image(`"dependencies":[{"imageName":"a","labels":[{"name":"a//b","value":""}]}]`), image(""), "dependencies[0].labels[0].name"},
	{"dependency size", image(`"dependencies":[{"imageName":"a","size":-1}]`), image(`"dependencies":[{"imageName":"a","size":1}]`), "is out of place"},
	{"whitelist relative", image(`"pathWhitelist":["/a","b"]`), image(`"pathWhitelist":["/a","/b"]`), `pathWhitelist[1]: not absolute: "b"`},
	{"whitelist with ..", image(`"pathWhitelist":["/a/../b"]`), image(`"pathWhitelist":["/a..b/"]`), `pathWhitelist[0]: ".." in a path`},
	{"whitelist with NUL", image(`"pathWhitelist":["/a\u0000"]`), image(`"pathWhitelist":["/a"]`), `pathWhitelist[0]: NUL`},
	{"no user", image(`"app":{"exec":["/a"],"group":"0"}`), app(""), "user is required"},
	{"user with a newline", image(`"app":{"exec":["/a"],"user":"a\nb","group":"0"}`), app(""), "app.user: control"},
	{"group with NUL", image(`"app":{"exec":["/a"],"user":"a","group":"0\u0000"}`), app(""), "app.group: control"},
	{"exec a string", image(`"app":{"exec":"/a","user":"0","group":"0"}`), app(""), "is out of place"},
	{"empty program", image(`"app":{"exec":[""],"user":"0","group":"0"}`), image(`"app":{"exec":[],"user":"0","group":"0"}`), "app.exec[0]: empty"},
	{"NUL in an argument", image(`"app":{"exec":["/a","\u0000"],"user":"0","group":"0"}`), image(`"app":{"exec":["/a",""],"user":"0","group":"0"}`), "app.exec[1]: NUL"},
	{"negative group", app(`"supplementaryGIDs":[-1]`), app(`"supplementaryGIDs":[0]`), "app.supplementaryGIDs[0]: out of range"},
	{"group none", app(`"supplementaryGIDs":[4294967295]`), app(`"supplementaryGIDs":[4294967294]`), "app.supplementaryGIDs[0]"},
	{"relative working directory", app(`"workingDirectory":"a"`), app(`"workingDirectory":"/a"`), "workingDirectory"},
	{"working directory with ..", app(`"workingDirectory":"/../a"`), app(`"workingDirectory":"/a/"`), "app.workingDirectory"},
	{"environment name", app(`"environment":[{"name":"A=B","value":""}]`), app(`"environment":[{"name":"A.B","value":""}]`), "valid identifier"},
	{"environment twice", app(`"environment":[{"name":"A","value":""},{"name":"A","value":"1"}]`), app(`"environment":[{"name":"A","value":""},{"name":"a","value":"1"}]`), "duplicate environment"},
	{"environment with NUL", app(`"environment":[{"name":"A","value":"\u0000"}]`), app(`"environment":[{"name":"A","value":"\n"}]`), "app.environment[0]: NUL in the value of A"},
	{"event handler name", app(`"eventHandlers":[{"name":"start","exec":["/a"]}]`), app(`"eventHandlers":[{"name":"pre-start","exec":["/a"]}]`), "eventHandler"},
	{"event handler twice", app(`"eventHandlers":[{"name":"pre-start","exec":["/a"]},{"name":"pre-start","exec":["/b"]}]`), app(`"eventHandlers":[{"name":"pre-start","exec":["/a"]},{"name":"post-stop","exec":["/b"]}]`), "Only one eventHandler"},
	{"event handler without command", app(`"eventHandlers":[{"name":"pre-start","exec":[]}]`), app(`"eventHandlers":[]`), "app.eventHandlers[0].exec: empty"},
	{"mount point null", app(`"mountPoints":[null]`), app(`"mountPoints":[]`), "app.mountPoints[0].name"},
	{"mount point name", app(`"mountPoints":[{"name":"a--b","path":"/a"}]`), app(`"mountPoints":[{"name":"a-b","path":"/a"}]`), "app.mountPoints[0].name: not an AC Name"},
	{"mount point twice", app(`"mountPoints":[{"name":"a","path":"/a"},{"name":"a","path":"/b"}]`), app(`"mountPoints":[{"name":"a","path":"/a"},{"name":"b","path":"/b"}]`), `app.mountPoints[1].name: duplicate: "a"`},
	{"mount point relative", app(`"mountPoints":[{"name":"a","path":"a"}]`), app(`"mountPoints":[{"name":"a","path":"/a/"}]`), "app.mountPoints[0].path: not absolute"},
	{"mount point root", app(`"mountPoints":[{"name":"a","path":"/."}]`), app(`"mountPoints":[{"name":"a","path":"/.a"}]`), "app.mountPoints[0].path: hides"},
	{"port zero", port(`"name":"a","protocol":"tcp","port":0`), port(`"name":"a","protocol":"tcp","port":1`), "port must be in"},
	{"port too high", port(`"name":"a","protocol":"tcp","port":65536`), port(`"name":"a","protocol":"tcp","port":65535`), "port must be in"},
	{"port range too long", port(`"name":"a","protocol":"tcp","port":65535,"count":2`), port(`"name":"a","protocol":"tcp","port":65535,"count":1`), "end of port range"},
	{"port range overflow", port(`"name":"a","protocol":"tcp","port":2,"count":18446744073709551615`), port(`"name":"a","protocol":"tcp","port":2,"count":65534`), "app.ports[0].port: not a port range"},
	{"port without protocol", port(`"name":"a","port":1`), port(`"name":"a","protocol":"sctp","port":1`), "app.ports[0].protocol"},
	{"port name", port(`"name":"a--b","protocol":"tcp","port":1`), port(`"name":"6379-tcp","protocol":"tcp","port":1`), "app.ports[0].name"},
	{"port twice", app(`"ports":[{"name":"a","protocol":"tcp","port":1},{"name":"a","protocol":"tcp","port":2}]`), app(`"ports":[{"name":"a","protocol":"tcp","port":1},{"name":"b","protocol":"tcp","port":1}]`), `app.ports[1].name: duplicate`},
	{"isolator null", isolators(`null`), isolators(``), "app.isolators[0].name"},
	{"isolator without value", isolators(`{"name":"resource/memory"}`), isolators(isolator("resource/memory", `{"limit":"1G"}`)), "app.isolators[0] (resource/memory): no value"},
	{"isolator with null", isolators(isolator("os/linux/no-new-privileges", "null")), isolators(isolator("os/linux/no-new-privileges", "true")), "no value"},
	{"unknown isolator without value", isolators(`{"name":"example.com/x"}`), isolators(`{"name":"example.com/x","value":false}`), "no value"},
	{"isolator name", isolators(isolator("a//b", "1")), isolators(isolator("a/b", "1")), "app.isolators[0].name: not an AC Identifier"},
	{"isolator of the wrong type", isolators(isolator("os/linux/no-new-privileges", `"yes"`)), isolators(isolator("os/linux/no-new-privileges", `false`)), "app.isolators[0] (os/linux/no-new-privileges): string is out of place"},
	{"isolators no list", app(`"isolators":{}`), app(`"isolators":null`), "app.isolators: an object, not a list"},
	{"capabilities empty", isolators(isolator("os/linux/capabilities-retain-set", `{"set":[]}`)), isolators(isolator("os/linux/capabilities-retain-set", `{"set":["CAP_KILL"]}`)), "non-empty"},
	{"capabilities retained and removed",
		isolators(isolator("os/linux/capabilities-retain-set", `{"set":["A"]}`) + "," + isolator("os/linux/capabilities-remove-set", `{"set":["A"]}`)),
		isolators(isolator("os/linux/capabilities-retain-set", `{"set":["A"]}`)), "app.isolators: os/linux/capabilities-remove-set and"},
	{"seccomp retained and removed",
		isolators(isolator("os/linux/seccomp-retain-set", `{"set":["a"]}`) + "," + isolator("os/linux/seccomp-remove-set", `{"set":["a"]}`)),
		isolators(isolator("os/linux/seccomp-retain-set", `{"set":["a"]}`)), "exclude each other"},
	{"seccomp twice",
		isolators(isolator("os/linux/seccomp-retain-set", `{"set":["a"]}`) + "," + isolator("os/linux/seccomp-retain-set", `{"set":["a"]}`)),
		isolators(isolator("os/linux/seccomp-retain-set", `{"set":["a","b"]}`)), "more than one"},
	{"oom score", isolators(isolator("os/linux/oom-score-adj", `1001`)), isolators(isolator("os/linux/oom-score-adj", `1000`)), "between"},
	{"apparmor without profile", isolators(isolator("os/linux/apparmor-profile", `{}`)), isolators(isolator("os/linux/apparmor-profile", `{"profile":"x"}`)), "no profile"},
	{"resource of the wrong type", isolators(isolator("resource/memory", `"1G"`)), isolators(isolator("resource/memory", `{"limit":1}`)), "is out of place"},
	{"resource without limit", isolators(isolator("resource/memory", `{}`)), isolators(isolator("resource/memory", `{"request":"1"}`)), "neither limit nor request"},
	{"quantity null", isolators(isolator("resource/memory", `{"limit":null}`)), isolators(isolator("resource/memory", `{"limit":"1"}`)), "not a quantity"},
	{"quantity negative", isolators(isolator("resource/memory", `{"limit":"-1"}`)), isolators(isolator("resource/memory", `{"limit":"1"}`)), `not a quantity: "-1"`},
	{"quantity zero", isolators(isolator("resource/cpu", `{"limit":"0.0m"}`)), isolators(isolator("resource/cpu", `{"limit":"0.5m"}`)), "out of range"},
	{"quantity too large", isolators(isolator("resource/memory", `{"limit":"16E"}`)), isolators(isolator("resource/memory", `{"limit":"9E"}`)), `out of range: "16E"`},
	{"quantity 8Ei", isolators(isolator("resource/memory", `{"limit":"8Ei"}`)), isolators(isolator("resource/memory", `{"limit":"7Ei"}`)), "out of range"},
	{"cpu too large", isolators(isolator("resource/cpu", `{"limit":"1Ei"}`)), isolators(isolator("resource/cpu", `{"limit":"1Pi"}`)), "out of range"},
	{"quantity with an exponent", isolators(isolator("resource/memory", `{"limit":"1e999999999"}`)), isolators(isolator("resource/memory", `{"limit":"1E"}`)), "not a quantity"},
	{"quantity with exponent as a number", isolators(isolator("resource/memory", `{"limit":1e999999999}`)), isolators(isolator("resource/memory", `{"limit":1000}`)), "not a quantity"},
	{"quantity suffix", isolators(isolator("resource/memory", `{"limit":"1X"}`)), isolators(isolator("resource/memory", `{"limit":"1.5K"}`)), "not a quantity"},
	{"quantity misspelt", isolators(isolator("resource/memory", `{"limit":"1","Request":"1e999999999"}`)), isolators(isolator("resource/memory", `{"limit":"1","request":"1"}`)), `misspelt key "Request", should be "request"`},
	{"created with a short hour", image(`"annotations":[{"name":"created","value":"2015-01-01T1:00:00Z"}]`), image(`"annotations":[{"name":"created","value":"2015-01-01T01:00:00.5+01:00"}]`), "annotations[0].value: not a date"},
	{"created with a comma", image(`"annotations":[{"name":"created","value":"2015-01-01T01:00:00,5Z"}]`), image(`"annotations":[{"name":"created","value":"2015-01-01T01:00:00.5Z"}]`), "annotations[0].value: not a date"},
	{"dependency size too large", image(`"dependencies":[{"imageName":"a","size":9223372036854775808}]`), image(`"dependencies":[{"imageName":"a","size":9223372036854775807}]`), "dependencies[0].size: out of range"},
	{"dependency label twice", image(`"dependencies":[{"imageName":"a","labels":[{"name":"a","value":"1"},{"name":"a","value":"1"}]}]`), image(`"dependencies":[{"imageName":"a","labels":[{"name":"a","value":"1"}]}]`), "duplicate labels"},
	{"environment as before 0.3", app(`"environment":{"PATH":"/bin"}`), app(`"environment":[{"name":"PATH","value":"/bin"}]`), "app.environment: an object, not a list"},
	{"known field in another place", app(`"mountpoints":[]`), app(`"Volumes":[]`), `should be "mountPoints"`},
	{"key repeated in an unknown field", image(`"x":{"a":1,"A":1}`), image(`"x":{"a":1,"b":1}`), "x.A: duplicate key"},
	{"block-iops not default", isolators(isolator("resource/block-iops", `{"limit":"1"}`)), isolators(isolator("resource/block-iops", `{"default":true,"limit":"1"}`)), "default must be true"},
}

// manyTwins are large, so they are made when they are needed.
func manyTwins() []twin {
	return []twin{
		{"dependencies", image(`"dependencies":[` + repeat(`{"imageName":"a"}`, 257) + `]`), image(`"dependencies":[` + repeat(`{"imageName":"a"}`, 256) + `]`), "dependencies: more than 256"},
		{"labels", image(`"labels":[` + repeat(`{}`, maxValues) + `]`), image(`"labels":[]`), "labels: more than 131072 values"},
		{"user labels", app(`"userLabels":{` + keys(maxValues) + `}`), app(`"userLabels":{` + keys(maxValues-100) + `}`), ": more than 131072 values"},
		{"paths", image(`"pathWhitelist":[` + repeat(`"/"`, maxPaths+1) + `]`), image(`"pathWhitelist":[` + repeat(`"/"`, maxPaths) + `]`), "pathWhitelist: more than 1048576 entries"},
		{"bytes", image(`"annotations":[{"name":"a","value":"` + strings.Repeat("<", maxRest) + `"}]`), image(`"pathWhitelist":["/` + strings.Repeat("<", maxRest) + `"]`), "larger than 4194304 bytes besides"},
		{"nulls", image(`"x":[` + repeat(`null`, maxValues) + `]`), image(`"pathWhitelist":[` + repeat(`"/"`, maxValues+1) + `]`), "x: more than 131072 values"},
	}
}

// repeat is a list of n times the same.
func repeat(s string, n int) string { return strings.Repeat(s+",", n-1) + s }

// keys are n keys and values.
func keys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"%x":"",`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

var podTwins = []twin{
	{"image manifest", image(""), pod("", ""), "ACKind"},
	{"no version", `{"acKind":"PodManifest","apps":[{"name":"a","image":{"id":"` + goodID + `"}}]}`, pod("", ""), "acVersion: missing"},
	{"other version", strings.Replace(pod("", ""), "0.8.11", "9.0.0", 1), strings.Replace(pod("", ""), "0.8.11", "0.7.4", 1), "acVersion: \"9.0.0\" is not compatible"},
	{"no apps", `{"acKind":"PodManifest","acVersion":"0.8.11"}`, pod("", ""), "apps: empty"},
	{"empty apps", `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[]}`, pod("", ""), "apps: empty"},
	{"app null", `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[null]}`, pod("", ""), "apps[0]: null"},
	{"apps no list", `{"acKind":"PodManifest","acVersion":"0.8.11","apps":{}}`, pod("", ""), "apps: an object, not a list"},
	{"app no object", pod(`"app":[]`, ""), pod(`"app":null`, ""), "apps[0].app: a list, not an object"},
	{"app name", strings.Replace(pod("", ""), `"a"`, `"a--b"`, 1), pod("", ""), "apps[0].name: not an AC Name"},
	{"app name is an identifier", strings.Replace(pod("", ""), `"a"`, `"a/b"`, 1), pod("", ""), "ACName"},
	{"app twice", strings.Replace(pod("", ""), `[{"name"`, `[{"name":"a","image":{"name":"x"}},{"name"`, 1), strings.Replace(pod("", ""), `[{"name"`, `[{"name":"b","image":{"name":"x"}},{"name"`, 1), "duplicate apps"},
	{"no image", podImage(``), podImage(`"name":"example.com/a"`), "apps[0].image: neither id nor name"},
	{"image ID as a path", podImage(`"id":"sha512-../../etc"`), podImage(`"id":"` + goodID + `"`), "apps[0].image.id"},
	{"image ID too short", podImage(`"id":"` + goodID[:134] + `"`), podImage(`"id":"` + goodID + `"`), "apps[0].image.id"},
	{"image ID too long", podImage(`"id":"` + goodID + `0"`), podImage(`"id":"` + goodID + `"`), "apps[0].image.id"},
	{"image name", podImage(`"name":"a//b"`), podImage(`"name":"a/b"`), "apps[0].image.name"},
	{"image label", podImage(`"name":"a","labels":[{"name":"a__b","value":""}]`), podImage(`"name":"a","labels":[{"name":"a_b","value":""}]`), "apps[0].image.labels[0].name"},
	{"app without group", pod(`"app":{"exec":["/a"],"user":"0"}`, ""), pod(`"app":{"exec":["/a"],"user":"0","group":"0"}`, ""), "group is required"},
	{"app's isolator", pod(`"app":{"exec":["/a"],"user":"0","group":"0","isolators":[{"name":"resource/cpu"}]}`, ""),
		pod(`"app":{"exec":["/a"],"user":"0","group":"0","isolators":[{"name":"resource/cpu","value":{"limit":"500m"}}]}`, ""), "apps[0].app.isolators[0] (resource/cpu): no value"},
	{"app's mount point", pod(`"app":{"exec":["/a"],"user":"0","group":"0","mountPoints":[{"name":"a","path":"b"}]}`, ""), pod("", ""), "apps[0].app.mountPoints[0].path"},
	{"mount volume", pod(`"mounts":[{"volume":"a--b","path":"/a"}]`, ""), pod(`"mounts":[{"volume":"a-b","path":"/a"}]`, ""), "apps[0].mounts[0].volume"},
	{"mount without volume", pod(`"mounts":[{"path":"/a"}]`, ""), pod(`"mounts":[{"volume":"a","path":"/a"}]`, ""), "apps[0].mounts[0].volume"},
	{"mount path relative", pod(`"mounts":[{"volume":"a","path":"/a"},{"volume":"a","path":"./b"}]`, ""), pod(`"mounts":[{"volume":"a","path":"/a"},{"volume":"a","path":"b"}]`, ""), `apps[0].mounts[1].path: not absolute: "./b"`},
	{"mount path with ..", pod(`"mounts":[{"volume":"a","path":"/a/../../b"}]`, ""), pod(`"mounts":[{"volume":"a","path":"/a//b/"}]`, ""), `apps[0].mounts[0].path: ".."`},
	{"mount path root", pod(`"mounts":[{"volume":"a","path":"//"}]`, ""), pod(`"mounts":[{"volume":"a","path":"/a"}]`, ""), `apps[0].mounts[0].path: hides`},
	{"mount's volume", pod(`"mounts":[{"volume":"a","path":"/a","appVolume":{"name":"a","kind":"host","source":"/a/.."}}]`, ""),
		pod(`"mounts":[{"volume":"a","path":"/a","appVolume":{"name":"a","kind":"host","source":"/a"}}]`, ""), `apps[0].mounts[0].appVolume.source`},
	{"app annotation", pod(`"annotations":[{"name":"a//b","value":""}]`, ""), pod(`"annotations":[{"name":"jetpack/image-uuid","value":""}]`, ""), "apps[0].annotations[0].name"},
	{"annotation", pod("", `"annotations":[{"name":"a//b","value":""}]`), pod("", `"annotations":[{"name":"jetpack/jail.conf/x_y","value":""}]`), "annotations[0].name"},
	{"port of two apps", twoPorts("b", `{"name":"p","hostPort":1}`), twoPorts("b", `{"name":"p","hostPort":1,"podPort":{"name":"p","protocol":"tcp","port":1}}`), "ports[0].name: the apps b and a both have a port p"},
	{"container runtime manifest", strings.Replace(pod("", ""), "PodManifest", "ContainerRuntimeManifest", 1), pod("", ""), "bad ACKind: ContainerRuntimeManifest"},
	{"volume kind", volume(`"name":"a","kind":"tmp"`), volume(`"name":"a","kind":"empty"`), "unrecognized volume kind"},
	{"volume name", volume(`"name":"a--b","kind":"empty"`), volume(`"name":"a-b","kind":"empty"`), "volumes[0].name"},
	{"volume twice", pod("", `"volumes":[{"name":"a","kind":"empty"},{"name":"a","kind":"empty"}]`), pod("", `"volumes":[{"name":"a","kind":"empty"},{"name":"b","kind":"empty"}]`), "duplicate volume"},
	{"volume without source", volume(`"name":"a","kind":"host"`), volume(`"name":"a","kind":"host","source":"/a"`), "source"},
	{"volume source relative", volume(`"name":"a","kind":"host","source":"a"`), volume(`"name":"a","kind":"host","source":"/a"`), "absolute"},
	{"volume source with NUL", volume(`"name":"a","kind":"host","source":"/a\u0000"`), volume(`"name":"a","kind":"host","source":"/a"`), "volumes[0].source: NUL"},
	{"empty volume with source", volume(`"name":"a","kind":"empty","source":"/a"`), volume(`"name":"a","kind":"empty"`), "must be empty"},
	{"volume mode", volume(`"name":"a","kind":"empty","mode":"0888"`), volume(`"name":"a","kind":"empty","mode":"0777"`), "volumes[0].mode"},
	{"volume mode too large", volume(`"name":"a","kind":"empty","mode":"17777"`), volume(`"name":"a","kind":"empty","mode":"01777"`), "volumes[0].mode"},
	{"volume mode signed", volume(`"name":"a","kind":"empty","mode":"+755"`), volume(`"name":"a","kind":"empty","mode":"755"`), "volumes[0].mode"},
	{"volume uid", volume(`"name":"a","kind":"empty","uid":-1`), volume(`"name":"a","kind":"empty","uid":1`), "volumes[0].uid"},
	{"volume gid", volume(`"name":"a","kind":"empty","gid":4294967295`), volume(`"name":"a","kind":"empty","gid":4294967294`), "volumes[0].gid"},
	{"port null", pod("", `"ports":[null]`), pod("", `"ports":[]`), "ports[0].name"},
	{"port name", hostPort(`"name":"a--b","hostPort":1`), hostPort(`"name":"a-b","hostPort":1`), "ports[0].name"},
	{"port twice", pod("", `"ports":[{"name":"a","hostPort":1},{"name":"a","hostPort":2}]`), pod("", `"ports":[{"name":"a","hostPort":1},{"name":"b","hostPort":2}]`), "ports[1].name: duplicate"},
	{"no host port", hostPort(`"name":"a"`), hostPort(`"name":"a","hostPort":1`), "ports[0].hostPort"},
	{"host port too high", hostPort(`"name":"a","hostPort":65536`), hostPort(`"name":"a","hostPort":65535`), "ports[0].hostPort"},
	{"host port range", hostPort(`"name":"a","hostPort":65535,"podPort":{"name":"a","protocol":"tcp","port":1,"count":2}`), hostPort(`"name":"a","hostPort":65534,"podPort":{"name":"a","protocol":"tcp","port":1,"count":2}`), "ports[0].hostPort"},
	{"pod port", hostPort(`"name":"a","hostPort":1,"podPort":{"name":"a","port":1}`), hostPort(`"name":"a","hostPort":1,"podPort":{"name":"a","protocol":"tcp","port":1}`), "ports[0].podPort.protocol"},
	{"host IP", hostPort(`"name":"a","hostPort":1,"hostIP":"1.2.3"`), hostPort(`"name":"a","hostPort":1,"hostIP":"1.2.3.4"`), "invalid IP"},
	{"host IP version 6", hostPort(`"name":"a","hostPort":1,"hostIP":"::1"`), hostPort(`"name":"a","hostPort":1,"hostIP":"127.0.0.1"`), "ports[0].hostIP: not an IPv4"},
	{"isolator without value", pod("", `"isolators":[{"name":"example.com/x"}]`), pod("", `"isolators":[{"name":"example.com/x","value":1}]`), "isolators[0] (example.com/x): no value"},
	{"sysctl twice", pod("", `"isolators":[{"name":"os/unix/sysctl","value":{}},{"name":"os/unix/sysctl","value":{}}]`), pod("", `"isolators":[{"name":"os/unix/sysctl","value":{"A":"1","b":"2"}}]`), "more than one os/unix/sysctl"},
	{"user annotation not a string", pod("", `"userAnnotations":{"a":1}`), pod("", `"userAnnotations":{"a":"","A":""}`), "is out of place"},
}

func TestParse(t *testing.T) {
	parsers := []struct {
		kind  string
		parse func([]byte) error
		twins []twin
	}{
		{"image", func(b []byte) error { _, _, err := ParseImage(b); return err }, imageTwins},
		{"many", func(b []byte) error { _, _, err := ParseImage(b); return err }, manyTwins()},
		{"pod", func(b []byte) error { _, _, err := ParsePod(b); return err }, podTwins},
	}
	for _, p := range parsers {
		for _, tt := range p.twins {
			t.Run(p.kind+"/"+tt.name, func(t *testing.T) {
				err := p.parse([]byte(tt.bad))
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want ErrInvalid with %q", err, tt.want)
				}
				if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
					t.Errorf("control character in the message %q", err)
				}
				if err := p.parse([]byte(tt.good)); err != nil {
					t.Errorf("benign twin: %v", err)
				}
			})
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		name, doc, want string
	}{
		{"nothing", image(""), ""},
		{"unknown field", image(`"bogus":1`), `unknown field bogus is ignored`},
		{"terminal escape", image(`"\u001b[2J":1`), `unknown field "\x1b[2J" is ignored`},
		{"newline", app(`"a\nb":1`), `unknown field app."a\nb" is ignored`},
		{"right to left", image(`"a\u202eb":1`), `unknown field "a\u202eb" is ignored`},
		{"empty key", image(`"":1`), `unknown field "" is ignored`},
		{"long key", image(`"` + strings.Repeat("k", 61) + `":1`), `unknown field "` + strings.Repeat("k", 60) + `" is ignored`},
		{"isolator value", isolators(isolator("resource/cpu", `{"limit":"1","x":1}`)), ""},
		{"old name in 0.6", strings.Replace(image(`"dependencies":[{"imageName":"a","app":"a"}]`), "0.8.11", "0.6.0", 1), "unknown field dependencies[0].app is ignored"},
		{"newer version", strings.Replace(image(""), "0.8.11", "0.9.0", 1), "acVersion"},
		{"newer patch", strings.Replace(image(""), "0.8.11", "0.8.12+git", 1), ""},
		{"limit twice", isolators(isolator("resource/cpu", `{"limit":"1"}`) + "," + isolator("resource/cpu", `{"limit":"2"}`) + "," + isolator("resource/cpu", `{"limit":"3"}`)), "app.isolators: several resource/cpu"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings, err := ParseImage([]byte(tt.doc))
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" && len(warnings) > 0 || tt.want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], tt.want)) {
				t.Errorf("warnings %q, want %q", warnings, tt.want)
			}
		})
	}
}

func TestVolumeWarnings(t *testing.T) {
	for _, tt := range []struct {
		name, doc string
		want      []string
	}{
		{"empty", volume(`"name":"a","kind":"empty","readOnly":true`), nil},
		{"empty and recursive", volume(`"name":"a","kind":"empty","recursive":true`), []string{"volumes[0].recursive is ignored, the volume is empty"}},
		{"host", volume(`"name":"a","kind":"host","source":"/a","recursive":true,"readOnly":true`), nil},
		{"mount's", pod(`"mounts":[{"volume":"a","path":"/a","appVolume":{"name":"a","kind":"empty","recursive":false}}]`, ""),
			[]string{"apps[0].mounts[0].appVolume.recursive is ignored, the volume is empty"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, warnings, err := ParsePod([]byte(tt.doc)); err != nil || !slices.Equal(warnings, tt.want) {
				t.Errorf("warnings %q, %v, want %q", warnings, err, tt.want)
			}
		})
	}
}

func TestParseNormalises(t *testing.T) {
	m, _, err := ParseImage([]byte(image(`"labels":[{"name":"os","value":"linux"},{"name":"arch","value":"arm64"}],
		"pathWhitelist":["/a//b/","/c","/c"],
		"app":{"exec":[],"user":"0","group":"0","mountPoints":[{"name":"a","path":"/a//b/"}],
		"isolators":[{"name":"resource/memory","value":{"limit":"1K","request":"1Ki"}}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	if arch, _ := m.GetLabel("arch"); arch != "aarch64" {
		t.Errorf("arch %q", arch)
	}
	if !slices.Equal(m.PathWhitelist, []string{"/a/b", "/c", "/c"}) {
		t.Errorf("pathWhitelist %q", m.PathWhitelist)
	}
	if p := m.App.MountPoints[0].Path; p != "/a/b" {
		t.Errorf("path %q", p)
	}
	memory := m.App.Isolators[0].Value().(*types.ResourceMemory)
	if l, r := memory.Limit().Value(), memory.Request().Value(); l != 1000 || r != 1024 {
		t.Errorf("limit %d, request %d", l, r)
	}
}

// The library's arithmetic is right within the range that is let through.
func TestQuantities(t *testing.T) {
	for s, want := range map[string]int64{
		"1": 1, "1500m": 2, "0.5": 1, "2k": 2000, "2K": 2000, "2Ki": 2048, "1.5M": 1500000, "1.5Mi": 1572864,
		"3G": 3e9, "3Gi": 3 << 30, "3T": 3e12, "3Ti": 3 << 40, "3P": 3e15, "3Pi": 3 << 50, "9E": 9e18, "7Ei": 7 << 60,
		"9223372036854775807": 1<<63 - 1,
	} {
		m, _, err := ParseImage([]byte(isolators(isolator("resource/memory", `{"limit":"`+s+`"}`))))
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got := m.App.Isolators[0].Value().(*types.ResourceMemory).Limit().Value(); got != want {
			t.Errorf("%s is %d, want %d", s, got, want)
		}
	}
	for s, want := range map[string]int64{"250m": 250, "0.0001": 1, "1": 1000, "8Pi": 8 << 50 * 1000} {
		m, _, err := ParseImage([]byte(isolators(isolator("resource/cpu", `{"limit":"`+s+`"}`))))
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got := m.App.Isolators[0].Value().(*types.ResourceCPU).Limit().MilliValue(); got != want {
			t.Errorf("%s is %d thousandths, want %d", s, got, want)
		}
	}
}

func TestUnknownIsolators(t *testing.T) {
	m, _, err := ParsePod([]byte(pod("", `"isolators":[`+strings.Join([]string{
		isolator("example.com/x", `{"Limit":"1K","limits":["<a>",null]}`),
		isolator("os/linux/apparmor-profile", `{"profile":"p"}`),
		isolator("os/unix/sysctl", `{"a":"b"}`),
		isolator("jetpack/opaque", `0`),
	}, ",")+`]`)))
	if err != nil {
		t.Fatal(err)
	}
	if got := UnknownIsolators(m.Isolators); !slices.Equal(got, []string{"example.com/x", "jetpack/opaque"}) {
		t.Errorf("unknown: %q", got)
	}
	for _, i := range m.Isolators {
		if i.Value() == nil {
			t.Errorf("%s has no value", i.Name)
		}
	}
}

// Unknown isolators in many documents at once: for the race detector.
func TestParseConcurrently(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if _, _, err := ParseImage([]byte(isolators(isolator(fmt.Sprintf("example.com/x%d", i), `{}`)))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

const fullPod = `{"acVersion":"0.8.11","acKind":"PodManifest","apps":[{"name":"a","image":{"name":"example.com/a","id":"` + goodID + `","labels":[{"name":"version","value":"1"}]},"app":{"exec":["/a"],"user":"0","group":"0","isolators":[{"name":"example.com/x","value":{"A":[1,null,"K"]}},{"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_KILL"]}}]},"readOnlyRootFS":true,"mounts":[{"volume":"v","path":"/v"}],"annotations":[{"name":"x","value":"y"}]}],"volumes":[{"name":"v","kind":"host","source":"/v","readOnly":true,"recursive":false}],"isolators":[{"name":"resource/memory","value":{"limit":"1G"}},{"name":"resource/cpu","value":{"limit":"500m"}}],"annotations":[{"name":"a","value":"b"}],"ports":[{"name":"p","hostPort":80,"hostIP":"127.0.0.1"}],"userAnnotations":{"a":"b"},"userLabels":{"A":"b"}}`

func TestMarshalPodKeepsEverything(t *testing.T) {
	m, _, err := ParsePod([]byte(fullPod))
	if err != nil {
		t.Fatal(err)
	}
	got, err := MarshalPod(m)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != fullPod {
		t.Errorf("got  %s\nwant %s", got, fullPod)
	}
}

func TestMarshalWritesEmptyLists(t *testing.T) {
	m, _, err := ParsePod([]byte(pod(`"app":{"user":"0","group":"0"}`, "")))
	if err != nil {
		t.Fatal(err)
	}
	data, err := MarshalPod(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"exec":[]`, `"volumes":[]`, `"isolators":[]`, `"annotations":[]`, `"ports":[]`} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("no %s in %s", want, data)
		}
	}
	if bytes.Contains(data, []byte("null")) {
		t.Errorf("null in %s", data)
	}
	if m.Volumes != nil || m.Apps[0].App.Exec != nil {
		t.Error("the argument was changed")
	}
}

func TestMarshalRefuses(t *testing.T) {
	m, _, err := ParsePod([]byte(podImage(`"name":"example.com/a"`)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = MarshalPod(m); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "apps[0].image.id: missing") {
		t.Errorf("pod without image ID: %v", err)
	}
	im, _, err := ParseImage([]byte(app("")))
	if err != nil {
		t.Fatal(err)
	}
	im.Name = "a/../b"
	if _, err := MarshalImage(im); !errors.Is(err, ErrInvalid) {
		t.Errorf("image with a bad name: %v", err)
	}
	im.Name = "a"
	im.App.Isolators = types.Isolators{{Name: "example.com/x"}}
	if _, err := MarshalImage(im); !errors.Is(err, ErrInvalid) {
		t.Errorf("isolator without value: %v", err)
	}
}

func FuzzParseImage(f *testing.F) {
	for _, tt := range earlyImages {
		f.Add([]byte(tt.old))
	}
	for _, tt := range imageTwins {
		if len(tt.bad) < 4096 {
			f.Add([]byte(tt.bad))
			f.Add([]byte(tt.good))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, warnings, err := ParseImage(data)
		checkWarnings(t, warnings)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("not ErrInvalid: %v", err)
			}
			return
		}
		once, err := MarshalImage(m)
		if err != nil {
			t.Fatalf("valid but cannot be written: %v", err)
		}
		again, warnings, err := ParseImage(once)
		if err != nil || slices.ContainsFunc(warnings, isEarly) {
			t.Fatal(err, warnings)
		}
		if twice, err := MarshalImage(again); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%v\n%s\n%s", err, once, twice)
		}
	})
}

func FuzzParsePod(f *testing.F) {
	for _, tt := range earlyPods {
		f.Add([]byte(tt.old))
	}
	f.Add([]byte(fullPod))
	for _, tt := range podTwins {
		f.Add([]byte(tt.bad))
		f.Add([]byte(tt.good))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, warnings, err := ParsePod(data)
		checkWarnings(t, warnings)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("not ErrInvalid: %v", err)
			}
			return
		}
		for _, a := range m.Apps {
			if a.Image.ID.Empty() {
				return
			}
		}
		once, err := MarshalPod(m)
		if err != nil {
			t.Fatalf("valid but cannot be written: %v", err)
		}
		if !json.Valid(once) || bytes.Contains(once, []byte(`"volumes":null`)) {
			t.Fatalf("%s", once)
		}
		again, warnings, err := ParsePod(once)
		if err != nil || slices.ContainsFunc(warnings, isEarly) {
			t.Fatal(err, warnings)
		}
		if twice, err := MarshalPod(again); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%v\n%s\n%s", err, once, twice)
		}
	})
}

func TestCompleteImage(t *testing.T) {
	for _, tt := range []struct{ name, data, want string }{
		{"both", " {\"name\":\"a\"}", `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"a"}`},
		{"one", `{"acKind":"PodManifest","name":"a"}`, `{"acVersion":"0.8.11","acKind":"PodManifest","name":"a"}`},
		{"none", `{"acVersion":"0.7.0", "acKind": "ImageManifest"}`, `{"acVersion":"0.7.0", "acKind": "ImageManifest"}`},
		{"empty", `{}`, `{}`}, {"no object", `["{"]`, `["{"]`}, {"no JSON", `{`, `{`}, {"nothing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(CompleteImage([]byte(tt.data))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
