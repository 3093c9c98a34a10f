//go:build unix

package sandboxtest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest/probe"
)

// processCases are about what a process gets.
var processCases = []testCase{
	{"exit codes", "", func(t *testing.T, s *setup) {
		s.create(t)
		for _, code := range []int{0, 7, 126, 255} {
			exit := s.run(t, process("a", "exit", strconv.Itoa(code))).exit
			if exit != (sandbox.Exit{Code: code}) {
				t.Errorf("exit %d gives %+v", code, exit)
			}
		}
	}},
	{"killed by signal", isolates, func(t *testing.T, s *setup) {
		s.create(t)
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
			exit := s.run(t, process("a", "self-signal", strconv.Itoa(int(sig)))).exit
			if exit.Signal != sig || exit.Status() != 128+int(sig) {
				t.Errorf("signal %d gives %+v", sig, exit)
			}
		}
	}},
	{"arguments", "", func(t *testing.T, s *setup) {
		p := process("a", "args", "", " two words ", "-x", "--", "a\nb", `"'\$`, "ü", "\xff")
		var got []string
		s.create(t).ask(t, p, &got)
		want := append(slices.Clone(p.Args[:len(p.Args)-1]), "\ufffd") // as JSON has it
		if !slices.Equal(got, want) {
			t.Errorf("arguments %q, want %q", got, want)
		}
	}},
	{"environment", "", func(t *testing.T, s *setup) {
		t.Setenv("SANDBOXTEST_LEAK", "1")
		p := process("a", "env")
		p.Env = append(p.Env, "EMPTY=", "EQUALS=a=b", "LINES=a\nb", "NAME.with-marks=1", "PATH=/nowhere")
		var got []string
		s.create(t).ask(t, p, &got)
		slices.Sort(got)
		slices.Sort(p.Env)
		if !slices.Equal(got, p.Env) {
			t.Errorf("environment %q, want %q", got, p.Env)
		}
	}},
	{"working directory", "", func(t *testing.T, s *setup) {
		s.create(t)
		for _, dir := range []string{"/", "/work dir", "/vol"} {
			p := process("a", "cwd")
			p.Dir = dir
			var got string
			if s.ask(t, p, &got); got != dir {
				t.Errorf("working directory %q, want %q", got, dir)
			}
		}
	}},
	{"root", isolates, func(t *testing.T, s *setup) {
		s.create(t).identity(t, 0, 0, nil)
	}},
	{"root with groups", isolates, func(t *testing.T, s *setup) {
		s.create(t).identity(t, 0, 0, []uint32{5, 77})
	}},
	{"user and groups", isolates, func(t *testing.T, s *setup) {
		s.create(t).identity(t, 1234, 4321, []uint32{7, 4444})
	}},
	{"user without groups", isolates, func(t *testing.T, s *setup) {
		// A line of the image must not add any.
		makeDir(t, filepath.Join(s.pod.Apps[0].Root, "etc"))
		writeFile(t, filepath.Join(s.pod.Apps[0].Root, "etc/passwd"), "me:x:1234:1:::\n")
		writeFile(t, filepath.Join(s.pod.Apps[0].Root, "etc/group"), "more:x:99:me\n")
		s.create(t).identity(t, 1234, 100, nil)
	}},
	{"descriptors", isolates, func(t *testing.T, s *setup) {
		s.create(t)
		var got []int
		if s.ask(t, process("a", "fds"), &got); !slices.Equal(got, []int{0, 1, 2}) {
			t.Errorf("open descriptors %v, want 0, 1 and 2", got)
		}
	}},
	{"descriptors that are given", isolates, func(t *testing.T, s *setup) {
		s.create(t)
		var files []*os.File
		var second *os.File
		for range 2 {
			r, w := pipe(t)
			files, second = append(files, w), r
		}
		p := process("a", "fds")
		p.Files = files
		var got []int
		if s.ask(t, p, &got); !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
			t.Errorf("open descriptors %v, want 0 to 4", got)
		}
		p = process("a", "write-to", "4", "hello")
		p.Files = files
		s.succeed(t, p)
		closeAll(t, files...)
		if data, err := io.ReadAll(second); err != nil || string(data) != "hello" {
			t.Errorf("descriptor 4 was written %q, %v", data, err)
		}
	}},
	{"devices", isolates, func(t *testing.T, s *setup) {
		want := []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}
		if runtime.GOOS == "linux" { // appc spec, OS-SPEC; elsewhere the last ones come with a terminal
			want = append(want, "/dev/console", "/dev/tty", "/dev/ptmx")
		}
		s.create(t)
		for _, uid := range []uint32{0, 1234} {
			p := process("a", append([]string{"devices"}, want...)...)
			p.UID = uid
			var lacking []string
			if s.ask(t, p, &lacking); len(lacking) > 0 {
				t.Errorf("for user %d: %q", uid, lacking)
			}
		}
	}},
	{"refused to root", isolates, func(t *testing.T, s *setup) { s.attempts(t, 0) }},
	{"refused to a user", isolates, func(t *testing.T, s *setup) { s.attempts(t, 1000) }},
}

// identity checks the credentials and manners of a process.
func (s *setup) identity(t *testing.T, uid, gid uint32, groups []uint32) {
	t.Helper()
	p := process("a", "process")
	p.UID, p.GID, p.Groups = uid, gid, groups
	var got probe.Process
	s.ask(t, p, &got)
	// Whether the primary group is among the others differs (getgroups(2)).
	var more []int
	for _, g := range got.Groups {
		if g != int(gid) {
			more = append(more, g)
		}
	}
	slices.Sort(more)
	got.Groups = more
	want := probe.Process{
		UID: int(uid), GID: int(gid), EUID: int(uid), EGID: int(gid), Umask: 0o022, Leader: true, GroupLead: true,
	}
	for _, g := range groups {
		want.Groups = append(want.Groups, int(g))
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("process is %+v, want %+v", got, want)
	}
}

// attempts has the probe try what must be refused, in a network that others use if
// there is any.
func (s *setup) attempts(t *testing.T, uid uint32) {
	t.Helper()
	if s.engine.Info().PrivateNetwork {
		s.pod.Network = sandbox.NetworkPrivate
	}
	s.create(t)
	for _, name := range probe.Attempts() {
		p := process("a", "try", name)
		p.UID = uid
		var got string
		if s.ask(t, p, &got); !strings.HasPrefix(got, "refused") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// streamCases are about standard files.
var streamCases = []testCase{
	{"standard input", "", func(t *testing.T, s *setup) {
		r := s.create(t).start(t, process("a", "cat"))
		data := bytes.Repeat(probe.AllBytes[:], 4096) // more than a pipe holds
		written := make(chan error, 1)
		go func() {
			_, err := r.stdin.Write(data)
			written <- errors.Join(err, r.stdin.Close())
		}()
		res := r.finish(t)
		if err := <-written; err != nil {
			t.Error(err)
		}
		if !bytes.Equal(res.stdout, data) {
			t.Errorf("%d bytes came back of %d, or different ones", len(res.stdout), len(data))
		}
	}},
	{"null devices", "", func(t *testing.T, s *setup) {
		s.create(t)
		for _, command := range []string{"cat", "split"} {
			task, err := s.engine.Start(t.Context(), s.pod.ID, process("a", command))
			if err != nil {
				t.Fatal(err)
			}
			if exit := wait(t, task); exit != (sandbox.Exit{}) {
				t.Errorf("%s ended with %+v", command, exit)
			}
		}
	}},
	{"outputs apart and unchanged", "", func(t *testing.T, s *setup) {
		res := s.create(t).succeed(t, process("a", "split"))
		if !bytes.Equal(res.stdout, probe.AllBytes[:]) || res.stderr != "to stderr\r\n" {
			t.Errorf("stdout %q, stderr %q", res.stdout, res.stderr)
		}
	}},
	{"files of others stay theirs", "", func(t *testing.T, s *setup) {
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		p := process("a", "split")
		p.UID, p.Stdout, p.Stderr = 1000, out, out
		task, err := s.create(t).engine.Start(t.Context(), s.pod.ID, p)
		if err != nil {
			t.Fatal(err)
		}
		wait(t, task)
		fi, err := out.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if uid := fi.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() {
			t.Errorf("standard output was given to user %d", uid)
		}
		if want := string(probe.AllBytes[:]) + "to stderr\r\n"; readFile(t, out.Name()) != want {
			t.Errorf("output is %q", readFile(t, out.Name()))
		}
	}},
	{"no noise of the engine", "", func(t *testing.T, s *setup) {
		res := s.create(t).run(t, process("a", "exit", "3"))
		if len(res.stdout) > 0 || res.stderr != "" {
			t.Errorf("stdout %q, stderr %q", res.stdout, res.stderr)
		}
	}},
}
