package trust

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestStoreLayout(t *testing.T) {
	keys := archive(t, "keys")
	k := read(t, keys, "ed25519")[0]
	defer syscall.Umask(syscall.Umask(0o077))
	s := trusting(t, keys, "=ed25519", "example.com/app=ed25519")
	for path, mode := range map[string]os.FileMode{
		"@":                                0o750 | os.ModeDir,
		"@/" + k.Fingerprint:               0o640,
		"example.com,app":                  0o750 | os.ModeDir,
		"example.com,app/" + k.Fingerprint: 0o640,
	} {
		fi, err := os.Stat(filepath.Join(s.dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != mode {
			t.Errorf("%s: mode %v, want %v", path, fi.Mode(), mode)
		}
	}
	got, err := os.ReadFile(filepath.Join(s.dir, "@", k.Fingerprint))
	if err != nil || string(got) != string(k.Armored) {
		t.Errorf("file %q, %v", got, err)
	}
}

func TestStore(t *testing.T) {
	keys := archive(t, "keys")
	ed, rsa := read(t, keys, "ed25519")[0], read(t, keys, "rsa2048")[0]
	s := trusting(t, keys)
	list := func(prefixes ...string) map[string][]string {
		t.Helper()
		all, damage, err := s.List(prefixes...)
		if err != nil || len(damage) > 0 {
			t.Fatal(damage, err)
		}
		got := map[string][]string{}
		for _, k := range all {
			got[k.Fingerprint] = k.Prefixes
		}
		return got
	}
	want := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	want("nothing", list(), map[string][]string{})
	if _, err := s.Remove(ed.Fingerprint); !errors.Is(err, ErrNoKey) {
		t.Errorf("remove from nothing: %v", err)
	}
	for range 2 { // again changes nothing
		for _, prefix := range []string{"example.com/app", "", "example.com"} {
			if err := s.Add(prefix, ed, rsa); err != nil {
				t.Fatal(err)
			}
		}
	}
	everywhere := []string{"", "example.com", "example.com/app"}
	want("all", list(), map[string][]string{ed.Fingerprint: everywhere, rsa.Fingerprint: everywhere})
	want("unknown prefix", list("example.org"), map[string][]string{})

	got, err := s.Remove(FormatFingerprint(ed.Fingerprint), "example.com", "example.com")
	want("removed", got, []string{"example.com"})
	want("error", err, nil)
	want("with prefix", list("example.com", "example.org"), map[string][]string{rsa.Fingerprint: everywhere})

	got, err = s.Remove(ed.Fingerprint, "", "example.com")
	if got != nil || !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), "example.com") {
		t.Errorf("remove what is not there: %v, %v", got, err)
	}
	want("nothing removed", list("")[ed.Fingerprint], []string{"", "example.com/app"})

	got, err = s.Remove(strings.ToUpper(ed.Fingerprint))
	want("removed", got, []string{"", "example.com/app"})
	want("error", err, nil)
	if _, err := s.Remove(ed.Fingerprint); !errors.Is(err, ErrNoKey) || !errors.Is(err, ErrUntrusted) {
		t.Errorf("remove again: %v", err)
	}
	if _, err := s.Remove("../../etc/passwd"); err == nil || errors.Is(err, ErrNoKey) {
		t.Errorf("remove no fingerprint: %v", err)
	}
	want("left", list(), map[string][]string{rsa.Fingerprint: everywhere})
	if _, err := s.Remove(rsa.Fingerprint); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(s.dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestAddRefuses(t *testing.T) {
	keys := archive(t, "keys")
	ed := read(t, keys, "ed25519")[0]
	s := trusting(t, keys)
	for _, prefix := range []string{"..", "/", "@", "example.com/", "example.com,app", "Example.com", "example.com/../x", "a\n"} {
		if err := s.Add(prefix, ed); err == nil {
			t.Errorf("prefix %q", prefix)
		}
	}
	other, two, secret := ed, ed, ed
	other.Armored = read(t, keys, "rsa2048")[0].Armored
	two.Armored = slices.Concat(ed.Armored, other.Armored)
	secret.Armored = nil
	for name, k := range map[string]Key{"another key's": other, "two": two, "none": secret} {
		if err := s.Add("", read(t, keys, "rsa2048")[0], k); err == nil {
			t.Errorf("%s bytes", name)
		}
	}
	if _, err := os.Lstat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused key left something: %v", err)
	}
}

// TestMerge: a copy adds to what there is, and takes nothing away.
func TestMerge(t *testing.T) {
	keys := archive(t, "keys")
	for _, tt := range []struct {
		name  string
		trust []string
		check func(Key) bool
	}{
		{"revocation", []string{"=unrevoked", "=revoked-none"}, func(k Key) bool { return k.Revoked }},
		{"revocation stays", []string{"=revoked-none", "=unrevoked"}, func(k Key) bool { return k.Revoked }},
		{"revoked elsewhere", []string{"=unrevoked", "example.com=revoked-none"}, func(k Key) bool { return k.Revoked }},
		{"extension", []string{"=expiring", "=extended"}, func(k Key) bool { return k.Expires.IsZero() }},
		{"extension stays", []string{"=extended", "=expiring"}, func(k Key) bool { return k.Expires.IsZero() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := trusting(t, keys, tt.trust...)
			all, damage, err := s.List()
			if err != nil || len(damage) > 0 || len(all) != 1 || !tt.check(all[0]) {
				t.Fatalf("%+v, %v, %v", all, damage, err)
			}
			// And nothing is said twice.
			if err := s.Add("", all[0]); err != nil {
				t.Fatal(err)
			}
			again, _, err := s.List()
			if err != nil || len(again) != 1 || string(again[0].Armored) != string(all[0].Armored) {
				t.Errorf("added again: %+v, %v", again, err)
			}
		})
	}
	// Another subkey, another identity.
	whole := read(t, keys, "both")[0]
	e, err := readKey(strings.NewReader(keys["both"]), whole.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	e.Subkeys = nil
	part, err := newKey(e)
	if err != nil {
		t.Fatal(err)
	}
	s := trusting(t, keys)
	if err := s.Add("", part); err != nil {
		t.Fatal(err)
	}
	if err := s.Add("", whole); err != nil {
		t.Fatal(err)
	}
	if all, _, err := s.List(); err != nil || !slices.Equal(all[0].Subkeys, whole.Subkeys) {
		t.Errorf("merged %+v, %v", all, err)
	}
}

// TestDamage: what is wrong is told and not trusted, and the rest stays.
func TestDamage(t *testing.T) {
	keys := archive(t, "keys")
	ed, rsa := read(t, keys, "ed25519")[0], read(t, keys, "rsa2048")[0]
	signature := []byte(archive(t, "signatures")["ed25519-sha256"])
	for _, tt := range []struct {
		name   string
		damage func(path string) error // of the key's file
		says   string
		kept   bool // the key is trusted yet
	}{
		{"not a key", func(p string) error { return os.WriteFile(p, []byte("x"), 0o640) }, ed.Fingerprint, false},
		{"empty", func(p string) error { return os.Truncate(p, 0) }, "empty", false},
		{"truncated", func(p string) error { return os.Truncate(p, 200) }, "truncated", false},
		{"another key", func(p string) error { return os.WriteFile(p, rsa.Armored, 0o640) }, "not " + ed.Fingerprint, false},
		{"two keys", func(p string) error { return os.WriteFile(p, slices.Concat(ed.Armored, rsa.Armored), 0o640) }, "2 keys", false},
		{"group may write", func(p string) error { return os.Chmod(p, 0o660) }, "mode 0660", false},
		{"all may write", func(p string) error { return os.Chmod(p, 0o642) }, "mode 0642", false},
		{"group may write the directory", func(p string) error { return os.Chmod(filepath.Dir(p), 0o770) }, "mode 0770", false},
		{"symbolic link", func(p string) error {
			return errors.Join(os.Rename(p, p+".x"), os.Symlink(p+".x", p))
		}, ed.Fingerprint, false},
		{"directory is a link", func(p string) error {
			d := filepath.Dir(p)
			hidden := filepath.Join(filepath.Dir(d), ".x")
			return errors.Join(os.Rename(d, hidden), os.Symlink(hidden, d))
		}, "example.com", false},
		{"fifo", func(p string) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o640)) }, "neither", false},
		{"directory", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o750)) }, ed.Fingerprint, false},
		{"name in upper case", func(p string) error {
			return os.Rename(p, filepath.Join(filepath.Dir(p), strings.ToUpper(ed.Fingerprint)))
		}, "not", false},
		{"file beside the directories", func(p string) error {
			return os.WriteFile(filepath.Join(p, "../../README"), nil, 0o640)
		}, "README", true},
		{"left by a crash", func(p string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(p), "."+ed.Fingerprint+"123"), nil, 0o640)
		}, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := trusting(t, keys, "example.com=ed25519", "example.org=rsa2048")
			if err := tt.damage(filepath.Join(s.dir, "example.com", ed.Fingerprint)); err != nil {
				t.Fatal(err)
			}
			all, damage, err := s.List()
			if err != nil {
				t.Fatal(err)
			}
			if got := len(all) == 2; got != tt.kept || all[len(all)-1].Fingerprint != rsa.Fingerprint && all[0].Fingerprint != rsa.Fingerprint {
				t.Errorf("keys %+v", all)
			}
			if said := errors.Join(damage...); tt.says != "" && (said == nil || !strings.Contains(said.Error(), tt.says)) || tt.says == "" && said != nil {
				t.Errorf("damage %v, want %q", damage, tt.says)
			}
			_, err = s.Verify(t.Context(), "example.com/app", strings.NewReader(signed), signature, Policy{})
			if tt.kept && err != nil || !tt.kept && (!errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("verify: %v", err)
			}
		})
	}
}

func TestOthersWriteStore(t *testing.T) {
	keys := archive(t, "keys")
	s := trusting(t, keys, "=ed25519")
	if err := os.Chmod(s.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.List(); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("list: %v", err)
	}
	if _, err := s.For("example.com"); err == nil {
		t.Error("for")
	}
	if err := s.Add("", read(t, keys, "rsa2048")...); err == nil {
		t.Error("add")
	}
}

func TestOtherOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("gives a file away: needs root")
	}
	keys := archive(t, "keys")
	s := trusting(t, keys, "=ed25519")
	path := filepath.Join(s.dir, "@", read(t, keys, "ed25519")[0].Fingerprint)
	if err := os.Chown(path, 65534, 0); err != nil {
		t.Fatal(err)
	}
	all, damage, err := s.List()
	if err != nil || len(all) > 0 || len(damage) != 1 || !strings.Contains(damage[0].Error(), "65534") {
		t.Errorf("%v, %v, %v", all, damage, err)
	}
	// Adding it again mends that, as for any damage.
	if err := s.Add("", read(t, keys, "ed25519")...); err != nil {
		t.Fatal(err)
	}
	if all, damage, err := s.List(); err != nil || len(all) != 1 || len(damage) > 0 {
		t.Errorf("%v, %v, %v", all, damage, err)
	}
}
