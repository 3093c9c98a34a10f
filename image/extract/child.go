package extract

import (
	"archive/tar"
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/image/layer"
	"github.com/jetpack-run/jetpack/internal/descriptors"
)

// What parent and child say to each other, in frames: a length of four bytes, then
// the bytes.
//
// The parent sends an order, the whitelists that the order announces, and the
// archive, twice if there is something to keep. An archive is any number of frames
// and an empty one; without that, the parent could not read the file to its end.
//
// The child sends ready, not in a frame, before anything else; then an answer.

const (
	childName = "jetpack-extract"
	// childEnv is set for the child, which must never extract by starting another.
	childEnv = "JETPACK_EXTRACT_CHILD"
	ready    = '!'
)

// The descriptors of the child.
const (
	rootFD = 3 + iota
	inFD
	outFD
)

type order struct {
	Format      string
	Limits      layer.Limits
	Keep, Prune bool // a whitelist follows
}

type answer struct {
	Hash     string
	Size     int64
	Warnings []string
	Failure  *failure
}

const (
	maxOrder     = 4 << 10
	maxWhitelist = 1 << 30
	maxAnswer    = 4 << 20
	chunkSize    = 64 << 10
)

// errCut: the parent sends no more of an archive, for a reason of its own.
var errCut = errors.New("the image could not be read to its end")

func init() { reexec.Register(childName, child) }

// Memory is what the heap of a program should take at most while it imports, in
// bytes, for it to set with debug.SetMemoryLimit: what reading a large manifest
// several times leaves to be collected is more. With the child it
// stays below 256 MiB then.
const Memory = 128 << 20

// childMemory is what the child's heap should take at most, in bytes: twice what a
// million entries need would be too much beside a parent that uncompresses.
const childMemory = 112 << 20

// child is the process that extracts. What it handles is hostile, so before it
// looks at any of it, it enters the tree as its root directory (chroot(2)), has no
// other descriptors, and gives up privileges. It executes and loads nothing from
// then on.
func child() {
	debug.SetMemoryLimit(childMemory)
	out := os.NewFile(outFD, "answer")
	if _, err := out.Write([]byte{ready}); err != nil {
		os.Exit(1) // nobody is there to be told
	}
	result, err := extractConfined()
	if err := reply(out, result, err); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func extractConfined() (Result, error) {
	root, err := confine()
	if err != nil {
		return Result{}, fmt.Errorf("confine process: %w", err)
	}
	in := bufio.NewReaderSize(os.NewFile(inFD, "order"), chunkSize)
	f, o, err := readOrder(in)
	if err != nil {
		return Result{}, fmt.Errorf("read order: %w", err)
	}
	return f.passes(root, o, func(apply ApplyFunc) (Result, error) {
		return f.read(&frameReader{r: in}, o.Limits, apply)
	})
}

// confine makes the tree, which it returns, this process's whole world.
func confine() (*os.File, error) {
	if err := closeInherited(outFD + 1); err != nil {
		return nil, fmt.Errorf("close descriptors: %w", err)
	}
	if err := unix.Fchdir(rootFD); err != nil {
		return nil, fmt.Errorf("change directory: %w", err)
	}
	// FreeBSD has no chroot(2) in a jail with a directory open.
	if err := unix.Close(rootFD); err != nil {
		return nil, fmt.Errorf("close directory: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return nil, fmt.Errorf("change root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return nil, fmt.Errorf("change directory: %w", err)
	}
	root, err := os.Open("/")
	if err != nil {
		return nil, err
	}
	return root, dropPrivileges()
}

// closeInherited closes all descriptors from first on that were open at execve(2).
func closeInherited(first int) error {
	fds, err := descriptors.Inherited(first)
	for _, fd := range fds {
		err = errors.Join(err, unix.Close(fd))
	}
	return err
}

func (f *Format) writeOrder(w io.Writer, o Options) error {
	if err := writeJSON(w, order{f.Name, o.Limits, o.Keep != nil, o.Prune != nil}); err != nil {
		return err
	}
	for _, list := range []*layer.Whitelist{o.Keep, o.Prune} {
		if list == nil {
			continue
		}
		data, err := list.MarshalBinary()
		if err != nil {
			return err
		}
		if err := writeFrame(w, data); err != nil {
			return err
		}
	}
	return nil
}

func readOrder(r io.Reader) (f *Format, o Options, err error) {
	var sent order
	if err := readJSON(r, maxOrder, &sent); err != nil {
		return nil, Options{}, err
	}
	if f = formats[sent.Format]; f == nil {
		return nil, Options{}, fmt.Errorf("unknown format %q", sent.Format)
	}
	o.Limits = sent.Limits
	if sent.Keep {
		if o.Keep, err = readWhitelist(r); err != nil {
			return nil, Options{}, err
		}
	}
	if sent.Prune {
		if o.Prune, err = readWhitelist(r); err != nil {
			return nil, Options{}, err
		}
	}
	return f, o, nil
}

func readWhitelist(r io.Reader) (*layer.Whitelist, error) {
	data, err := readFrame(r, maxWhitelist)
	if err != nil {
		return nil, err
	}
	list := new(layer.Whitelist)
	return list, list.UnmarshalBinary(data)
}

func reply(w io.Writer, result Result, err error) error {
	if err != nil {
		return writeJSON(w, answer{Failure: describe(err)})
	}
	return writeJSON(w, answer{Hash: result.Hash, Size: result.Size, Warnings: result.Warnings})
}

func readReply(r io.Reader) (Result, error) {
	var a answer
	if err := readJSON(r, maxAnswer, &a); err != nil {
		return Result{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if a.Failure != nil {
		return Result{}, a.Failure.err()
	}
	return Result{Hash: a.Hash, Size: a.Size, Warnings: a.Warnings}, nil
}

func writeJSON(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, data)
}

func readJSON(r io.Reader, limit uint32, v any) error {
	data, err := readFrame(r, limit)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

func writeFrame(w io.Writer, data []byte) error {
	if err := binary.Write(w, binary.BigEndian, uint32(len(data))); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func readFrame(r io.Reader, limit uint32) ([]byte, error) {
	size, err := readSize(r)
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("frame of %d bytes", size)
	}
	data := make([]byte, size)
	_, err = io.ReadFull(r, data)
	return data, err
}

func readSize(r io.Reader) (uint32, error) {
	var size [4]byte
	_, err := io.ReadFull(r, size[:])
	return binary.BigEndian.Uint32(size[:]), err
}

// frameReader reads one archive out of its frames.
type frameReader struct {
	r    io.Reader
	left uint32 // of this frame
	done bool
}

func (f *frameReader) Read(p []byte) (int, error) {
	if f.left == 0 && !f.done {
		size, err := readSize(f.r)
		if err != nil {
			return 0, errCut
		}
		f.left, f.done = size, size == 0
	}
	if f.done {
		return 0, io.EOF
	}
	n, err := f.r.Read(p[:min(len(p), int(f.left))])
	f.left -= uint32(n)
	if err != nil {
		return n, errCut
	}
	return n, nil
}

// writeArchive writes r as frames. It tells errors of r from errGone.
func writeArchive(w io.Writer, r io.Reader) error {
	buf := make([]byte, 4+chunkSize)
	for {
		n, err := r.Read(buf[4:])
		if n > 0 {
			binary.BigEndian.PutUint32(buf, uint32(n))
			if _, err := w.Write(buf[:4+n]); err != nil {
				return errGone
			}
		}
		if err == io.EOF {
			if err := writeFrame(w, nil); err != nil {
				return errGone
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// failure is an error on its way to another process: what it says and what it is.
type failure struct {
	Message   string
	Sentinels []int // in the table of that name
	Errnos    []syscall.Errno
}

// sentinels are the errors that callers ask for, beside those of the formats.
var sentinels = []error{
	ErrFormat, ErrCompression, ErrTruncated, ErrTrailing,
	layer.ErrName, layer.ErrDuplicate, layer.ErrThroughLink, layer.ErrHardLink, layer.ErrSymlink, layer.ErrDevice,
	layer.ErrWhiteout, layer.ErrType, layer.ErrTooLarge, layer.ErrTooManyEntries, layer.ErrXattr, layer.ErrOwner,
	layer.ErrTooManyLinks,
	tar.ErrHeader, tar.ErrFieldTooLong, io.ErrUnexpectedEOF, errCut,
}

// allSentinels is the same in both processes.
func allSentinels() []error {
	all := slices.Clone(sentinels)
	for _, name := range slices.Sorted(maps.Keys(formats)) {
		all = append(all, formats[name].Errors...)
	}
	return all
}

func describe(err error) *failure {
	f := &failure{Message: err.Error(), Errnos: errnos(err)}
	for i, sentinel := range allSentinels() {
		if errors.Is(err, sentinel) {
			f.Sentinels = append(f.Sentinels, i)
		}
	}
	return f
}

// errnos finds all system errors that err consists of.
func errnos(err error) (found []syscall.Errno) {
	switch e := err.(type) { //nolint:errorlint // errors.As would stop at the first
	case syscall.Errno:
		return []syscall.Errno{e}
	case interface{ Unwrap() error }:
		return errnos(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			found = append(found, errnos(part)...)
		}
	}
	return found
}

func (f *failure) err() error {
	e := &childError{message: f.Message}
	all := allSentinels()
	for _, i := range f.Sentinels {
		if i >= 0 && i < len(all) {
			e.is = append(e.is, all[i])
		}
	}
	for _, errno := range f.Errnos {
		e.is = append(e.is, errno)
	}
	return e
}

// childError is an error that happened in the child.
type childError struct {
	message string
	is      []error
}

func (e *childError) Error() string   { return e.message }
func (e *childError) Unwrap() []error { return e.is }
