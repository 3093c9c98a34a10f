package repository_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/jetpack-run/jetpack/discovery/repository"
)

// mixed signs with one key, if any, and shows another.
type mixed struct{ sign, key repository.Signer }

func (m mixed) Sign(ctx context.Context, w io.Writer, file io.Reader) error {
	if m.sign == nil {
		return nil
	}
	return m.sign.Sign(ctx, w, file)
}

func (m mixed) PublicKey(ctx context.Context) ([]byte, error) { return m.key.PublicKey(ctx) }

func TestKeyFile(t *testing.T) {
	locked, public, err := repository.Keygen("Jo Doe", "jo@example.com", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	open, _, err := repository.Keygen("Jo Doe", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(s string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(s), nil } }
	for _, tt := range []struct {
		name       string
		key        []byte
		mode       os.FileMode
		passphrase func() ([]byte, error)
		want       string // in the error, "" for none
	}{
		{"open", open, 0o600, nil, ""},
		{"locked", locked, 0o400, answer("secret"), ""},
		{"wrong passphrase", locked, 0o600, answer("Secret"), "wrong passphrase"},
		{"nobody to ask", locked, 0o600, nil, "protected by a passphrase"},
		{"no answer", locked, 0o600, func() ([]byte, error) { return nil, io.ErrUnexpectedEOF }, "unexpected EOF"},
		{"public key", public, 0o600, nil, "public key"},
		{"read by others", open, 0o640, nil, "chmod 600"},
		{"no key", []byte("hello"), 0o600, nil, "not an armoured key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "key.asc")
			if err := os.WriteFile(file, tt.key, tt.mode); err != nil {
				t.Fatal(err)
			}
			s, err := repository.KeyFile(file, tt.passphrase)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			key, err := s.PublicKey(t.Context())
			if err != nil || bytes.Contains(key, []byte("PRIVATE")) {
				t.Fatal(string(key), err)
			}
			keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(key))
			if err != nil || keys[0].PrivateKey != nil {
				t.Fatal("secret material in the public key", err)
			}
			var signature bytes.Buffer
			if err := s.Sign(t.Context(), &signature, strings.NewReader("data")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := openpgp.VerifyArmoredDetachedSignature(keys, strings.NewReader("data"), &signature, nil); err != nil {
				t.Error(err)
			}
		})
	}
	for _, name := range []string{"a\nb", "a<b"} {
		if _, _, err := repository.Keygen(name, "", nil); err == nil {
			t.Errorf("a key for %q", name)
		}
	}
}

// gpg gives a command that runs with a keyring of its own.
func gpg(t *testing.T) func(stdin string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("there is no gpg here: nothing says that others can read what is signed (Debian: apt-get install gnupg)")
	}
	home, err := os.MkdirTemp("", "gpg") //nolint:usetesting // the agent's socket needs a short name: sun_path
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", home)
	t.Cleanup(func() {
		if out, err := exec.Command("gpgconf", "--homedir", home, "--kill", "all").CombinedOutput(); err != nil {
			t.Logf("stop the agent: %v: %s", err, out)
		}
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	return func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command("gpg", append([]string{"--batch", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", "secret"}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %q: %v: %s", args, err, &stderr)
		}
		return string(out) + stderr.String()
	}
}

func TestGPGVerifies(t *testing.T) {
	run := gpg(t)
	r, dir := create(t, repository.Options{Prefix: "example.com"})
	e := add(t, r, image(t, "example.com/web", "1.0"))
	run(read(t, dir, "keys.asc"), "--import")
	for _, name := range []string{e.File, "web-latest-linux-amd64.aci"} {
		file := filepath.Join(dir, name)
		if out := run("", "--verify", file+".asc", file); !strings.Contains(out, "Good signature from \"Signer 0 <signer@example.com>\"") {
			t.Errorf("%s: %s", name, out)
		}
	}
}

func TestGPGImportsOurKeys(t *testing.T) {
	for _, passphrase := range []string{"", "secret"} {
		run := gpg(t)
		secret, _, err := repository.Keygen("Jo Doe", "jo@example.com", []byte(passphrase))
		if err != nil {
			t.Fatal(err)
		}
		run(string(secret), "--import")
		if out := run("data", "--armor", "--local-user", "jo@example.com", "--detach-sign"); !strings.Contains(out, "BEGIN PGP SIGNATURE") {
			t.Error(out)
		}
	}
}

func TestGPGSigns(t *testing.T) {
	run := gpg(t)
	t.Run("no such key", func(t *testing.T) {
		for _, user := range []string{"", "nobody@example.com", "--version"} {
			if _, err := repository.GPG(user).PublicKey(t.Context()); err == nil {
				t.Errorf("%q: a key", user)
			}
		}
	})
	run("", "--passphrase", "", "--quick-generate-key", "Jo Doe <jo@example.com>", "ed25519", "sign", "never")
	run("", "--passphrase", "", "--quick-generate-key", "Bo Doe <bo@example.com>", "rsa3072", "sign", "never")
	r, dir := create(t, repository.Options{Prefix: "example.com"})
	for i, user := range []string{"jo@example.com", "bo@example.com"} {
		data := image(t, "example.com/web", string(rune('1'+i)))
		e, err := r.Add(t.Context(), bytes.NewReader(data), repository.GPG(user), repository.AddOptions{Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, e.File)
		if out := run("", "--verify", file+".asc", file); !strings.Contains(out, "Good signature") {
			t.Error(out)
		}
	}
	keys, err := r.Keys(t.Context())
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	published, err := openpgp.ReadArmoredKeyRing(strings.NewReader(read(t, dir, "keys.asc")))
	if err != nil || len(published) != 2 {
		t.Errorf("%d keys in keys.asc, %v", len(published), err)
	}
	if strings.Count(read(t, dir, "keys.asc"), "BEGIN") != 1 {
		t.Error("keys.asc has several blocks")
	}
}
