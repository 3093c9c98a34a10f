package extract

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jetpack-run/jetpack/image/layer"
)

var testFormat = &Format{Name: "test", Errors: []error{errors.New("one of the format's own")}}

func init() { Register(testFormat) }

// An error is the same thing on this side as on the other.
func TestErrorsSurvive(t *testing.T) {
	cases := map[string]error{
		"ENOSPC":          &os.PathError{Op: "write", Path: "content", Err: syscall.ENOSPC},
		"EDQUOT":          fmt.Errorf("entry %q: %w", "x", syscall.EDQUOT),
		"EIO and ENOSPC":  errors.Join(syscall.EIO, fmt.Errorf("close: %w", syscall.ENOSPC)),
		"errno not exist": syscall.ENOENT,
		"several":         fmt.Errorf("entry %q: %w: %w", "x", layer.ErrHardLink, layer.ErrName),
		"unknown":         errors.New("who knows"),
	}
	for i, sentinel := range allSentinels() {
		cases[fmt.Sprint("sentinel ", i)] = fmt.Errorf("entry %q: %w: more", "a\x1b", sentinel)
	}
	targets := append(allSentinels(), syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.ENOENT, fs.ErrNotExist, io.EOF)
	for name, err := range cases {
		t.Run(name, func(t *testing.T) {
			data, jsonErr := json.Marshal(describe(err))
			if jsonErr != nil {
				t.Fatal(jsonErr)
			}
			var f failure
			if err := json.Unmarshal(data, &f); err != nil {
				t.Fatal(err)
			}
			got := f.err()
			if got.Error() != err.Error() {
				t.Errorf("says %q, want %q", got, err)
			}
			for _, target := range targets {
				if errors.Is(got, target) != errors.Is(err, target) {
					t.Errorf("is %v: %t, want %t", target, errors.Is(got, target), errors.Is(err, target))
				}
			}
		})
	}
	t.Run("nonsense", func(t *testing.T) {
		f := failure{Message: "x", Sentinels: []int{-1, 1000}}
		if got := f.err(); got.Error() != "x" {
			t.Error(got)
		}
	})
}

// Every exported error of the packages that the child runs is in the table.
func TestSentinelsAreComplete(t *testing.T) {
	source, err := os.ReadFile("child.go")
	if err != nil {
		t.Fatal(err)
	}
	table := string(source[bytes.Index(source, []byte("var sentinels")):])
	for prefix, dir := range map[string]string{"": ".", "layer.": "../layer"} {
		found := 0
		for _, name := range exportedErrors(t, dir) {
			found++
			if !strings.Contains(table, "\t"+prefix+name+",") && !strings.Contains(table, " "+prefix+name+",") {
				t.Errorf("%s%s is not in the table", prefix, name)
			}
		}
		if found == 0 {
			t.Errorf("no errors in %s", dir)
		}
	}
}

func exportedErrors(t *testing.T, dir string) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok || group.Tok != token.VAR {
				continue
			}
			for _, spec := range group.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(name.Name, "Err") {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

func TestOrderArrives(t *testing.T) {
	list := layer.NewWhitelist([]string{"/a", "/b"})
	none := list.Intersect(layer.NewWhitelist([]string{"/c"}))
	for _, o := range []Options{
		{Limits: layer.Limits{MaxBytes: 1, MaxEntries: 2}},
		{Keep: list},
		{Prune: list},
		{Keep: none, Prune: list},
	} {
		var b bytes.Buffer
		if err := testFormat.writeOrder(&b, o); err != nil {
			t.Fatal(err)
		}
		f, got, err := readOrder(&b)
		if err != nil {
			t.Fatal(err)
		}
		if f != testFormat || got.Limits != o.Limits || !sameList(got.Keep, o.Keep) || !sameList(got.Prune, o.Prune) || b.Len() != 0 {
			t.Errorf("got %+v, want %+v", got, o)
		}
	}
}

func sameList(a, b *layer.Whitelist) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.EqualFunc([]string{"a", "b", "c"}, []string{"a", "b", "c"}, func(x, y string) bool { return a.Has(x) == b.Has(y) })
}

// An archive ends where its empty frame is, and nowhere else.
func TestFrames(t *testing.T) {
	var b bytes.Buffer
	first, second := bytes.Repeat([]byte("first"), 50_000), []byte("second")
	for _, data := range [][]byte{first, second, nil} {
		if err := writeArchive(&b, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	whole := bytes.Clone(b.Bytes())
	for _, want := range [][]byte{first, second, nil} {
		if got, err := io.ReadAll(&frameReader{r: &b}); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v, want %d", len(got), err, len(want))
		}
	}
	for _, n := range []int{0, 3, 4, 100, chunkSize + 4, chunkSize + 6, len(first)} {
		if _, err := io.ReadAll(&frameReader{r: bytes.NewReader(whole[:n])}); err != errCut {
			t.Errorf("cut after %d: %v", n, err)
		}
	}
	if _, err := readFrame(bytes.NewReader([]byte{1, 0, 0, 0}), 100); err == nil {
		t.Error("huge frame accepted")
	}
	if err := writeArchive(io.Discard, io.MultiReader(bytes.NewReader(first), badReader{})); !errors.Is(err, tar.ErrHeader) {
		t.Error(err)
	}
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, tar.ErrHeader }

// A child must never start children.
func TestChildDoesNotExtract(t *testing.T) {
	t.Setenv(childEnv, "1")
	_, err := testFormat.Extract(t.Context(), bytes.NewReader(nil), t.TempDir(), Options{})
	if err == nil || !strings.Contains(err.Error(), "reexec.Init") {
		t.Error(err)
	}
}
