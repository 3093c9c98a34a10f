package trust

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// Policy says which signatures are strong enough. The zero Policy refuses what can be
// forged, or soon may be: SHA-1, RSA below 2047 bits, DSA, secp256k1.
type Policy struct {
	Legacy bool // SHA-1, RSA from 1024 bits and DSA are good enough, as they once were to gpg
}

// config is the library's, whose defaults are strict; the maps replace its own.
func (p Policy) config() *packet.Config {
	if !p.Legacy {
		return &packet.Config{}
	}
	return &packet.Config{
		MinRSABits:                  1024,
		RejectPublicKeyAlgorithms:   map[packet.PublicKeyAlgorithm]bool{packet.PubKeyAlgoElGamal: true},
		RejectMessageHashAlgorithms: map[crypto.Hash]bool{crypto.MD5: true, crypto.RIPEMD160: true},
	}
}

// Signature is a good one.
type Signature struct {
	Fingerprint string    // of the primary key of the signer
	Subkey      string    // the fingerprint of the subkey that made it; "" if the primary key did
	Created     time.Time // UTC, as the signer states
	Identity    string    // of the key, when it signed; "" if it had none (version 6)
	Prefix      string    // the longest one of the name that the key is trusted for; "" is any name
}

// Verify checks that file has a good signature by a key that is trusted for the image
// name, which the caller took from the image's manifest. Signature is the content of a
// signature file, see ParseSignature; one good signature in it is enough. File is read
// from its start to its end once for each signature that may be good, which is once if
// there is one; if there is none it is not read.
//
// Every error that is ErrUntrusted is final; others, of reading the file or the store, and
// those of ctx, are not.
func (s *Store) Verify(ctx context.Context, name string, file io.ReadSeeker, signature []byte, o Policy) (Signature, error) {
	sig, err := s.verify(name, cancellable{ctx, file}, signature, o.config())
	if err != nil {
		return Signature{}, fmt.Errorf("signature of %s: %w", name, err)
	}
	return sig, nil
}

func (s *Store) verify(name string, file io.ReadSeeker, signature []byte, cfg *packet.Config) (Signature, error) {
	candidates, err := parseSignature(signature)
	if err != nil {
		return Signature{}, err
	}
	keys, damage, err := s.trusted(name)
	if err != nil {
		return Signature{}, err
	}
	var refused refusals
	for _, c := range candidates {
		if c.err != nil {
			refused = append(refused, c.err)
			continue
		}
		good, err := c.verify(keys, file, cfg)
		if err == nil {
			good.Prefix = longestPrefix(keys, good.Fingerprint, name)
			return good, nil
		}
		if !errors.Is(err, ErrUntrusted) {
			return Signature{}, err
		}
		if errors.Is(err, ErrNoKey) {
			for _, d := range damage {
				err = fmt.Errorf("%w; %w", err, d)
			}
		}
		refused = append(refused, err)
	}
	return Signature{}, refused
}

func longestPrefix(keys []Key, fpr, name string) string {
	longest := ""
	for _, k := range keys {
		for _, p := range k.Prefixes {
			if k.Fingerprint == fpr && covers(p, name) && len(p) > len(longest) {
				longest = p
			}
		}
	}
	return longest
}

// verify tries one signature with the keys that have its issuer's ID: one, unless
// somebody made a key with the ID of another.
func (c candidate) verify(keys []Key, file io.ReadSeeker, cfg *packet.Config) (Signature, error) {
	err := fmt.Errorf("%w: it was made by %s, which is not trusted for this name: see that the key is its publisher's, then jetpack trust add", ErrNoKey, issuer(c.sig))
	for _, k := range keys {
		// The library remembers in a key what it found at one date: a new copy for each signature.
		e, readErr := readKey(bytes.NewReader(k.Armored), k.Fingerprint)
		if readErr != nil {
			return Signature{}, readErr
		}
		if len(openpgp.EntityList{e}.EntitiesById(*c.sig.IssuerKeyId)) == 0 {
			continue
		}
		certifiedAt(e, c.sig.CreationTime)
		var good Signature
		if good, err = c.verifyWith(e, file, cfg); err == nil || !errors.Is(err, ErrUntrusted) {
			return good, err
		}
	}
	return Signature{}, err
}

// certifiedAt makes a key's signatures of its own hold at a date before they were made,
// where it has no older ones: gpg replaces them when a key is extended, and what the
// key signed before would not be signed any more. Nobody but the owner gains by
// that: the key, its age, revocations and the expiry that they state stay the same.
func certifiedAt(e *openpgp.Entity, at time.Time) {
	lists := [][]*packet.VerifiableSignature{e.DirectSignatures}
	for _, id := range e.Identities {
		lists = append(lists, id.SelfCertifications)
	}
	for _, s := range e.Subkeys {
		lists = append(lists, s.Bindings)
	}
	for _, list := range lists {
		if len(list) == 0 {
			continue
		}
		oldest := slices.MinFunc(list, func(a, b *packet.VerifiableSignature) int {
			return a.Packet.CreationTime.Compare(b.Packet.CreationTime)
		}).Packet
		// The field is for the library's comparisons only: what was signed is kept apart.
		if oldest.CreationTime.After(at) {
			oldest.CreationTime = at
		}
		if cross := oldest.EmbeddedSignature; cross != nil && cross.CreationTime.After(at) {
			cross.CreationTime = at
		}
	}
}

func (c candidate) verifyWith(e *openpgp.Entity, file io.ReadSeeker, cfg *packet.Config) (Signature, error) {
	if err := c.refuse(e, cfg); err != nil {
		return Signature{}, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return Signature{}, err
	}
	signer, err := c.check(e, file, cfg)
	if err != nil {
		return Signature{}, err
	}
	good := Signature{Fingerprint: fingerprint(e.PrimaryKey), Created: c.sig.CreationTime.UTC()}
	if !signer.IsPrimary() {
		good.Subkey = fingerprint(signer.PublicKey)
	}
	if _, id := e.PrimaryIdentity(c.sig.CreationTime, cfg); id != nil {
		good.Identity = printable(id.Name)
	}
	return good, nil
}

// check reads the file and has the library judge. It repeats what refuse did, and has
// the last word.
func (c candidate) check(e *openpgp.Entity, file io.Reader, cfg *packet.Config) (*openpgp.Key, error) {
	reader := &errReader{r: file}
	md, err := openpgp.VerifyDetachedSignatureReader(openpgp.EntityList{e}, reader, bytes.NewReader(c.raw), cfg)
	if err == nil {
		_, err = io.Copy(io.Discard, md.UnverifiedBody)
	}
	if reader.err != nil {
		return nil, reader.err
	}
	if err == nil {
		err = md.SignatureError
	}
	if err != nil {
		return nil, fmt.Errorf("%w: by %s: the file is not what was signed, or was changed, or one of both was cut short (%w)",
			ErrBadSignature, issuer(c.sig), err)
	}
	return md.SignedBy, nil
}

// cancellable reads a file until its context ends.
type cancellable struct {
	ctx context.Context
	io.ReadSeeker
}

func (c cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.ReadSeeker.Read(p)
}

// errReader keeps the error of a file apart from those of what is read from it.
type errReader struct {
	r   io.Reader
	err error
}

func (r *errReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// refuse gives the reason why the signature cannot be good, whatever the file is. The
// library would find the same, but only after reading it, and with less to say.
func (c candidate) refuse(e *openpgp.Entity, cfg *packet.Config) error {
	sig, at, now := c.sig, c.sig.CreationTime, cfg.Now()
	pk, sub := e.PrimaryKey, (*openpgp.Subkey)(nil)
	if pk.KeyId != *sig.IssuerKeyId {
		i := slices.IndexFunc(e.Subkeys, func(s openpgp.Subkey) bool { return s.PublicKey.KeyId == *sig.IssuerKeyId })
		sub, pk = &e.Subkeys[i], e.Subkeys[i].PublicKey
	}
	key := "key " + FormatFingerprint(fingerprint(pk))

	// A key that was compromised is invalid at all times, one that was merely replaced
	// from then on.
	if e.Revoked(at) {
		return fmt.Errorf("%w: %s; another key must sign", ErrRevoked, key)
	}
	if sub != nil && sub.Revoked(nil, at) {
		return fmt.Errorf("%w: %s, a subkey; another must sign", ErrRevoked, key)
	}

	if cfg.RejectHashAlgorithm(sig.Hash) || cfg.RejectMessageHashAlgorithm(sig.Hash) {
		return fmt.Errorf("%w: %s of the file is signed; gpg --digest-algo SHA256 signs a better one", ErrWeak, sig.Hash)
	}
	for _, n := range sig.Notations {
		if n.IsCritical {
			return fmt.Errorf("%w: %s demands that the notation %q is understood, which it is not", ErrBadSignature, key, n.Name)
		}
	}
	for _, k := range []*packet.PublicKey{pk, e.PrimaryKey} {
		if weak(k, cfg) {
			return fmt.Errorf("%w: key %s is %s; a stronger key must sign", ErrWeak, FormatFingerprint(fingerprint(k)), algorithm(k))
		}
	}

	switch {
	case at.After(now):
		return fmt.Errorf("%w: not yet valid: made by %s on %s; is this machine's clock right?", ErrExpired, key, date(at))
	case sig.SigExpired(now):
		return fmt.Errorf("%w: the signature by %s of %s was not meant to last; the file must be signed again", ErrExpired, key, date(at))
	case at.Before(pk.CreationTime) || at.Before(e.PrimaryKey.CreationTime):
		return fmt.Errorf("%w: made on %s, before its %s was", ErrExpired, date(at), key)
	}
	self, err := e.VerifyPrimaryKey(at, cfg)
	if err == nil && sub != nil {
		self, err = sub.Verify(at, cfg)
	}
	switch {
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return fmt.Errorf("%w: %s had expired when it signed on %s; if it was extended: jetpack trust add the key as it is now", ErrExpired, key, date(at))
	case err != nil:
		return fmt.Errorf("%w: %s has no valid signature of its owner for %s, when it signed; jetpack trust add the whole key, if this copy lacks some", ErrExpired, key, date(at))
	case !self.FlagsValid || !self.FlagSign:
		return fmt.Errorf("%w: %s is not meant for signing", ErrNoKey, key)
	}
	return nil
}

func weak(pk *packet.PublicKey, cfg *packet.Config) bool {
	if cfg.RejectPublicKeyAlgorithm(pk.PubKeyAlgo) {
		return true
	}
	switch pk.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		bits, err := pk.BitLength()
		return err != nil || bits < cfg.MinimumRSABits()
	case packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA:
		curve, err := pk.Curve()
		return err != nil || cfg.RejectCurve(curve)
	}
	return false
}

// issuer names the key that a signature says it is of.
func issuer(sig *packet.Signature) string {
	if len(sig.IssuerFingerprint) > 0 {
		return "key " + FormatFingerprint(fmt.Sprintf("%x", sig.IssuerFingerprint))
	}
	return fmt.Sprintf("key ID %016X", *sig.IssuerKeyId)
}

func date(t time.Time) string { return strings.TrimSuffix(t.UTC().Format(time.RFC3339), "T00:00:00Z") }
