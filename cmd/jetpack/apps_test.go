package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/appc/spec/schema/types"
)

func TestParseVolumes(t *testing.T) {
	tests := []struct {
		spec  string
		want  string // the volume as JSON, or what the error says
		named string // the named volume that it is
	}{
		{"data", `{"name":"data","kind":"empty","mode":"0755","uid":0,"gid":0}`, ""},
		{"data,kind=empty,mode=1777,uid=5,gid=6", `{"name":"data","kind":"empty","mode":"1777","uid":5,"gid":6}`, ""},
		{"data,source=/srv/x", `{"name":"data","kind":"host","source":"/srv/x"}`, ""},
		{"data,kind=host,source=/srv/x=y,readOnly=true,recursive=false", `{"name":"data","kind":"host","source":"/srv/x=y","readOnly":true,"recursive":false}`, ""},
		{"/src:/dst", `{"name":"bind-1","kind":"host","source":"/src","readOnly":false}`, ""},
		{"/src:/dst:ro", `{"name":"bind-1","kind":"host","source":"/src","readOnly":true}`, ""},
		{"/src:/dst:rw", "want SRC:DST[:ro]", ""},
		{"/src", "want SRC:DST[:ro]", ""},
		{"/src:dst", "want SRC:DST[:ro]", ""},
		{"", "the name needs", ""},
		{"Data", "the name needs", ""},
		{"a--b", "the name needs", ""},
		{"data,kind=nfs", `kind "nfs"`, ""},
		{"data,kind=host", "needs source=/PATH", ""},
		{"data,kind=host,source=rel", "needs source=/PATH", ""},
		{"data,kind=empty,source=/x", "has no source", ""},
		{"data,mode=9", "octal", ""},
		{"data,uid=-1", "want a number", ""},
		{"data,uid=4294967296", "want a number", ""},
		{"data,readOnly=maybe", "want true or false", ""},
		{"data,size=1G", `unknown key "size"`, ""},
		{"data,source=volume:db", `{"name":"data","kind":"empty","mode":"0755","uid":0,"gid":0}`, "db"},
		{"data,kind=volume,source=volume:db-1,readOnly=true", `{"name":"data","kind":"empty","readOnly":true,"mode":"0755","uid":0,"gid":0}`, "db-1"},
		{"db:/dst", `{"name":"bind-1","kind":"empty","readOnly":false,"mode":"0755","uid":0,"gid":0}`, "db"},
		{"db:/dst,x:ro", `{"name":"bind-1","kind":"empty","readOnly":true,"mode":"0755","uid":0,"gid":0}`, "db"},
		{"data,mode=1777", `{"name":"data","kind":"empty","mode":"1777","uid":0,"gid":0}`, ""},
		{"data,kind=volume", "needs source=volume:NAME", ""},
		{"data,kind=volume,source=db", "needs source=volume:NAME", ""},
		{"data,kind=host,source=volume:db", "needs source=/PATH", ""},
		{"data,kind=empty,source=volume:db", "has no source", ""},
		{"data,source=volume:", "needs source=volume:NAME", ""},
		{"data,source=volume:../db", "needs source=volume:NAME", ""},
		{"data,source=volume:db,mode=0700", "that it was made with", ""},
		{"data,source=volume:db,uid=1", "that it was made with", ""},
		{"db:dst", "want SRC:DST[:ro]", ""},
		{"db:/dst:rw", "want SRC:DST[:ro]", ""},
		{"./db:/dst", "neither an absolute path nor", ""},
		{":/dst", "neither an absolute path nor", ""},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			got, err := parseVolumes([]string{tt.spec})
			if err != nil {
				var usage usageError
				if !errors.As(err, &usage) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v", err)
				}
				return
			}
			raw, err := json.Marshal(got.volumes[0])
			if err != nil || string(raw) != tt.want {
				t.Errorf("got %s, %v", raw, err)
			}
			if bind := strings.Contains(tt.spec, ":/"); bind != (len(got.mounts) == 1) {
				t.Errorf("mounts %v", got.mounts)
			}
			named := ""
			for _, a := range got.annotations {
				if a.Name == types.ACIdentifier("jetpack/volume/"+got.volumes[0].Name) {
					named = a.Value
				}
			}
			if named != tt.named || len(got.annotations) > 1 {
				t.Errorf("annotations %v", got.annotations)
			}
		})
	}
}

func TestParseVolumesTwice(t *testing.T) {
	for _, specs := range [][]string{{"data", "data"}, {"data", "data,source=volume:db"}, {"bind-2", "db:/dst"}} {
		if _, err := parseVolumes(specs); err == nil || !strings.Contains(err.Error(), "given twice") {
			t.Errorf("%q: error %v", specs, err)
		}
	}
	if pv, err := parseVolumes([]string{"db:/a", "db:/b", "x,source=volume:db"}); err != nil || len(pv.volumes) != 3 || len(pv.mounts) != 2 || len(pv.annotations) != 3 {
		t.Errorf("one volume in three places: %+v, %v", pv, err)
	}
}

func TestParseApps(t *testing.T) {
	tests := []struct {
		name   string
		before appOptions
		args   string // separated by blanks
		want   string // image, name, arguments of each app, or what the error says
	}{
		{"image", appOptions{}, "img", "img[]"},
		{"arguments", appOptions{}, "img -- a --b -- c", "img[a --b -- c]"},
		{"flags", appOptions{}, "img --app x -t -- a", "img:x[a]"},
		{"flags before", appOptions{name: "y"}, "img -- a", "img:y[a]"},
		{"flags behind win", appOptions{name: "y"}, "img --app x", "img:x[]"},
		{"two", appOptions{}, "one -- a --- two --app b -- c", "one[a] two:b[c]"},
		{"--- ends arguments", appOptions{}, "one -- -- --- two", "one[--] two[]"},
		{"standard input", appOptions{}, "-", "-[]"},
		{"nothing", appOptions{}, "", "which IMAGE"},
		{"flag for image", appOptions{}, "--rm img", "an IMAGE must come before"},
		{"nothing behind ---", appOptions{}, "one ---", "an IMAGE must follow"},
		{"nothing between", appOptions{}, "one --- --- two", "an IMAGE must come before"},
		{"flags before several", appOptions{tty: true}, "one --- two", "stand behind its IMAGE"},
		{"argument without --", appOptions{}, "img ls", "arguments of the app stand behind --"},
		{"pod flag behind", appOptions{}, "img --rm", "flags of the pod stand before IMAGE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			apps, err := parseApps(tt.before, strings.Fields(tt.args))
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v", err)
				}
				return
			}
			var got []string
			for _, a := range apps {
				s := a.image
				if a.name != "" {
					s += ":" + a.name
				}
				got = append(got, s+"["+strings.Join(a.args, " ")+"]")
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %s", s)
			}
		})
	}
}

func TestOneLine(t *testing.T) {
	err := errors.Join(errors.New("first"), errors.New("second"))
	if got := oneLine(err); got != "first; second" {
		t.Errorf("got %q", got)
	}
}
