package repository

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// Signer signs images.
type Signer interface {
	// Sign reads file to its end and writes an armoured detached signature of it.
	Sign(ctx context.Context, w io.Writer, file io.Reader) error
	// PublicKey gives the armoured public key, or several with the one that signs among them.
	PublicKey(ctx context.Context) ([]byte, error)
}

// maxKeyFile bounds files of keys, in bytes.
const maxKeyFile = 1 << 20

// KeyFile is a Signer with the one secret key in an armoured file, of Keygen's or gpg's
// making, which nobody but its owner may read. passphrase is called once, now, if the
// key is protected; without it such a key is refused.
func KeyFile(path string, passphrase func() ([]byte, error)) (Signer, error) {
	key, err := readSecretKey(path)
	if err != nil {
		return nil, fmt.Errorf("read signing key %s: %w", path, err)
	}
	if err := unlock(key, passphrase); err != nil {
		return nil, fmt.Errorf("read signing key %s: %w", path, err)
	}
	if _, ok := key.SigningKey(time.Now(), signing); !ok {
		return nil, fmt.Errorf("read signing key %s: it cannot sign: expired, revoked, too weak, or made for something else", path)
	}
	return keySigner{key}, nil
}

func readSecretKey(path string) (_ *openpgp.Entity, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others may read it: chmod 600 %s", path)
	}
	keys, err := openpgp.ReadArmoredKeyRing(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("not an armoured key: %w", err)
	}
	if len(keys) != 1 {
		return nil, fmt.Errorf("it has %d keys, not one", len(keys))
	}
	if keys[0].PrivateKey == nil {
		return nil, errors.New("it is a public key: the secret one is needed (gpg --armor --export-secret-keys)")
	}
	return keys[0], nil
}

func unlock(key *openpgp.Entity, passphrase func() ([]byte, error)) error {
	locked := key.PrivateKey.Encrypted
	for _, sub := range key.Subkeys {
		locked = locked || sub.PrivateKey != nil && sub.PrivateKey.Encrypted
	}
	if !locked {
		return nil
	}
	if passphrase == nil {
		return errors.New("it is protected by a passphrase")
	}
	secret, err := passphrase()
	if err != nil {
		return fmt.Errorf("ask for its passphrase: %w", err)
	}
	if err := key.DecryptPrivateKeys(secret); err != nil {
		return fmt.Errorf("wrong passphrase: %w", err)
	}
	return nil
}

// signing is how keys and signatures are made and judged: what verifies them by
// openpgp/v2's defaults accepts them.
var signing = &packet.Config{DefaultHash: crypto.SHA512}

type keySigner struct{ key *openpgp.Entity }

func (s keySigner) Sign(ctx context.Context, w io.Writer, file io.Reader) error {
	var raw bytes.Buffer
	if err := openpgp.DetachSign(&raw, []*openpgp.Entity{s.key}, contextReader{ctx, file}, signing); err != nil {
		return err
	}
	text, err := armored(openpgp.SignatureType, raw.Bytes())
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

func (s keySigner) PublicKey(context.Context) ([]byte, error) {
	return armoredKeys([]*openpgp.Entity{s.key})
}

// GPG is a Signer that asks the gpg command, and so its agent, to sign with the key
// that gpg finds for user: a fingerprint, an address.
func GPG(user string) Signer { return gpgSigner{user} }

type gpgSigner struct{ user string }

func (s gpgSigner) Sign(ctx context.Context, w io.Writer, file io.Reader) error {
	return s.run(ctx, file, w, "--digest-algo", "SHA512", "--local-user="+s.user, "--detach-sign")
}

func (s gpgSigner) PublicKey(ctx context.Context) ([]byte, error) {
	var out bytes.Buffer
	if err := s.run(ctx, nil, &out, "--export-options", "export-minimal", "--export", "--", s.user); err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return nil, fmt.Errorf("gpg: no public key for %q", s.user)
	}
	return out.Bytes(), nil
}

// run leaves the terminal to gpg's pinentry, which finds it by GPG_TTY.
func (s gpgSigner) run(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	if s.user == "" {
		return errors.New("gpg: no key is named")
	}
	cmd := exec.CommandContext(ctx, "gpg", append([]string{"--batch", "--quiet", "--armor"}, args...)...)
	var complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("gpg: %w: %s", err, strings.Join(strings.Fields(complaint.String()), " "))
	}
	return nil
}

// Keygen makes an Ed25519 key (version 4, which gpg 2.2 can import) that signs and does
// nothing else, without an end. secret and public are armoured. An empty passphrase
// leaves the secret key unprotected.
func Keygen(name, email string, passphrase []byte) (secret, public []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make key: %w", err)
		}
	}()
	if strings.ContainsFunc(name+email, unicode.IsControl) {
		return nil, nil, errors.New("control character in the name or the address")
	}
	config := &packet.Config{DefaultHash: crypto.SHA512, Algorithm: packet.PubKeyAlgoEdDSA}
	key, err := openpgp.NewEntity(name, "", email, config)
	if err != nil {
		return nil, nil, err
	}
	key.Subkeys = nil // one to encrypt to
	if len(passphrase) > 0 {
		if err := key.EncryptPrivateKeys(passphrase, config); err != nil {
			return nil, nil, err
		}
	}
	var raw bytes.Buffer
	if err := key.SerializePrivateWithoutSigning(&raw, config); err != nil {
		return nil, nil, err
	}
	if secret, err = armored(openpgp.PrivateKeyType, raw.Bytes()); err != nil {
		return nil, nil, err
	}
	public, err = armoredKeys([]*openpgp.Entity{key})
	return secret, public, err
}

// check verifies a signature that was just made and gives the key that made it:
// nothing is published that a client would refuse.
func check(file io.Reader, signature, keyring []byte) (Key, error) {
	keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(keyring))
	if err != nil {
		return Key{}, fmt.Errorf("read public key: %w", err)
	}
	_, signer, err := openpgp.VerifyArmoredDetachedSignature(keys, file, bytes.NewReader(signature), signing)
	if err != nil {
		return Key{}, fmt.Errorf("check the signature just made: %w", err)
	}
	public, err := armoredKeys([]*openpgp.Entity{signer})
	if err != nil {
		return Key{}, err
	}
	k := Key{
		Fingerprint: hex.EncodeToString(signer.PrimaryKey.Fingerprint),
		Created:     signer.PrimaryKey.CreationTime.UTC(),
		Armored:     string(public),
	}
	for name := range signer.Identities {
		k.Identities = append(k.Identities, name)
	}
	slices.Sort(k.Identities)
	return k, nil
}

// joinKeys makes one armoured block of several: readers are known that stop after
// the first of concatenated blocks.
func joinKeys(keys []Key) ([]byte, error) {
	var all []*openpgp.Entity
	for _, k := range keys {
		entities, err := openpgp.ReadArmoredKeyRing(strings.NewReader(k.Armored))
		if err != nil {
			return nil, fmt.Errorf("read key %s: %w", k.Fingerprint, err)
		}
		all = append(all, entities...)
	}
	return armoredKeys(all)
}

// joinSignatures makes one signature file that is good for two files.
func joinSignatures(a, b []byte) ([]byte, error) {
	var packets bytes.Buffer
	for _, signature := range [][]byte{a, b} {
		block, err := armor.Decode(bytes.NewReader(signature))
		if err != nil {
			return nil, fmt.Errorf("read signature: %w", err)
		}
		if _, err := packets.ReadFrom(block.Body); err != nil {
			return nil, fmt.Errorf("read signature: %w", err)
		}
	}
	return armored(openpgp.SignatureType, packets.Bytes())
}

func armoredKeys(keys []*openpgp.Entity) ([]byte, error) {
	var raw bytes.Buffer
	for _, key := range keys {
		if err := key.Serialize(&raw); err != nil {
			return nil, fmt.Errorf("write public key: %w", err)
		}
	}
	return armored(openpgp.PublicKeyType, raw.Bytes())
}

// armored writes the checksum, too, which ArmoredDetachSign does not: without it gpg 2.2
// does not find the end of data that needs no padding.
func armored(kind string, packets []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := armor.Encode(&out, kind, nil)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(packets); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// contextReader ends reading at the end of ctx.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
