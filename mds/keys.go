package mds

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
	"github.com/google/uuid"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
)

// KeyRing holds the keys that signatures are made with. The newest signs; all verify.
type KeyRing struct {
	keys [][]byte // the oldest first
	last int      // the newest's number
}

const (
	keySize   = 64 // bytes, the output of the hash (RFC 2104, section 3)
	keySuffix = ".key"
)

// OpenKeys reads the keys in a directory, which is made, with a first key in it, unless
// it is there. A key is a file NUMBER.key with hexadecimal digits; the highest number is
// the newest. Errors: those of files; a file that is no key, or that others may read.
func OpenKeys(dir string) (*KeyRing, error) { return withKeys(dir, false) }

// Rotate adds a key to a directory, which signs from the next OpenKeys on. What was
// signed with one that is removed does not verify any more.
func Rotate(dir string) error {
	_, err := withKeys(dir, true)
	return err
}

func withKeys(dir string, another bool) (_ *KeyRing, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(dir, "lock"), flock.SetPermissions(0o600))
	if err := lock.Lock(); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	ring, err := readKeys(dir)
	if err == nil && (another || len(ring.keys) == 0) {
		err = ring.add(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("keys of the metadata service: %w", err)
	}
	return ring, nil
}

func readKeys(dir string) (*KeyRing, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[int]string{}
	var numbers []int
	for _, e := range entries {
		name, isKey := strings.CutSuffix(e.Name(), keySuffix)
		if !isKey || strings.HasPrefix(name, ".") { // one that was about to be written
			continue
		}
		n, err := strconv.Atoi(name)
		if err != nil || n < 1 || files[n] != "" {
			return nil, fmt.Errorf("%s is not named NUMBER%s", filepath.Join(dir, e.Name()), keySuffix)
		}
		files[n] = filepath.Join(dir, e.Name())
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	ring := &KeyRing{}
	for _, n := range numbers {
		key, err := readKey(files[n])
		if err != nil {
			return nil, err
		}
		ring.keys, ring.last = append(ring.keys, key), n
	}
	return ring, nil
}

func readKey(file string) ([]byte, error) {
	info, err := os.Lstat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o077 != 0 {
		return nil, fmt.Errorf("%s is not a file that only its owner can read; with it, others could sign for any pod: remove it", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) < keySize/2 {
		return nil, fmt.Errorf("%s is not a key: %d hexadecimal digits are", file, 2*keySize)
	}
	return key, nil
}

func (k *KeyRing) add(dir string) error {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // it never fails
	file := filepath.Join(dir, fmt.Sprintf("%06d%s", k.last+1, keySuffix))
	if err := atomicfile.Write(file, []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		return err
	}
	k.keys, k.last = append(k.keys, key), k.last+1
	return nil
}

// Sign makes the signature of a pod: HMAC-SHA-512 of the 16 bytes of its UUID, then the
// content.
func (k *KeyRing) Sign(id uuid.UUID, content []byte) []byte {
	return signature(k.keys[len(k.keys)-1], id, content)
}

// Verify tells whether some key made a signature.
func (k *KeyRing) Verify(id uuid.UUID, content, sig []byte) bool {
	for _, key := range slices.Backward(k.keys) {
		if hmac.Equal(signature(key, id, content), sig) {
			return true
		}
	}
	return false
}

func signature(key []byte, id uuid.UUID, content []byte) []byte {
	h := hmac.New(sha512.New, key)
	h.Write(id[:])
	h.Write(content)
	return h.Sum(nil)
}
