package storagetest

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jetpack-run/jetpack/internal/storage"
)

var lifeCases = map[string]func(*suite){
	"info":                              caseInfo,
	"create makes an empty tree":        caseCreate,
	"create of an existing name":        caseCreateExists,
	"bad names":                         caseBadNames,
	"names that are not there":          caseNotFound,
	"longest name":                      caseLongestName,
	"quota":                             caseQuota,
	"bad properties":                    caseBadMeta,
	"properties and time are kept":      caseMeta,
	"seal is idempotent":                caseSealTwice,
	"seal of a mounted tree":            caseSealMounted,
	"sealed refuses writes":             caseSealedRefusesWrites,
	"rename moves a tree":               caseRename,
	"rename of a clone keeps its files": caseRenameClone,
	"rename to an existing name":        caseRenameExists,
	"rename of a mounted tree":          caseRenameMounted,
	"rename of a tree with clones":      caseRenameOrigin,
	"cancelled calls change nothing":    caseCancelled,
}

func caseInfo(s *suite) {
	if s.info.Name == "" {
		s.Error("no name")
	}
	if again := s.d.Info(); again != s.info {
		s.Errorf("Info is %+v, then %+v", s.info, again)
	}
}

func caseCreate(s *suite) {
	defer syscall.Umask(syscall.Umask(0o077))
	s.create("images/a")
	tree := s.stat("images/a")
	if tree.Name != "images/a" || tree.Origin != "" || tree.Sealed || tree.Mounted || tree.Partial {
		s.Errorf("Stat is %+v", tree)
	}
	dir := s.mount("images/a")
	entries, err := os.ReadDir(dir)
	s.ok(err)
	if len(entries) != 0 {
		s.Errorf("new tree has %v", entries)
	}
	info, err := os.Stat(dir)
	s.ok(err)
	if info.Mode() != os.ModeDir|0o755 {
		s.Errorf("mode of the top directory is %v", info.Mode())
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != os.Geteuid() || os.Geteuid() == 0 && st.Gid != 0 {
		s.Errorf("owner of the top directory is %d:%d", st.Uid, st.Gid)
	}
	s.write(filepath.Join(dir, "file"), "x")
}

func caseCreateExists(s *suite) {
	s.create("images/a")
	s.in("images/a", func(dir string) { s.write(dir+"/file", "precious") })
	s.fails(s.d.Create(s.Context(), "images/a", storage.Options{}), storage.ErrExists)
	s.in("images/a", func(dir string) { s.wantContent(dir+"/file", "precious") })
	s.seal("images/a")
	s.fails(s.d.Create(s.Context(), "images/a", storage.Options{}), storage.ErrExists)
	s.fails(s.d.Clone(s.Context(), "images/a", "images/a", storage.Options{}), storage.ErrExists)
}

// calls are all methods that take the name of a tree, with that name.
func (s *suite) calls(name string) map[string]func() error {
	ctx := s.Context()
	return map[string]func() error{
		"Clone (origin)": func() error { return s.d.Clone(ctx, name, "pods/new", storage.Options{}) },
		"Seal":           func() error { return s.d.Seal(ctx, name) },
		"Rename (from)":  func() error { return s.d.Rename(ctx, name, "pods/new") },
		"Destroy":        func() error { return s.d.Destroy(ctx, name) },
		"Stat":           func() error { _, err := s.d.Stat(ctx, name); return err },
		"Mount":          func() error { _, err := s.d.Mount(ctx, name); return err },
		"Usage":          func() error { _, err := s.d.Usage(ctx, name); return err },
		"Diff":           func() error { _, err := s.d.Diff(ctx, name); return err },
	}
}

func caseBadNames(s *suite) {
	s.image("images/a", func(string) {})
	s.create("images/b")
	ctx := s.Context()
	for _, name := range []string{"", "a", "images/", "/images/x", "../x", "images/..", "images/../x", "images/x/y", "images/.x", "images/-x", "Images/x", "images/a@b", "images/a\n"} {
		calls := s.calls(name)
		calls["Create"] = func() error { return s.d.Create(ctx, name, storage.Options{}) }
		calls["Clone (name)"] = func() error { return s.d.Clone(ctx, "images/a", name, storage.Options{}) }
		calls["Rename (to)"] = func() error { return s.d.Rename(ctx, "images/b", name) }
		calls["Unmount"] = func() error { return s.d.Unmount(ctx, name) }
		for method, call := range calls {
			if err := call(); !errors.Is(err, storage.ErrBadName) {
				s.Errorf("%s %q: error is %v, want ErrBadName", method, name, err)
			}
		}
	}
	s.wantNames("", "images/a", "images/b")
}

func caseNotFound(s *suite) {
	for method, call := range s.calls("images/none") {
		if err := call(); !errors.Is(err, storage.ErrNotFound) {
			s.Errorf("%s: error is %v, want ErrNotFound", method, err)
		}
	}
	if err := s.d.Unmount(s.Context(), "images/none"); err != nil {
		s.Errorf("Unmount: %v", err)
	}
	s.wantNames("")
}

func caseLongestName(s *suite) {
	origin, name := "images/"+strings.Repeat("a", 200), "pods/"+strings.Repeat("b", 200)
	s.image(origin, func(dir string) { s.write(dir+"/file", "x") })
	s.clone(origin, name)
	s.in(name, func(dir string) { s.wantContent(dir+"/file", "x") })
	s.wantNames("", origin, name)
	s.destroy(name)
	s.destroy(origin)
}

func caseQuota(s *suite) {
	opts := storage.Options{Quota: 8 << 20}
	err := s.d.Create(s.Context(), "volumes/a", opts)
	if !s.info.Quota {
		s.fails(err, storage.ErrUnsupported)
		s.image("images/a", func(string) {})
		s.fails(s.d.Clone(s.Context(), "images/a", "volumes/b", opts), storage.ErrUnsupported)
		s.wantNames("", "images/a")
		return
	}
	s.ok(err)
	f, err := os.Create(filepath.Join(s.mount("volumes/a"), "file"))
	s.ok(err)
	for range 64 {
		if _, err = f.Write(randomBytes(1e6)); err != nil { // no compression, please
			break
		}
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if !errors.Is(err, syscall.EDQUOT) && !errors.Is(err, syscall.ENOSPC) {
		s.Errorf("error of writing 64 MB is %v, want EDQUOT or ENOSPC", err)
	}
}

func caseBadMeta(s *suite) {
	s.image("images/a", func(string) {})
	for key, value := range map[string]string{"a:b": "x", "": "x", "a": "", "b": "x\ny"} {
		opts := storage.Options{Meta: map[string]string{key: value}}
		if s.d.Create(s.Context(), "images/b", opts) == nil {
			s.Errorf("Create accepts %q=%q", key, value)
		}
		if s.d.Clone(s.Context(), "images/a", "images/b", opts) == nil {
			s.Errorf("Clone accepts %q=%q", key, value)
		}
	}
	s.wantNames("", "images/a")
}

func caseMeta(s *suite) {
	before := time.Now().Add(-2 * time.Second) // drivers may keep whole seconds
	meta := map[string]string{"pod": "6733c088", "image.name": `example.com/a b, "c"=d:e`}
	check := func(name string, want map[string]string) {
		s.Helper()
		tree := s.stat(name)
		if !maps.Equal(tree.Meta, want) {
			s.Errorf("properties of %s are %q, want %q", name, tree.Meta, want)
		}
		if tree.Created.Before(before) || tree.Created.After(time.Now().Add(2*time.Second)) {
			s.Errorf("%s was created %v", name, tree.Created)
		}
	}
	s.ok(s.d.Create(s.Context(), "images/a", storage.Options{Meta: meta}))
	check("images/a", meta)
	s.seal("images/a")
	check("images/a", meta)
	s.ok(s.d.Rename(s.Context(), "images/a", "images/b"))
	check("images/b", meta)
	s.clone("images/b", "pods/none")
	check("pods/none", nil) // a clone does not inherit them
	cloneMeta := map[string]string{"app": "web"}
	s.ok(s.d.Clone(s.Context(), "images/b", "pods/own", storage.Options{Meta: cloneMeta}))
	check("pods/own", cloneMeta)
	trees, err := s.d.List(s.Context(), "images")
	s.ok(err)
	if len(trees) != 1 || !maps.Equal(trees[0].Meta, meta) {
		s.Errorf("List is %+v", trees)
	}
}

func caseSealTwice(s *suite) {
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	if !s.stat("images/a").Sealed {
		s.Error("not sealed")
	}
	s.seal("images/a")
	s.mount("images/a")
	s.seal("images/a")
	s.clone("images/a", "pods/a")
	if s.stat("pods/a").Sealed {
		s.Error("the clone is sealed")
	}
	s.seal("pods/a")
	if !s.stat("pods/a").Sealed {
		s.Error("the clone is not sealed")
	}
}

func caseSealMounted(s *suite) {
	s.need(s.info.MountsTrees, "MountsTrees")
	s.create("images/a")
	dir := s.mount("images/a")
	s.fails(s.d.Seal(s.Context(), "images/a"), storage.ErrBusy)
	if s.stat("images/a").Sealed {
		s.Error("sealed nevertheless")
	}
	s.write(dir+"/file", "still writable")
	s.unmount("images/a")
	s.seal("images/a")
}

func caseSealedRefusesWrites(s *suite) {
	s.need(s.info.EnforcesSeal, "EnforcesSeal")
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.clone("images/a", "images/b")
	s.in("images/b", func(dir string) { s.write(dir+"/second", "x") })
	s.seal("images/b")
	for _, name := range []string{"images/a", "images/b"} {
		for range 2 { // after a second Mount as well
			dir := s.mount(name)
			for op, err := range map[string]error{
				"write":  os.WriteFile(dir+"/file", nil, 0o600),
				"create": os.WriteFile(dir+"/new", nil, 0o600),
				"chmod":  os.Chmod(dir+"/file", 0o777),
				"remove": os.Remove(dir + "/file"),
				"mkdir":  os.Mkdir(dir+"/dir", 0o700),
				"top":    os.Chmod(dir, 0o700),
			} {
				if !errors.Is(err, syscall.EROFS) {
					s.Errorf("%s in %s: error is %v, want EROFS", op, name, err)
				}
			}
			s.wantContent(dir+"/file", "x")
			s.unmount(name)
		}
	}
}

func caseRename(s *suite) {
	s.create("images/a")
	s.in("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.ok(s.d.Rename(s.Context(), "images/a", "other/b"))
	s.wantNames("", "other/b")
	_, err := s.d.Stat(s.Context(), "images/a")
	s.fails(err, storage.ErrNotFound)
	s.in("other/b", func(dir string) {
		s.wantContent(dir+"/file", "x")
		s.write(dir+"/file", "y")
	})
	s.seal("other/b")
	s.ok(s.d.Rename(s.Context(), "other/b", "images/c"))
	if !s.stat("images/c").Sealed {
		s.Error("no longer sealed")
	}
	s.clone("images/c", "pods/a")
	s.in("pods/a", func(dir string) { s.wantContent(dir+"/file", "y") })
	s.create("images/a") // the old name is free
}

func caseRenameClone(s *suite) {
	s.image("images/a", func(dir string) { s.special(dir) })
	s.clone("images/a", "images/tmp")
	s.in("images/tmp", func(dir string) { s.ok(os.Remove(dir + "/zero")) })
	s.seal("images/tmp")
	want := s.describe(s.mount("images/tmp"))
	s.unmount("images/tmp")
	s.ok(s.d.Rename(s.Context(), "images/tmp", "images/b"))
	s.in("images/b", func(dir string) { s.wantSame(s.describe(dir), want) })
	if origin := s.stat("images/b").Origin; origin != "images/a" {
		s.Errorf("origin is %q", origin)
	}
	s.wantDiff("images/b", storage.Change{Path: "/zero", Kind: storage.Deleted})
}

func caseRenameExists(s *suite) {
	s.create("images/a")
	s.create("images/b")
	s.in("images/b", func(dir string) { s.write(dir+"/file", "precious") })
	s.fails(s.d.Rename(s.Context(), "images/a", "images/b"), storage.ErrExists)
	s.fails(s.d.Rename(s.Context(), "images/a", "images/a"), storage.ErrExists)
	s.wantNames("", "images/a", "images/b")
	s.in("images/b", func(dir string) { s.wantContent(dir+"/file", "precious") })
}

func caseRenameMounted(s *suite) {
	s.need(s.info.MountsTrees, "MountsTrees")
	s.create("images/a")
	dir := s.mount("images/a")
	s.fails(s.d.Rename(s.Context(), "images/a", "images/b"), storage.ErrBusy)
	s.wantNames("", "images/a")
	s.write(dir+"/file", "x")
}

func caseRenameOrigin(s *suite) {
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.clone("images/a", "pods/a")
	s.fails(s.d.Rename(s.Context(), "images/a", "images/b"), storage.ErrBusy)
	s.wantNames("", "images/a", "pods/a")
	s.in("pods/a", func(dir string) { s.wantContent(dir+"/file", "x") })
	s.destroy("pods/a")
	s.ok(s.d.Rename(s.Context(), "images/a", "images/b"))
}

func caseCancelled(s *suite) {
	s.image("images/a", func(dir string) { s.write(dir+"/file", "x") })
	s.create("images/b")
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	for method, err := range map[string]error{
		"Create":  s.d.Create(ctx, "images/c", storage.Options{}),
		"Clone":   s.d.Clone(ctx, "images/a", "images/c", storage.Options{}),
		"Seal":    s.d.Seal(ctx, "images/b"),
		"Rename":  s.d.Rename(ctx, "images/b", "images/c"),
		"Destroy": s.d.Destroy(ctx, "images/b"),
	} {
		if !errors.Is(err, context.Canceled) {
			s.Errorf("%s: error is %v, want Canceled", method, err)
		}
	}
	s.wantNames("", "images/a", "images/b")
	if s.stat("images/b").Sealed {
		s.Error("sealed nevertheless")
	}
}
