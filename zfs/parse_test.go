package zfs

import (
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/internal/storage"
)

func TestCheckDataset(t *testing.T) {
	for name, ok := range map[string]bool{
		"zroot/jetpack": true, "tank": true, "tank/a.b_c-d:e/1": true,
		"": false, "-tank": false, "/tank": false, "tank/": false, "tank//a": false, "tank/-r": false, "tank/..": false,
		"tank/a b": false, "tank@x": false, "tank#x": false, "tank/a\n": false, "1tank": false,
		"tank/" + strings.Repeat("a", maxRoot-5): true, "tank/" + strings.Repeat("a", maxRoot-4): false,
	} {
		if err := checkDataset(name); (err == nil) != ok {
			t.Errorf("checkDataset(%q): %v", name, err)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		name, stderr string
		cause        error
		text         string
	}{
		{"absent", "cannot open 'a/b': dataset does not exist\n", errAbsent, "zfs: cannot open 'a/b': dataset does not exist"},
		{"parent", "cannot create 'a/b/c': parent does not exist\n", errNoParent, "zfs: cannot create 'a/b/c': parent does not exist"},
		{"pool", "cannot create 'a/b': no such pool 'a'\n", errAbsent, "zfs: cannot create 'a/b': no such pool 'a'"},
		{"present", "cannot create 'a/b': dataset already exists\n", errPresent, "zfs: cannot create 'a/b': dataset already exists"},
		{"module", "The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.\n", errNoModule, "the kernel has no ZFS loaded: run '" + loadCommand + "'"},
		{"two lines", "cannot do\nthat\n", nil, "zfs: cannot do; that"},
		{"nothing", "", errKilled, "zfs: killed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := explain("zfs", tt.stderr, errKilled)
			if err.Error() != tt.text || tt.cause != nil && !errors.Is(err, tt.cause) {
				t.Errorf("error is %v, want %s", err, tt.text)
			}
			if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrExists) {
				t.Error("it says more than a command can know")
			}
		})
	}
	if err := explain("zfs", "", exec.ErrNotFound); !strings.Contains(err.Error(), installHint) {
		t.Errorf("without zfs(8): %v", err)
	}
}

var errKilled = errors.New("killed")

func TestParse(t *testing.T) {
	d := &Driver{dataset: "p/root"}
	created := "2026-11-21T10:00:00.5Z"
	out := strings.Join([]string{
		"p/root\tused\t7",
		"p/root\tjetpack:created\t" + created,
		"p/root/images\treadonly\ton",
		"p/root/images/a\tused\t4096",
		"p/root/images/a\tlogicalreferenced\t8192",
		"p/root/images/a\treadonly\ton",
		"p/root/images/a\tjetpack:created\t" + created,
		"p/root/images/a@sealed\tused\t1",
		"p/root/images/a@sealed\tclones\tp/root/pods/a,p/root/pods/b",
		"p/root/images/a\torigin\t-",
		"p/root/images/a\tjetpack:meta\t-",
		"p/root/images/a@daily\tclones\tp/else",
		"p/root/images/a/below\tjetpack:created\t" + created,
		"p/root/images/debris\tused\t1",
		"p/root/images/garbled\tjetpack:created\tyesterday",
		"p/root/pods/a\torigin\tp/root/images/a@sealed",
		"p/root/pods/a\treadonly\toff",
		"p/root/pods/a\tjetpack:created\t" + created,
		`p/root/pods/a	jetpack:meta	{"app":"web","x":"a b"}`,
		"p/root/pods/a@sealed\tclones\t",
		"p/root/pods/a\tcom.example:note\tone",
		"of two lines",
		"p/rootless/images/a\tjetpack:created\t" + created,
	}, "\n") + "\n"
	at := time.Date(2026, 11, 21, 10, 0, 0, 5e8, time.UTC)
	want := []kept{
		{Tree: storage.Tree{Name: "images/a", Sealed: true, Created: at}, readOnly: true, cloned: true, used: 4096, logicalReferenced: 8192},
		{Tree: storage.Tree{Name: "images/debris", Partial: true}, used: 1},
		{Tree: storage.Tree{Name: "images/garbled", Partial: true}},
		{Tree: storage.Tree{Name: "pods/a", Origin: "images/a", Sealed: true, Created: at, Meta: map[string]string{"app": "web", "x": "a b"}}},
	}
	if got := d.parse(out); !reflect.DeepEqual(got, want) {
		t.Errorf("parse is\n%+v\nwant\n%+v", got, want)
	}
}
