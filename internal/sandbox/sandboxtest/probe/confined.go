//go:build unix

package probe

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// confined are the commands that ask the kernel.
var confined map[string]command

// A literal would be an initialization cycle: try starts the probe again.
func init() {
	confined = map[string]command{
		"process":     {0, process},
		"fds":         {0, fds},
		"devices":     {1, devices},
		"self-signal": {1, selfSignal},
		"pid":         {0, pid},
		"kill":        {2, kill},
		"hostname":    {0, hostname},
		"interfaces":  {0, interfaces},
		"write-to":    {2, writeTo},
		"listen":      {0, listen},
		"accept":      {1, accept},
		"activated":   {0, activated},
		"dial":        {1, dial},
		"sysv-put":    {1, sysvPut},
		"sysv-get":    {1, sysvGet},
		"shm-put":     {1, func(_ System, args []string) error { return putShm(args[2]) }},
		"shm-get":     {0, shmGet},
		"terminal":    {0, terminal},
		"resized":     {0, resized},
		"raw-int":     {0, interrupted},
		"fork":        {1, fork},
		"storm":       {1, storm},
		"orphan":      {0, orphan},
		"try":         {1, try},
		"do":          {1, do},
		"mkdir":       {1, func(_ System, args []string) error { return os.Mkdir(args[2], 0o755) }},
		"bind":        {1, bind},
		"hog-memory":  {1, hogMemory},
		"hog-cpu":     {1, hogCPU},
		"hog-disk":    {2, hogDisk},
	}
}

// Process is what the command process prints.
type Process struct {
	UID, GID  int
	EUID      int
	EGID      int
	Groups    []int // sorted, as the kernel gives them
	Umask     int
	Leader    bool // of a session of its own
	GroupLead bool // of a process group of its own
	Ignored   []int
}

func process(sys System, _ []string) error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	sid, err := unix.Getsid(0)
	if err != nil {
		return err
	}
	p := Process{
		UID: os.Getuid(), GID: os.Getgid(), EUID: os.Geteuid(), EGID: os.Getegid(),
		Groups: groups, Umask: unix.Umask(0), Leader: sid == os.Getpid(), GroupLead: unix.Getpgrp() == os.Getpid(),
	}
	for sig := syscall.Signal(1); sig < 32; sig++ {
		if signal.Ignored(sig) {
			p.Ignored = append(p.Ignored, int(sig))
		}
	}
	return sys.print(p)
}

// fds prints the open descriptors. Go's runtime opens none before it has to wait
// for one, with the settings of the command.
func fds(sys System, _ []string) error {
	open := []int{}
	for fd := range 1024 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			open = append(open, fd)
		}
	}
	return sys.print(open)
}

// devices PATH... prints which of them are no devices that can be read.
func devices(sys System, args []string) error {
	lacking := []string{}
	for _, path := range args[2:] {
		fi, err := os.Stat(path)
		if err == nil && fi.Mode()&os.ModeCharDevice == 0 {
			err = errors.New("is none")
		}
		if err == nil {
			err = unix.Access(path, unix.R_OK)
		}
		if err != nil {
			lacking = append(lacking, fmt.Sprintf("%s: %v", path, err))
		}
	}
	return sys.print(lacking)
}

// write-to DESCRIPTOR TEXT
func writeTo(_ System, args []string) error {
	fd, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(args[3]))
	return err
}

// self-signal SIGNAL
func selfSignal(sys System, args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	if err := unix.Kill(os.Getpid(), syscall.Signal(n)); err != nil {
		return err
	}
	return sys.sleepUntilKilled()
}

// pid prints the probe's number and sleeps.
func pid(sys System, _ []string) error {
	if err := sys.print(os.Getpid()); err != nil {
		return err
	}
	return sys.sleepUntilKilled()
}

// kill PID SIGNAL
func kill(_ System, args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	sig, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	return unix.Kill(n, syscall.Signal(sig))
}

func hostname(sys System, _ []string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	return sys.print(name)
}

// Interface is what the command interfaces prints of each.
type Interface struct {
	Name         string
	Up, Loopback bool
}

func interfaces(sys System, _ []string) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	list := []Interface{}
	for _, i := range all {
		list = append(list, Interface{i.Name, i.Flags&net.FlagUp != 0, i.Flags&net.FlagLoopback != 0})
	}
	return sys.print(list)
}

// listen [ADDRESS] prints a port of 127.0.0.1, or that address, and says "hello" there once,
// and who it is that hears it.
func listen(sys System, args []string) error {
	address := "127.0.0.1"
	if len(args) > 2 {
		address = args[2]
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return err
	}
	defer l.Close()
	if err := sys.print(l.Addr().(*net.TCPAddr).Port); err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	from, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err == nil {
		_, err = io.WriteString(conn, "hello "+from)
	}
	return errors.Join(err, conn.Close())
}

// accept COUNT says "hello" to whoever comes first to one of so many sockets, from
// descriptor 3 on.
func accept(_ System, args []string) error {
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	conns := make(chan net.Conn)
	for n := range count {
		l, err := net.FileListener(os.NewFile(uintptr(3+n), "socket"))
		if err != nil {
			return err
		}
		go func() {
			if conn, err := l.Accept(); err == nil {
				conns <- conn
			}
		}()
	}
	conn := <-conns
	_, err = io.WriteString(conn, "hello")
	return errors.Join(err, conn.Close())
}

// Activated is what the command activated prints.
type Activated struct {
	Mine  bool   // LISTEN_PID is the probe's
	Names string // of the sockets
}

// activated does as accept with the sockets that it is told of (sd_listen_fds(3)).
func activated(sys System, _ []string) error {
	err := sys.print(Activated{os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()), os.Getenv("LISTEN_FDNAMES")})
	if err != nil {
		return err
	}
	return accept(sys, []string{"", "", os.Getenv("LISTEN_FDS")})
}

// dial PORT [ADDRESS] prints what is said at a port of 127.0.0.1, or that address.
func dial(sys System, args []string) error {
	address := "127.0.0.1"
	if len(args) > 3 {
		address = args[3]
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(address, args[2]))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(sys.Stdout, conn)
	return err
}

// bind PORT listens there, and no more.
func bind(_ System, args []string) error {
	l, err := net.Listen("tcp4", "127.0.0.1:"+args[2])
	if err != nil {
		return err
	}
	return l.Close()
}

// hog-memory MIB takes memory, a MiB at a time, and prints how many it has.
func hogMemory(sys System, args []string) error {
	most, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	for n := range most {
		block, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		if err := sys.print(n + 1); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond) // FreeBSD looks once a second
	}
	return nil
}

// Usage is what hog-cpu prints, in seconds.
type Usage struct{ CPU, Wall float64 }

// hog-cpu SECONDS takes all the time that two processors have.
func hogCPU(sys System, args []string) error {
	seconds, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	began := time.Now()
	end := began.Add(time.Duration(seconds) * time.Second)
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for time.Now().Before(end) {
				for i := range 1 << 16 {
					_ = i
				}
			}
		})
	}
	group.Wait()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return err
	}
	cpu := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	return sys.print(Usage{CPU: cpu.Seconds(), Wall: time.Since(began).Seconds()})
}

// hog-disk FILE MIB writes a file, past the kernel's cache, and prints how many seconds
// that took.
func hogDisk(sys System, args []string) (err error) {
	size, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	fd, err := unix.Open(args[2], unix.O_WRONLY|unix.O_CREAT|unix.O_DIRECT|unix.O_SYNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	block, err := unix.Mmap(-1, 0, 1<<18, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	if err != nil {
		return err
	}
	began := time.Now()
	for range size * 4 {
		if _, err := unix.Write(fd, block); err != nil {
			return err
		}
	}
	return sys.print(time.Since(began).Seconds())
}

const (
	ipcCreate = 0o1000
	sysvKey   = 4711
)

// sysv-put SIZE makes a System V shared memory segment under a known key.
func sysvPut(_ System, args []string) error {
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SHMGET, sysvKey, uintptr(size), ipcCreate|0o600)
	if errno != 0 {
		return errno
	}
	return nil
}

// sysv-get SIZE finds it.
func sysvGet(_ System, args []string) error {
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SHMGET, sysvKey, uintptr(size), 0); errno != 0 {
		return errno
	}
	return nil
}

func shmGet(sys System, _ []string) error {
	data, err := getShm()
	if err != nil {
		return err
	}
	_, err = sys.Stdout.Write(data)
	return err
}

// Size is a terminal's.
type Size struct{ Rows, Columns uint16 }

func size() (Size, error) {
	ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil {
		return Size{}, err
	}
	return Size{ws.Row, ws.Col}, nil
}

// terminal prints the size of the terminal that all standard files are, and fails
// if they are not one or it does not control the probe.
func terminal(sys System, _ []string) error {
	for fd := range 3 {
		if _, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err != nil {
			return fmt.Errorf("descriptor %d: %w", fd, err)
		}
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	s, err := size()
	if err != nil {
		return err
	}
	return sys.print(s)
}

// resized prints "ready", waits for SIGWINCH and prints the size.
func resized(sys System, _ []string) error {
	c := sys.Catch(syscall.SIGWINCH)
	if err := sys.print("ready"); err != nil {
		return err
	}
	<-c
	s, err := size()
	if err != nil {
		return err
	}
	return sys.print(s)
}

// interrupted prints "ready", waits for SIGINT and exits with 42.
func interrupted(sys System, _ []string) error {
	c := sys.Catch(syscall.SIGINT)
	if err := sys.print("ready"); err != nil {
		return err
	}
	<-c
	return exitError(42)
}

func again(args ...string) (*os.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return os.StartProcess(self, append([]string{"probe"}, args...), &os.ProcAttr{
		Files: []*os.File{nil, os.Stdout, os.Stderr},
	})
}

// fork COUNT starts children that ignore SIGTERM, then prints "ready" and sleeps.
func fork(sys System, args []string) error {
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
	if count > 0 {
		if _, err := again("fork", strconv.Itoa(count-1)); err != nil {
			return err
		}
	} else if err := sys.print("ready"); err != nil {
		return err
	}
	return sys.sleepUntilKilled()
}

// storm PATH: processes that are ever replaced by new ones in sessions of their own,
// each leaving a sign of life in a file.
func storm(sys System, args []string) error {
	if err := sys.Append(args[2], []byte(".")); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for range 3 {
		_, err = os.StartProcess(self, args, &os.ProcAttr{
			Files: []*os.File{nil, nil, nil},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
		if err == nil {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

// orphan starts a child that starts a grandchild, and lets the child end first. It
// prints the number of the grandchild, which ends soon after.
func orphan(sys System, args []string) error {
	if len(args) < 3 {
		child, err := again("orphan", "child")
		if err != nil {
			return err
		}
		_, err = child.Wait()
		return err
	}
	grandchild, err := again("exit", "0")
	if err != nil {
		return err
	}
	return sys.print(grandchild.Pid)
}

// try NAME succeeds if something happens that must not.
func try(sys System, args []string) error {
	f, ok := attempts[args[2]]
	if !ok {
		return sys.print("unknown")
	}
	if err := f(); err != nil {
		return sys.print("refused: " + err.Error())
	}
	return sys.print("permitted")
}

// Attempts are the arguments of try on this platform.
func Attempts() (names []string) {
	for name := range attempts {
		names = append(names, name)
	}
	return names
}
