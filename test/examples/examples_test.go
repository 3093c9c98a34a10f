// Package examples builds the images of images/ and runs what is in examples/, as their makefiles
// say, with the real binary. On Linux the base images are those of test/images.sh; on FreeBSD the
// base is the machine's own.
package examples

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateNetwork(m)) }

const top = "../.."

// bench is a copy of the makefiles, and a root.
type bench struct {
	dir           string
	jetpack, make string // commands
	env           []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	testenv.Root(t)
	b := &bench{dir: t.TempDir(), make: bsdMake()}
	for _, d := range []string{"images", "examples", "share"} {
		if err := os.CopyFS(filepath.Join(b.dir, d), os.DirFS(filepath.Join(top, d))); err != nil {
			t.Fatal(err)
		}
	}
	bin := testenv.Program(t, "jetpack", "github.com/jetpack-run/jetpack/cmd/jetpack")
	mdc := testenv.Program(t, "ac-mdc", "github.com/jetpack-run/jetpack/cmd/ac-mdc")
	b.jetpack = bin
	libexec := filepath.Join(b.dir, "libexec")
	if err := os.Mkdir(libexec, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(mdc, filepath.Join(libexec, "ac-mdc."+runtime.GOOS)); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(b.dir, "jetpack.toml")
	settings := fmt.Sprintf("root = %q\nimage.compression = \"none\"\npath.share = %q\npath.libexec = %q\n", filepath.Join(b.dir, "root"), filepath.Join(b.dir, "share"), libexec)
	if lo := os.Getenv(testenv.Loopback); lo != "" {
		settings += fmt.Sprintf("freebsd.interface = %q\n", lo)
	}
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	b.env = append(os.Environ(), "JETPACK_CONFIG="+config, "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"), "MAKEFLAGS=", "SOURCE_DATE_EPOCH=")
	initialize := []string{"init"}
	if dataset := testenv.Dataset(t); dataset != "" {
		initialize = append(initialize, "--set", "storage.dataset="+dataset)
	}
	b.run(t, b.jetpack, initialize...)
	t.Cleanup(func() {
		b.run(t, "sh", "-c", "jetpack mds stop || [ $? = 3 ]") // it runs only if an example needed it
		b.run(t, b.jetpack, "system", "check")
		if out := b.run(t, b.jetpack, "pod", "list", "-q"); out != "" {
			t.Errorf("pods left: %s", out)
		}
	})
	return b
}

// run runs a command and gives what it prints.
func (b *bench) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = b.dir, b.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// base brings the image that all others build on.
func (b *bench) base(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "freebsd" {
		b.run(t, "tar", "-C", "/", "-cf", filepath.Join(b.dir, "base.tar"), "bin", "lib", "libexec", "sbin", "etc", "root", "tmp",
			"usr/bin", "usr/lib", "usr/libexec", "usr/sbin", "usr/share/misc", "usr/share/mk", "var/empty", "var/run")
		b.run(t, b.make, "-C", "images/freebsd-base", "ROOTFS="+filepath.Join(b.dir, "base.tar"))
		return
	}
	for _, name := range []string{"debian-base", "debian-services"} {
		file, err := filepath.Abs(filepath.Join(top, ".cache/images", name+".aci"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("%v: test/images.sh makes it", err)
		}
		b.run(t, b.jetpack, "image", "import", "--insecure=signature", file)
	}
}

func TestExamples(t *testing.T) {
	if runtime.GOOS == "linux" && os.Getenv("JETPACK_TEST_BIN") != "" {
		t.Skip("needs the images that test/images.sh makes")
	}
	b := newBench(t)
	b.base(t)

	t.Run("example.showenv", func(t *testing.T) {
		b.run(t, b.make, "-C", "images/example.showenv")
		out := b.run(t, b.jetpack, "run", "--rm", "--with-mdc", "--volume", "scratch", "example.com/showenv")
		for _, want := range []string{"pre-start: root", "GREETING=hello", "(nobody)", "/scratch", "image sha512-", "post-stop: root"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		// Nothing has changed: nothing is built.
		if out := b.run(t, b.make, "-C", "images/example.showenv"); strings.Contains(out, "image build") {
			t.Errorf("built again:\n%s", out)
		}
		source := filepath.Join(b.dir, "images/example.showenv/showenv")
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(source, append(text, "echo changed\n"...), 0o755); err != nil {
			t.Fatal(err)
		}
		if out := b.run(t, b.make, "-C", "images/example.showenv"); !strings.Contains(out, "image build") {
			t.Errorf("not built again:\n%s", out)
		}
		// With a time for all that is in it, it is the same whenever it is built.
		id := func() string {
			b.run(t, "env", "SOURCE_DATE_EPOCH=1000000000", b.make, "-C", "images/example.showenv", "clean", "image")
			return b.run(t, "cat", "images/example.showenv/image.aci.id")
		}
		if first, second := id(), id(); first != second {
			t.Errorf("built twice it is %s and %s", first, second)
		}
	})
	for _, tt := range []struct {
		name string
		says []string
		pkg  bool // it installs packages
	}{
		{name: "layers", says: []string{"each tenant costs its own files", "green 1\nred 1\nred 2"}},
		{name: "hmac", says: []string{"\nsigned by that pod", "not signed by that pod"}},
		{name: "discovery", says: []string{"404", "meta discovery for localhost/apps", "hello from another host", "it came from the other host"}},
		{name: "bsdcan", pkg: true, says: []string{
			"as in pod.golden.json", "message: hello BSDCan", "notes: Mind the gap.", "writable: no: Read-only file system",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.pkg {
				needsPackages(t)
			}
			out := b.run(t, b.make, "-C", filepath.Join("examples", tt.name), "run")
			for _, want := range tt.says {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
			if tt.name == "layers" {
				again := func(want int) {
					out := b.run(t, b.make, "-C", "examples/layers", "images")
					if got := strings.Count(out, "image build"); got != want {
						t.Errorf("made %d images again, not %d:\n%s", got, want, out)
					}
				}
				again(0)
				b.run(t, "sh", "-c", "sed s/rules/laws/ examples/layers/base/Makefile >new && mv new examples/layers/base/Makefile")
				again(5) // the base, the runtime on it, and each tenant's app on that
			}
			b.run(t, b.make, "-C", filepath.Join("examples", tt.name), "clean")
		})
	}
	t.Run("example.nginx", func(t *testing.T) {
		needsPackages(t)
		b.run(t, b.make, "-C", "images/example.nginx")
		out := b.run(t, "sh", "-c", `get() { if command -v curl >/dev/null; then curl -sSf "$1"; else fetch -qo - "$1"; fi; }
			jetpack run --rm example.com/nginx >nginx.log 2>&1 & pod=$!
			n=0; until address=$(jetpack pod list --format '{{index .addresses 0}}') && [ -n "$address" ] && get "http://$address/" || [ $n = 300 ]; do
				n=$((n+1)); sleep 0.1
			done 2>/dev/null
			kill -TERM $pod; wait $pod || :`)
		if !strings.Contains(out, "nginx in a pod") {
			t.Errorf("it serves %q", out)
		}
	})
}

// needsPackages skips a test on a FreeBSD that installs no packages itself.
func needsPackages(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "freebsd" {
		return
	}
	if _, err := exec.LookPath("pkg-static"); err != nil {
		t.Skip("needs pkg(8) and a repository of packages")
	}
}

// standIn makes a directory of commands with a jetpack that does nothing but what the makefiles
// need, and gives the file that it writes down what it is asked for. What it knows of a parent is in
// the file parent.
func standIn(t *testing.T, share string) (bin, log string) {
	t.Helper()
	bin = t.TempDir()
	log = filepath.Join(t.TempDir(), "log")
	command(t, bin, "jetpack", fmt.Sprintf("case $* in\n'config path.share') echo %s; exit ;;\n*'image manifest'*) exit ;;\n*'image inspect'*) cat %s; exit ;;\nesac\necho \"$*\" >>%s\n"+
		"for a; do case $a in --save-id=*) echo sha512-made >\"${a#*=}\" ;; *.aci) : >\"$a\" ;; esac; done\ncase $* in *'image create'*) echo sha512-made ;; esac\n", share, filepath.Join(bin, "parent"), log))
	if err := os.WriteFile(filepath.Join(bin, "parent"), []byte("[\n  {\n    \"id\": \"sha512-parent\",\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return bin, log
}

// command makes a command of a shell script.
func command(t *testing.T, bin, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestDebianBase makes two images of debian-base, with stand-ins for what makes them.
func TestDebianBase(t *testing.T) {
	share, err := filepath.Abs(filepath.Join(top, "share"))
	if err != nil {
		t.Fatal(err)
	}
	bin, log := standIn(t, share)
	command(t, bin, "dpkg", "echo arm64")
	command(t, bin, "debootstrap", "mkdir -p rootfs/etc; echo 12.1 >rootfs/etc/debian_version; echo mine | tee rootfs/etc/resolv.conf >rootfs/etc/hostname")
	dir := filepath.Join(t.TempDir(), "debian-base")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(top, "images/debian-base"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"example.com/debian-base", "example.com/debian-services"} {
		cmd := exec.CommandContext(t.Context(), bsdMake(), "NAME="+name)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "MAKEFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if made := strings.Count(string(text), "image create"); made != 2 {
		t.Errorf("it made %d images, not one of each name:\n%s", made, text)
	}
	for _, name := range []string{"resolv.conf", "hostname"} {
		if _, err := os.Lstat(filepath.Join(dir, "rootfs/etc", name)); err == nil {
			t.Errorf("the image has this host's %s", name)
		}
	}
}

// TestFreeBSDBase makes images of releases that are not this host's.
func TestFreeBSDBase(t *testing.T) {
	share, err := filepath.Abs(filepath.Join(top, "share"))
	if err != nil {
		t.Fatal(err)
	}
	const version = "mkdir -p t/bin; echo 'USERLAND_VERSION=\"13.2-RELEASE-p4\"' >t/bin/freebsd-version"
	for _, tt := range []struct{ name, root, make, says string }{
		{name: "a tree", root: "t", make: version},
		{name: "an archive", root: "base.txz", make: version + "; tar -cJf base.txz -C t bin"},
		{name: "an archive with dots", root: "base.txz", make: version + "; tar -cJf base.txz -C t ./bin"},
		{name: "another tree", root: "t", make: "mkdir -p t/bin", says: "t: no bin/freebsd-version"},
		{name: "another archive", root: "base.txz", make: "mkdir -p t/bin; tar -cJf base.txz -C t .", says: "base.txz: no bin/freebsd-version"},
		{name: "none", root: "base.txz", make: ":", says: "base.txz: no bin/freebsd-version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bin, _ := standIn(t, share)
			dir := filepath.Join(t.TempDir(), "freebsd-base")
			if err := os.CopyFS(dir, os.DirFS(filepath.Join(top, "images/freebsd-base"))); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", tt.make+"; exec "+bsdMake()+" ROOTFS="+tt.root+" ARCH=arm64")
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "MAKEFLAGS=")
			out, err := cmd.CombinedOutput()
			if (err != nil) != (tt.says != "") || !strings.Contains(string(out), tt.says) {
				t.Fatalf("%v\n%s", err, out)
			}
			if tt.says != "" {
				return
			}
			manifest, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{`{"name": "version", "value": "13.2"}`, `{"name": "arch", "value": "aarch64"}`, `{"name": "os.version", "value": "13.2-RELEASE"}`} {
				if !strings.Contains(string(manifest), want) {
					t.Errorf("no %s in %s", want, manifest)
				}
			}
		})
	}
}

// bsdMake is the name of BSD make here.
func bsdMake() string {
	if runtime.GOOS == "freebsd" {
		return "make"
	}
	return "bmake"
}

// TestImageMake tests share/jetpack.image.mk with a stand-in for jetpack: what it runs, for what
// is set.
func TestImageMake(t *testing.T) {
	share, err := filepath.Abs(filepath.Join(top, "share"))
	if err != nil {
		t.Fatal(err)
	}
	const first = ".include <${.jetpack.image.mk:U${${JETPACK:Ujetpack} config path.share:L:sh}/jetpack.image.mk}>\n"
	second := ".MAKEFLAGS: -I" + share + "\n.include \"jetpack.image.mk\"\n"
	for _, tt := range []struct {
		name, makefile, target string
		want                   []string // lines that are run
		fails                  string
	}{
		{
			name: "the first form", makefile: "PARENT_IMAGE = example.com/p\n" + first, target: "image",
			want: []string{"image build --net=host --dir=. --cp=SHARE/jetpack.image.mk --cp=SHARE/jetpack.make --cp=.jetpack.make --save-id=image.aci.id example.com/p -- sh ./jetpack.make .jetpack.build. .jetpack.image.mk=./jetpack.image.mk"},
		},
		{
			name: "the second form", makefile: "PARENT_IMAGE = example.com/p\n" + second, target: "image",
			want: []string{"image build --net=host --dir=. --cp=SHARE/jetpack.image.mk --cp=SHARE/jetpack.make --cp=.jetpack.make --save-id=image.aci.id example.com/p -- sh ./jetpack.make .jetpack.build. .jetpack.image.mk=./jetpack.image.mk"},
		},
		{
			name: "all variables",
			makefile: "PARENT_IMAGE = example.com/p:1\nBUILD_DIR = src\nBUILD_CP = a.txt\nBUILD_CP_JETPACK_IMAGE_MK = no\nBUILD_COMMAND = ./build.sh\n" +
				"BUILD_ARGS = x\nONE = it's 1\nBUILD_VARS = ONE NONE\nBUILD_NET = none\nACI_FILE = my.aci\nDEBUG = 1\nJETPACK_FLAGS = --root=/r\n" + first, target: "aci",
			want: []string{
				"--root=/r --log-level=debug image build --net=none --dir=src --cp=a.txt --save-id=my.aci.id example.com/p:1 -- ./build.sh x ONE=it's 1",
				"--root=/r --log-level=debug image export sha512-made my.aci",
			},
		},
		{
			name: "flat", makefile: "PARENT_IMAGE = p\nBUILD_COMMAND = b\nBUILD_CP_JETPACK_IMAGE_MK = no\n" + first, target: "flat-aci",
			want: []string{"image build --net=host --dir=. --save-id=image.aci.id p -- b", "image export --flat sha512-made image.flat.aci"},
		},
		{
			name: "sign", makefile: "PARENT_IMAGE = p\nBUILD_COMMAND = b\nBUILD_CP_JETPACK_IMAGE_MK = no\nSIGN_KEY = k\n" + first, target: "sign",
			want: []string{"image build --net=host --dir=. --save-id=image.aci.id p -- b", "image export sha512-made image.aci", "image sign --sign=k image.aci"},
		},
		{
			name: "publish", makefile: "PARENT_IMAGE = p\nBUILD_COMMAND = b\nBUILD_CP_JETPACK_IMAGE_MK = no\nSIGN_GPG = me@example.com\nREPO = repo\n" + first, target: "publish",
			want: []string{"image build --net=host --dir=. --save-id=image.aci.id p -- b", "image export sha512-made image.aci", "repo add --replace --gpg=me@example.com repo image.aci"},
		},
		{
			name: "a root", makefile: "ROOTFS = base.tar\nmanifest.json:\n\techo {} >${.TARGET}\n" + first, target: "image",
			want: []string{"image create --rootfs=base.tar --manifest=manifest.json"},
		},
		{name: "no parent", makefile: first, target: "image", fails: "neither PARENT_IMAGE nor ROOTFS is defined"},
		{name: "no repository", makefile: "PARENT_IMAGE = p\n" + first, target: "publish", fails: "REPO is not defined"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, text string, mode os.FileMode) {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
					t.Fatal(err)
				}
			}
			stub, log := standIn(t, share)
			write("Makefile", tt.makefile, 0o644)
			write("src/x", "x", 0o644)
			write("a.txt", "x", 0o644)
			run := func(target string) string {
				cmd := exec.CommandContext(t.Context(), bsdMake(), target)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "PATH="+stub+":"+os.Getenv("PATH"), "MAKEFLAGS=")
				out, err := cmd.CombinedOutput()
				if (err != nil) != (tt.fails != "" && target != "clean") {
					t.Fatalf("%v\n%s", err, out)
				}
				return string(out)
			}
			out := run(tt.target)
			if tt.fails != "" {
				if !strings.Contains(out, tt.fails) {
					t.Errorf("it says:\n%s", out)
				}
				return
			}
			text, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), share, "SHARE")), "\n")
			for i := range got {
				got[i] = strings.Join(strings.Fields(got[i]), " ")
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("it ran\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			// Nothing has changed but what the build itself does: a repository has grown.
			if strings.Contains(tt.makefile, "REPO =") {
				write("repo/page", "x", 0o644)
			}
			if err := os.Remove(log); err != nil {
				t.Fatal(err)
			}
			run(tt.target)
			if text, err := os.ReadFile(log); err == nil && (bytes.Contains(text, []byte("image build")) || bytes.Contains(text, []byte("image create"))) {
				t.Errorf("again it ran\n%s", text)
			}
			run("clean")
			for _, left := range []string{"image.aci", "image.aci.id", "my.aci", "my.aci.id", "image.aci.id.from", "image.flat.aci", ".jetpack.make"} {
				if _, err := os.Stat(filepath.Join(dir, left)); err == nil {
					t.Errorf("make clean leaves %s", left)
				}
			}
		})
	}
}

// TestImageMakeAgain tests when share/jetpack.image.mk builds an image again.
func TestImageMakeAgain(t *testing.T) {
	share, err := filepath.Abs(filepath.Join(top, "share"))
	if err != nil {
		t.Fatal(err)
	}
	include := ".include \"" + share + "/jetpack.image.mk\"\n"
	const parent = "PARENT_IMAGE ?= p\nBUILD_DIR = src\nBUILD_CP = more.txt\nBUILD_COMMAND = b\nBUILD_ARGS = $$(date)\n.include \"own.mk\"\n"
	const root = "ROOTFS = base.tar\nmanifest.json: .PHONY\n\techo {} >${.TARGET}\n"
	for _, tt := range []struct {
		name, makefile string
		change         string // a command, between the first time and the second
		args           []string
		same           bool
	}{
		{name: "nothing", makefile: parent, same: true},
		{name: "nothing of a root", makefile: root, same: true},
		{name: "a product", makefile: "BUILD_DIR = .\n" + parent, change: "echo x >image.aci; echo x >image.aci.asc", same: true},
		{name: "a file", makefile: parent, change: "echo y >src/x"},
		{name: "a file with an old time", makefile: parent, change: "echo y >new; touch -t 200001010000 new; mv new src/x"},
		{name: "another file with an old time", makefile: parent, change: "echo y >new; touch -t 200001010000 new; mv new more.txt"},
		{name: "a file less", makefile: parent, change: "rm src/gone"},
		{name: "a file of a directory less", makefile: parent, change: "rm src/dir/gone"},
		{name: "the makefile", makefile: parent, change: "echo >>Makefile"},
		{name: "an included makefile", makefile: parent, change: "echo >>own.mk"},
		{name: "the parent was built again", makefile: parent, change: `sed s/sha512-parent/sha512-other/ "$BIN/parent" >new; mv new "$BIN/parent"`},
		{name: "another parent", makefile: parent, args: []string{"PARENT_IMAGE=q"}},
		{name: "another argument", makefile: parent, args: []string{"BUILD_ARGS=x"}},
		{name: "a root with an old time", makefile: root, change: "echo y >new; touch -t 200001010000 new; mv new base.tar"},
		{name: "another root", makefile: root, args: []string{"ROOTFS=src"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bin, log := standIn(t, share)
			dir := t.TempDir()
			run := func(name string, args ...string) {
				cmd := exec.CommandContext(t.Context(), name, args...)
				cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "MAKEFLAGS=", "BIN="+bin)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
				}
			}
			made := func() int {
				text, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				return strings.Count(string(text), "image build ") + strings.Count(string(text), "image create ")
			}
			run("sh", "-c", "mkdir -p src/dir; touch src/x src/gone src/dir/gone more.txt base.tar own.mk")
			if err := os.WriteFile(filepath.Join(dir, "Makefile"), []byte(tt.makefile+include), 0o600); err != nil {
				t.Fatal(err)
			}
			run(bsdMake())
			// File systems tell no more than ticks of the clock apart.
			run("sh", "-c", "until [ -n \"$(find now -newer image.aci.id 2>/dev/null)\" ]; do touch now; done; rm now; "+tt.change)
			run(bsdMake(), tt.args...)
			want := 2
			if tt.same {
				want = 1
			}
			if got := made(); got != want {
				t.Errorf("it was made %d times, not %d", got, want)
			}
			run(bsdMake(), tt.args...)
			if got := made(); got > want {
				t.Errorf("with nothing changed it was made %d times, not %d", got, want)
			}
		})
	}
}
