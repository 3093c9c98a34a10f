package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// execEnv holds the remote, as JSON, in the environment of what go test executes.
const execEnv = "JETPACK_REMOTE"

// remote is a directory on a machine, and how to get there.
type remote struct {
	SSH []string // with its options and the destination
	Dir string
	Env []string // of the tests
	Top string   // the checkout here, of which Dir/src is a copy
}

// command runs a command line there. The login shell reads it, which may be any:
// it has plain words only.
func (r *remote) command(ctx context.Context, line ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.SSH[0], slices.Concat(r.SSH[1:], line)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C") // ssh may pass it on
	return cmd
}

// send copies files, each to its name in the directory there.
func (r *remote) send(ctx context.Context, files map[string]string) error {
	in, out := io.Pipe()
	cmd := r.command(ctx, "tar -C "+r.Dir+" -xf -")
	cmd.Stdin, cmd.Stderr = in, os.Stderr
	packed := make(chan error, 1)
	go func() {
		err := pack(out, files)
		packed <- errors.Join(err, out.CloseWithError(err))
	}()
	err := cmd.Run()
	_ = in.Close() // ends pack when tar has failed
	if err := errors.Join(<-packed, err); err != nil {
		return fmt.Errorf("copy files to the machine: %w", err)
	}
	return nil
}

// pack writes files as a tar archive. Files that do not exist are left out: git
// lists what is deleted in the checkout.
func pack(w io.Writer, files map[string]string) error {
	archive := tar.NewWriter(w)
	for name, path := range files {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		target := ""
		if info.Mode().Type() == fs.ModeSymlink {
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		header.Name = name
		header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "", ""
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			if err := copyFile(archive, path); err != nil {
				return err
			}
		}
	}
	return archive.Close()
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(w, f)
	return err
}

// execTest runs a test there, in the directory of the package in which go test runs
// it here, and gives its exit code.
func execTest(config, test string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := func() (int, error) {
		var r remote
		if err := json.Unmarshal([]byte(config), &r); err != nil {
			return 0, err
		}
		here, err := os.Getwd()
		if err != nil {
			return 0, err
		}
		pkg, err := filepath.Rel(r.Top, here)
		if err != nil {
			return 0, err
		}
		dir := filepath.Join("src", pkg)
		if err := r.send(ctx, map[string]string{filepath.Join(dir, filepath.Base(test)): test}); err != nil {
			return 0, err
		}
		cmd := r.command(ctx, "exec /bin/sh")
		cmd.Stdin = strings.NewReader(script(&r, dir, filepath.Base(test), args))
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		err = cmd.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
			return exit.ExitCode(), nil
		}
		return 0, err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the test on the machine:", err)
		return 1
	}
	return code
}

// script runs the test in a directory. The shell leads a process group: whoever is
// left in it is ended with the test, because ssh waits for them, or else is killed at
// the end of all (keep.sh).
func script(r *remote, dir, test string, args []string) string {
	words := slices.Concat([]string{"env", "TMPDIR=" + r.Dir + "/tmp", "JETPACK_TEST_BIN=" + r.Dir + "/bin"}, r.Env, []string{"./" + test}, args)
	for i, w := range words {
		words[i] = quote(w)
	}
	return fmt.Sprintf(`cd %s || exit 1
echo $$ >%s/group
%s </dev/null
code=$?
trap '' TERM
kill -s TERM -- -$$
rm -f %[2]s/group %[4]s
exit $code
`, quote(r.Dir+"/"+dir), quote(r.Dir), strings.Join(words, " "), quote(test))
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
