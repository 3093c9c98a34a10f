package trust

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
)

const (
	dirMode  = 0o750
	fileMode = 0o640
	// anyName is the directory of keys that are trusted for any name; no AC Identifier has an @.
	anyName = "@"
)

// A Store is a directory of trusted keys:
//
//	DIR/<prefix, with "," for "/">/<fingerprint>    trusted for names with this prefix
//	DIR/@/<fingerprint>                             trusted for any name
//
// Each file is one armoured key. Copies of one key below several prefixes count as one
// key that has all that any of them has: revoked in one place is revoked. Directories
// and files that others than root and the running user can write are not believed.
type Store struct{ dir string }

// Open names the store in the directory dir, which Add makes; without it nothing is trusted.
func Open(dir string) *Store { return &Store{dir} }

// Add trusts keys for the names that have a prefix, by whole components; "" is any
// name. A key that is there already is merged with the new copy.
func (s *Store) Add(prefix string, keys ...Key) error {
	if prefix != "" {
		if err := validName(prefix); err != nil {
			return fmt.Errorf("trust keys: %w", err)
		}
	}
	for _, k := range keys {
		if _, err := readKey(bytes.NewReader(k.Armored), k.Fingerprint); err != nil {
			return fmt.Errorf("trust key %s: %w", FormatFingerprint(k.Fingerprint), err)
		}
	}
	dir := s.prefixDir(prefix)
	if err := s.makeDirs(dir); err != nil {
		return fmt.Errorf("trust keys: %w", err)
	}
	for _, k := range keys {
		if err := addKey(filepath.Join(dir, k.Fingerprint), k); err != nil {
			return fmt.Errorf("trust key %s: %w", FormatFingerprint(k.Fingerprint), err)
		}
	}
	return nil
}

func addKey(path string, k Key) error {
	content := k.Armored
	// A file that is damaged is replaced, which repairs it.
	if old, err := readFile(path, k.Fingerprint); err == nil {
		e, err := readKey(bytes.NewReader(k.Armored), k.Fingerprint)
		if err != nil {
			return err
		}
		merge(old, e)
		if content, err = armored(old); err != nil {
			return err
		}
	}
	return atomicfile.Write(path, content, fileMode)
}

// makeDirs makes the store and a directory in it, and refuses those that others can write.
func (s *Store) makeDirs(dir string) error {
	if err := os.MkdirAll(s.dir, dirMode); err != nil {
		return err
	}
	if _, err := list(s.dir); err != nil {
		return err
	}
	switch err := os.Mkdir(dir, dirMode); {
	case errors.Is(err, fs.ErrExist):
		_, err := list(dir)
		return err
	case err != nil:
		return err
	}
	if err := os.Chmod(dir, dirMode); err != nil { // whatever the umask
		return err
	}
	return atomicfile.SyncDir(s.dir)
}

// List gives the trusted keys, those of certain prefixes if there are any, sorted by
// fingerprint, and what in the store is damaged, one error a file or directory.
func (s *Store) List(prefixes ...string) ([]Key, []error, error) {
	keys, damage, err := s.read()
	if err != nil {
		return nil, nil, err
	}
	if len(prefixes) > 0 {
		keys = slices.DeleteFunc(keys, func(k Key) bool {
			return !slices.ContainsFunc(k.Prefixes, func(p string) bool { return slices.Contains(prefixes, p) })
		})
	}
	errs := make([]error, 0, len(damage))
	for _, d := range damage {
		errs = append(errs, d.err)
	}
	return keys, errs, nil
}

// For gives the keys trusted for an image name, sorted by fingerprint. It passes over
// what is damaged: List tells.
func (s *Store) For(name string) ([]Key, error) {
	keys, _, err := s.trusted(name)
	return keys, err
}

// trusted is For and the damage where keys for the name may be.
func (s *Store) trusted(name string) ([]Key, []error, error) {
	// Without a name every key would do for every image.
	if err := validName(name); err != nil {
		return nil, nil, err
	}
	keys, damage, err := s.read()
	if err != nil {
		return nil, nil, err
	}
	keys = slices.DeleteFunc(keys, func(k Key) bool {
		return !slices.ContainsFunc(k.Prefixes, func(p string) bool { return covers(p, name) })
	})
	var errs []error
	for _, d := range damage {
		if covers(d.prefix, name) {
			errs = append(errs, d.err)
		}
	}
	return keys, errs, nil
}

// Remove ends the trust in a key for certain prefixes, or for all when there are none,
// and gives those from which it was removed, sorted. When it is missing from one of
// those asked for, or from all, nothing is removed and the error is ErrNoKey.
func (s *Store) Remove(fingerprint string, prefixes ...string) ([]string, error) {
	fpr, err := ParseFingerprint(fingerprint)
	if err != nil {
		return nil, err
	}
	have, err := s.prefixesOf(fpr)
	if err != nil {
		return nil, fmt.Errorf("remove key: %w", err)
	}
	if len(prefixes) == 0 {
		prefixes = have
	}
	for _, p := range prefixes {
		if !slices.Contains(have, p) {
			return nil, fmt.Errorf("remove key %s: %w for %s", FormatFingerprint(fpr), ErrNoKey, describe(p))
		}
	}
	if len(prefixes) == 0 {
		return nil, fmt.Errorf("remove key: %w has the fingerprint %s", ErrNoKey, FormatFingerprint(fpr))
	}
	prefixes = slices.Clone(prefixes)
	slices.Sort(prefixes)
	prefixes = slices.Compact(prefixes)
	for i, p := range prefixes {
		dir := s.prefixDir(p)
		if err := os.Remove(filepath.Join(dir, fpr)); err != nil {
			return prefixes[:i], fmt.Errorf("remove key: %w", err)
		}
		if err := atomicfile.SyncDir(dir); err != nil {
			return prefixes[:i+1], fmt.Errorf("remove key: %w", err)
		}
		// An empty directory is tidied up; one that is not stays, which is no error.
		_ = os.Remove(dir)
	}
	return prefixes, nil
}

// prefixesOf finds the files of a key, whatever is in them, so that a damaged one can be removed.
func (s *Store) prefixesOf(fpr string) ([]string, error) {
	dirs, err := list(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var prefixes []string
	for _, d := range dirs {
		prefix, err := parsePrefix(d)
		if err != nil {
			continue // no directory of ours
		}
		switch _, err := os.Lstat(filepath.Join(s.dir, d, fpr)); {
		case err == nil:
			prefixes = append(prefixes, prefix)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
			return nil, err
		}
	}
	slices.Sort(prefixes)
	return prefixes, nil
}

// damaged is something in the store that is not believed; keys for prefix are missing for it.
type damaged struct {
	prefix string
	err    error
}

// read reads the whole store, which is small: a revocation in any place counts everywhere.
func (s *Store) read() ([]Key, []damaged, error) {
	dirs, err := list(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("trusted keys: %w", err)
	}
	entities := map[string]*openpgp.Entity{}
	prefixes := map[string][]string{}
	var damage []damaged
	for _, d := range dirs {
		dir := filepath.Join(s.dir, d)
		prefix, err := parsePrefix(d)
		if err != nil {
			damage = append(damage, damaged{"", fmt.Errorf("trusted keys: %s: %w", dir, err)})
			continue
		}
		files, err := list(dir)
		if err != nil {
			damage = append(damage, damaged{prefix, fmt.Errorf("trusted keys: %w", err)})
			continue
		}
		for _, fpr := range files {
			e, err := readFile(filepath.Join(dir, fpr), fpr)
			if err != nil {
				damage = append(damage, damaged{prefix, fmt.Errorf("trusted key: %w", err)})
				continue
			}
			prefixes[fpr] = append(prefixes[fpr], prefix)
			if have := entities[fpr]; have != nil {
				merge(have, e)
			} else {
				entities[fpr] = e
			}
		}
	}
	var keys []Key
	for fpr, e := range entities {
		k, err := newKey(e)
		if err != nil {
			damage = append(damage, damaged{"", fmt.Errorf("trusted keys: %s: %w", s.dir, err)})
			continue
		}
		k.Prefixes = prefixes[fpr]
		slices.Sort(k.Prefixes)
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b Key) int { return strings.Compare(a.Fingerprint, b.Fingerprint) })
	return keys, damage, nil
}

// readFile reads the one key of a file in the store.
func readFile(path, fpr string) (_ *openpgp.Entity, err error) {
	f, err := openOwn(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	e, err := readKey(f, fpr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

// readKey reads exactly one key, which has the fingerprint fpr.
func readKey(r io.Reader, fpr string) (*openpgp.Entity, error) {
	all, err := readEntities(r)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%d keys, not one", len(all))
	}
	if got := fingerprint(all[0].PrimaryKey); got != fpr {
		return nil, fmt.Errorf("fingerprint %s, not %s", got, fpr)
	}
	return all[0], nil
}

// list gives the names in a directory of the store, sorted, without those with a dot:
// what a crash left of a file being written.
func list(dir string) (_ []string, err error) {
	f, err := openOwn(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, ".") })
	slices.Sort(names)
	return names, nil
}

// openOwn opens a file or directory of the store, if nobody but root and we could
// have written it. Never waits, whatever lies there.
func openOwn(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := own(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

func own(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() && !fi.IsDir() {
		return errors.New("neither file nor directory")
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write it (mode %04o): check what it says, then chmod go-w", fi.Mode().Perm())
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d: check what it says, then chown", st.Uid)
	}
	return nil
}

func (s *Store) prefixDir(prefix string) string {
	if prefix == "" {
		return filepath.Join(s.dir, anyName)
	}
	return filepath.Join(s.dir, strings.ReplaceAll(prefix, "/", ","))
}

func parsePrefix(dir string) (string, error) {
	if dir == anyName {
		return "", nil
	}
	// An AC Identifier has no comma.
	prefix := strings.ReplaceAll(dir, ",", "/")
	return prefix, validName(prefix)
}

// describe names a prefix to people.
func describe(prefix string) string {
	if prefix == "" {
		return "any name"
	}
	return prefix
}
