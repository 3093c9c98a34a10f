package zfs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A transcript is what commands printed in a run with real ZFS: a line with a header,
// then one for each command, in JSON. It is made by TestTranscript when recordDir and
// testDataset are set, and replayed by it otherwise.
type transcript struct {
	Recorded   string            `json:"recorded"` // day
	Version    string            `json:"version"`  // of OpenZFS
	Dataset    string            `json:"dataset"`
	Properties map[string]string `json:"properties"` // systemProperties
}

type call struct {
	Argv   []string `json:"argv"`
	Stdout string   `json:"stdout,omitempty"`
	Stderr string   `json:"stderr,omitempty"`
	Exit   int      `json:"exit,omitempty"`
}

// The environment of the test binary when it plays zfs(8) or zpool(8).
const (
	recordDir  = "JETPACK_ZFS_RECORD"        // for TestTranscript: where to write transcripts
	actFile    = "JETPACK_TEST_TRANSCRIPT"   // the transcript
	actRecord  = "JETPACK_TEST_REAL_PATH"    // PATH with the real commands, to record
	actCounter = "JETPACK_TEST_CALL_COUNTER" // file with the number of calls, to replay
)

// actAsCommand makes the test binary play the command that it was called as, and exit.
func actAsCommand() {
	name := filepath.Base(os.Args[0])
	if name != "zfs" && name != "zpool" {
		return
	}
	c, err := replay(append([]string{name}, os.Args[1:]...))
	if path := os.Getenv(actRecord); path != "" {
		c, err = record(path, append([]string{name}, os.Args[1:]...))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "transcript:", err)
		os.Exit(99)
	}
	fmt.Fprint(os.Stdout, c.Stdout)
	fmt.Fprint(os.Stderr, c.Stderr)
	os.Exit(c.Exit)
}

func record(path string, argv []string) (call, error) {
	if err := os.Setenv("PATH", path); err != nil {
		return call{}, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return call{}, err
	}
	c := call{argv, stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	return c, appendLine(os.Getenv(actFile), c)
}

func appendLine(file string, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// replay answers as the transcript has it, if it is asked the same.
func replay(argv []string) (call, error) {
	_, calls, err := readTranscript(os.Getenv(actFile))
	if err != nil {
		return call{}, err
	}
	counter := os.Getenv(actCounter)
	text, _ := os.ReadFile(counter)
	n, _ := strconv.Atoi(string(text))
	if n >= len(calls) {
		return call{}, fmt.Errorf("call %d is not in it: %q", n, argv)
	}
	if !slices.Equal(canonical(argv), canonical(calls[n].Argv)) {
		return call{}, fmt.Errorf("call %d is %q, was %q", n, argv, calls[n].Argv)
	}
	return calls[n], os.WriteFile(counter, []byte(strconv.Itoa(n+1)), 0o600)
}

// canonical is argv without what is different each time: the order of properties,
// which is that of a map in go-zfs, and times.
func canonical(argv []string) []string {
	argv = slices.Clone(argv)
	for i, arg := range argv {
		if strings.HasPrefix(arg, createdProperty+"=") {
			argv[i] = createdProperty + "=TIME"
		}
	}
	slices.Sort(argv)
	return argv
}

func readTranscript(file string) (head transcript, calls []call, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return head, nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, len(raw)+1)
	for i := 0; lines.Scan(); i++ {
		if i == 0 {
			err = json.Unmarshal(lines.Bytes(), &head)
		} else {
			var c call
			err = json.Unmarshal(lines.Bytes(), &c)
			calls = append(calls, c)
		}
		if err != nil {
			return head, nil, err
		}
	}
	return head, calls, lines.Err()
}

// playCommands puts the test binary before zfs(8) and zpool(8).
func playCommands(t *testing.T, file string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"zfs", "zpool"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(actFile, file)
	t.Setenv("PATH", bin)
}

// TestTranscript runs a life of trees with the answers of real ZFS.
func TestTranscript(t *testing.T) {
	if dir := os.Getenv(recordDir); dir != "" {
		dataset := newDataset(t)
		version, _, _ := strings.Cut(zfs(t, "version"), "\n")
		file := filepath.Join(dir, version+".jsonl")
		head := transcript{time.Now().UTC().Format(time.DateOnly), version, dataset, systemProperties}
		if err := appendLine(file, head); err != nil {
			t.Fatal(err)
		}
		t.Run("record", func(t *testing.T) {
			t.Setenv(actRecord, os.Getenv("PATH"))
			playCommands(t, file)
			life(t, dataset, systemProperties)
		})
	}
	files, err := filepath.Glob("testdata/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		head, calls, err := readTranscript(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(head.Version, func(t *testing.T) {
			counter := filepath.Join(t.TempDir(), "counter")
			t.Setenv(actCounter, counter)
			abs, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			playCommands(t, abs)
			life(t, head.Dataset, head.Properties)
			if n, err := os.ReadFile(counter); err != nil || string(n) != strconv.Itoa(len(calls)) {
				t.Errorf("%s of %d calls were made, %v", n, len(calls), err)
			}
		})
	}
}
