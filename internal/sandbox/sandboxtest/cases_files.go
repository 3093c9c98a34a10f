//go:build unix

package sandboxtest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// fileCases are about roots and mounts.
var fileCases = []testCase{
	{"own roots", "", func(t *testing.T, s *setup) {
		s.create(t)
		for _, app := range []string{"a", "b"} {
			if got := string(s.succeed(t, process(app, "read", "/name")).stdout); got != app {
				t.Errorf("app %s is in the root of %q", app, got)
			}
		}
		s.succeed(t, process("a", "write", "/tmp/x", "text"))
		if got := readFile(t, filepath.Join(s.pod.Apps[0].Root, "tmp/x")); got != "text" {
			t.Errorf("the root has %q", got)
		}
		s.refuse(t, process("b", "read", "/tmp/x"), "no such file")
	}},
	{"root is the top", "", func(t *testing.T, s *setup) {
		s.create(t)
		if got := string(s.succeed(t, process("a", "read", "/../../name")).stdout); got != "a" {
			t.Errorf("/../../name is %q", got)
		}
	}},
	{"links end in the root", "", func(t *testing.T, s *setup) {
		if err := os.Symlink("/../name", filepath.Join(s.pod.Apps[0].Root, "link")); err != nil {
			t.Fatal(err)
		}
		s.create(t)
		if got := string(s.succeed(t, process("a", "read", "/link")).stdout); got != "a" {
			t.Errorf("link leads to %q", got)
		}
	}},
	// runc makes links in /dev by path, before it enters the root: an image's own link
	// there led it out (as runc's CVE-2025-52565 did).
	{"system mount points that lead out", "Isolates", func(t *testing.T, s *setup) {
		for _, name := range []string{"dev", "proc", "sys"} {
			outside := t.TempDir()
			for _, f := range []string{"ptmx", "fd", "stdin"} {
				if err := os.WriteFile(filepath.Join(outside, f), []byte("host"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			point := filepath.Join(s.pod.Apps[0].Root, name)
			if err := errors.Join(os.RemoveAll(point), os.Symlink(outside, point)); err != nil {
				t.Fatal(err)
			}
			err := s.engine.Create(t.Context(), s.pod) // it may look now or at the start
			if err == nil {
				_, err = s.engine.Start(t.Context(), s.pod.ID, process("a", "exit", "0"))
			}
			if !errors.Is(err, sandbox.ErrBadRoot) {
				t.Errorf("/%s is a link: %v", name, err)
			}
			if err := errors.Join(s.engine.Destroy(t.Context(), s.pod.ID), os.Remove(point)); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(outside)
			if err != nil || len(entries) != 3 {
				t.Errorf("/%s: the host's directory has %v, %v", name, entries, err)
			}
			for _, e := range entries {
				if got := readFile(t, filepath.Join(outside, e.Name())); got != "host" {
					t.Errorf("/%s: the host's file %s has %q", name, e.Name(), got)
				}
			}
		}
	}},
	{"read-only root", "", func(t *testing.T, s *setup) {
		s.pod.Apps[0].ReadOnly = true
		s.create(t)
		s.refuse(t, process("a", "write", "/tmp/x", "text"), "read-only")
		s.refuse(t, process("a", "write", "/name", "text"), "read-only")
		s.succeed(t, process("a", "write", "/vol/x", "text"))
		s.succeed(t, process("b", "write", "/tmp/x", "text"))
	}},
	{"shared volume", "", func(t *testing.T, s *setup) {
		s.create(t).succeed(t, process("a", "write", "/vol/x", "text"))
		if got := string(s.succeed(t, process("b", "read", "/vol/x")).stdout); got != "text" {
			t.Errorf("the other app reads %q", got)
		}
		if got := readFile(t, filepath.Join(s.volume, "x")); got != "text" {
			t.Errorf("the host reads %q", got)
		}
	}},
	{"read-only mount", "", func(t *testing.T, s *setup) {
		writeFile(t, filepath.Join(s.volume, "x"), "text")
		s.pod.Apps[0].Mounts[0].ReadOnly = true
		s.create(t)
		s.refuse(t, process("a", "write", "/vol/x", "more"), "read-only")
		s.succeed(t, process("b", "write", "/vol/x", " more"))
		if got := string(s.succeed(t, process("a", "read", "/vol/x")).stdout); got != "text more" {
			t.Errorf("read %q", got)
		}
	}},
	{"recursive read-only mount", "", func(t *testing.T, s *setup) {
		m := &s.pod.Apps[0].Mounts[0]
		m.ReadOnly, m.Recursive = true, true
		s.create(t).refuse(t, process("a", "write", "/vol/x", "text"), "read-only")
	}},
	{"file mount", "", func(t *testing.T, s *setup) {
		file := filepath.Join(t.TempDir(), "file")
		writeFile(t, file, "mounted ")
		app := &s.pod.Apps[0]
		app.Mounts = append(app.Mounts, sandbox.Mount{Source: file, Target: "/name"})
		s.create(t).succeed(t, process("a", "write", "/name", "file"))
		if got := string(s.succeed(t, process("a", "read", "/name")).stdout); got != "mounted file" {
			t.Errorf("read %q", got)
		}
		if got := readFile(t, filepath.Join(app.Root, "name")); got != "a" {
			t.Errorf("the file below has become %q", got)
		}
	}},
	{"mount below a mount", "", func(t *testing.T, s *setup) {
		inner := t.TempDir()
		writeFile(t, filepath.Join(inner, "x"), "inner")
		makeDir(t, filepath.Join(s.volume, "below"))
		app := &s.pod.Apps[0]
		app.Mounts = append(app.Mounts, sandbox.Mount{Source: inner, Target: "/vol/below", ReadOnly: true})
		s.create(t)
		if got := string(s.succeed(t, process("a", "read", "/vol/below/x")).stdout); got != "inner" {
			t.Errorf("read %q", got)
		}
		s.refuse(t, process("a", "write", "/vol/below/x", "text"), "read-only")
		s.succeed(t, process("a", "write", "/vol/x", "text"))
	}},
	{"mount hides", "", func(t *testing.T, s *setup) {
		writeFile(t, filepath.Join(s.pod.Apps[0].Root, "vol/hidden"), "text")
		s.create(t).refuse(t, process("a", "read", "/vol/hidden"), "no such file")
	}},
	{"second process sees the first one's files", "", func(t *testing.T, s *setup) {
		s.create(t)
		s.start(t, process("a", "sleep")).ready(t)
		s.succeed(t, process("a", "write", "/tmp/x", "text"))
		if got := string(s.succeed(t, process("a", "read", "/tmp/x")).stdout); got != "text" {
			t.Errorf("read %q", got)
		}
	}},
}

// commandCases are about what is executed.
var commandCases = []testCase{
	{"search in PATH", "", func(t *testing.T, s *setup) {
		p := process("a", "args")
		p.Args[0] = "probe"
		p.Env = append(p.Env, "PATH=/missing:/tmp:/bin")
		var got []string
		if s.create(t).ask(t, p, &got); got[0] != "probe" {
			t.Errorf("program is called %q", got[0])
		}
	}},
	{"search without PATH", "", func(t *testing.T, s *setup) {
		p := process("a", "exit", "4")
		p.Args[0] = "probe"
		if exit := s.create(t).run(t, p).exit; exit.Code != 4 {
			t.Errorf("ended with %+v", exit)
		}
	}},
	{"relative command", "", func(t *testing.T, s *setup) {
		p := process("a", "exit", "4")
		p.Args[0], p.Dir = "../bin/probe", "/tmp"
		if exit := s.create(t).run(t, p).exit; exit.Code != 4 {
			t.Errorf("ended with %+v", exit)
		}
	}},
	{"command from a volume", "", func(t *testing.T, s *setup) {
		if err := copyFile(filepath.Join(s.pod.Apps[0].Root, ProbePath), filepath.Join(s.volume, "tool"), 0o755); err != nil {
			t.Fatal(err)
		}
		p := process("a", "exit", "4")
		p.Args[0] = "/vol/tool"
		if exit := s.create(t).run(t, p).exit; exit.Code != 4 {
			t.Errorf("ended with %+v", exit)
		}
	}},
	{"command not found", "", func(t *testing.T, s *setup) {
		s.create(t).fails(t, sandbox.ErrCommandNotFound, "/bin/missing", func(p *sandbox.Process) { p.Args = []string{"/bin/missing"} })
		s.fails(t, sandbox.ErrCommandNotFound, "missing", func(p *sandbox.Process) {
			p.Args, p.Env = []string{"missing"}, []string{"PATH=/bin"}
		})
	}},
	{"command not executable", "", func(t *testing.T, s *setup) {
		s.create(t).fails(t, sandbox.ErrCommandNotExecutable, "/name", func(p *sandbox.Process) { p.Args = []string{"/name"} })
		s.fails(t, sandbox.ErrCommandNotExecutable, "/tmp", func(p *sandbox.Process) { p.Args = []string{"/tmp"} })
	}},
	{"exec format error", "", func(t *testing.T, s *setup) {
		s.program(t, "nonsense", "no program\n")
		s.create(t).fails(t, sandbox.ErrCommandNotExecutable, "/bin/nonsense: exec format error", func(p *sandbox.Process) {
			p.Args = []string{"/bin/nonsense"}
		})
	}},
	{"interpreter not found", "", func(t *testing.T, s *setup) {
		s.program(t, "script", "#!/bin/missing -x\n")
		s.create(t).fails(t, sandbox.ErrCommandNotFound, "/bin/script: its interpreter /bin/missing is not in the image", func(p *sandbox.Process) {
			p.Args = []string{"/bin/script"}
		})
	}},
	{"script", isolates, func(t *testing.T, s *setup) {
		s.program(t, "script", "#!/bin/probe args\n")
		p := process("a")
		p.Args = []string{"/bin/script", "x"}
		var got []string
		if s.create(t).ask(t, p, &got); strings.Join(got, " ") != "/bin/probe args /bin/script x" {
			t.Errorf("arguments %q", got)
		}
	}},
	{"no working directory", "", func(t *testing.T, s *setup) {
		s.create(t).fails(t, sandbox.ErrNoWorkDir, "/missing", func(p *sandbox.Process) { p.Dir = "/missing" })
		s.fails(t, sandbox.ErrNoWorkDir, "/name", func(p *sandbox.Process) { p.Dir = "/name" })
	}},
	{"no such app", "", func(t *testing.T, s *setup) {
		s.create(t).fails(t, sandbox.ErrNotFound, "app c", func(p *sandbox.Process) { p.App = "c" })
	}},
	{"no such pod", "", func(t *testing.T, s *setup) {
		s.fails(t, sandbox.ErrNotFound, s.pod.ID, func(*sandbox.Process) {})
	}},
	{"failed start leaves the pod usable", "", func(t *testing.T, s *setup) {
		s.create(t).fails(t, sandbox.ErrCommandNotFound, "", func(p *sandbox.Process) { p.Args = []string{"/missing"} })
		s.succeed(t, process("a", "exit", "0"))
	}},
}

// program puts an executable file into the bin directory of app a.
func (s *setup) program(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(s.pod.Apps[0].Root, "bin", name)
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// fails starts a process, changed so that it cannot start, and checks the one line
// that says why.
func (s *setup) fails(t *testing.T, want error, text string, change func(*sandbox.Process)) {
	t.Helper()
	p := process("a", "exit", "0")
	change(&p)
	_, err := s.engine.Start(t.Context(), s.pod.ID, p)
	if !errors.Is(err, want) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("Start %q = %v, want %v with %q", p.Args, err, want, text)
	}
}
