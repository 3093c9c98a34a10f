//go:build unix

package hostile

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// swapper puts symbolic links to the canary in the place of what is in a draft's
// tree, and back again, as fast as it can. It never leaves the tree itself: that
// is what os.Root sees to.
type swapper struct {
	host  host
	trees string // the driver's directory
	stop  chan struct{}
	done  chan int // how often it swapped
}

func startSwapper(h host, trees string) *swapper {
	s := &swapper{h, trees, make(chan struct{}), make(chan int)}
	go s.run()
	return s
}

// end stops it and tells how often it swapped.
func (s *swapper) end() int {
	close(s.stop)
	return <-s.done
}

func (s *swapper) run() {
	runtime.LockOSThread()
	swaps := 0
	for {
		select {
		case <-s.stop:
			s.done <- swaps
			return
		default:
		}
		drafts, _ := filepath.Glob(filepath.Join(s.trees, "imports", "*"))
		for _, draft := range drafts {
			swaps += s.swapIn(draft)
		}
		time.Sleep(50 * time.Microsecond) // the import is to get on meanwhile
	}
}

// swapIn swaps every name in a draft's tree once. What fails was just made or
// removed by the import.
func (s *swapper) swapIn(draft string) (swaps int) {
	dir := filepath.Join(draft, "merged")
	if _, err := os.Lstat(dir); err != nil {
		dir = filepath.Join(draft, "fs")
		// Without its record it is a copy in the making, in which nobody else can be.
		if _, err := os.Lstat(filepath.Join(draft, "tree.json")); err != nil {
			return 0
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0
	}
	defer root.Close()
	const most = 64 // so that a large tree is looked at again soon
	_ = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." || strings.HasSuffix(name, ".away") {
			return nil //nolint:nilerr // what cannot be looked at was just removed by the import
		}
		target := "file"
		if d.IsDir() {
			target = "dir"
		}
		link := s.host.canary(target)
		if swaps%2 == 1 {
			link = strings.Repeat("../", strings.Count(name, "/")) + s.host.relative(target)
		}
		if swapOnce(root, path.Clean(name), link) {
			swaps++
		}
		if swaps == most {
			return fs.SkipAll
		}
		return nil
	})
	return swaps
}

func swapOnce(root *os.Root, name, link string) bool {
	if root.Rename(name, name+".away") != nil {
		return false
	}
	swapped := root.Symlink(link, name) == nil
	runtime.Gosched()
	if swapped {
		_ = root.Remove(name)
	}
	_ = root.Rename(name+".away", name)
	return swapped
}
