package trust

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

// sentinels are the reasons of refusals.
var sentinels = []error{ErrNoKey, ErrNoSignature, ErrBadSignature, ErrWeak, ErrExpired, ErrRevoked}

// archive reads one of testdata.
func archive(t testing.TB, name string) map[string]string {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range a.Files {
		files[f.Name] = string(f.Data)
	}
	return files
}

// trusting gives a store with keys of testdata for prefixes: "prefix=key".
func trusting(t testing.TB, keys map[string]string, trust ...string) *Store {
	t.Helper()
	s := Open(filepath.Join(t.TempDir(), "keys"))
	for _, what := range trust {
		prefix, name, _ := strings.Cut(what, "=")
		if err := s.Add(prefix, read(t, keys, name)...); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func read(t testing.TB, keys map[string]string, name string) []Key {
	t.Helper()
	text, ok := keys[name]
	if !ok {
		t.Fatalf("testdata has no key %s", name)
	}
	k, err := ReadKeys(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A vector is a signature, what is trusted, and the verdict.
type vector struct {
	name      string              // also of the signature, unless there is sig
	sig       string              // in testdata
	change    func(string) string // of the signature file
	trust     string              // "prefix=key …"; a mere key is trusted for example.com
	image     string              // its name; "" is example.com/app
	file      string              // "" is what was signed
	legacy    bool
	want      error  // nil is good
	alsoNoKey bool   // one signature of several is by an unknown key
	says      string // part of the message
}

var vectors = []vector{
	// Algorithms.
	{name: "rsa1024-sha256", trust: "rsa1024", want: ErrWeak, says: "RSA 1024"},
	{name: "rsa2048-sha1", trust: "rsa2048", want: ErrWeak, says: "SHA-1"},
	{name: "rsa2048-sha224", trust: "rsa2048"},
	{name: "rsa2048-sha256", trust: "rsa2048"},
	{name: "rsa2048-sha384", trust: "rsa2048"},
	{name: "rsa2048-sha512", trust: "rsa2048"},
	{name: "rsa2048-ripemd160", trust: "rsa2048", want: ErrNoSignature, says: "hash function 3"},
	{name: "rsa3072-sha256", trust: "rsa3072"},
	{name: "rsa4096-sha512", trust: "rsa4096"},
	{name: "dsa1024-sha1", trust: "dsa1024", want: ErrWeak},
	{name: "dsa2048-sha256", trust: "dsa2048", want: ErrWeak, says: "DSA 2048"},
	{name: "ed25519-sha1", trust: "ed25519", want: ErrWeak},
	{name: "ed25519-sha256", trust: "ed25519"},
	{name: "ed25519-sha512", trust: "ed25519"},
	{name: "nistp256-sha256", trust: "nistp256"},
	{name: "nistp384-sha384", trust: "nistp384"},
	{name: "nistp521-sha512", trust: "nistp521"},
	{name: "brainpoolP256r1-sha256", trust: "brainpoolP256r1"},
	{name: "secp256k1-sha256", trust: "secp256k1", want: ErrWeak},
	{name: "go-ed25519", trust: "go-ed25519"},
	{name: "go-ed448", trust: "go-ed448"},
	{name: "go-rsa", trust: "go-rsa"},
	{name: "go-ecdsa", trust: "go-ecdsa"},
	{name: "v6-ed25519", trust: "v6-ed25519"},
	{name: "v6-ed448", trust: "v6-ed448"},
	{name: "v6-sha512", trust: "v6-sha512"},
	{name: "v6-sha3", trust: "v6-sha3"},
	{name: "v6-rsa", trust: "v6-rsa"},
	{name: "v6-mldsa", trust: "v6-mldsa"},

	// What Legacy permits, and what it does not.
	{name: "legacy: RSA 1024", sig: "rsa1024-sha256", trust: "rsa1024", legacy: true},
	{name: "legacy: SHA-1", sig: "rsa2048-sha1", trust: "rsa2048", legacy: true},
	{name: "legacy: SHA-1 by Ed25519", sig: "ed25519-sha1", trust: "ed25519", legacy: true},
	{name: "legacy: DSA 1024", sig: "dsa1024-sha1", trust: "dsa1024", legacy: true},
	{name: "legacy: DSA 2048", sig: "dsa2048-sha256", trust: "dsa2048", legacy: true},
	{name: "legacy: weak primary key", sig: "primary-weak", trust: "primary-weak", legacy: true},
	{name: "legacy: RIPEMD-160", sig: "rsa2048-ripemd160", trust: "rsa2048", legacy: true, want: ErrNoSignature},
	{name: "legacy: secp256k1", sig: "secp256k1-sha256", trust: "secp256k1", legacy: true, want: ErrWeak},
	{name: "legacy: another file", sig: "rsa1024-sha256", trust: "rsa1024", file: "x", legacy: true, want: ErrBadSignature},
	{name: "legacy: DSA, another file", sig: "dsa2048-sha256", trust: "dsa2048", file: "x", legacy: true, want: ErrBadSignature},
	{name: "legacy: revoked", sig: "revoked-before", trust: "revoked-none", legacy: true, want: ErrRevoked},
	{name: "legacy: expired", sig: "sig-expired", trust: "ed25519", legacy: true, want: ErrExpired},

	// Subkeys.
	{name: "sub-rsa", trust: "sub-rsa"},
	{name: "sub-ed", trust: "sub-ed"},
	{name: "sub-weak", trust: "sub-weak", want: ErrWeak, says: "RSA 1024"},
	{name: "primary-weak", trust: "primary-weak", want: ErrWeak},
	{name: "both-primary", trust: "both"},
	{name: "both-sub", trust: "both"},
	{name: "v6-sub", trust: "v6-sub"},
	{name: "odd-encryption-key", trust: "odd", want: ErrNoKey, says: "not meant for signing"},

	// Dates.
	{name: "sig-expired", trust: "ed25519", want: ErrExpired, says: "2020-06-01"},
	{name: "sig-expires-later", trust: "ed25519"},
	{name: "sig-future", trust: "ed25519", want: ErrExpired, says: "clock"},
	{name: "v6-sigexpired", trust: "v6-sigexpired", want: ErrExpired},
	{name: "expiring-before", trust: "expiring"},
	{name: "expiring-after", trust: "expiring", want: ErrExpired, says: "had expired"},
	{name: "extended, signed after the first date", sig: "expiring-after", trust: "extended"},
	{name: "extended, signed before it", sig: "expiring-before", trust: "extended"},
	{name: "extended in one place", sig: "expiring-after", trust: "expiring other.example=extended"},
	{name: "sub-expiring-before", trust: "sub-expiring"},
	{name: "sub-expiring-after", trust: "sub-expiring", want: ErrExpired},
	{name: "subkey extended, signed before", sig: "sub-expiring-before", trust: "sub-extended"},
	{name: "subkey extended, signed after the first date", sig: "sub-expiring-after", trust: "sub-extended"},
	{name: "subkey extended in one place", sig: "sub-expiring-after", trust: "sub-expiring other.example=sub-extended"},
	{name: "primary-expiring-before", trust: "primary-expiring"},
	{name: "primary-expiring-after", trust: "primary-expiring", want: ErrExpired},
	{name: "go-passed", trust: "go-passed", want: ErrExpired},
	{name: "v6-passed", trust: "v6-passed", want: ErrExpired},
	{name: "odd-before-key", trust: "odd", want: ErrExpired, says: "before"},

	// Revocations of 2021; those without a reason and for compromise count for ever.
	{name: "not revoked", sig: "revoked-after", trust: "unrevoked"},
	{name: "no reason, signed before", sig: "revoked-before", trust: "revoked-none", want: ErrRevoked},
	{name: "no reason, signed after", sig: "revoked-after", trust: "revoked-none", want: ErrRevoked},
	{name: "compromised, signed before", sig: "revoked-before", trust: "revoked-compromised", want: ErrRevoked},
	{name: "compromised, signed after", sig: "revoked-after", trust: "revoked-compromised", want: ErrRevoked},
	{name: "superseded, signed before", sig: "revoked-before", trust: "revoked-superseded"},
	{name: "superseded, signed after", sig: "revoked-after", trust: "revoked-superseded", want: ErrRevoked},
	{name: "retired, signed before", sig: "revoked-before", trust: "revoked-retired"},
	{name: "retired, signed after", sig: "revoked-after", trust: "revoked-retired", want: ErrRevoked},
	{name: "revoked, then an old copy", sig: "revoked-after", trust: "revoked-none unrevoked", want: ErrRevoked},
	{name: "revoked in another place", sig: "revoked-after", trust: "unrevoked other.example=revoked-none", want: ErrRevoked},
	{name: "sub-revoked-none-before", trust: "sub-revoked-none", want: ErrRevoked},
	{name: "sub-revoked-none-after", trust: "sub-revoked-none", want: ErrRevoked},
	{name: "sub-revoked-compromised-before", trust: "sub-revoked-compromised", want: ErrRevoked},
	{name: "sub-revoked-compromised-after", trust: "sub-revoked-compromised", want: ErrRevoked},
	{name: "sub-revoked-superseded-before", trust: "sub-revoked-superseded"},
	{name: "sub-revoked-superseded-after", trust: "sub-revoked-superseded", want: ErrRevoked},
	{name: "sub-revoked-retired-before", trust: "sub-revoked-retired"},
	{name: "sub-revoked-retired-after", trust: "sub-revoked-retired", want: ErrRevoked},
	{name: "v6-revoked", trust: "v6-revoked", want: ErrRevoked},
	{name: "id-revoked", trust: "id-revoked"},

	// Files that are not what was signed.
	{name: "a byte changed", sig: "ed25519-sha256", trust: "ed25519", file: "am image\n", want: ErrBadSignature},
	{name: "a byte changed, RSA", sig: "rsa2048-sha256", trust: "rsa2048", file: "am image\n", want: ErrBadSignature},
	{name: "a byte changed, ECDSA", sig: "nistp256-sha256", trust: "nistp256", file: "am image\n", want: ErrBadSignature},
	{name: "a byte changed, version 6", sig: "v6-ed25519", trust: "v6-ed25519", file: "am image\n", want: ErrBadSignature},
	{name: "a byte changed, ML-DSA", sig: "v6-mldsa", trust: "v6-mldsa", file: "am image\n", want: ErrBadSignature},
	{name: "cut short", sig: "ed25519-sha256", trust: "ed25519", file: "an imag", want: ErrBadSignature},
	{name: "longer", sig: "ed25519-sha256", trust: "ed25519", file: signed + "\x00", want: ErrBadSignature},
	{name: "other line ends", sig: "ed25519-sha256", trust: "ed25519", file: "an image\r\n", want: ErrBadSignature},
	{name: "other-file", trust: "ed25519", want: ErrBadSignature},
	{name: "the other file", sig: "other-file", trust: "ed25519", file: "another image\n"},
	{name: "forged issuer", sig: "ed25519-sha256", change: reissue, trust: "ed25519 both", want: ErrBadSignature},
	{name: "forged issuer, only the forger trusted", sig: "ed25519-sha256", change: reissue, trust: "ed25519", want: ErrNoKey},
	{name: "forged issuer, only the victim trusted", sig: "ed25519-sha256", change: reissue, trust: "both", want: ErrBadSignature},

	// Names and prefixes.
	{name: "nothing trusted", sig: "ed25519-sha256", want: ErrNoKey, says: "not trusted for this name"},
	{name: "the name itself", sig: "ed25519-sha256", trust: "example.com/app=ed25519"},
	{name: "any name", sig: "ed25519-sha256", trust: "=ed25519"},
	{name: "deeper name", sig: "ed25519-sha256", trust: "example.com/app=ed25519", image: "example.com/app/web/front"},
	{name: "host alone", sig: "ed25519-sha256", trust: "example.com=ed25519", image: "example.com"},
	{name: "sibling with a longer name", sig: "ed25519-sha256", trust: "example.com/app=ed25519", image: "example.com/application", want: ErrNoKey},
	{name: "sibling with a dash", sig: "ed25519-sha256", trust: "example.com/app=ed25519", image: "example.com/app-2", want: ErrNoKey},
	{name: "host as a prefix of a host", sig: "ed25519-sha256", trust: "example.com=ed25519", image: "example.com.evil.example/app", want: ErrNoKey},
	{name: "parent", sig: "ed25519-sha256", trust: "example.com/app/web=ed25519", want: ErrNoKey},
	{name: "another host", sig: "ed25519-sha256", trust: "example.net=ed25519", want: ErrNoKey},
	{name: "another key", sig: "ed25519-sha256", trust: "rsa2048", want: ErrNoKey},
	{name: "another key, another's trusted elsewhere", sig: "ed25519-sha256", trust: "rsa2048 example.net=ed25519", want: ErrNoKey},

	// Several signatures: one good one is enough.
	{name: "two", trust: "ed25519 rsa2048"},
	{name: "two, the first known", sig: "two", trust: "ed25519"},
	{name: "two, the second known", sig: "two", trust: "rsa2048"},
	{name: "two, none known", sig: "two", trust: "rsa3072", want: ErrNoKey, says: "signature 2 of 2"},
	{name: "two, another file", sig: "two", trust: "ed25519 rsa2048", file: "x", want: ErrBadSignature},
	{name: "two, one known, another file", sig: "two", trust: "ed25519", file: "x", want: ErrBadSignature, alsoNoKey: true},
	{name: "weak-and-good", trust: "rsa1024 ed25519"},
	{name: "weak and good, the weak one known", sig: "weak-and-good", trust: "rsa1024", want: ErrWeak, alsoNoKey: true},
	{name: "revoked-and-good", trust: "revoked-none ed25519"},
	{name: "sixteen", sig: "ed25519-sha256", change: repeat(16), trust: "ed25519"},
	{name: "seventeen", sig: "ed25519-sha256", change: repeat(17), trust: "ed25519", want: ErrNoSignature},

	// Notations.
	{name: "notation", trust: "ed25519"},
	{name: "notation-critical", trust: "ed25519", want: ErrBadSignature, says: "note@example.com"},

	// What is not a detached signature of a file.
	{name: "inline", trust: "ed25519", want: ErrNoSignature, says: "contains what it signs"},
	{name: "clear", trust: "ed25519", want: ErrNoSignature, says: "clear-signed"},
	{name: "textmode", trust: "ed25519", want: ErrNoSignature, says: "--textmode"},
	{name: "odd-generic", trust: "odd", want: ErrNoSignature, says: "type 0x10"},
	{name: "odd-standalone", trust: "odd", want: ErrNoSignature},
	{name: "odd-timestamp", trust: "odd", want: ErrNoSignature},
	{name: "no issuer", sig: "ed25519-sha256", change: unissue, trust: "ed25519", want: ErrNoSignature, says: "name its key"},
	{name: "binary", sig: "ed25519-sha256", change: unarmor, trust: "ed25519", want: ErrNoSignature, says: "binary"},
	{name: "empty", sig: "ed25519-sha256", change: constant(""), trust: "ed25519", want: ErrNoSignature, says: "empty"},
	{name: "blank", sig: "ed25519-sha256", change: constant("\n \n"), trust: "ed25519", want: ErrNoSignature, says: "empty"},
	{name: "page", sig: "ed25519-sha256", change: constant("<!DOCTYPE html>\n<title>404</title>"), trust: "ed25519", want: ErrNoSignature, says: "page"},
	{name: "page around it", sig: "ed25519-sha256", change: around("<pre>\n", "</pre>\n"), trust: "ed25519", want: ErrNoSignature, says: "page"},
	{name: "text", sig: "ed25519-sha256", change: constant("Not Found\n"), trust: "ed25519", want: ErrNoSignature, says: "no line"},
	{name: "no last line", sig: "ed25519-sha256", change: without("-----END PGP SIGNATURE-----\n"), trust: "ed25519", want: ErrNoSignature, says: "truncated"},
	{name: "half", sig: "rsa4096-sha512", change: func(s string) string { return s[:len(s)/2] }, trust: "rsa4096", want: ErrNoSignature, says: "truncated"},
	{name: "packet cut", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { return b[:len(b)-10] }), trust: "ed25519", want: ErrNoSignature},
	{name: "packet ends in its header", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { return b[:1] }), trust: "ed25519", want: ErrNoSignature},
	{name: "two blocks", sig: "ed25519-sha256", change: func(s string) string { return s + s }, trust: "ed25519", want: ErrNoSignature, says: "several blocks"},
	{name: "text before", sig: "ed25519-sha256", change: around("hello\n", ""), trust: "ed25519", want: ErrNoSignature, says: "text around"},
	{name: "text after", sig: "ed25519-sha256", change: around("", "hello\n"), trust: "ed25519", want: ErrNoSignature, says: "text around"},
	{name: "data after the checksum", sig: "ed25519-sha256", change: replace("-----END", "aGVsbG8=\n-----END"), trust: "ed25519", want: ErrNoSignature},
	{name: "ends as something else", sig: "ed25519-sha256", change: replace("END PGP SIGNATURE", "END PGP MESSAGE"), trust: "ed25519", want: ErrNoSignature},
	{name: "says it is a key", sig: "ed25519-sha256", change: replace("SIGNATURE", "PUBLIC KEY BLOCK"), trust: "ed25519", want: ErrNoSignature},
	{name: "begins twice", sig: "ed25519-sha256", change: around("-----BEGIN PGP SIGNATURE-----\n\n", ""), trust: "ed25519", want: ErrNoSignature},
	{name: "no empty line", sig: "ed25519-sha256", change: replace("\n\n", "\n"), trust: "ed25519", want: ErrNoSignature},
	{name: "no base64", sig: "ed25519-sha256", change: replace("\n\n", "\n\n!!!!"), trust: "ed25519", want: ErrNoSignature},
	{name: "nothing in it", sig: "ed25519-sha256", change: constant("-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n"), trust: "ed25519", want: ErrNoSignature},
	{name: "long", sig: "ed25519-sha256", change: around("", strings.Repeat("\n", 64<<10)), trust: "ed25519", want: ErrNoSignature, says: "64 KiB"},
	{name: "junk after the packet", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { return append(b, "junk"...) }), trust: "ed25519", want: ErrNoSignature},
	{name: "zeros after the packet", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { return append(b, 0, 0, 0) }), trust: "ed25519", want: ErrNoSignature},
	{name: "marker beside it", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { return append(b, "\xca\x03PGP"...) }), trust: "ed25519", want: ErrNoSignature, says: "type 10"},
	{name: "padding beside it", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { return append(b, 0xd5, 1, 0) }), trust: "ed25519", want: ErrNoSignature, says: "type 21"},
	{name: "literal data beside it", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { return append([]byte("\xcb\x08b\x00\x00\x00\x00\x00hi"), b...) }), trust: "ed25519", want: ErrNoSignature, says: "type 11"},
	{name: "identity beside it", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { return append(b, "\xcd\x02hi"...) }), trust: "ed25519", want: ErrNoSignature, says: "type 13"},
	{name: "unknown packet beside it", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { return append(b, 0xfc, 0) }), trust: "ed25519", want: ErrNoSignature, says: "type 60"},
	{name: "version 3", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { b[2] = 3; return b }), trust: "ed25519", want: ErrNoSignature, says: "version 3"},
	{name: "version 5", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { b[2] = 5; return b }), trust: "ed25519", want: ErrNoSignature, says: "version 5"},
	{name: "a bit of the signature changed", sig: "ed25519-sha256", change: packets(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), trust: "ed25519", want: ErrBadSignature},
	{name: "the date changed", sig: "ed25519-sha256", change: redate, trust: "ed25519", want: ErrBadSignature},

	// Armour as others write it.
	{name: "CRLF", sig: "ed25519-sha256", change: func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }, trust: "ed25519"},
	{name: "headers", sig: "ed25519-sha256", change: replace("\n\n", "\nVersion: GnuPG v2\nComment: x: y\n\n"), trust: "ed25519"},
	{name: "no checksum", sig: "ed25519-sha256", change: uncheck(""), trust: "ed25519"},
	{name: "wrong checksum", sig: "ed25519-sha256", change: uncheck("=AAAA\n"), trust: "ed25519"},
	{name: "blank lines around", sig: "ed25519-sha256", change: around("\n\n", "\n\n"), trust: "ed25519"},
	{name: "no newline at the end", sig: "ed25519-sha256", change: strings.TrimSpace, trust: "ed25519"},
}

func constant(to string) func(string) string { return func(string) string { return to } }

func around(before, after string) func(string) string {
	return func(s string) string { return before + s + after }
}

func replace(from, to string) func(string) string {
	return func(s string) string { return strings.ReplaceAll(s, from, to) }
}

func without(what string) func(string) string { return replace(what, "") }

// uncheck puts a line in the place of the checksum.
func uncheck(line string) func(string) string {
	return func(s string) string {
		i := strings.LastIndex(s, "\n=") + 1
		return s[:i] + line + s[i+6:]
	}
}

// armorOf is armour of any length of line.
func armorOf(kind string, body []byte) string {
	return "-----BEGIN " + kind + "-----\n\n" + base64.StdEncoding.EncodeToString(body) + "\n-----END " + kind + "-----\n"
}

func unarmor(s string) string {
	all, _, err := blocks([]byte(s))
	if err != nil {
		panic(err)
	}
	return string(all[0].body)
}

func packets(change func([]byte) []byte) func(string) string {
	return func(s string) string {
		return armorOf("PGP SIGNATURE", change([]byte(unarmor(s))))
	}
}

func repeat(n int) func(string) string {
	return packets(func(b []byte) []byte { return bytes.Repeat(b, n) })
}

// redate makes the signature a year younger.
func redate(s string) string {
	return packets(func(b []byte) []byte {
		at := time.Date(2020, 6, 1, 0, 0, 0, 0, time.UTC).Unix()
		i := bytes.Index(b, binary.BigEndian.AppendUint32([]byte{5, 2}, uint32(at))) // subpacket: length, creation time
		if i < 0 {
			panic("no creation time")
		}
		b[i+2]++
		return b
	})(s)
}

// fingerprintOf gives the bytes of a fingerprint of testdata.
func fingerprintOf(key string) []byte {
	a, err := txtar.ParseFile("testdata/keys.txtar")
	if err != nil {
		panic(err)
	}
	for _, f := range a.Files {
		if f.Name == key {
			k, err := ReadKeys(bytes.NewReader(f.Data))
			if err != nil {
				panic(err)
			}
			fpr, _ := hex.DecodeString(k[0].Fingerprint)
			return fpr
		}
	}
	panic("no key " + key)
}

// reissue makes a signature by the key ed25519 say that it is by the key both.
func reissue(s string) string {
	from, to := fingerprintOf("ed25519"), fingerprintOf("both")
	return packets(func(b []byte) []byte {
		b = bytes.ReplaceAll(b, from, to)
		return bytes.ReplaceAll(b, from[12:], to[12:]) // the key ID
	})(s)
}

// unissue makes subpackets that name the issuer, by fingerprint and key ID, private ones.
func unissue(s string) string {
	fpr := fingerprintOf("ed25519")
	return packets(func(b []byte) []byte {
		b = bytes.ReplaceAll(b, append([]byte{33, 4}, fpr...), append([]byte{100, 4}, fpr...))
		return bytes.ReplaceAll(b, append([]byte{9, 16}, fpr[12:]...), append([]byte{9, 100}, fpr[12:]...))
	})(s)
}

func TestVectors(t *testing.T) {
	keys, signatures := archive(t, "keys"), archive(t, "signatures")
	used := map[string]bool{}
	for _, v := range vectors {
		if v.sig == "" {
			v.sig = v.name
		}
		used[v.sig] = true
		t.Run(v.name, func(t *testing.T) {
			signature, ok := signatures[v.sig]
			if !ok {
				t.Fatalf("testdata has no signature %s", v.sig)
			}
			if v.change != nil {
				signature = v.change(signature)
			}
			var trust []string
			for what := range strings.FieldsSeq(v.trust) {
				if !strings.Contains(what, "=") {
					what = "example.com=" + what
				}
				trust = append(trust, what)
			}
			s := trusting(t, keys, trust...)
			if v.image == "" {
				v.image = "example.com/app"
			}
			if v.file == "" {
				v.file = signed
			}
			file := strings.NewReader(v.file)
			file.Seek(0, io.SeekEnd) // Verify starts at the start
			got, err := s.Verify(t.Context(), v.image, file, []byte(signature), Policy{Legacy: v.legacy})
			if v.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				if got.Fingerprint == "" || got.Created.IsZero() {
					t.Errorf("signature %+v", got)
				}
				return
			}
			if got != (Signature{}) {
				t.Errorf("signature %+v beside an error", got)
			}
			if !errors.Is(err, ErrUntrusted) {
				t.Fatalf("error %v, want %v", err, v.want)
			}
			for _, s := range sentinels {
				if want := s == v.want || v.alsoNoKey && s == ErrNoKey; errors.Is(err, s) != want {
					t.Errorf("error %q: is %v: %v", err, s, !want)
				}
			}
			if !strings.Contains(err.Error(), v.says) {
				t.Errorf("error %q does not say %q", err, v.says)
			}
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error %q is more than a line", err)
			}
			t.Log(err)
		})
	}
	for name := range signatures {
		if !used[name] {
			t.Errorf("signature %s of testdata is not used", name)
		}
	}
}

func TestSignature(t *testing.T) {
	keys, signatures := archive(t, "keys"), archive(t, "signatures")
	both := read(t, keys, "both")[0]
	v6 := read(t, keys, "v6-ed25519")[0]
	at := time.Date(2020, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		sig   string
		trust []string
		want  Signature
	}{
		{"both-primary", []string{"=both", "example.com/app=both", "example.com=both", "example.com/other/long=both"},
			Signature{both.Fingerprint, "", at, "both", "example.com/app"}},
		{"both-sub", []string{"=both", "example.org=both"}, Signature{both.Fingerprint, both.Subkeys[0], at, "both", ""}},
		{"v6-ed25519", []string{"example.com=v6-ed25519"}, Signature{v6.Fingerprint, "", at, "v6-ed25519", "example.com"}},
	} {
		t.Run(tt.sig, func(t *testing.T) {
			got, err := trusting(t, keys, tt.trust...).Verify(t.Context(), "example.com/app", strings.NewReader(signed), []byte(signatures[tt.sig]), Policy{})
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

// counter counts how often a file is read to its end, and can fail.
type counter struct {
	io.ReadSeeker
	reads int
	fail  error
}

func (c *counter) Read(p []byte) (int, error) {
	if c.fail != nil {
		return 0, c.fail
	}
	n, err := c.ReadSeeker.Read(p)
	if errors.Is(err, io.EOF) {
		c.reads++
	}
	return n, err
}

func TestReadsFileOnce(t *testing.T) {
	keys, signatures := archive(t, "keys"), archive(t, "signatures")
	s := trusting(t, keys, "=ed25519", "=rsa2048", "=revoked-none", "=rsa1024")
	for _, tt := range []struct {
		sig  string
		want int
	}{
		{"ed25519-sha256", 1},
		{"two", 1},
		{"other-file", 1},
		{"revoked-and-good", 1},
		{"rsa1024-sha256", 0},
		{"rsa3072-sha256", 0},
		{"sig-expired", 0},
		{"inline", 0},
	} {
		t.Run(tt.sig, func(t *testing.T) {
			c := &counter{ReadSeeker: strings.NewReader(signed)}
			s.Verify(t.Context(), "example.com/app", c, []byte(signatures[tt.sig]), Policy{})
			if c.reads != tt.want {
				t.Errorf("read %d times, want %d", c.reads, tt.want)
			}
		})
	}
}

// TestNotAboutTrust: an error of the file or the arguments is not a verdict.
func TestNotAboutTrust(t *testing.T) {
	keys, signatures := archive(t, "keys"), archive(t, "signatures")
	s := trusting(t, keys, "=ed25519")
	broken := errors.New("broken disk")
	_, err := s.Verify(t.Context(), "example.com/app", &counter{ReadSeeker: strings.NewReader(signed), fail: broken}, []byte(signatures["ed25519-sha256"]), Policy{})
	if !errors.Is(err, broken) || errors.Is(err, ErrUntrusted) {
		t.Errorf("unreadable file: %v", err)
	}
	interrupted, interrupt := context.WithCancel(t.Context())
	interrupt()
	if _, err := s.Verify(interrupted, "example.com/app", strings.NewReader(signed), []byte(signatures["ed25519-sha256"]), Policy{}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUntrusted) {
		t.Errorf("interrupted: %v", err)
	}
	for _, name := range []string{"", "/", "Example.com", "example.com/", "example.com//app", "../app", "example.com,app", "@"} {
		if _, err := s.Verify(t.Context(), name, strings.NewReader(signed), []byte(signatures["ed25519-sha256"]), Policy{}); err == nil || errors.Is(err, ErrUntrusted) {
			t.Errorf("name %q: %v", name, err)
		}
		if keys, err := s.For(name); err == nil {
			t.Errorf("name %q: keys %v", name, keys)
		}
	}
}

// fuzzed are keys of each kind.
var fuzzed = []string{"=ed25519", "=rsa1024", "=dsa2048", "=nistp256", "=both", "=sub-revoked-retired", "=v6-ed25519", "=v6-mldsa"}

func FuzzVerify(f *testing.F) {
	for _, s := range archive(f, "signatures") {
		f.Add([]byte(s), []byte(signed))
	}
	s := trusting(f, archive(f, "keys"), fuzzed...)
	good := map[string]bool{signed: true, "another image\n": true}
	f.Fuzz(func(t *testing.T, signature, file []byte) {
		parseErr := ParseSignature(signature)
		if parseErr != nil && !errors.Is(parseErr, ErrNoSignature) {
			t.Errorf("%v", parseErr)
		}
		_, err := s.Verify(t.Context(), "example.com/app", bytes.NewReader(file), signature, Policy{Legacy: true})
		if err == nil && (parseErr != nil || !good[string(file)]) {
			t.Errorf("accepted %q", file)
		}
		if err != nil && !errors.Is(err, ErrUntrusted) {
			t.Error(err)
		}
	})
}

// FuzzPackets is FuzzVerify below the armour, which random bytes seldom pass.
func FuzzPackets(f *testing.F) {
	for _, s := range archive(f, "signatures") {
		if all, _, err := blocks([]byte(s)); err == nil && all[0].body != nil {
			f.Add(all[0].body)
		}
	}
	s := trusting(f, archive(f, "keys"), fuzzed...)
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := s.Verify(t.Context(), "example.com/app", strings.NewReader("unsigned"), []byte(armorOf("PGP SIGNATURE", body)), Policy{Legacy: true}); !errors.Is(err, ErrUntrusted) {
			t.Error(err)
		}
	})
}
