package storagetest

import (
	"errors"
	"slices"

	"github.com/jetpack-run/jetpack/internal/storage"
)

var listCases = map[string]func(*suite){
	"list by kind, in order":                caseList,
	"list of an empty storage":              caseListEmpty,
	"a storage that is gone is an error":    caseVanished,
	"list tells all that stat tells":        caseListIsStat,
	"names that begin alike are told apart": caseSimilarNames,
}

func caseList(s *suite) {
	for _, name := range []string{"pods/b", "images/c", "pods/a.web", "images/a", "image/z", "pods/a-web", "pods/a"} {
		s.create(name)
	}
	s.wantNames("", "image/z", "images/a", "images/c", "pods/a", "pods/a-web", "pods/a.web", "pods/b")
	s.wantNames("images", "images/a", "images/c")
	s.wantNames("pods", "pods/a", "pods/a-web", "pods/a.web", "pods/b")
	s.wantNames("volumes")
}

func caseListEmpty(s *suite) {
	s.wantNames("")
	s.wantNames("images")
	s.create("images/a")
	s.destroy("images/a")
	s.wantNames("images")
}

func caseListIsStat(s *suite) {
	s.kinds()
	s.mount("pods/a")
	trees, err := s.d.List(s.Context(), "")
	s.ok(err)
	for _, tree := range trees {
		want := s.stat(tree.Name)
		if tree.Name != want.Name || tree.Origin != want.Origin || tree.Sealed != want.Sealed ||
			tree.Mounted != want.Mounted || tree.Partial || !tree.Created.Equal(want.Created) {
			s.Errorf("List has %+v, Stat %+v", tree, want)
		}
	}
	if len(trees) != 4 {
		s.Errorf("List has %d trees", len(trees))
	}
}

// A clone is found by its origin's whole name and not by its beginning.
func caseSimilarNames(s *suite) {
	s.image("images/a", func(string) {})
	s.image("images/ab", func(string) {})
	s.clone("images/ab", "pods/a")
	s.mount("images/ab")
	s.destroy("images/a")
	s.wantNames("", "images/ab", "pods/a")
}

func caseVanished(s *suite) {
	v, ok := s.d.(Vanisher)
	if !ok {
		s.Skipf("driver %s cannot make its storage vanish for the test", s.info.Name)
	}
	s.create("images/a")
	v.Vanish(s.T)
	for _, kind := range []string{"", "images", "pods"} {
		if trees, err := s.d.List(s.Context(), kind); err == nil {
			s.Errorf("List of %q is %v without error", kind, trees)
		}
	}
	calls := s.calls("images/a")
	calls["Create"] = func() error { return s.d.Create(s.Context(), "images/b", storage.Options{}) }
	for method, call := range calls {
		err := call()
		sentinels := []error{nil, storage.ErrNotFound, storage.ErrExists, storage.ErrBusy}
		if slices.ContainsFunc(sentinels, func(e error) bool { return errors.Is(err, e) }) {
			s.Errorf("%s: error is %v", method, err)
		}
	}
}
