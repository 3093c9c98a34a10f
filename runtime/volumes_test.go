package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func TestMakeTarget(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name           string
		files          map[string]string // of the image
		target, source string
		want           string
		fails          string
		notice         bool
	}{
		{"missing", nil, "/data", dir, "/data", "", false},
		{"missing with parents", nil, "/a/b/c", dir, "/a/b/c", "", false},
		{"there", map[string]string{"/data/": ""}, "/data", dir, "/data", "", false},
		{"not empty", map[string]string{"/data/x": "x"}, "/data", dir, "/data", "", true},
		{"not clean", map[string]string{"/data/": ""}, "//x/../data/.", dir, "/data", "", false},
		{"upwards", nil, "/../../data", dir, "/data", "", false},
		{"a file in a directory's place", map[string]string{"/data": "x"}, "/data", dir, "/data", "", true},
		{"a file in a parent's place", map[string]string{"/a": "x"}, "/a/b", dir, "", "not a directory", false},
		{"file volume", nil, "/etc/conf", file, "/etc/conf", "", false},
		{"file volume over a file", map[string]string{"/etc/conf": "x"}, "/etc/conf", file, "/etc/conf", "", false},
		{"file volume over a directory", map[string]string{"/etc/conf/": ""}, "/etc/conf", file, "", "it is a directory", false},
		{"symbolic link", map[string]string{"/data": "-> /srv", "/srv/": ""}, "/data", dir, "", "symbolic link", false},
		{"dangling link", map[string]string{"/data": "-> /none"}, "/data", dir, "", "symbolic link", false},
		{"link to the host", map[string]string{"/data": "-> " + dir}, "/data", dir, "", "symbolic link", false},
		{"file volume on a link", map[string]string{"/f": "-> /etc/passwd"}, "/f", file, "", "symbolic link", false},
		{"through a link inside", map[string]string{"/var": "-> /private/var", "/private/var/": ""}, "/var/data", dir, "/private/var/data", "", false},
		{"through a relative link", map[string]string{"/var": "-> private/var", "/private/var/": ""}, "/var/data/x", dir, "/private/var/data/x", "", false},
		{"through a dangling link", map[string]string{"/var": "-> /new"}, "/var/data", dir, "", "", false},
		{"through a link to the host", map[string]string{"/var": "-> " + dir}, "/var/data", dir, "", "", false},
		{"through a link upwards", map[string]string{"/var": "-> ../../../../.."}, "/var/data", dir, "/data", "", false},
		{"root", nil, "/", dir, "", "belongs to jetpack", false},
		{"root, not clean", nil, "/x/..", dir, "", "belongs to jetpack", false},
		{"/dev", nil, "/dev", dir, "", "belongs to jetpack", false},
		{"/proc", nil, "/proc/", dir, "", "belongs to jetpack", false},
		{"/sys", nil, "//sys", dir, "", "belongs to jetpack", false},
		{"below /proc", nil, "/proc/sys", dir, "", "belongs to jetpack", false},
		{"below /sys", nil, "/sys/fs/cgroup", dir, "", "belongs to jetpack", false},
		{"below /dev", nil, "/dev/shm", dir, "/dev/shm", "", false},
		{"like /proc", nil, "/process", dir, "/process", "", false},
		{"below /proc by a link", map[string]string{"/here": "-> proc", "/proc/": ""}, "/here/sys", dir, "", "belongs to jetpack", false},
		{"/proc by a link", map[string]string{"/here": "-> /"}, "/here/proc", dir, "", "belongs to jetpack", false},
		{"no source", nil, "/data", filepath.Join(dir, "none"), "", "no such file", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := listing(t, dir)
			h := &host{}
			p := &Pod{rt: &Runtime{Notice: h.note}}
			root := fileRoot(t, tt.files)
			got, err := p.makeTarget(root, "web", tt.target, tt.source)
			if after := listing(t, dir); after != before {
				t.Errorf("the host has %s, had %s", after, before)
			}
			if err == nil && tt.want == "" && tt.fails == "" {
				tt.want = got // wherever it is, it is inside
			}
			switch {
			case tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)):
				t.Fatalf("got %s, %v; want error %q", got, err, tt.fails)
			case tt.fails != "" && !errors.Is(err, ErrInvalid):
				t.Errorf("error %v is not ErrInvalid", err)
			case tt.want != "" && (err != nil || got != tt.want):
				t.Fatalf("got %s, %v; want %s", got, err, tt.want)
			}
			if n := len(h.noted()); (n == 1) != tt.notice {
				t.Errorf("%d notices", n)
			}
			if err != nil {
				return
			}
			st, err := root.Lstat(got)
			wantDir := tt.source == dir
			if err != nil || (st.Mode&syscall.S_IFMT == syscall.S_IFDIR) != wantDir {
				t.Errorf("it is %o, %v", st.Mode, err)
			}
			// What is there can be bound.
			if err := root.Bind(got, tt.source); err != nil {
				t.Error(err)
			}
		})
	}
}

// listing describes all that is in a directory.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		all = append(all, fmt.Sprint(path, fi.Mode(), fi.Size()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestMounts(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	no := false
	yes := true
	vol := func(name string, readOnly, recursive *bool) types.Volume {
		return types.Volume{Name: types.ACName(name), Kind: "host", Source: dir, ReadOnly: readOnly, Recursive: recursive}
	}
	pod := []types.Volume{vol("v", nil, nil), vol("ro", &yes, nil), vol("rw", &no, &yes), vol("flat", nil, &no)}
	m := func(volume, path string) schema.Mount { return schema.Mount{Volume: types.ACName(volume), Path: path} }
	own := vol("v", &yes, nil)
	tests := []struct {
		name   string
		points []types.MountPoint
		mounts []schema.Mount
		want   string
		fails  string
	}{
		{"none", nil, nil, "[]", ""},
		{"defaults", nil, []schema.Mount{m("v", "/a")}, "[/a rw recursive]", ""},
		{"read-only volume", nil, []schema.Mount{m("ro", "/a")}, "[/a ro recursive]", ""},
		{"read-only mount point", []types.MountPoint{{Name: "p", Path: "/a", ReadOnly: true}}, []schema.Mount{m("rw", "/a/")}, "[/a ro recursive]", ""},
		{"read-only volume, other mount point", []types.MountPoint{{Name: "p", Path: "/a"}}, []schema.Mount{m("ro", "/a")}, "[/a ro recursive]", ""},
		{"not recursive", nil, []schema.Mount{m("flat", "/a")}, "[/a rw]", ""},
		{"the app's own volume", nil, []schema.Mount{{Volume: "v", Path: "/a", AppVolume: &own}}, "[/a ro recursive]", ""},
		{"sorted", nil, []schema.Mount{m("v", "/c"), m("ro", "/a"), m("v", "/b")}, "[/a ro recursive /b rw recursive /c rw recursive]", ""},
		{"same volume twice", nil, []schema.Mount{m("v", "/a"), m("v", "/b")}, "[/a rw recursive /b rw recursive]", ""},
		{"common beginning", nil, []schema.Mount{m("v", "/a"), m("v", "/ab"), m("v", "/a-b")}, "[/a rw recursive /a-b rw recursive /ab rw recursive]", ""},
		{"same target", nil, []schema.Mount{m("v", "/a"), m("ro", "/a")}, "", "overlap"},
		{"same target, not clean", nil, []schema.Mount{m("v", "/a"), m("ro", "/x/../a")}, "", "overlap"},
		{"nested", nil, []schema.Mount{m("v", "/a/b/c"), m("ro", "/a")}, "", "overlap"},
		{"nested behind others", nil, []schema.Mount{m("v", "/a"), m("v", "/a-b"), m("v", "/a/b")}, "", "overlap"},
		{"same by a link", nil, []schema.Mount{m("v", "/link/x"), m("v", "/real/x")}, "", "overlap"},
		{"nested by a link", nil, []schema.Mount{m("v", "/link/x/y"), m("v", "/real/x")}, "", "overlap"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := fileRoot(t, map[string]string{"/real/": "", "/link": "-> real"})
			p := &Pod{Info: Info{UUID: "u", Manifest: &schema.PodManifest{Volumes: pod}}, rt: h.Runtime}
			app := &schema.RuntimeApp{Name: "web", Mounts: tt.mounts}
			p.sources = map[*types.Volume]string{&own: dir}
			for i := range pod {
				p.sources[&pod[i]] = dir
			}
			mounts, err := p.mounts(root, app, &types.App{MountPoints: tt.points})
			if tt.fails != "" {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("got %v, %v; want error %q", mounts, err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range mounts {
				s := m.Target + " rw"
				if m.ReadOnly {
					s = m.Target + " ro"
				}
				if m.Recursive {
					s += " recursive"
				}
				if m.Source != dir {
					t.Errorf("source %s", m.Source)
				}
				got = append(got, s)
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func TestEmptyVolumes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mode     string
		uid, gid int
		want     os.FileMode
	}{
		{"0755", 0, 0, 0o755},
		{"0700", 1234, 1235, 0o700},
		{"0000", 0, 0, 0},
		{"01777", 0, 0, 0o777 | os.ModeSticky},
		{"06755", 1234, 1235, 0o755 | os.ModeSetuid | os.ModeSetgid},
		{"02770", 0, 4294967294, 0o770 | os.ModeSetgid},
	}
	h := newHost(t)
	for _, appVolume := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s %d:%d, of the app: %v", tt.mode, tt.uid, tt.gid, appVolume), func(t *testing.T) {
				v := types.Volume{Name: "v", Kind: "empty", Mode: &tt.mode, UID: &tt.uid, GID: &tt.gid}
				m := h.probes(t, "write /v/x x")
				tree := ""
				if appVolume {
					m.Apps[0].Mounts = []schema.Mount{{Volume: "v", Path: "/v", AppVolume: &v}}
					tree = "probe"
				} else {
					m.Volumes = []types.Volume{v}
					m.Apps[0].Mounts = []schema.Mount{{Volume: "v", Path: "/v"}}
				}
				id := h.prepared(t, m, noNetwork)
				for range 2 { // it is made anew at each start
					if info := h.restart(t, id); info.Status() != 0 {
						t.Fatalf("%+v", info.State)
					}
					dir, err := h.Storage.Mount(t.Context(), volumeTree(id, tree, v))
					if err != nil {
						t.Fatal(err)
					}
					fi, err := os.Stat(dir)
					if err != nil {
						t.Fatal(err)
					}
					owner := fi.Sys().(*syscall.Stat_t)
					if fi.Mode() != tt.want|os.ModeDir || owner.Uid != uint32(tt.uid) || owner.Gid != uint32(tt.gid) {
						t.Errorf("%v %d:%d", fi.Mode(), owner.Uid, owner.Gid)
					}
					if data, err := os.ReadFile(filepath.Join(dir, "x")); err != nil || string(data) != "x" {
						t.Errorf("%q, %v: what the last start wrote is there", data, err)
					}
				}
				if err := h.Remove(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				h.isClean(t)
			})
		}
	}
}

// What jetpack writes to an image's /etc goes to the app's root and nowhere else.
func TestEtc(t *testing.T) {
	tests := []struct {
		name   string
		files  map[string]string // of the image
		volume string            // where a directory of the host is mounted, or ""
		want   string            // /etc/hosts in the root; "-" for none
	}{
		{"no hosts file", nil, "", "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 here\n"},
		{"hosts file of the image", map[string]string{"/etc/hosts": "mine"}, "", "mine"},
		{"linked to the host", map[string]string{"/etc/hosts": "-> /HOST"}, "", "-> /HOST"},
		{"volume over /etc", nil, "/etc", "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 here\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.addWith(t, "example.com/etc", func(root string) error { return fillRoot(root, tt.files) }, probeApp)
			dir := t.TempDir()
			m, err := h.Template(t.Context(), []AppRequest{{Image: "example.com/etc", Name: "a", Args: []string{"args"}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.volume != "" {
				m.Volumes = []types.Volume{{Name: "v", Kind: "host", Source: dir}}
				m.Apps[0].Mounts = []schema.Mount{{Volume: "v", Path: tt.volume}}
			}
			run, _ := h.up(t, m, Options{Hostname: "here"})
			ended(t, run)
			if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
				t.Errorf("the host's directory has %v, %v", entries, err)
			}
			root, err := h.Storage.Mount(t.Context(), rootTree(run.UUID(), "a"))
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(root, "etc", "hosts")
			got, err := os.Readlink(file)
			if err == nil {
				got = "-> " + got
			} else {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				got = string(data)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("no /etc", func(t *testing.T) {
		root := fileRoot(t, map[string]string{"/x/": ""})
		p := &Pod{Info: Info{UUID: "u", Options: Options{Network: sandbox.NetworkHost}}}
		if err := p.writeEtc(root); err != nil {
			t.Fatal(err)
		}
		if _, err := root.Lstat("/etc"); err == nil {
			t.Error("it was made")
		}
	})
	t.Run("/etc is a link", func(t *testing.T) {
		root := fileRoot(t, map[string]string{"/x/": "", "/etc": "-> x"})
		p := &Pod{Info: Info{UUID: "u"}}
		if err := p.writeEtc(root); err != nil {
			t.Fatal(err)
		}
		if _, err := root.Lstat("/x/hosts"); err == nil {
			t.Error("it was followed")
		}
	})
	t.Run("resolver of the host's network", func(t *testing.T) {
		want, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			t.Skip("needs a resolv.conf: ", err)
		}
		root := fileRoot(t, map[string]string{"/etc/": ""})
		p := &Pod{rt: new(Runtime), Info: Info{UUID: "u", Options: Options{Network: sandbox.NetworkHost}}}
		if err := p.writeEtc(root); err != nil {
			t.Fatal(err)
		}
		if got, err := root.ReadFile("/etc/resolv.conf", 1<<20); err != nil || string(got) != string(want) {
			t.Errorf("%q, %v", got, err)
		}
	})
}
