package trust

import (
	"bytes"
	"crypto"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "make the keys and signatures in testdata anew; needs gpg 2.2")

// signed is the file that the signatures in testdata are of.
const signed = "an image\n"

// TestMake makes testdata/keys.txtar and testdata/signatures.txtar. The secret keys
// are gone when it ends.
func TestMake(t *testing.T) {
	if !*update {
		t.Skip("makes test data with -update only")
	}
	home, err := os.MkdirTemp("", "gpg") //nolint:usetesting // t.TempDir is too long for the path of gpg's socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	m := &maker{t: t, home: home}
	defer func() { m.command("", "gpgconf", "--homedir", home, "--kill", "all") }()
	m.algorithms()
	m.dates()
	m.revocations()
	m.others()
	m.library()
	for name, a := range map[string]*txtar.Archive{"keys": &m.keys, "signatures": &m.signatures} {
		slices.SortFunc(a.Files, func(a, b txtar.File) int { return strings.Compare(a.Name, b.Name) })
		if err := os.WriteFile(filepath.Join("testdata", name+".txtar"), txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

type maker struct {
	t                *testing.T
	home             string
	keys, signatures txtar.Archive
}

func (m *maker) command(stdin, name string, args ...string) string {
	m.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	return string(out)
}

// gpg runs it on a day, "20200101".
func (m *maker) gpg(day, stdin string, args ...string) string {
	m.t.Helper()
	return m.command(stdin, "gpg", append([]string{"--homedir", m.home, "--faked-system-time", day + "T000000!",
		"--batch", "--quiet", "--yes", "--no-tty", "--passphrase", "", "--pinentry-mode", "loopback", "--armor",
		"--no-auto-check-trustdb", "--trust-model", "always"}, args...)...)
}

// key makes one on 2020-01-01 with the user ID name; expire is gpg's. It gives the fingerprint.
func (m *maker) key(name, algorithm, usage, expire string) string {
	m.t.Helper()
	m.gpg("20200101", "", "--quick-generate-key", name, algorithm, usage, expire)
	return m.fingerprints(name)[0]
}

func (m *maker) subkey(fpr, algorithm, usage, expire string) {
	m.t.Helper()
	m.gpg("20200101", "", "--quick-add-key", fpr, algorithm, usage, expire)
}

// fingerprints gives those of the primary key and the subkeys.
func (m *maker) fingerprints(name string) []string {
	m.t.Helper()
	var all []string
	for line := range strings.Lines(m.gpg("20200101", "", "--with-colons", "--with-subkey-fingerprint", "--list-keys", "="+name)) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			all = append(all, f[9])
		}
	}
	return all
}

func (m *maker) export(as, name string) {
	m.t.Helper()
	m.keys.Files = append(m.keys.Files, txtar.File{Name: as, Data: []byte(m.gpg("20200101", "", "--export", "="+name))})
}

// sign makes a detached signature on a day; args are more options.
func (m *maker) sign(as, key, day string, args ...string) {
	m.t.Helper()
	m.write(as, m.gpg(day, signed, append(args, "--local-user", "="+key, "--detach-sign")...))
}

func (m *maker) write(as, signature string) {
	m.signatures.Files = append(m.signatures.Files, txtar.File{Name: as, Data: []byte(signature)})
}

func (m *maker) algorithms() {
	for _, k := range []struct {
		name   string
		hashes string
	}{
		{"rsa1024", "SHA256"},
		{"rsa2048", "SHA1 SHA224 SHA256 SHA384 SHA512 RIPEMD160"},
		{"rsa3072", "SHA256"},
		{"rsa4096", "SHA512"},
		{"dsa1024", "SHA1"},
		{"dsa2048", "SHA256"},
		{"ed25519", "SHA1 SHA256 SHA512"},
		{"nistp256", "SHA256"},
		{"nistp384", "SHA384"},
		{"nistp521", "SHA512"},
		{"brainpoolP256r1", "SHA256"},
		{"secp256k1", "SHA256"},
	} {
		m.key(k.name, k.name, "sign", "never")
		m.export(k.name, k.name)
		for hash := range strings.FieldsSeq(k.hashes) {
			m.sign(k.name+"-"+strings.ToLower(hash), k.name, "20200601", "--digest-algo", hash)
		}
	}
	for _, k := range []struct{ name, primary, sub string }{
		{"sub-rsa", "ed25519", "rsa2048"},
		{"sub-ed", "rsa3072", "ed25519"},
		{"sub-weak", "ed25519", "rsa1024"},
		{"primary-weak", "rsa1024", "ed25519"},
	} {
		m.subkey(m.key(k.name, k.primary, "cert", "never"), k.sub, "sign", "never")
		m.export(k.name, k.name)
		m.sign(k.name, k.name, "20200601")
	}
	// Two keys, either of which may sign.
	m.subkey(m.key("both", "ed25519", "sign", "never"), "ed25519", "sign", "never")
	m.export("both", "both")
	fprs := m.fingerprints("both")
	for i, name := range []string{"both-primary", "both-sub"} {
		m.write(name, m.gpg("20200601", signed, "--local-user", fprs[i]+"!", "--detach-sign"))
	}
}

func (m *maker) dates() {
	m.sign("sig-expired", "ed25519", "20200601", "--default-sig-expire", "30d")
	m.sign("sig-expires-later", "ed25519", "20200601", "--default-sig-expire", "20900101T000000")
	m.sign("sig-future", "ed25519", "21000101")

	fpr := m.key("expiring", "ed25519", "sign", "never")
	m.sign("expiring-before", "expiring", "20200601")
	m.sign("expiring-after", "expiring", "20220601")
	m.gpg("20200201", "", "--quick-set-expire", fpr, "20210101T000000")
	m.export("expiring", "expiring")
	m.gpg("20201201", "", "--quick-set-expire", fpr, "0")
	m.export("extended", "expiring")

	fpr = m.key("sub-expiring", "ed25519", "cert", "never")
	m.subkey(fpr, "ed25519", "sign", "never")
	m.sign("sub-expiring-before", "sub-expiring", "20200601")
	m.sign("sub-expiring-after", "sub-expiring", "20220601")
	m.gpg("20200201", "", "--quick-set-expire", fpr, "20210101T000000", "*")
	m.export("sub-expiring", "sub-expiring")
	m.gpg("20201201", "", "--quick-set-expire", fpr, "0", "*")
	m.gpg("20201201", "", "--quick-set-expire", fpr, "0")
	m.export("sub-extended", "sub-expiring")

	fpr = m.key("primary-expiring", "ed25519", "cert", "never")
	m.subkey(fpr, "ed25519", "sign", "never")
	m.sign("primary-expiring-before", "primary-expiring", "20200601")
	m.sign("primary-expiring-after", "primary-expiring", "20220601")
	m.gpg("20200201", "", "--quick-set-expire", fpr, "20210101T000000")
	m.export("primary-expiring", "primary-expiring")
}

// revocations are of 2021-01-01, with gpg's numbers for the reasons.
func (m *maker) revocations() {
	fpr := m.key("revoked", "ed25519", "sign", "never")
	m.export("unrevoked", "revoked")
	m.sign("revoked-before", "revoked", "20200601")
	m.sign("revoked-after", "revoked", "20220601")
	for reason, name := range []string{"none", "compromised", "superseded", "retired"} {
		certificate := m.interactive(fmt.Sprintf("y\n%d\n\ny\n", reason), "--gen-revoke", fpr)
		all, _, err := blocks([]byte(certificate))
		if err != nil {
			m.t.Fatal(err)
		}
		p, err := packet.Read(bytes.NewReader(all[0].body))
		if err != nil {
			m.t.Fatal(err)
		}
		e, err := readEntities(strings.NewReader(m.gpg("20200101", "", "--export", fpr)))
		if err != nil {
			m.t.Fatal(err)
		}
		e[0].Revocations = append(e[0].Revocations, packet.NewVerifiableSig(p.(*packet.Signature)))
		m.publish("revoked-"+name, e[0])
	}
	for reason, name := range []string{"none", "compromised", "superseded", "retired"} {
		name = "sub-revoked-" + name
		fpr := m.key(name, "ed25519", "cert", "never")
		m.subkey(fpr, "ed25519", "sign", "never")
		m.sign(name+"-before", name, "20200601")
		m.sign(name+"-after", name, "20220601")
		m.interactive(fmt.Sprintf("key 1\nrevkey\ny\n%d\n\ny\nsave\n", reason), "--edit-key", fpr)
		m.export(name, name)
	}
	// A revoked identity does not take the key with it.
	fpr = m.key("id-revoked", "ed25519", "sign", "never")
	m.gpg("20200101", "", "--quick-add-uid", fpr, "id-kept")
	m.gpg("20200102", "", "--quick-revoke-uid", fpr, "id-revoked")
	m.export("id-revoked", "id-kept")
	m.sign("id-revoked", "id-kept", "20200601")
}

// interactive runs gpg on 2021-01-01 with answers to its questions.
func (m *maker) interactive(answers string, args ...string) string {
	m.t.Helper()
	return m.command(answers, "gpg", append([]string{"--homedir", m.home, "--faked-system-time", "20210101T000000!",
		"--quiet", "--no-tty", "--command-fd", "0", "--passphrase", "", "--pinentry-mode", "loopback", "--armor"}, args...)...)
}

// publish keeps a key that was made or changed by the library.
func (m *maker) publish(as string, e *openpgp.Entity) {
	m.t.Helper()
	b, err := armored(e)
	if err != nil {
		m.t.Fatal(err)
	}
	m.keys.Files = append(m.keys.Files, txtar.File{Name: as, Data: b})
}

func (m *maker) others() {
	m.sign("two", "ed25519", "20200601", "--local-user", "=rsa2048")
	m.sign("weak-and-good", "ed25519", "20200601", "--local-user", "=rsa1024", "--digest-algo", "SHA256")
	m.sign("revoked-and-good", "ed25519", "20200601", "--local-user", "=revoked")
	m.sign("textmode", "ed25519", "20200601", "--textmode")
	m.sign("notation", "ed25519", "20200601", "--sig-notation", "note@example.com=x")
	m.sign("notation-critical", "ed25519", "20200601", "--sig-notation", "!note@example.com=x")
	m.write("inline", m.gpg("20200601", signed, "--local-user", "=ed25519", "--sign"))
	m.write("clear", m.gpg("20200601", signed, "--local-user", "=ed25519", "--clear-sign"))
	m.write("other-file", m.gpg("20200601", "another image\n", "--local-user", "=ed25519", "--detach-sign"))
}

// library makes what gpg 2.2 does not.
func (m *maker) library() {
	day := func(s string) func() time.Time {
		d, err := time.Parse("20060102", s)
		if err != nil {
			m.t.Fatal(err)
		}
		return func() time.Time { return d }
	}
	entity := func(name string, cfg packet.Config) *openpgp.Entity {
		cfg.Time = day("20200101")
		e, err := openpgp.NewEntity(name, "", "", &cfg)
		if err != nil {
			m.t.Fatal(err)
		}
		m.publish(name, e)
		return e
	}
	sign := func(as string, e *openpgp.Entity, cfg packet.Config) {
		cfg.Time = day("20200601")
		var b bytes.Buffer
		if err := openpgp.ArmoredDetachSign(&b, []*openpgp.Entity{e}, strings.NewReader(signed), &openpgp.SignParams{Config: &cfg}); err != nil {
			m.t.Fatal(err)
		}
		m.write(as, b.String())
	}
	for name, cfg := range map[string]packet.Config{
		"go-ed25519":    {Algorithm: packet.PubKeyAlgoEdDSA},
		"go-rsa":        {RSABits: 2048},
		"go-ecdsa":      {Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256},
		"go-ed448":      {Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve448},
		"v6-ed25519":    {V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519},
		"v6-ed448":      {V6Keys: true, Algorithm: packet.PubKeyAlgoEd448},
		"v6-sha512":     {V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519, DefaultHash: crypto.SHA512},
		"v6-sha3":       {V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519, DefaultHash: crypto.SHA3_256},
		"v6-rsa":        {V6Keys: true, RSABits: 2048},
		"v6-mldsa":      {V6Keys: true, Algorithm: packet.PubKeyAlgoMldsa65Ed25519},
		"v6-passed":     {V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519, KeyLifetimeSecs: 24 * 3600},
		"go-passed":     {Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 24 * 3600},
		"v6-sigexpired": {V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519, SigLifetimeSecs: 3600},
	} {
		keyConfig := cfg
		keyConfig.SigLifetimeSecs = 0
		e := entity(name, keyConfig)
		if cfg.KeyLifetimeSecs != 0 { // the library does not sign with it any more
			m.raw(name, e.PrivateKey, packet.SigTypeBinary, day("20200601")())
			continue
		}
		sign(name, e, cfg)
	}
	e := entity("v6-sub", packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519})
	if err := e.AddSigningSubkey(&packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519, Time: day("20200102")}); err != nil {
		m.t.Fatal(err)
	}
	m.keys.Files = m.keys.Files[:len(m.keys.Files)-1]
	m.publish("v6-sub", e)
	sign("v6-sub", e, packet.Config{})

	v6 := entity("v6-revoked", packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519})
	sign("v6-revoked", v6, packet.Config{})
	if err := v6.Revoke(packet.KeyCompromised, "", &packet.Config{Time: day("20210101")}); err != nil {
		m.t.Fatal(err)
	}
	m.keys.Files = m.keys.Files[:len(m.keys.Files)-1]
	m.publish("v6-revoked", v6)

	// By packets: what no program would make.
	e = entity("odd", packet.Config{RSABits: 2048})
	at := day("20200601")()
	m.raw("odd-encryption-key", e.Subkeys[0].PrivateKey, packet.SigTypeBinary, at)
	m.raw("odd-before-key", e.PrivateKey, packet.SigTypeBinary, day("20190601")())
	m.raw("odd-generic", e.PrivateKey, packet.SigTypeGenericCert, at)
	m.raw("odd-standalone", e.PrivateKey, packet.SignatureType(2), at)
	m.raw("odd-timestamp", e.PrivateKey, packet.SignatureType(0x40), at)
}

// raw signs with any key in any way.
func (m *maker) raw(as string, key *packet.PrivateKey, kind packet.SignatureType, at time.Time) {
	m.t.Helper()
	sig := &packet.Signature{Version: key.Version, SigType: kind, PubKeyAlgo: key.PubKeyAlgo, Hash: crypto.SHA256, CreationTime: at}
	h, err := sig.PrepareSign(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	io.WriteString(h, signed)
	if err := sig.Sign(h, key, nil); err != nil {
		m.t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.SignatureType, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := sig.Serialize(w); err != nil {
		m.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		m.t.Fatal(err)
	}
	b.WriteByte('\n')
	m.write(as, b.String())
}
