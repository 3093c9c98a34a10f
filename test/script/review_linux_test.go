package script

import (
	"path/filepath"
	"testing"

	"github.com/containerd/console"
)

// TestReview: who has a terminal is shown a key and asked; nothing but "yes" is a yes.
func TestReview(t *testing.T) {
	h := newHost(t)
	key := filepath.Join(t.TempDir(), "key")
	h.must("repo", "keygen", "--name", "Me", "--email", "me@example.com", "--no-passphrase", key)
	tests := []struct {
		name, keys string
		code       int
		says       string
	}{
		{"no", "no\r", 4, "\njetpack: no trusted signature: the key was not accepted"},
		{"an empty line", "\r", 4, "\njetpack: no trusted signature: the key was not accepted"},
		{"the end of input", "\x04", 4, "\njetpack: no trusted signature: the key was not accepted"},
		{"Ctrl-C", "\x03", 1, "\njetpack: interrupted"},
		{"neither, then no", "y\rno\r", 4, "jetpack: no trusted signature: the key was not accepted"},
		{"yes", "yes\r", 0, "\njetpack: trusting "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			term := h.onTerminal(console.WinSize{Height: 24, Width: 200}, "trust", "add", "--prefix", "example.com/app", key+".pub")
			term.expect("Identity     Me <me@example.com>\r\n")
			term.expect("Trust them for images example.com/app and below? [yes/no] ")
			term.keys(tt.keys)
			term.expect(tt.says)
			if code := term.code(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if trusted := h.must("trust", "list", "-q") != ""; trusted != (tt.code == 0) {
				t.Errorf("the key is trusted: %t", trusted)
			}
		})
	}
}
