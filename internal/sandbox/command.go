//go:build unix

package sandbox

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/inroot"
)

const (
	// maxNesting bounds scripts whose interpreters are scripts, as Linux does (execve(2)).
	maxNesting = 5
	// maxLine is how much of a #! line counts: the most of any kernel, FreeBSD's page.
	maxLine = 4096
	// maxInterpreter is how long a path to an ELF interpreter may be (PATH_MAX).
	maxInterpreter = 4096
	// maxProgramHeaders bounds the table searched, in bytes, as Linux does.
	maxProgramHeaders = 64 << 10
)

// ResolveCommand finds what Start will execute, so that a command that cannot
// run is reported before anything has been started, and by its true cause. It
// looks inside the app's root, through the app's mounts, and returns the absolute
// path there that is to be executed; its symbolic links are not resolved, since
// programs may go by the name they are called.
//
// Args[0] without a slash is searched in PATH of p.Env, or without a PATH in
// p.Dir, /usr/bin and /bin; a relative path starts at p.Dir. The file and the
// interpreters that it names, by #! or as an ELF program, must exist and permit
// the process's user to execute them. Access control lists are not consulted.
//
// Errors: ErrNoWorkDir, ErrCommandNotFound, ErrCommandNotExecutable.
func ResolveCommand(app App, p Process) (_ string, err error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return "", fmt.Errorf("empty command: %w", ErrCommandNotFound)
	}
	root, err := inroot.Open(app.Root)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, m := range app.Mounts {
		if err := root.Bind(m.Target, m.Source); err != nil {
			return "", err
		}
	}
	if err := checkDir(root, p.Dir); err != nil {
		return "", err
	}
	r := resolver{root, app, p}
	found, err := r.search()
	if err != nil {
		return "", err
	}
	return found, nil
}

// CheckMountPoints refuses a root in which what the engine mounts the system on is
// neither absent nor a directory: a symbolic link there leads an engine that works
// by path out of the root (CVE-2025-31133 and its like).
//
// Errors: ErrBadRoot.
func CheckMountPoints(root string, names ...string) (err error) {
	r, err := inroot.Open(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for _, name := range names {
		st, err := r.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if uint32(st.Mode)&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("%s in the image is not a directory: %w", name, ErrBadRoot)
		}
	}
	return nil
}

func checkDir(root *inroot.Root, dir string) error {
	st, err := root.Stat(dir)
	switch {
	case isAbsent(err):
		return fmt.Errorf("%w: %s does not exist", ErrNoWorkDir, shown(dir))
	case err != nil:
		return err
	case uint32(st.Mode)&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%w: %s is not a directory", ErrNoWorkDir, shown(dir))
	}
	return nil
}

type resolver struct {
	root *inroot.Root
	app  App
	p    Process
}

// search goes through the candidates as execvp(3) does: what cannot be executed
// is passed over, and reported when nothing better follows.
func (r resolver) search() (string, error) {
	name := r.p.Args[0]
	notFound := fmt.Errorf("%s: %w", shown(name), ErrCommandNotFound)
	for _, candidate := range r.candidates(name) {
		found, err := r.executable(candidate)
		switch {
		case err == nil:
			return candidate, r.check(found, maxNesting)
		case errors.Is(err, ErrCommandNotExecutable):
			notFound = err
		case !errors.Is(err, ErrCommandNotFound):
			return "", err
		}
	}
	return "", notFound
}

// candidates are not cleaned: "link/../x" is where the kernel finds it.
func (r resolver) candidates(name string) []string {
	if strings.Contains(name, "/") {
		return []string{r.fromDir(name)}
	}
	dirs := []string{r.p.Dir, "/usr/bin", "/bin"}
	if value, ok := r.p.Lookup("PATH"); ok {
		dirs = strings.Split(value, ":")
	}
	paths := make([]string, len(dirs))
	for i, dir := range dirs {
		paths[i] = r.fromDir(dir) + "/" + name
	}
	return paths
}

func (r resolver) fromDir(p string) string {
	if path.IsAbs(p) {
		return p
	}
	return r.p.Dir + "/" + p
}

// executable resolves p and checks that the process's user may execute it.
func (r resolver) executable(p string) (string, error) {
	found, err := r.root.Resolve(p)
	if isAbsent(err) {
		return "", fmt.Errorf("%s: %w", shown(p), ErrCommandNotFound)
	}
	if err != nil {
		return "", err
	}
	st, err := r.root.Stat(found)
	if err != nil {
		return "", err
	}
	if uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG {
		return "", fmt.Errorf("%s is not a regular file: %w", shown(found), ErrCommandNotExecutable)
	}
	if !r.mayExecute(st) {
		return "", fmt.Errorf("%s: permission denied: %w", shown(found), ErrCommandNotExecutable)
	}
	return found, nil
}

// mayExecute is what the kernel asks: one class of bits, the first that fits.
func (r resolver) mayExecute(st unix.Stat_t) bool {
	mode := uint32(st.Mode)
	switch {
	case r.p.UID == 0:
		return mode&0o111 != 0
	case r.p.UID == st.Uid:
		return mode&0o100 != 0
	case r.p.GID == st.Gid || slices.Contains(r.p.Groups, st.Gid):
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

// check follows the interpreters that the file names; the kernel reports a missing
// one as "no such file or directory" of the file itself.
func (r resolver) check(file string, nesting int) error {
	if nesting == 0 {
		return fmt.Errorf("%s: too many nested interpreters: %w", shown(file), ErrCommandNotExecutable)
	}
	f, err := r.open(file)
	if err != nil {
		return err
	}
	kind, interpreter, err := readHeader(f)
	err = errors.Join(err, f.Close())
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", shown(file), err)
	case interpreter == "":
		return nil
	}
	found, err := r.executable(r.fromDir(interpreter))
	if errors.Is(err, ErrCommandNotFound) {
		return fmt.Errorf("%s: its interpreter %s is not in the image: %w", shown(file), shown(interpreter), ErrCommandNotFound)
	}
	if err != nil {
		return fmt.Errorf("interpreter of %s: %w", shown(file), err)
	}
	if kind == elfProgram { // its interpreter is loaded, not executed
		return nil
	}
	return r.check(found, nesting-1)
}

// open opens a resolved path. A process of the app may put a symbolic link or a
// fifo there meanwhile: the first is not followed out of the root, the second
// does not block.
func (r resolver) open(file string) (_ *os.File, err error) {
	dir, name := r.onHost(file)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// onHost says which directory of the host a resolved path lies in, and under
// what name: the root's or that of the last mount over it.
func (r resolver) onHost(file string) (dir, name string) {
	for _, m := range slices.Backward(r.app.Mounts) {
		if file == m.Target {
			return filepath.Split(m.Source)
		}
		if rest, ok := strings.CutPrefix(file, m.Target+"/"); ok {
			return m.Source, rest
		}
	}
	return r.app.Root, strings.TrimPrefix(file, "/")
}

// format is how a kernel starts an executable file.
type format int

const (
	script format = iota
	elfProgram
)

// readHeader tells a file's format and the interpreter that it names, if any.
// The bytes are an image's. Errors: ErrCommandNotExecutable.
func readHeader(f io.ReaderAt) (format, string, error) {
	head := make([]byte, maxLine)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return 0, "", err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		interpreter, err := scriptInterpreter(head)
		return script, interpreter, err
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		interpreter, err := elfInterpreter(f, head)
		return elfProgram, interpreter, err
	}
	return 0, "", fmt.Errorf("exec format error: %w", ErrCommandNotExecutable)
}

func scriptInterpreter(head []byte) (string, error) {
	line, _, _ := bytes.Cut(head[2:], []byte("\n"))
	line, _, _ = bytes.Cut(line, []byte{0})
	words := bytes.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' })
	if len(words) == 0 {
		return "", fmt.Errorf("no interpreter after #!: %w", ErrCommandNotExecutable)
	}
	return string(words[0]), nil
}

// elfInterpreter finds the program header PT_INTERP (elf(5)). Unlike debug/elf it
// reads nothing else, since everything else may be nonsense.
func elfInterpreter(f io.ReaderAt, head []byte) (string, error) {
	malformed := fmt.Errorf("malformed ELF program: %w", ErrCommandNotExecutable)
	if len(head) < elf.EI_NIDENT {
		return "", malformed
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	is64 := elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS64
	headers, size, err := programHeaders(f, head, order, is64)
	if err != nil {
		return "", malformed
	}
	for ; len(headers) >= size; headers = headers[size:] {
		prog, err := programHeader(headers, order, is64)
		if err != nil {
			return "", malformed
		}
		if elf.ProgType(prog.Type) != elf.PT_INTERP {
			continue
		}
		if prog.Filesz < 2 || prog.Filesz > maxInterpreter || prog.Off > 1<<62 {
			return "", malformed
		}
		name := make([]byte, prog.Filesz)
		if _, err := f.ReadAt(name, int64(prog.Off)); err != nil && err != io.EOF {
			return "", malformed
		}
		name, _, terminated := bytes.Cut(name, []byte{0})
		if !terminated || len(name) == 0 {
			return "", malformed
		}
		return string(name), nil
	}
	return "", nil
}

// programHeaders reads the table of program headers and the size of one of them.
func programHeaders(f io.ReaderAt, head []byte, order binary.ByteOrder, is64 bool) (table []byte, size int, err error) {
	var h elf.Header64
	want := binary.Size(elf.Prog64{})
	if is64 {
		_, err = binary.Decode(head, order, &h)
	} else {
		var h32 elf.Header32
		want = binary.Size(elf.Prog32{})
		_, err = binary.Decode(head, order, &h32)
		h.Phoff, h.Phentsize, h.Phnum = uint64(h32.Phoff), h32.Phentsize, h32.Phnum
	}
	size = int(h.Phentsize)
	length := size * int(h.Phnum)
	if err != nil || size != want || length > maxProgramHeaders || h.Phoff > 1<<62 {
		return nil, 0, errors.Join(err, errors.ErrUnsupported)
	}
	table = make([]byte, length)
	if _, err := f.ReadAt(table, int64(h.Phoff)); err != nil {
		return nil, 0, err
	}
	return table, size, nil
}

func programHeader(data []byte, order binary.ByteOrder, is64 bool) (prog elf.Prog64, err error) {
	if is64 {
		_, err = binary.Decode(data, order, &prog)
		return prog, err
	}
	var prog32 elf.Prog32
	_, err = binary.Decode(data, order, &prog32)
	return elf.Prog64{Type: prog32.Type, Off: uint64(prog32.Off), Filesz: uint64(prog32.Filesz)}, err
}

// isAbsent says whether a path leads nowhere, as opposed to could not be looked at.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, inroot.ErrLoop) || errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EINVAL)
}

// shown quotes what an image put into a path, if that is not plain.
func shown(s string) string {
	if q := strconv.Quote(s); len(q) != len(s)+2 || strings.Contains(s, " ") {
		return q
	}
	return s
}
