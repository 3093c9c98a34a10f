package xattr

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNamesAndValues(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"user.a": []byte("1"), "user.empty": {}, "user.large": bytes.Repeat([]byte{7}, 1500)}
	for name, value := range want {
		if err := unix.Lsetxattr(file, name, value, 0); err != nil {
			t.Skip("the file system has no attributes for users: ", err)
		}
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	byPath, err := Names(file)
	if err != nil {
		t.Fatal(err)
	}
	byFD, err := NamesAt(int(f.Fd()))
	if err != nil || !slices.Equal(byPath, byFD) {
		t.Fatalf("by path %q, by descriptor %q, %v", byPath, byFD, err)
	}
	mine := slices.DeleteFunc(byPath, func(name string) bool { return want[name] == nil })
	if !slices.Equal(mine, []string{"user.a", "user.empty", "user.large"}) {
		t.Errorf("got %q", byPath)
	}
	for name, value := range want {
		a, errA := Value(file, name)
		b, errB := ValueAt(int(f.Fd()), name)
		if errA != nil || errB != nil || !bytes.Equal(a, value) || !bytes.Equal(b, value) {
			t.Errorf("%s: got %d and %d bytes, %v, %v", name, len(a), len(b), errA, errB)
		}
	}
	if names, err := Names(link); err != nil || slices.Contains(names, "user.a") {
		t.Errorf("the link was followed: %q, %v", names, err)
	}
	if _, err := Names(filepath.Join(dir, "gone")); err == nil {
		t.Error("no error for what is not there")
	}
}
