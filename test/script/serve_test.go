package script

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// server is a 'jetpack repo serve' that a script has begun.
type server struct {
	bin string
	cmd *exec.Cmd // nil if there is none
	log *os.File
}

type serverKey struct{}

// freePort gives a port of the loopback interface that nobody listens on.
func freePort(t testing.TB) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

func serve(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(serverKey{}).(*server)
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serve DIR, or serve -end")
	}
	if args[0] == "-end" {
		ts.Check(s.end())
		return
	}
	ts.Check(s.begin(ts, args[0]))
}

func (s *server) begin(ts *testscript.TestScript, dir string) (err error) {
	if s.cmd != nil {
		return errors.New("there is a server already")
	}
	address := "127.0.0.1:" + ts.Getenv("PORT")
	if s.log, err = os.OpenFile(ts.MkAbs("access.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return err
	}
	cmd := exec.Command(s.bin, "repo", "serve", "--listen", address, "--local-ca", ts.MkAbs("ca"), ts.MkAbs(dir))
	cmd.Env = []string{"JETPACK_CONFIG=" + ts.Getenv("JETPACK_CONFIG")}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		return errors.Join(err, s.log.Close())
	}
	s.cmd = cmd
	if err := answers(address); err != nil {
		return err
	}
	return configure(ts)
}

func answers(address string) error {
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var conn net.Conn
		if conn, err = net.Dial("tcp", address); err == nil {
			return conn.Close()
		}
	}
	return err
}

// configure has discovery ask the server.
func configure(ts *testscript.TestScript) error {
	path := ts.Getenv("JETPACK_CONFIG")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	settings := fmt.Sprintf("discovery.port = %s\ndiscovery.ca-file = %q\n", ts.Getenv("PORT"), ts.MkAbs("ca/ca.pem"))
	return os.WriteFile(path, bytes.Replace(old, []byte(offline), []byte(settings), 1), 0o600)
}

// end has the server end as Ctrl-C does, which is no failure of it.
func (s *server) end() error {
	if s.cmd == nil {
		return nil
	}
	err := errors.Join(s.cmd.Process.Signal(syscall.SIGINT), s.cmd.Wait(), s.log.Close())
	s.cmd = nil
	return err
}
