//go:build unix

package sandbox

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// elfFile is a program for no machine in particular that names an interpreter.
func elfFile(order binary.ByteOrder, class elf.Class, interpreter string) string {
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(class), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	if order == binary.BigEndian {
		ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	var parts []any
	size := uint64(len(interpreter) + 1)
	if class == elf.ELFCLASS64 {
		header := elf.Header64{Ident: ident, Phoff: 64, Phentsize: 56, Phnum: 2}
		parts = []any{header, elf.Prog64{Type: uint32(elf.PT_LOAD)}, elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 64 + 2*56, Filesz: size}}
	} else {
		header := elf.Header32{Ident: ident, Phoff: 52, Phentsize: 32, Phnum: 2}
		parts = []any{header, elf.Prog32{Type: uint32(elf.PT_LOAD)}, elf.Prog32{Type: uint32(elf.PT_INTERP), Off: 52 + 2*32, Filesz: uint32(size)}}
	}
	var buf bytes.Buffer
	for _, part := range parts {
		_ = binary.Write(&buf, order, part) // a buffer takes everything
	}
	return buf.String() + interpreter + "\x00"
}

var staticELF = func() string {
	var buf bytes.Buffer
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)}
	_ = binary.Write(&buf, binary.LittleEndian, elf.Header64{Ident: ident, Phoff: 64, Phentsize: 56})
	return buf.String()
}()

// testRoot makes a root: a path ending in "/" is a directory, content "-> x" a
// symbolic link, a path starting with "+" executable.
func testRoot(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		name, executable := strings.CutPrefix(files[i], "+")
		mode := os.FileMode(0o644)
		if executable {
			mode = 0o755
		}
		file := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(file), 0o755)
		if target, ok := strings.CutPrefix(files[i+1], "-> "); ok {
			err = errors.Join(err, os.Symlink(target, file))
		} else if strings.HasSuffix(name, "/") {
			err = errors.Join(err, os.MkdirAll(file, 0o755))
		} else {
			err = errors.Join(err, os.WriteFile(file, []byte(files[i+1]), mode))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestResolveCommand(t *testing.T) {
	root := testRoot(t,
		"+bin/static", staticELF,
		"+bin/dynamic", elfFile(binary.LittleEndian, elf.ELFCLASS64, "/lib/ld.so"),
		"+bin/dynamic32", elfFile(binary.LittleEndian, elf.ELFCLASS32, "/lib/ld.so"),
		"+bin/bigendian", elfFile(binary.BigEndian, elf.ELFCLASS64, "/lib/ld.so"),
		"+bin/bigendian32", elfFile(binary.BigEndian, elf.ELFCLASS32, "/lib/missing.so"),
		"+bin/noloader", elfFile(binary.LittleEndian, elf.ELFCLASS64, "/lib64/ld-linux-x86-64.so.2"),
		"+bin/longloader", elfFile(binary.LittleEndian, elf.ELFCLASS64, "/"+strings.Repeat("x", 5000)),
		"+bin/noelf", "\x7fELF", "+bin/text", "text\n", "+bin/empty", "",
		"+bin/sh", "#!/bin/static\n", "+bin/crlf", "#!/bin/static\r\necho\r\n", "+bin/bare", "#! \t\n",
		"+bin/relative", "#!static -x\n", "+bin/nested", "#! /bin/sh -e\n", "+bin/loop", "#!/bin/loop\n",
		"+bin/deadend", "#!/bin/noloader\n", "+bin/data-script", "#!/data\n",
		"bin/plain", staticELF, "data", "data", "+usr/bin/both", staticELF, "+bin/both", "text",
		"+lib/ld.so", "anything", "+work/here", staticELF, "work/sub/", "", "+up", staticELF,
		"bin/link", "-> /bin/static", "bin/escape", "-> ../../../../bin/static", "bin/dangling", "-> /nowhere",
		"bin/self", "-> self", "dir", "-> /work/sub", "+bin/vol", "text",
		"bin/dir/", "",
	)
	volume := testRoot(t, "+tool", staticELF, "+script", "#!/vol/tool\n", "+sub/tool", staticELF)
	app := App{Name: "app", Root: root, Mounts: []Mount{
		{Source: volume, Target: "/vol"},
		{Source: filepath.Join(volume, "tool"), Target: "/bin/vol"},
	}}
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin"}

	for _, tt := range []struct {
		name    string
		process Process
		want    string
		err     error
		text    string
	}{
		{"absolute", Process{Args: []string{"/bin/static"}}, "/bin/static", nil, ""},
		{"in PATH", Process{Args: []string{"static"}, Env: env}, "/bin/static", nil, ""},
		{"last PATH counts", Process{Args: []string{"static"}, Env: []string{"PATH=/none", "PATH=/bin"}}, "/bin/static", nil, ""},
		{"first in PATH", Process{Args: []string{"both"}, Env: env}, "/usr/bin/both", nil, ""},
		{"not executable ones are passed over", Process{Args: []string{"static"}, Env: []string{"PATH=/data:/bin"}}, "/bin/static", nil, ""},
		{"no PATH: directory", Process{Args: []string{"here"}, Dir: "/work"}, "/work/here", nil, ""},
		{"no PATH: /usr/bin", Process{Args: []string{"both"}}, "/usr/bin/both", nil, ""},
		{"no PATH: /bin", Process{Args: []string{"static"}}, "/bin/static", nil, ""},
		{"PATH without the directory", Process{Args: []string{"here"}, Dir: "/work", Env: env}, "", ErrCommandNotFound, "here: command not found"},
		{"empty element is the directory", Process{Args: []string{"here"}, Dir: "/work", Env: []string{"PATH=/bin:"}}, "/work//here", nil, ""},
		{"relative element", Process{Args: []string{"here"}, Env: []string{"PATH=work"}}, "//work/here", nil, ""},
		{"relative", Process{Args: []string{"./here"}, Dir: "/work"}, "/work/./here", nil, ""},
		{"relative above a link", Process{Args: []string{"../here"}, Dir: "/dir"}, "/dir/../here", nil, ""},
		{"above the root", Process{Args: []string{"/../../up"}}, "/../../up", nil, ""},
		{"link", Process{Args: []string{"/bin/link"}}, "/bin/link", nil, ""},
		{"link upwards", Process{Args: []string{"/bin/escape"}}, "/bin/escape", nil, ""},
		{"dangling link", Process{Args: []string{"/bin/dangling"}}, "", ErrCommandNotFound, "/bin/dangling"},
		{"link to itself", Process{Args: []string{"/bin/self"}}, "", ErrCommandNotFound, "/bin/self"},
		{"below a file", Process{Args: []string{"/data/x"}}, "", ErrCommandNotFound, "/data/x"},
		{"missing", Process{Args: []string{"/bin/none"}}, "", ErrCommandNotFound, "/bin/none: command not found"},
		{"missing, with a strange name", Process{Args: []string{"/bin/a\nb\x1b"}}, "", ErrCommandNotFound, `"/bin/a\nb\x1b"`},
		{"NUL", Process{Args: []string{"/bin/a\x00b"}}, "", ErrCommandNotFound, ""},
		{"no arguments", Process{}, "", ErrCommandNotFound, "empty command"},
		{"empty name", Process{Args: []string{""}}, "", ErrCommandNotFound, "empty command"},
		{"directory", Process{Args: []string{"/bin/dir"}}, "", ErrCommandNotExecutable, "not a regular file"},
		{"no execute bit", Process{Args: []string{"/bin/plain"}}, "", ErrCommandNotExecutable, "/bin/plain: permission denied"},
		{"no execute bit, searched", Process{Args: []string{"plain"}, Env: env}, "", ErrCommandNotExecutable, "/bin/plain: permission denied"},
		{"text", Process{Args: []string{"/bin/text"}}, "", ErrCommandNotExecutable, "/bin/text: exec format error"},
		{"empty file", Process{Args: []string{"/bin/empty"}}, "", ErrCommandNotExecutable, "exec format error"},
		{"cut ELF", Process{Args: []string{"/bin/noelf"}}, "", ErrCommandNotExecutable, "malformed ELF"},
		{"dynamic", Process{Args: []string{"/bin/dynamic"}}, "/bin/dynamic", nil, ""},
		{"dynamic, 32 bits", Process{Args: []string{"/bin/dynamic32"}}, "/bin/dynamic32", nil, ""},
		{"dynamic, big-endian", Process{Args: []string{"/bin/bigendian"}}, "/bin/bigendian", nil, ""},
		{"loader missing, 32 bits big-endian", Process{Args: []string{"/bin/bigendian32"}}, "", ErrCommandNotFound, "/lib/missing.so"},
		{"loader missing", Process{Args: []string{"/bin/noloader"}}, "", ErrCommandNotFound, "/bin/noloader: its interpreter /lib64/ld-linux-x86-64.so.2 is not in the image"},
		{"loader name too long", Process{Args: []string{"/bin/longloader"}}, "", ErrCommandNotExecutable, "malformed ELF"},
		{"script", Process{Args: []string{"/bin/sh"}}, "/bin/sh", nil, ""},
		{"nested script", Process{Args: []string{"/bin/nested"}}, "/bin/nested", nil, ""},
		{"endless script", Process{Args: []string{"/bin/loop"}}, "", ErrCommandNotExecutable, "too many nested interpreters"},
		{"script of a program without loader", Process{Args: []string{"/bin/deadend"}}, "", ErrCommandNotFound, "/bin/noloader: its interpreter"},
		{"script with DOS line ends", Process{Args: []string{"/bin/crlf"}}, "", ErrCommandNotFound, `its interpreter "/bin/static\r" is not in the image`},
		{"script without interpreter", Process{Args: []string{"/bin/bare"}}, "", ErrCommandNotExecutable, "no interpreter"},
		{"script of data", Process{Args: []string{"/bin/data-script"}}, "", ErrCommandNotExecutable, "/data: permission denied"},
		{"script, relative interpreter", Process{Args: []string{"/bin/relative"}, Dir: "/bin"}, "/bin/relative", nil, ""},
		{"in a volume", Process{Args: []string{"/vol/sub/tool"}}, "/vol/sub/tool", nil, ""},
		{"script and interpreter in a volume", Process{Args: []string{"/vol/script"}}, "/vol/script", nil, ""},
		{"mounted file", Process{Args: []string{"/bin/vol"}}, "/bin/vol", nil, ""},
		{"no directory", Process{Args: []string{"/bin/static"}, Dir: "/none"}, "", ErrNoWorkDir, "/none"},
		{"directory is a file", Process{Args: []string{"/bin/static"}, Dir: "/data"}, "", ErrNoWorkDir, "/data is not a directory"},
		{"directory below a file", Process{Args: []string{"/bin/static"}, Dir: "/data/x"}, "", ErrNoWorkDir, "/data/x"},
		{"directory in a volume", Process{Args: []string{"./tool"}, Dir: "/vol/sub"}, "/vol/sub/./tool", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.process.Dir == "" {
				tt.process.Dir = "/"
			}
			got, err := ResolveCommand(app, tt.process)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("ResolveCommand = %q, %v, want %q, %v", got, err, tt.want, tt.err)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.text) || strings.ContainsAny(err.Error(), "\n\x1b")) {
				t.Errorf("error %q, want %q", err, tt.text)
			}
		})
	}
}

func TestResolveCommandWithoutRoot(t *testing.T) {
	_, err := ResolveCommand(App{Name: "app", Root: "/nonexistent"}, Process{Args: []string{"/x"}, Dir: "/"})
	if err == nil || errors.Is(err, ErrCommandNotFound) || errors.Is(err, ErrNoWorkDir) {
		t.Errorf("ResolveCommand = %v, want neither sentinel", err)
	}
}

func TestMayExecute(t *testing.T) {
	root := testRoot(t, "f", staticELF)
	file := filepath.Join(root, "f")
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	for _, tt := range []struct {
		name   string
		mode   os.FileMode
		uid    uint32
		gid    uint32
		groups []uint32
		want   bool
	}{
		{"others may", 0o001, uid + 1, gid + 1, nil, true},
		{"others may not", 0o110, uid + 1, gid + 1, nil, false},
		{"group may", 0o010, uid + 1, gid, nil, true},
		{"group may not although others may", 0o101, uid + 1, gid, nil, false},
		{"supplementary group may", 0o010, uid + 1, gid + 1, []uint32{9, gid}, true},
		{"supplementary group may not although others may", 0o101, uid + 1, gid + 1, []uint32{gid}, false},
		{"root may with any bit", 0o001, 0, gid, nil, true},
		{"root may not without a bit", 0o666, 0, 0, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.Chmod(file, tt.mode|0o400); err != nil {
				t.Fatal(err)
			}
			_, err := ResolveCommand(App{Name: "app", Root: root}, Process{
				Args: []string{"/f"}, Dir: "/", UID: tt.uid, GID: tt.gid, Groups: tt.groups,
			})
			if (err == nil) != tt.want || err != nil && !errors.Is(err, ErrCommandNotExecutable) {
				t.Errorf("ResolveCommand = %v, want permission %v", err, tt.want)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		exit Exit
		want int
	}{{Exit{}, 0}, {Exit{Code: 7}, 7}, {Exit{Signal: 9}, 137}, {Exit{Code: 3, Unknown: true}, 255}} {
		if got := tt.exit.Status(); got != tt.want {
			t.Errorf("%+v.Status() = %d, want %d", tt.exit, got, tt.want)
		}
	}
}

// FuzzReadHeader feeds what an image may have as a program.
func FuzzReadHeader(f *testing.F) {
	for _, seed := range []string{
		"", "#!", "#! /bin/sh -x\n", "#!\x00", "\x7fELF", staticELF,
		elfFile(binary.LittleEndian, elf.ELFCLASS64, "/lib/ld.so"), elfFile(binary.BigEndian, elf.ELFCLASS64, "/lib/ld.so"),
		elfFile(binary.LittleEndian, elf.ELFCLASS32, "/lib/ld.so"), elfFile(binary.BigEndian, elf.ELFCLASS32, ""),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, interpreter, err := readHeader(bytes.NewReader(data))
		if err != nil && !errors.Is(err, ErrCommandNotExecutable) {
			t.Errorf("error %v", err)
		}
		if len(interpreter) > maxInterpreter || strings.Contains(interpreter, "\x00") {
			t.Errorf("interpreter %q", interpreter)
		}
		if q := shown(interpreter); strings.ContainsAny(q, "\n\x1b") {
			t.Errorf("shown as %q", q)
		}
	})
}
