package overlay_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/overlay"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/internal/storage/storagetest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(churnDir); dir != "" {
		churn(dir) // until it is killed
	}
	os.Exit(testenv.PrivateMounts(m))
}

// place is a driver that the suite can open again, litter and take away.
type place struct {
	*overlay.Driver
	dir string
}

// open opens a driver in dir, or skips the test.
func open(tb testing.TB, dir string) *place {
	tb.Helper()
	testenv.Root(tb)
	if err := overlay.Supported(filepath.Dir(dir)); err != nil {
		if !errors.Is(err, unix.EPERM) && !onOverlay(tb, filepath.Dir(dir)) {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
	d, err := overlay.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return &place{d, dir}
}

// onOverlay tells whether dir is where trees cannot be kept, as in most containers.
func onOverlay(tb testing.TB, dir string) bool {
	tb.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		tb.Fatal(err)
	}
	return st.Type == unix.OVERLAYFS_SUPER_MAGIC
}

func (p *place) Reopen(t *testing.T) storage.Driver { return open(t, p.dir) }

func (p *place) MakePartial(t *testing.T, name string) {
	t.Helper()
	for _, dir := range []string{"fs/debris", "work/work/debris", "merged"} {
		if err := os.MkdirAll(filepath.Join(p.dir, name, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *place) Damage(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name, "tree.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *place) Vanish(t *testing.T) {
	t.Helper()
	away := p.dir + ".away"
	if err := os.Rename(p.dir, away); err != nil {
		t.Fatal(err)
	}
	// What is left is an empty mount point.
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(p.dir); err != nil {
			t.Error(err)
		}
		if err := os.Rename(away, p.dir); err != nil {
			t.Error(err)
		}
	})
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Driver {
		// Characters that the options of mount(2) use themselves.
		return open(t, filepath.Join(t.TempDir(), `a:b,c=d \ e`))
	})
}

func BenchmarkClone(b *testing.B) {
	storagetest.BenchmarkClone(b, func(b *testing.B) storage.Driver { return open(b, filepath.Join(b.TempDir(), "place")) })
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// image makes a sealed tree with one file.
func image(t *testing.T, d storage.Driver, name string) {
	t.Helper()
	ctx := t.Context()
	do(t, d.Create(ctx, name, storage.Options{}))
	dir, err := d.Mount(ctx, name)
	do(t, err)
	do(t, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644))
	do(t, d.Unmount(ctx, name))
	do(t, d.Seal(ctx, name))
}

func TestOpenRelative(t *testing.T) {
	if _, err := overlay.Open("relative"); err == nil {
		t.Fatal("no error")
	}
}

func TestSupported(t *testing.T) {
	testenv.Root(t)
	d := open(t, filepath.Join(t.TempDir(), "place"))
	image(t, d, "images/a")
	do(t, d.Clone(t.Context(), "images/a", "pods/a", storage.Options{}))
	tree, err := d.Mount(t.Context(), "pods/a")
	do(t, err)
	t.Cleanup(func() {
		if err := d.Unmount(t.Context(), "pods/a"); err != nil {
			t.Error(err)
		}
	})
	for _, tt := range []struct {
		name, dir string
		ok        bool
	}{
		{"here", t.TempDir(), true},
		{"directory that does not exist", filepath.Join(t.TempDir(), "new", "dir"), true},
		{"on an overlay", tree, false},
		{"procfs", "/proc", false},
		{"a file", filepath.Join(tree, "file"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, err := mountinfo.GetMounts(nil)
			do(t, err)
			if err := overlay.Supported(tt.dir); (err == nil) != tt.ok {
				t.Errorf("error is %v, want ok=%t", err, tt.ok)
			}
			after, err := mountinfo.GetMounts(nil)
			do(t, err)
			if len(after) != len(before) {
				t.Errorf("%d mounts before, %d after", len(before), len(after))
			}
			if left, err := filepath.Glob(filepath.Join(tt.dir, ".probe-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestMountOptions(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "place"))
	ctx := t.Context()
	image(t, d, "images/a")
	do(t, d.Clone(ctx, "images/a", "images/b", storage.Options{}))
	do(t, d.Seal(ctx, "images/b"))
	do(t, d.Clone(ctx, "images/b", "pods/a", storage.Options{}))
	do(t, d.Create(ctx, "volumes/a", storage.Options{}))
	for _, tt := range []struct {
		name   string
		want   string
		fstype string // "" is the one of the storage itself
	}{
		{"images/a", "ro", ""},
		{"images/b", "ro", "overlay"},
		{"pods/a", "rw", "overlay"},
		{"volumes/a", "rw", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := d.Mount(ctx, tt.name)
			do(t, err)
			defer func() { do(t, d.Unmount(ctx, tt.name)) }()
			infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
			do(t, err)
			if len(infos) != 1 {
				t.Fatalf("%d mounts on %s", len(infos), dir)
			}
			options := strings.Split(infos[0].Options, ",")
			has := func(want string) bool { return slices.Contains(options, want) }
			// Programs such as su must work in an app, so nosuid would be wrong.
			if !has(tt.want) || !has("nodev") || has("nosuid") || has("noexec") {
				t.Errorf("options are %v", options)
			}
			for _, feature := range []string{"redirect_dir=on", "index=on", "metacopy=on", "xino=on"} {
				if strings.Contains(infos[0].VFSOptions, feature) {
					t.Errorf("overlayfs options are %s", infos[0].VFSOptions)
				}
			}
			if tt.fstype == "overlay" && infos[0].FSType != "overlay" || tt.fstype == "" && infos[0].FSType == "overlay" {
				t.Errorf("type is %s", infos[0].FSType)
			}
		})
	}
}

// What is mounted in a mounted tree is not seen by whoever removes its files.
func TestMountsDoNotReachTheFiles(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "place"))
	ctx := t.Context()
	// On a host with systemd all mounts are shared.
	share(t, filepath.Dir(d.dir))
	canary := t.TempDir()
	do(t, os.WriteFile(filepath.Join(canary, "file"), []byte("precious"), 0o600))
	do(t, d.Create(ctx, "volumes/a", storage.Options{}))
	dir, err := d.Mount(ctx, "volumes/a")
	do(t, err)
	target := filepath.Join(dir, "target")
	do(t, os.Mkdir(target, 0o700))
	bindMount(t, canary, target)
	if entries, err := os.ReadDir(filepath.Join(d.Files("volumes/a"), "target")); err != nil || len(entries) > 0 {
		t.Errorf("the mount shows in the tree's files: %v, %v", entries, err)
	}
	if err := d.Unmount(ctx, "volumes/a"); err == nil {
		t.Error("unmounted although something is mounted in it")
	}
	if err := d.Destroy(ctx, "volumes/a"); err == nil {
		t.Error("destroyed although it is mounted")
	}
	unmount(t, target)
	do(t, d.Unmount(ctx, "volumes/a"))
	do(t, d.Destroy(ctx, "volumes/a"))
	if data, err := os.ReadFile(filepath.Join(canary, "file")); err != nil || string(data) != "precious" {
		t.Errorf("canary is %q, %v", data, err)
	}
}

// The options of mount(2) are one page: long chains must work, and chains too
// long must fail instead of losing layers.
func TestLongChain(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "place"))
	ctx := t.Context()
	image(t, d, "images/i0")
	name := "images/i0"
	for i := range 64 {
		origin := name
		name = "images/i" + strings.Repeat("i", i+1)
		do(t, d.Clone(ctx, origin, name, storage.Options{}))
		do(t, d.Seal(ctx, name))
	}
	do(t, d.Clone(ctx, name, "pods/a", storage.Options{}))
	dir, err := d.Mount(ctx, "pods/a")
	do(t, err)
	if data, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(data) != "x" {
		t.Errorf("file is %q, %v", data, err)
	}
	do(t, d.Unmount(ctx, "pods/a"))
	for i := range 200 {
		origin := name
		name = "images/j" + strings.Repeat("j", i%190) + string(rune('a'+i/190))
		do(t, d.Clone(ctx, origin, name, storage.Options{}))
		do(t, d.Seal(ctx, name))
	}
	if _, err := d.Mount(ctx, name); err == nil || !strings.Contains(err.Error(), "too many origins") {
		t.Errorf("error is %v", err)
	}
}

// Whatever cannot be read as a record makes a tree partial.
func TestDamagedRecord(t *testing.T) {
	for name, content := range map[string]string{
		"lost with the power": "", "cut short": "{", "zeros": "\x00\x00", "another type": `{"origins":7}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, filepath.Join(t.TempDir(), "place"))
			ctx := t.Context()
			do(t, d.Create(ctx, "pods/a", storage.Options{}))
			do(t, os.WriteFile(filepath.Join(d.Dir("pods/a"), "tree.json"), []byte(content), 0o600))
			if trees, err := d.List(ctx, ""); err != nil || len(trees) != 1 || !trees[0].Partial {
				t.Errorf("List is %+v, %v", trees, err)
			}
			do(t, d.Destroy(ctx, "pods/a"))
		})
	}
}
