//go:build unix

package inroot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

const oracleEnv = "INROOT_ORACLE"

func TestMain(m *testing.M) {
	if root := os.Getenv(oracleEnv); root != "" {
		if err := oracle(root, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// verdict is what a path leads to: an inode, or an errno.
type verdict struct {
	Errno uint64
	Ino   uint64
	Type  uint64
}

// oracle lets the kernel resolve paths (NUL-terminated) in a chroot.
func oracle(root string, in io.Reader, out io.Writer) error {
	paths, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(root), unix.Chdir("/")); err != nil {
		return err
	}
	for len(paths) > 0 {
		p, rest, _ := bytes.Cut(paths, []byte{0})
		paths = rest
		for _, flags := range []int{0, unix.AT_SYMLINK_NOFOLLOW} {
			var st unix.Stat_t
			err := unix.Fstatat(unix.AT_FDCWD, string(p), &st, flags)
			if err := binary.Write(out, binary.LittleEndian, toVerdict(st, err)); err != nil {
				return err
			}
		}
	}
	return nil
}

func toVerdict(st unix.Stat_t, err error) verdict {
	var errno syscall.Errno
	switch {
	case errors.Is(err, ErrLoop):
		errno = unix.ELOOP
	case err != nil && !errors.As(err, &errno):
		errno = ^syscall.Errno(0)
	}
	if errno != 0 {
		return verdict{Errno: uint64(errno)}
	}
	return verdict{Ino: uint64(st.Ino), Type: uint64(fileType(&st))}
}

// randomPath makes a path of few names, so that it often leads somewhere.
func randomPath(rnd *rand.Rand) string {
	parts := []string{"a", "b", "c", "d", "a", "b", "..", "..", ".", ""}
	names := make([]string, 1+rnd.IntN(6))
	for i := range names {
		names[i] = parts[rnd.IntN(len(parts))]
	}
	return strings.Join(names, "/")
}

// randomTree fills the root with directories, files and links.
func (h host) randomTree(t testing.TB, rnd *rand.Rand) {
	dirs := []string{h.root}
	for range 5 + rnd.IntN(30) {
		p := filepath.Join(dirs[rnd.IntN(len(dirs))], string(rune('a'+rnd.IntN(4))))
		if _, err := os.Lstat(p); err == nil {
			continue
		}
		switch rnd.IntN(8) {
		case 0, 1, 2:
			mkdir(t, p)
			dirs = append(dirs, p)
		case 3:
			write(t, p, "file")
		case 4, 5:
			symlink(t, "/"+randomPath(rnd), p)
		case 6:
			if target := randomPath(rnd); target != "" {
				symlink(t, target, p)
			}
		case 7:
			symlink(t, []string{h.canary, "../canary", "../../canary", "../../../canary"}[rnd.IntN(4)], p)
		}
	}
}

// compare checks Stat, Lstat and Resolve against the kernel.
func (h host) compare(t *testing.T, r *Root, paths []string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	// Under the race detector a process sleeps for a second before it exits.
	cmd.Env = append(os.Environ(), oracleEnv+"="+h.root, "GORACE=atexit_sleep_ms=0")
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\x00") + "\x00")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := bytes.NewReader(out)
	for _, p := range paths {
		var want [2]verdict
		if err := binary.Read(answers, binary.LittleEndian, &want); err != nil {
			t.Fatal(err)
		}
		got := [2]verdict{toVerdict(r.Stat(p)), toVerdict(r.Lstat(p))}
		if got != want {
			t.Errorf("%q: stat and lstat are %+v, the kernel says %+v", p, got, want)
		}
		clean, err := r.Resolve(p)
		if (err == nil) != (want[0].Errno == 0) {
			t.Errorf("Resolve(%q): %v", p, err)
		}
		if err != nil {
			continue
		}
		// The result must be free of links, so the host may look at it plainly.
		if real, err := filepath.EvalSymlinks(h.root + clean); err != nil || real != filepath.Clean(h.root+clean) {
			t.Errorf("Resolve(%q) = %q is %q: %v", p, clean, real, err)
		}
		var st unix.Stat_t
		err = unix.Lstat(h.root+clean, &st)
		if v := toVerdict(st, err); v != want[0] {
			t.Errorf("Resolve(%q) = %q is %+v, the kernel says %+v", p, clean, v, want[0])
		}
	}
}

// change does everything that changes something; newHost checks the canary.
func change(r *Root, rnd *rand.Rand, paths []string) {
	for _, p := range paths {
		switch rnd.IntN(4) {
		case 0:
			_ = r.MkdirAll(p, 0o755)
		case 1:
			_ = r.WriteFile(p, []byte("written"), 0o644)
		case 2:
			_ = r.Remove(p)
		case 3:
			_, _ = r.ReadFile(p, 10)
		}
	}
}

func checkRandom(t *testing.T, seed uint64, extra string) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	h := newHost(t)
	h.randomTree(t, rnd)
	r := h.open(t)
	var paths []string
	if extra != "" && len(extra) < 4000 && !strings.Contains(extra, "\x00") { // NUL ends a path to the oracle
		symlink(t, extra, filepath.Join(h.root, "e"))
		paths = append(paths, "/"+extra, "/e", "/e/a", "/e/../b/")
	}
	for range 100 {
		paths = append(paths, "/"+randomPath(rnd))
	}
	h.compare(t, r, paths)
	change(r, rnd, paths)
	h.compare(t, r, paths)
}

func TestAgreesWithKernel(t *testing.T) {
	testenv.Root(t)
	h := newHost(t)
	h.fill(t)
	h.compare(t, h.open(t), []string{
		"/", "/..", "/lib", "/lib/", "/lib64/libc", "/abs", "/abs/", "/a/up", "/top/etc", "/out", "/out3/secret",
		"/self", "/ping", "/link3", "/a/slash", "/notdir", "/dangling", "/dangling/..", "/messy", "/storm",
		"/chain" + strconv.Itoa(maxLinks-1), "/chain" + strconv.Itoa(maxLinks), "/etc/passwd/..", "/" + strings.Repeat("x", 256),
	})
	for seed := range uint64(50) {
		checkRandom(t, seed, "")
	}
}

func FuzzAgreesWithKernel(f *testing.F) {
	testenv.Root(f)
	f.Add(uint64(1), "a/../b/./c//d/")
	f.Add(uint64(2), strings.Repeat("../", 100)+"a")
	f.Fuzz(checkRandom)
}
