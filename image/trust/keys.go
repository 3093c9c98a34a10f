package trust

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const (
	// maxKeys bounds what keys are read from, in bytes.
	maxKeys = 1 << 20

	tagPublicKey = 6 // RFC 9580, section 5: a primary one

	blockPublic  = "PGP PUBLIC KEY BLOCK"
	blockPrivate = "PGP PRIVATE KEY BLOCK"
)

var errSecret = errors.New("a secret key; gpg --armor --export gives the public one, and this one should not have left its owner")

// ReadKeys reads public keys, up to 1 MiB: armoured, in one block or several, between
// which there may be text, or a binary key ring. It gives all of them or an error.
// Signatures of others on a key, pictures and what else says nothing about
// its validity are left out.
func ReadKeys(r io.Reader) ([]Key, error) {
	entities, err := readEntities(r)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	keys := make([]Key, 0, len(entities))
	for _, e := range entities {
		k, err := newKey(e)
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func readEntities(r io.Reader) ([]*openpgp.Entity, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxKeys+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxKeys:
		return nil, fmt.Errorf("more than %d KiB", maxKeys>>10)
	case len(b) == 0:
		return nil, errors.New("empty")
	case b[0]&0x80 != 0: // RFC 9580, section 4.2: so begins a packet, and no text
		return readRing(nil, b)
	}
	all, _, err := blocks(b)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no line -----BEGIN %s-----", blockPublic)
	}
	var entities []*openpgp.Entity
	for _, block := range all {
		switch block.kind {
		case blockPublic:
		case blockPrivate:
			return nil, errSecret
		default:
			return nil, fmt.Errorf("armour of type %q, not a public key", block.kind)
		}
		if entities, err = readRing(entities, block.body); err != nil {
			return nil, err
		}
	}
	return entities, nil
}

// readRing appends the keys of a key ring. Other than ReadKeyRing of the library it
// leaves none out silently: who reviewed the list believes that it is whole.
func readRing(entities []*openpgp.Entity, body []byte) ([]*openpgp.Entity, error) {
	primary := 0
	for r := packet.NewOpaqueReader(bytes.NewReader(body)); ; {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if p.Tag == tagPublicKey {
			primary++
		}
	}
	before := len(entities)
	packets := packet.NewReader(bytes.NewReader(body))
	for {
		e, err := openpgp.ReadEntity(packets)
		if errors.Is(err, io.EOF) {
			if got := len(entities) - before; got == 0 || got != primary {
				return nil, fmt.Errorf("%d public keys, %d of them of known versions and algorithms", primary, got)
			}
			return entities, nil
		}
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(entities)+1, err)
		}
		if e.PrivateKey != nil || slices.ContainsFunc(e.Subkeys, func(s openpgp.Subkey) bool { return s.PrivateKey != nil }) {
			return nil, errSecret
		}
		entities = append(entities, e)
	}
}

// newKey describes a key. It is an error when the key does not certify itself: nothing
// would ever be signed by it.
func newKey(e *openpgp.Entity) (Key, error) {
	// Dates do not matter here, only what is forged: whatever Policy lets through is shown.
	cfg := Policy{Legacy: true}.config()
	k := Key{
		Fingerprint: fingerprint(e.PrimaryKey),
		Algorithm:   algorithm(e.PrimaryKey),
		Created:     e.PrimaryKey.CreationTime.UTC(),
		Revoked:     e.Revoked(time.Now()),
	}
	var selfSignatures []*packet.Signature
	for _, id := range e.Identities {
		if sig, err := id.LatestValidSelfCertification(time.Time{}, cfg); err == nil {
			k.Identities = append(k.Identities, printable(id.Name))
			selfSignatures = append(selfSignatures, sig)
		}
	}
	slices.Sort(k.Identities)
	if sig, _ := e.PrimaryIdentity(time.Time{}, cfg); sig != nil {
		selfSignatures = []*packet.Signature{sig} // it decides, if it is not revoked
	}
	if sig, err := e.LatestValidDirectSignature(time.Time{}, cfg); err == nil {
		selfSignatures = append(selfSignatures, sig)
	}
	if len(selfSignatures) == 0 {
		return Key{}, fmt.Errorf("key %s: no valid signature of its own", FormatFingerprint(k.Fingerprint))
	}
	for _, sig := range selfSignatures {
		if s := sig.KeyLifetimeSecs; s != nil && *s != 0 {
			expires := k.Created.Add(time.Duration(*s) * time.Second)
			if k.Expires.IsZero() || expires.Before(k.Expires) {
				k.Expires = expires
			}
		}
	}
	for _, s := range e.Subkeys {
		k.Subkeys = append(k.Subkeys, fingerprint(s.PublicKey))
	}
	var err error
	if k.Armored, err = armored(e); err != nil {
		return Key{}, fmt.Errorf("key %s: %w", FormatFingerprint(k.Fingerprint), err)
	}
	return k, nil
}

func fingerprint(pk *packet.PublicKey) string { return hex.EncodeToString(pk.Fingerprint) }

func algorithm(pk *packet.PublicKey) string {
	bits, err := pk.BitLength()
	curve, _ := pk.Curve()
	switch pk.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		if err == nil {
			return fmt.Sprintf("RSA %d", bits)
		}
	case packet.PubKeyAlgoDSA:
		if err == nil {
			return fmt.Sprintf("DSA %d", bits)
		}
	case packet.PubKeyAlgoECDSA:
		return "ECDSA " + string(curve)
	case packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoEd25519, packet.PubKeyAlgoEd448:
		switch curve {
		case packet.Curve25519:
			return "Ed25519"
		case packet.Curve448:
			return "Ed448"
		}
	}
	return fmt.Sprintf("algorithm %d", pk.PubKeyAlgo) // the registry's number
}

// printable keeps control characters of a hostile key from the terminal on which it is
// reviewed, those that turn the direction of writing included.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// armored writes a key: the same bytes for the same key, other than Serialize of the
// library, which knows no order of identities.
func armored(e *openpgp.Entity) ([]byte, error) {
	var b bytes.Buffer
	w, err := armor.EncodeWithChecksumOption(&b, blockPublic, nil, e.PrimaryKey.Version < 6)
	if err != nil {
		return nil, err
	}
	signatures := func(lists ...[]*packet.VerifiableSignature) error {
		for _, s := range slices.Concat(lists...) {
			if err := s.Packet.Serialize(w); err != nil {
				return err
			}
		}
		return nil
	}
	if err := e.PrimaryKey.Serialize(w); err != nil {
		return nil, err
	}
	if err := signatures(e.Revocations, e.DirectSignatures); err != nil {
		return nil, err
	}
	for _, name := range identityNames(e) {
		id := e.Identities[name]
		if err := id.UserId.Serialize(w); err != nil {
			return nil, err
		}
		if err := signatures(id.Revocations, id.SelfCertifications); err != nil {
			return nil, err
		}
	}
	for _, s := range e.Subkeys {
		if err := s.PublicKey.Serialize(w); err != nil {
			return nil, err
		}
		if err := signatures(s.Revocations, s.Bindings); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func identityNames(e *openpgp.Entity) []string {
	names := make([]string, 0, len(e.Identities))
	for name := range e.Identities {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// merge adds to a key what another copy of it has. As a key only grows, an old copy
// never takes back what a newer one revoked.
func merge(into, from *openpgp.Entity) {
	into.Revocations = union(into.Revocations, from.Revocations)
	into.DirectSignatures = union(into.DirectSignatures, from.DirectSignatures)
	for name, id := range from.Identities {
		have := into.Identities[name]
		if have == nil {
			id.Primary = into
			into.Identities[name] = id
			continue
		}
		have.Revocations = union(have.Revocations, id.Revocations)
		have.SelfCertifications = union(have.SelfCertifications, id.SelfCertifications)
	}
	for _, s := range from.Subkeys {
		i := slices.IndexFunc(into.Subkeys, func(have openpgp.Subkey) bool {
			return bytes.Equal(have.PublicKey.Fingerprint, s.PublicKey.Fingerprint)
		})
		if i < 0 {
			s.Primary = into
			into.Subkeys = append(into.Subkeys, s)
			continue
		}
		have := &into.Subkeys[i]
		have.Revocations = union(have.Revocations, s.Revocations)
		have.Bindings = union(have.Bindings, s.Bindings)
	}
}

func union(a, b []*packet.VerifiableSignature) []*packet.VerifiableSignature {
	for _, s := range b {
		if !slices.ContainsFunc(a, func(have *packet.VerifiableSignature) bool {
			return bytes.Equal(serialized(have.Packet), serialized(s.Packet))
		}) {
			a = append(a, s)
		}
	}
	return a
}

// serialized cannot fail: the signature was parsed, and is written to memory.
func serialized(s *packet.Signature) []byte {
	var b bytes.Buffer
	_ = s.Serialize(&b)
	return b.Bytes()
}
