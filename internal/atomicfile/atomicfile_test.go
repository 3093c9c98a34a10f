package atomicfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
)

func TestReplace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	defer syscall.Umask(syscall.Umask(0o077))
	for _, want := range []string{"one", "another"} {
		if err := atomicfile.Replace(file, []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != want {
			t.Errorf("content %q, %v, want %q", got, err, want)
		}
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if err := atomicfile.Replace(filepath.Join(file, "below"), nil, 0o600); err == nil {
		t.Error("a file below a file")
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestWrite(t *testing.T) {
	for _, tt := range []struct {
		name string
		old  string // content before, "" for no file
		data string
		perm os.FileMode
	}{
		{"new file", "", "content", 0o600},
		{"replaces", "old content that is longer", "new", 0o644},
		{"empty", "old", "", 0o600},
		{"ignores the umask", "", "x", 0o666},
		{"read-only", "", "x", 0o400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			if tt.old != "" {
				if err := os.WriteFile(path, []byte(tt.old), 0o777); err != nil {
					t.Fatal(err)
				}
			}
			if err := atomicfile.Write(path, []byte(tt.data), tt.perm); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.data {
				t.Errorf("content is %q, want %q", got, tt.data)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != tt.perm {
				t.Errorf("mode is %o, want %o", info.Mode(), tt.perm)
			}
			onlyFile(t, path)
		})
	}
}

func TestWriteFailsWithoutTrace(t *testing.T) {
	t.Run("no directory", func(t *testing.T) {
		err := atomicfile.Write(filepath.Join(t.TempDir(), "missing", "state"), []byte("x"), 0o600)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("error is %v, want ErrNotExist", err)
		}
	})
	t.Run("target is a directory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.Write(path, []byte("x"), 0o600); err == nil {
			t.Fatal("no error")
		}
		onlyFile(t, path)
	})
}

// A link at the path is replaced, not followed.
func TestWriteReplacesSymlink(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	path := filepath.Join(dir, "state")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Fatalf("victim is %q, %v", got, err)
	}
}

func TestReadersSeeWholeContents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	contents := [][]byte{bytes.Repeat([]byte("a"), 10000), bytes.Repeat([]byte("b"), 5000)}
	if err := atomicfile.Write(path, contents[0], 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, c := range contents {
		wg.Go(func() {
			for range 20 {
				if err := atomicfile.Write(path, c, 0o600); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 500 {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Fatalf("read a mixture of %d bytes", len(got))
		}
	}
	wg.Wait()
	onlyFile(t, path)
}

// onlyFile fails when something else was left beside path.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("directory has %v", entries)
	}
}
