package platform

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	if _, err := ReadRoot(dir); !errors.Is(err, ErrNotInitialized) {
		t.Fatalf("before Init: %v", err)
	}
	first, did, err := Init(t.Context(), dir, "plaindir", "auto")
	if err != nil {
		t.Fatal(err)
	}
	if len(did) != 1 || !strings.Contains(did[0], "created "+dir) {
		t.Errorf("did %q", did)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}$`).MatchString(first.ID) {
		t.Errorf("id %q", first.ID)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("root is %v, %v", fi.Mode(), err)
	}
	again, did, err := Init(t.Context(), dir, "auto", "auto")
	if err != nil || again != first || len(did) != 0 {
		t.Errorf("again: %+v, %q, %v", again, did, err)
	}
	if _, _, err := Init(t.Context(), dir, "overlay", "auto"); err == nil || !strings.Contains(err.Error(), "plaindir, not overlay") {
		t.Errorf("with another driver: %v", err)
	}
	d, err := Storage(dir, first)
	if err != nil || d.Info().Name != "plaindir" {
		t.Errorf("storage %v, %v", d, err)
	}
}

func TestInitKeepsOffOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Init(t.Context(), dir, "plaindir", "auto"); err == nil || !strings.Contains(err.Error(), "not empty (letter.txt)") {
		t.Errorf("error %v", err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestInitOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	ids := make(chan string, 8)
	for range cap(ids) {
		go func() {
			root, _, err := Init(t.Context(), dir, "plaindir", "auto")
			if err != nil {
				t.Error(err)
			}
			ids <- root.ID
		}()
	}
	seen := map[string]bool{}
	for range cap(ids) {
		seen[<-ids] = true
	}
	if len(seen) != 1 {
		t.Errorf("ids %v", seen)
	}
}

func TestReadRootRefuses(t *testing.T) {
	for name, content := range map[string]string{
		"newer layout": `{"version":2,"id":"00000000","storage":"plaindir"}`,
		"no JSON":      `{`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, rootFile), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := ReadRoot(dir); err == nil || errors.Is(err, ErrNotInitialized) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestUnknownStorage(t *testing.T) {
	if _, err := Storage(t.TempDir(), Root{Storage: "punchcards"}); err == nil {
		t.Error("no error")
	}
}

// Every backend has a name and its own line in the table of capabilities.
func TestBackends(t *testing.T) {
	drivers, engines := Backends()
	seen := map[string]bool{}
	for _, d := range drivers {
		seen[d.Name] = true
	}
	for _, e := range engines {
		seen[e.Name] = true
	}
	if seen[""] || len(seen) != len(drivers)+len(engines) {
		t.Errorf("backends %v", seen)
	}
}

// What is refused for ZFS before anything is asked of it, or made.
func TestInitZFSRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ dataset, root, want string }{
		"without dataset":   {"auto", "", "--set storage.dataset="},
		"no dataset":        {"-r", "", `"-r" is no name of a ZFS dataset`},
		"another dataset":   {"tank/b", `{"version":1,"id":"00000000","storage":"zfs","dataset":"tank/a"}`, "its storage is dataset tank/a, not tank/b"},
		"of another driver": {"tank/b", `{"version":1,"id":"00000000","storage":"plaindir"}`, "its storage is plaindir, not zfs"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "root")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if tt.root != "" {
				if err := os.WriteFile(filepath.Join(dir, rootFile), []byte(tt.root), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, _, err := Init(t.Context(), dir, "zfs", tt.dataset)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

// A dataset that is configured is no reason to touch a root with other storage.
func TestInitKeepsStorage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	first, _, err := Init(t.Context(), dir, "plaindir", "tank/a")
	if err != nil || first.Storage != "plaindir" || first.Dataset != "" {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, did, err := Init(t.Context(), dir, "auto", "tank/a"); err != nil || again != first || len(did) != 0 {
		t.Errorf("again: %+v, %q, %v", again, did, err)
	}
}

func TestLacksZFS(t *testing.T) {
	for name, tt := range map[string]struct {
		pools []string
		err   error
		want  string
	}{
		"no module": {nil, errors.New("the kernel has no ZFS loaded: run 'kldload zfs'"), "; the kernel has no ZFS loaded: run 'kldload zfs'"},
		"no pool":   {nil, nil, "'zpool create POOL DISK'"},
		"a pool":    {[]string{"tank", "zroot"}, nil, "storage.dataset=tank/jetpack init"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := lacksZFS(tt.pools, tt.err); !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
