package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/internal/inroot"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

const passwd = `# a comment
root:x:0:0:root:/root:/bin/sh
toor:*:0:0::/root:/bin/csh
web:x:100:101:Web:/home/web:/bin/false
1000:x:7:8::/home/digits:
bare:x:9:9

noid:x
words:x:five:5::/:/bin/sh
blank:x: 6:6::/:/bin/sh
empty:x::6::/:/bin/sh
minus:x:-1:-1::/:/bin/sh
plus:x:+3:3::/:/bin/sh
last:x:4294967294:4294967294::/:/bin/sh
over:x:4294967295:4294967295::/:/bin/sh
huge:x:99999999999999999999:1::/:/bin/sh
wrap:x:18446744073709551616:1::/:/bin/sh
`

const group = `root:x:0:
www:x:101:web,root
1000:x:8:
noid:x
words:x:five:
over:x:4294967295:
`

// fileRoot is a root with files, given by path; a value that begins with "-> " is a
// symbolic link, a path that ends with a slash is a directory, and what holds
// "owned" is owned by 1234:1235.
func fileRoot(t *testing.T, files map[string]string) *inroot.Root {
	t.Helper()
	dir := t.TempDir()
	if err := fillRoot(dir, files); err != nil {
		t.Fatal(err)
	}
	root, err := inroot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return root
}

func fillRoot(dir string, files map[string]string) error {
	for name, content := range files {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				return err
			}
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
		if content == "owned" {
			if err := os.Chown(path, 1234, 1235); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestLookUp(t *testing.T) {
	testenv.Root(t)
	// What the host has, and the image must not reach.
	host := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(host, []byte("web:x:666:666::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20) + strings.TrimPrefix(host, "/")
	both := map[string]string{"/etc/passwd": passwd, "/etc/group": group}
	none := map[string]string{"/etc/": ""}
	tests := []struct {
		name        string
		files       map[string]string
		user, group string
		gids        []int
		want        string // "uid:gid:groups:name:home:shell"
		fails       string
	}{
		{"names", both, "web", "www", []int{7, 8}, "100:101:[7 8]:web:/home/web:/bin/false", ""},
		{"name and number", both, "web", "5", nil, "100:5:[]:web:/home/web:/bin/false", ""},
		{"the name that was asked for", both, "toor", "0", nil, "0:0:[]:toor:/root:/bin/csh", ""},
		{"the first name of a number", both, "0", "0", nil, "0:0:[]:root:/root:/bin/sh", ""},
		{"digits are a name first", both, "1000", "1000", nil, "7:8:[]:1000:/home/digits:/bin/sh", ""},
		{"digits without such a name", both, "1001", "1001", nil, "1001:1001:[]::/:/bin/sh", ""},
		{"short line", both, "bare", "0", nil, "9:0:[]:bare:/:/bin/sh", ""},
		{"largest id", both, "last", "4294967294", nil, "4294967294:4294967294:[]:last:/:/bin/sh", ""},
		{"number of a user", both, "100", "101", nil, "100:101:[]:web:/home/web:/bin/false", ""},
		{"no files", none, "0", "0", nil, "0:0:[]::/:/bin/sh", ""},
		{"no /etc", map[string]string{}, "5", "6", nil, "5:6:[]::/:/bin/sh", ""},
		{"name without files", none, "web", "0", nil, "", `unknown user "web"`},
		{"group without files", none, "0", "www", nil, "", `unknown group "www"`},
		{"unknown user", both, "nobody", "0", nil, "", `unknown user "nobody"`},
		{"unknown group", both, "0", "web", nil, "", `unknown group "web"`},
		{"empty", both, "", "0", nil, "", `unknown user ""`},
		{"not quite a number", both, "5x", "0", nil, "", `unknown user "5x"`},
		{"hexadecimal", both, "0x0", "0", nil, "", `unknown user "0x0"`},
		{"negative", both, "-1", "0", nil, "", "unknown user"},
		{"signed", both, "+5", "0", nil, "", "unknown user"},
		{"negative group", both, "0", "-1", nil, "", "unknown group"},
		{"out of range", both, "4294967295", "0", nil, "", "out of range"},
		{"far out of range", both, "18446744073709551616", "0", nil, "", "unknown user"},
		{"group out of range", both, "0", "4294967295", nil, "", "out of range"},
		{"supplementary group out of range", both, "0", "0", []int{4294967295}, "", "out of range"},
		{"negative supplementary group", both, "0", "0", []int{-1}, "", "out of range"},
		{"too many supplementary groups", both, "0", "0", make([]int, maxGroups+1), "", "supplementary groups, at most"},
		// A line that makes no sense does not make somebody root.
		{"line without id", both, "noid", "0", nil, "", `unknown user "noid"`},
		{"id that is a word", both, "words", "0", nil, "", `unknown user "words"`},
		{"id with a blank", both, "blank", "0", nil, "", `unknown user "blank"`},
		{"empty id", both, "empty", "0", nil, "", `unknown user "empty"`},
		{"negative id", both, "minus", "0", nil, "", `unknown user "minus"`},
		{"signed id", both, "plus", "0", nil, "", `unknown user "plus"`},
		{"id out of range", both, "over", "0", nil, "", "out of range"},
		{"id far out of range", both, "huge", "0", nil, "", `unknown user "huge"`},
		{"id that wraps around", both, "wrap", "0", nil, "", `unknown user "wrap"`},
		{"group line without id", both, "0", "noid", nil, "", `unknown group "noid"`},
		{"group id that is a word", both, "0", "words", nil, "", `unknown group "words"`},
		{"group id out of range", both, "0", "over", nil, "", "out of range"},
		{"comment", both, "# a comment", "0", nil, "", "unknown user"},
		// Paths
		{"path", map[string]string{"/f": "owned"}, "/f", "/f", nil, "1234:1235:[]::/:/bin/sh", ""},
		{"path through a link", map[string]string{"/f": "owned", "/l": "-> /f"}, "/l", "/l", nil, "1234:1235:[]::/:/bin/sh", ""},
		{"missing path", none, "/none", "0", nil, "", `user "/none"`},
		{"missing path of the group", none, "0", "/none", nil, "", `group "/none"`},
		{"path that leaves the root", map[string]string{"/l": "-> " + host}, "/l", "0", nil, "", `user "/l"`},
		{"relative path", map[string]string{"/f": "owned"}, "f", "0", nil, "", `unknown user "f"`},
		// Links
		{"linked inside", map[string]string{"/etc/passwd": "-> /usr/etc/passwd", "/usr/etc/passwd": passwd}, "web", "0", nil,
			"100:0:[]:web:/home/web:/bin/false", ""},
		{"linked relatively", map[string]string{"/etc/passwd": "-> ../usr/etc/passwd", "/usr/etc/passwd": passwd}, "web", "0", nil,
			"100:0:[]:web:/home/web:/bin/false", ""},
		{"linked to the host", map[string]string{"/etc/passwd": "-> " + host}, "web", "0", nil, "", `unknown user "web"`},
		{"linked upwards", map[string]string{"/etc/passwd": "-> " + up}, "web", "0", nil, "", `unknown user "web"`},
		{"/etc linked to the host", map[string]string{"/etc": "-> " + filepath.Dir(host)}, "web", "0", nil, "", `unknown user "web"`},
		{"loop", map[string]string{"/etc/passwd": "-> passwd"}, "0", "0", nil, "", "/etc/passwd"},
		// Sizes and kinds
		{"directory", map[string]string{"/etc/passwd/": ""}, "0", "0", nil, "", "not a regular file"},
		{"huge passwd", map[string]string{"/etc/passwd": strings.Repeat("x", maxAccounts+1)}, "0", "0", nil, "", "too large"},
		{"huge group", map[string]string{"/etc/group": strings.Repeat("x", maxAccounts+1)}, "0", "0", nil, "", "too large"},
		{"large", map[string]string{"/etc/passwd": strings.Repeat("x\n", maxAccounts/4) + passwd}, "web", "0", nil, "100:0:[]:web:/home/web:/bin/false", ""},
		{"long line", map[string]string{"/etc/passwd": strings.Repeat("x", 100_000) + "\n" + passwd}, "web", "0", nil, "100:0:[]:web:/home/web:/bin/false", ""},
		{"binary", map[string]string{"/etc/passwd": "\x00\xff:::\n\n:\n::::::::\n" + passwd}, "web", "0", nil, "100:0:[]:web:/home/web:/bin/false", ""},
		{"carriage returns", map[string]string{"/etc/passwd": "dos:x:5\r\n"}, "dos", "0", nil, "5:0:[]:dos:/:/bin/sh", ""},
		{"no final newline", map[string]string{"/etc/passwd": "end:x:5:5::/e:/s"}, "end", "0", nil, "5:0:[]:end:/e:/s", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := fileRoot(t, tt.files)
			id, err := lookUp(root, &types.App{User: tt.user, Group: tt.group, SupplementaryGIDs: tt.gids})
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("got %+v, %v; want error %q", id, err, tt.fails)
				}
				if strings.Contains(tt.fails, "unknown") && !errors.Is(err, ErrInvalid) {
					t.Errorf("error %v is not ErrInvalid", err)
				}
				return
			}
			got := fmt.Sprintf("%d:%d:%v:%s:%s:%s", id.uid, id.gid, id.groups, id.name, id.home, id.shell)
			if err != nil || got != tt.want {
				t.Errorf("got %s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

// FuzzLookUp: no file makes anybody root who is not called so by its number.
func FuzzLookUp(f *testing.F) {
	testenv.Root(f)
	f.Add([]byte(passwd), "web")
	f.Add([]byte("a:b"), "a")
	f.Add([]byte("a:x:\x000:"), "a")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		root := fileRoot(t, map[string]string{"/etc/passwd": string(data)})
		id, err := lookUp(root, &types.App{User: name, Group: "0"})
		if err != nil || id.uid != 0 || strings.Trim(name, "0") == "" || strings.HasPrefix(name, "/") {
			return
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.Split(strings.TrimSpace(line), ":")
			if len(fields) > 2 && fields[0] == name && strings.Trim(fields[2], "0") == "" && fields[2] != "" {
				return
			}
		}
		t.Errorf("%q is root by %q", name, data)
	})
}

func TestEnvironment(t *testing.T) {
	t.Setenv("TERM", "host-term")
	path := "PATH=" + defaultPath
	const place = "AC_APP_NAME=web container=jetpack"
	set := func(pairs ...string) (env types.Environment) {
		for i := 0; i < len(pairs); i += 2 {
			env = append(env, types.EnvironmentVariable{Name: pairs[i], Value: pairs[i+1]})
		}
		return env
	}
	tests := []struct {
		name     string
		id       identity
		terminal bool
		own      types.Environment
		want     string
	}{
		{"nobody", identity{home: "/", shell: "/bin/sh"}, false, nil, path + " HOME=/ SHELL=/bin/sh " + place},
		{"somebody", identity{name: "w", home: "/h", shell: "/s"}, false, nil, path + " HOME=/h SHELL=/s USER=w LOGNAME=w " + place},
		{"terminal", identity{home: "/", shell: "/s"}, true, nil, path + " HOME=/ SHELL=/s TERM=host-term " + place},
		{"the app's wins", identity{home: "/", shell: "/s"}, true, set("PATH", "/p", "TERM", "t", "HOME", "", "X", "1"),
			"PATH=/p HOME= SHELL=/s TERM=t X=1 " + place},
		{"where it is is not the app's to say", identity{home: "/", shell: "/s"}, false, set("AC_APP_NAME", "x", "container", "y"),
			path + " HOME=/ SHELL=/s " + place},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := &app{name: "web", own: &types.App{Environment: tt.own}, id: tt.id, terminal: tt.terminal}
			got := a.environment()
			if joined := strings.Join(got, " "); joined != tt.want {
				t.Errorf("got  %s\nwant %s", joined, tt.want)
			}
			if again := a.environment(); !slices.Equal(again, got) {
				t.Errorf("the second time %q", again)
			}
		})
	}
	t.Run("no TERM on the host", func(t *testing.T) {
		t.Setenv("TERM", "")
		a := &app{name: "web", own: &types.App{}, terminal: true}
		if got := strings.Join(a.environment(), " "); !strings.Contains(got, "TERM=vt100") {
			t.Error(got)
		}
	})
}
