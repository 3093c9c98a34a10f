package layer

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestXattrs(t *testing.T) {
	s := newSandbox(t)
	if err := unix.Lsetxattr(s.top, "user.probe", nil, 0); err != nil {
		t.Skip("needs a file system with extended attributes: ", err)
	}
	// cap_net_raw+ep, revision 2, as setcap(8) writes it
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	a := s.mustApply(t,
		dir(".").xattr("user.top", "t"),
		dir("d").mode(0).xattr("user.dir", "d"),
		file("d/ping", "x").mode(0o4755).owned(1, 1).xattr("security.capability", capability),
		file("f", "").mode(0).xattr("user.binary", "\x00\xff").xattr("user.empty", ""),
		link("l", "/etc/passwd").xattr("trusted.link", "l"),
		fifo("p").xattr("trusted.fifo", "p"),
	)
	for _, tt := range []struct{ name, attr, want string }{
		{".", "user.top", "t"},
		{"d", "user.dir", "d"},
		{"d/ping", "security.capability", capability},
		{"f", "user.binary", "\x00\xff"},
		{"f", "user.empty", ""},
		{"l", "trusted.link", "l"},
		{"p", "trusted.fifo", "p"},
	} {
		buf := make([]byte, 100)
		n, err := unix.Lgetxattr(filepath.Join(s.top, tt.name), tt.attr, buf)
		if err != nil || string(buf[:n]) != tt.want {
			t.Errorf("%s: %s is %q, %v, want %q", tt.name, tt.attr, buf[:max(n, 0)], err, tt.want)
		}
	}
	if st := s.lstat(t, "d/ping"); st.Mode != unix.S_IFREG|0o4755 {
		t.Errorf("mode %o", st.Mode)
	}
	if w := a.Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
}

func TestXattrTooLarge(t *testing.T) {
	s := newSandbox(t)
	if _, err := s.apply(t, roomy, file("x", "").xattr("user.x", strings.Repeat("x", 70000))); err == nil {
		t.Error("an attribute was lost in silence")
	}
}
