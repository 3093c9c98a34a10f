package trust

import (
	"bytes"
	"errors"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

func TestFingerprint(t *testing.T) {
	const v4 = "4706dc5d5c214bc3ad127c6d53ccc2d63a162664"
	v6 := strings.Repeat("0123456789abcdef", 4)
	for _, tt := range []struct {
		name, in, want string // want "" is an error
	}{
		{"plain", v4, v4},
		{"upper case", strings.ToUpper(v4), v4},
		{"as shown", "4706 DC5D 5C21 4BC3 AD12  7C6D 53CC C2D6 3A16 2664", v4},
		{"0x", "0x" + v4, v4},
		{"lines", " " + v4[:20] + "\n\t" + v4[20:] + "\n", v4},
		{"version 6", v6, v6},
		{"key ID", v4[24:], ""},
		{"one short", v4[1:], ""},
		{"one long", v4 + "0", ""},
		{"not hex", "x" + v4[1:], ""},
		{"path", "../" + v4[3:], ""},
		{"empty", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseFingerprint(tt.in)
			if (err != nil) != (tt.want == "") || err == nil && got != tt.want {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if got, want := FormatFingerprint(v4), "4706 DC5D 5C21 4BC3 AD12  7C6D 53CC C2D6 3A16 2664"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := FormatFingerprint(v6), "0123 4567 89AB CDEF 0123 4567 89AB CDEF  0123 4567 89AB CDEF 0123 4567 89AB CDEF"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := FormatFingerprint("x"); got != "x" {
		t.Errorf("%q", got)
	}
}

func TestReadKeysShows(t *testing.T) {
	keys := archive(t, "keys")
	created := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name       string
		algorithm  string
		identities []string
		expires    time.Time
		revoked    bool
		subkeys    int
	}{
		{"rsa1024", "RSA 1024", []string{"rsa1024"}, time.Time{}, false, 0},
		{"rsa4096", "RSA 4096", []string{"rsa4096"}, time.Time{}, false, 0},
		{"dsa2048", "DSA 2048", []string{"dsa2048"}, time.Time{}, false, 0},
		{"ed25519", "Ed25519", []string{"ed25519"}, time.Time{}, false, 0},
		{"nistp256", "ECDSA P256", []string{"nistp256"}, time.Time{}, false, 0},
		{"go-ed448", "Ed448", []string{"go-ed448"}, time.Time{}, false, 1},
		{"v6-ed25519", "Ed25519", []string{"v6-ed25519"}, time.Time{}, false, 1},
		{"v6-mldsa", "algorithm 30", []string{"v6-mldsa"}, time.Time{}, false, 1},
		{"sub-rsa", "Ed25519", []string{"sub-rsa"}, time.Time{}, false, 1},
		{"expiring", "Ed25519", []string{"expiring"}, time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC), false, 0},
		{"extended", "Ed25519", []string{"expiring"}, time.Time{}, false, 0},
		{"v6-passed", "Ed25519", []string{"v6-passed"}, created.AddDate(0, 0, 1), false, 1},
		{"revoked-none", "Ed25519", []string{"revoked"}, time.Time{}, true, 0},
		{"revoked-retired", "Ed25519", []string{"revoked"}, time.Time{}, true, 0},
		{"v6-revoked", "Ed25519", []string{"v6-revoked"}, time.Time{}, true, 1},
		{"id-revoked", "Ed25519", []string{"id-kept", "id-revoked"}, time.Time{}, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := read(t, keys, tt.name)
			if len(all) != 1 {
				t.Fatalf("%d keys", len(all))
			}
			k := all[0]
			if _, err := ParseFingerprint(k.Fingerprint); err != nil {
				t.Error(err)
			}
			if k.Algorithm != tt.algorithm || !slices.Equal(k.Identities, tt.identities) || !k.Created.Equal(created) ||
				!k.Expires.Equal(tt.expires) || k.Revoked != tt.revoked || len(k.Subkeys) != tt.subkeys {
				t.Errorf("%+v", k)
			}
			again, err := ReadKeys(bytes.NewReader(k.Armored))
			if err != nil || !reflect.DeepEqual(again, all) {
				t.Errorf("read again: %v, %v", again, err)
			}
		})
	}
}

func TestReadKeys(t *testing.T) {
	keys := archive(t, "keys")
	secret, err := openpgp.NewEntity("secret", "", "", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var secretRing bytes.Buffer
	if err := secret.SerializePrivate(&secretRing, nil); err != nil {
		t.Fatal(err)
	}
	ring := func(names ...string) string {
		var b strings.Builder
		for _, n := range names {
			b.WriteString(unarmor(keys[n]))
		}
		return b.String()
	}
	// The signature of an identity is its last packet, and ends in the number that is broken here.
	forged := func(s string) string { return s[:len(s)-1] + string(s[len(s)-1]^1) }
	for _, tt := range []struct {
		name string
		in   string
		want int    // keys, 0 is an error
		says string // it
	}{
		{"one", keys["ed25519"], 1, ""},
		{"blocks", keys["ed25519"] + keys["rsa2048"] + keys["v6-ed25519"], 3, ""},
		{"text around", "Our keys:\n\n" + keys["ed25519"] + "and\n" + keys["rsa2048"] + "bye\n", 2, ""},
		{"several in a block", armorOf(blockPublic, []byte(ring("ed25519", "both", "v6-sub"))), 3, ""},
		{"binary", ring("ed25519"), 1, ""},
		{"binary ring", ring("ed25519", "rsa2048", "dsa2048"), 3, ""},
		{"CRLF", strings.ReplaceAll(keys["ed25519"], "\n", "\r\n"), 1, ""},
		{"the same twice", keys["ed25519"] + keys["ed25519"], 2, ""},
		{"empty", "", 0, "empty"},
		{"page", "<html>404", 0, "no line"},
		{"secret", armorOf(blockPrivate, secretRing.Bytes()), 0, "--export"},
		{"secret as public", armorOf(blockPublic, secretRing.Bytes()), 0, "--export"},
		{"secret binary", secretRing.String(), 0, "--export"},
		{"secret after public", keys["ed25519"] + armorOf(blockPrivate, secretRing.Bytes()), 0, "--export"},
		{"signature", archive(t, "signatures")["ed25519-sha256"], 0, "PGP SIGNATURE"},
		{"truncated", strings.Split(keys["rsa4096"], "-----END")[0], 0, "truncated"},
		{"binary truncated", ring("ed25519", "rsa4096")[:700], 0, "unexpected EOF"},
		{"junk after", ring("ed25519") + "junk", 0, ""},
		{"good and unreadable", ring("ed25519") + "\x99\x00\x03\x04ab" + ring("rsa2048"), 0, "key"},
		{"no key", armorOf(blockPublic, []byte("\xca\x03PGP")), 0, "0 public keys"},
		{"good and of version 9", ring("ed25519") + "\xc6\x06\x09\x00\x00\x00\x00\x01", 0, "2 public keys, 1 of them"},
		{"version 3", "\x99\x00\x02\x03\x00" + ring("ed25519")[3:], 0, ""},
		{"identity forged", armorOf(blockPublic, []byte(forged(ring("ed25519")))), 0, "no valid signature of its own"},
		{"long", keys["ed25519"] + strings.Repeat("\n", 1<<20), 0, "1024 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadKeys(strings.NewReader(tt.in))
			if len(got) != tt.want || (err == nil) != (tt.want > 0) {
				t.Fatalf("%d keys, %v, want %d", len(got), err, tt.want)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
		})
	}
	broken := errors.New("broken")
	if _, err := ReadKeys(&counter{fail: broken}); !errors.Is(err, broken) {
		t.Errorf("a reader's error: %v", err)
	}
}

func TestPrintable(t *testing.T) {
	e, err := openpgp.NewEntity("Eve\x1b[2J\u202e", "", "eve@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	k, err := newKey(e)
	if err != nil {
		t.Fatal(err)
	}
	if want := "Eve\ufffd[2J\ufffd <eve@example.com>"; k.Identities[0] != want {
		t.Errorf("%q, want %q", k.Identities[0], want)
	}
}

// TestGPGReads: what is kept is still a key to gpg.
func TestGPGReads(t *testing.T) {
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Skip("gpg is not installed")
	}
	keys := archive(t, "keys")
	var all []Key
	cmd := exec.Command(gpg, "--homedir", t.TempDir(), "--batch", "--with-colons", "--show-keys")
	var in bytes.Buffer
	for name := range keys {
		if strings.HasPrefix(name, "v6-") || name == "go-ed448" {
			continue // too new for gpg 2.2
		}
		for _, k := range read(t, keys, name) {
			all = append(all, k)
			in.Write(k.Armored)
		}
	}
	cmd.Stdin = &in
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, k := range all {
		if !bytes.Contains(out, []byte(strings.ToUpper(k.Fingerprint))) {
			t.Errorf("gpg does not find %s (%s)", k.Fingerprint, k.Identities)
		}
	}
}

func FuzzReadKeys(f *testing.F) {
	for _, s := range archive(f, "keys") {
		f.Add([]byte(s))
		f.Add([]byte(unarmor(s)))
	}
	signatures := archive(f, "signatures")
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := ReadKeys(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(keys) == 0 {
			t.Fatal("no keys and no error")
		}
		s := Open(t.TempDir() + "/keys")
		if err := s.Add("", keys...); err != nil {
			t.Fatal(err)
		}
		kept, damage, err := s.List()
		if err != nil || len(damage) > 0 || len(kept) == 0 {
			t.Fatalf("kept %v, %v, %v", kept, damage, err)
		}
		// Whatever the key is, it verifies nothing that it did not sign.
		if _, err := s.Verify(t.Context(), "example.com/app", strings.NewReader("unsigned"), []byte(signatures["ed25519-sha256"]), Policy{}); err == nil {
			t.Error("accepted")
		}
	})
}
