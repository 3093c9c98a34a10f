// Package trust says whose images are run: it keeps the OpenPGP keys that the
// administrator trusts, each for a prefix of image names or for any name, and checks
// the detached signatures of image files against them.
//
// A key is valid when it was at the time that the signature states: what a key signed
// before it expired, or before it was replaced, stays signed. A key that was revoked as
// compromised, or without a reason, is not valid at any time. The dates are the signer's
// word: who has stolen a key that expired can sign for the time before, until it is
// revoked or removed.
//
// Not for: finding keys and asking about them (image/fetch and the command line),
// making signatures.
package trust

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/appc/spec/schema/types"
)

// ErrUntrusted is what every refusal is, beside exactly one of the others for each
// signature in the file. What is not ErrUntrusted says nothing about trust: the
// file could not be read, say.
const (
	ErrUntrusted = sentinel("not trusted")
	// ErrNoKey: no key is trusted for the image's name, or none of these made the
	// signature, or the one that did may not sign. Also a fingerprint that the store lacks.
	ErrNoKey = sentinel("no trusted key")
	// ErrNoSignature: what should be a signature is something else.
	ErrNoSignature = sentinel("not a signature")
	// ErrBadSignature: the file is not the one that was signed.
	ErrBadSignature = sentinel("bad signature")
	// ErrWeak: an algorithm that can be forged; Policy.Legacy permits it.
	ErrWeak = sentinel("weak signature")
	// ErrExpired: the signature is not valid now, or its key was not when it was made.
	ErrExpired = sentinel("expired")
	// ErrRevoked: the owner of the key declared it invalid.
	ErrRevoked = sentinel("revoked key")
)

// sentinel is an error that is ErrUntrusted too.
type sentinel string

func (s sentinel) Error() string { return string(s) }

func (s sentinel) Is(target error) bool { return target == ErrUntrusted }

// Key is a public key as it is shown for review, and kept.
type Key struct {
	Fingerprint string    // of the primary key: lower-case hex, 40 digits or 64 (version 6)
	Identities  []string  // that the key itself certifies, printable, sorted
	Algorithm   string    // "RSA 3072", "Ed25519", "ECDSA P256"
	Created     time.Time // UTC
	Expires     time.Time // zero is never
	Revoked     bool      // now
	Subkeys     []string  // their fingerprints
	Prefixes    []string  // of the names that it is trusted for, sorted; "" is any name. Of keys from a Store only
	Armored     []byte    // the key with its own signatures, without those of others
}

// FormatFingerprint gives a fingerprint as people compare it: groups of four in upper
// case, two spaces in the middle. What is no fingerprint comes back as it is.
func FormatFingerprint(fpr string) string {
	fpr, err := ParseFingerprint(fpr)
	if err != nil {
		return fpr
	}
	var b strings.Builder
	for i := 0; i < len(fpr); i += 4 {
		if i > 0 {
			b.WriteByte(' ')
		}
		if i == len(fpr)/2 {
			b.WriteByte(' ')
		}
		b.WriteString(fpr[i : i+4])
	}
	return strings.ToUpper(b.String())
}

// ParseFingerprint takes a whole fingerprint in any case and spacing, with 0x before it
// or not, and gives it in lower-case hex. Key IDs are refused: they can be forged.
func ParseFingerprint(s string) (string, error) {
	fpr := strings.ToLower(strings.Join(strings.Fields(s), ""))
	fpr = strings.TrimPrefix(fpr, "0x")
	if _, err := hex.DecodeString(fpr); err != nil || len(fpr) != 40 && len(fpr) != 64 {
		return s, fmt.Errorf("fingerprint %q: not 40 or 64 hexadecimal digits", s)
	}
	return fpr, nil
}

// covers says whether a key that is trusted for prefix is for name: "" is for any,
// others for the name itself and what is below it.
func covers(prefix, name string) bool {
	return prefix == "" || name == prefix || strings.HasPrefix(name, prefix+"/")
}

func validName(name string) error {
	if !types.ValidACIdentifier.MatchString(name) {
		return fmt.Errorf("image name %q: not an AC Identifier (lower case, digits, - . _ ~ /)", name)
	}
	return nil
}
