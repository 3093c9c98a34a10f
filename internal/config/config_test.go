package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jetpack-run/jetpack/internal/testenv"
)

// writeFile makes a configuration file of mode 0644.
func writeFile(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jetpack.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func defaults(goos string) Config {
	c := Config{
		Root: "/var/lib/jetpack", StorageDriver: "auto", StorageDataset: "auto", LinuxRuntime: "runc", LinuxBridge: "jetpack0", LinuxNetworks: "172.23.0.0/16 fd2c:8b5e:71c4::/64",
		FreeBSDInterface: "lo1", FreeBSDRuleset: 5470, FreeBSDAllow: "none",
		FetchDiscovery: "on", FetchCredentialsFile: "none", DiscoverySimple: "on", DiscoveryPort: 443, DiscoveryCAFile: "none", TrustLegacy: "off", MDSPort: 1104, MDSUser: "_jetpack", MDSAutostart: "on",
		ImageMaxSize: 64 << 30, ImageCompression: "gzip", ImageMaxEntries: 1000000, PodStopGrace: 10 * time.Second, PodProfile: "default",
		PathShare: "/usr/local/share/jetpack", PathLibexec: "/usr/local/libexec/jetpack", LogLevel: "info", LogFormat: "text", goos: goos,
	}
	if goos == "freebsd" {
		c.Root = "/var/jetpack"
	}
	return c
}

func TestLoad(t *testing.T) {
	tests := []struct {
		name string
		file string
		sets []string
		goos string
		want func(*Config)
	}{
		{name: "defaults", goos: "linux", want: func(*Config) {}},
		{name: "defaults on FreeBSD", goos: "freebsd", want: func(*Config) {}},
		{name: "dotted keys", file: "storage.driver = \"plaindir\"\nlog.level = 'debug'\n", want: func(c *Config) {
			c.StorageDriver, c.LogLevel = "plaindir", "debug"
		}},
		{name: "tables", file: "root = \"/data\"\n[log]\nformat = \"json\"\n[pod]\nstop-grace = \"1m30s\"\n", want: func(c *Config) {
			c.Root, c.LogFormat, c.PodStopGrace = "/data", "json", 90*time.Second
		}},
		{name: "inline table", file: "log = {level = \"warn\", format = \"json\"}\n", want: func(c *Config) {
			c.LogLevel, c.LogFormat = "warn", "json"
		}},
		{name: "quoted key", file: "\"log\".'level' = \"warn\"\n", want: func(c *Config) { c.LogLevel = "warn" }},
		{name: "escaped key", file: "\"l\\u006fg\".level = \"warn\"\n", want: func(c *Config) { c.LogLevel = "warn" }},
		{name: "table without keys", file: "[storage]\n# driver = \"plaindir\"\n[log]\n", want: func(*Config) {}},
		{name: "size as a number", file: "image.max-size = 4096\n", want: func(c *Config) { c.ImageMaxSize = 4096 }},
		{name: "size with a suffix", file: "image.max-size = \"2t\"\n", want: func(c *Config) { c.ImageMaxSize = 2 << 40 }},
		{name: "integer", file: "image.max-entries = 5_000\n", want: func(c *Config) { c.ImageMaxEntries = 5000 }},
		{name: "discovery", file: "[fetch]\ndiscovery = \"off\"\ncredentials-file = \"/etc/jetpack/servers.toml\"\n[discovery]\nsimple = \"off\"\nport = 8443\nca-file = \"/etc/ssl/mine.pem\"\n[trust]\nlegacy = \"on\"\n",
			want: func(c *Config) {
				c.FetchDiscovery, c.FetchCredentialsFile = "off", "/etc/jetpack/servers.toml"
				c.DiscoverySimple, c.DiscoveryPort, c.DiscoveryCAFile, c.TrustLegacy = "off", 8443, "/etc/ssl/mine.pem", "on"
			}},
		{name: "path is cleaned", file: "root = \"/data//x/../jetpack/\"\n", want: func(c *Config) { c.Root = "/data/jetpack" }},
		{name: "no grace", file: "pod.stop-grace = \"0s\"\n", want: func(c *Config) { c.PodStopGrace = 0 }},
		{name: "sets win over the file, the last one first", file: "log.level = \"warn\"\n",
			sets: []string{"log.level=error", "log.level=debug", "image.max-entries=7", "linux.runtime=/opt/a=b"},
			want: func(c *Config) { c.LogLevel, c.ImageMaxEntries, c.LinuxRuntime = "debug", 7, "/opt/a=b" }},
		{name: "CRLF and BOM-free comments", file: "# é\r\nlog.level = \"warn\"\r\n", want: func(c *Config) { c.LogLevel = "warn" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Load(writeFile(t, tt.file), true, tt.sets, tt.goos)
			if err != nil {
				t.Fatal(err)
			}
			want := defaults(tt.goos)
			tt.want(&want)
			if *got != want {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	tests := []struct {
		name string
		file string
		sets []string
		want string // FILE stands for the file's name
	}{
		{"unknown key", "root = \"/d\"\nstorage.drivr = \"overlay\"\n", nil, `FILE:2: unknown key "storage.drivr"; did you mean "storage.driver"?`},
		{"unknown key in a table", "[log]\n\nlevvel = \"info\"\n", nil, `FILE:3: unknown key "log.levvel"; did you mean "log.level"?`},
		{"unknown key unlike any", "\nzfs.pool = \"tank\"\n", nil, `FILE:2: unknown key "zfs.pool"; for the list run: jetpack config`},
		{"the first error is told", "b = 1\na = 1\n", nil, `FILE:1: unknown key "b"; for the list run: jetpack config`},
		{"unknown empty table", "[zfs]\n", nil, `FILE:1: unknown key "zfs"; for the list run: jetpack config`},
		{"array of tables", "[[log]]\nlevel = \"info\"\n", nil, `FILE:1: unknown key "log"; for the list run: jetpack config`},
		{"dot in quotes", "\"log.level\" = \"info\"\n", nil, `FILE:1: unknown key "\"log.level\""; did you mean "log.level"?`},
		{"table for a value", "[root]\nx = 1\n", nil, `FILE:2: unknown key "root.x"; did you mean "root"?`},
		{"empty table for a value", "[log.level]\n", nil, `FILE:1: log.level takes a choice in quotes`},
		{"duplicate", "log.level = \"info\"\nlog.level = \"warn\"\n", nil, `FILE:2: `},
		{"duplicate in a table", "log.level = \"info\"\n[log]\nlevel = \"warn\"\n", nil, `FILE:`},
		{"syntax", "root = \"/d\"\nlog.level = info\n", nil, `FILE:2: `},
		{"not UTF-8", "root = \"/\xff\"\n", nil, `FILE:1: `},
		{"number for a choice", "log.level = 3\n", nil, `FILE:1: log.level takes a choice in quotes`},
		{"bool for a path", "root = true\n", nil, `FILE:1: root takes a path in quotes`},
		{"list for a string", "linux.runtime = [\"runc\"]\n", nil, `FILE:1: linux.runtime takes a string in quotes`},
		{"float for a size", "image.max-size = 1.5\n", nil, `FILE:1: image.max-size takes a size in quotes`},
		{"date for a duration", "pod.stop-grace = 10:00:00\n", nil, `FILE:1: pod.stop-grace takes a duration in quotes`},
		{"number for a duration", "pod.stop-grace = 10\n", nil, `FILE:1: pod.stop-grace takes a duration in quotes`},
		{"quotes around an integer", "image.max-entries = \"7\"\n", nil, `FILE:1: image.max-entries takes a number, without quotes`},
		{"choice", "log.format = \"xml\"\n", nil, `FILE:1: log.format: "xml" is not one of text, json`},
		{"relative path", "root = \"data\"\n", nil, `FILE:1: root: "data" is not an absolute path`},
		{"newline in a path", "root = \"/a\\nb\"\n", nil, `FILE:1: root: "/a\nb" contains a control character`},
		{"empty string", "linux.runtime = \"\"\n", nil, `FILE:1: linux.runtime: "" is empty`},
		{"negative duration", "pod.stop-grace = \"-1s\"\n", nil, `FILE:1: pod.stop-grace: "-1s" is not a duration`},
		{"duration without a unit", "pod.stop-grace = \"10\"\n", nil, `FILE:1: pod.stop-grace: "10" is not a duration`},
		{"boolean for a switch", "fetch.discovery = false\n", nil, `FILE:1: fetch.discovery takes a choice in quotes`},
		{"switch to neither", "trust.legacy = \"sha1\"\n", nil, `FILE:1: trust.legacy: "sha1" is not one of on, off`},
		{"port in quotes", "discovery.port = \"443\"\n", nil, `FILE:1: discovery.port takes a number, without quotes`},
		{"size zero", "image.max-size = 0\n", nil, `FILE:1: image.max-size: "0" is not a size`},
		{"negative size", "image.max-size = -1\n", nil, `FILE:1: image.max-size: "-1" is not a size`},
		{"size too large", "image.max-size = \"8388608T\"\n", nil, `FILE:1: image.max-size: "8388608T" is not a size`},
		{"size of another unit", "image.max-size = \"1GB\"\n", nil, `FILE:1: image.max-size: "1GB" is not a size`},
		{"bare suffix", "image.max-size = \"G\"\n", nil, `FILE:1: image.max-size: "G" is not a size`},
		{"signed size", "image.max-size = \"+1G\"\n", nil, `FILE:1: image.max-size: "+1G" is not a size`},
		{"integer zero", "image.max-entries = 0\n", nil, `FILE:1: image.max-entries: "0" is not a whole number`},
		{"signed integer", "", []string{"image.max-entries=+7"}, `--set: image.max-entries: "+7" is not a whole number from 1 to 9223372036854775807`},
		{"port that is none", "discovery.port = 65536\n", nil, `FILE:1: discovery.port: "65536" is not a whole number from 1 to 65535`},
		{"set without value", "", []string{"log.level"}, `--set "log.level": want KEY=VALUE`},
		{"set of an unknown key", "", []string{"log.levels=info"}, `--set: unknown key "log.levels"; did you mean "log.level"?`},
		{"set to a wrong value", "", []string{"image.max-entries=many"}, `--set: image.max-entries: "many" is not a whole number`},
		{"set of no key", "", []string{"=x"}, `--set: unknown key ""; for the list run: jetpack config`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, tt.file)
			_, err := Load(path, true, tt.sets, "linux")
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), path, "FILE"); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error is not one line: %q", err)
			}
			if strings.Contains(tt.want, "unknown key") != errors.Is(err, ErrUnknownKey) {
				t.Errorf("errors.Is(%q, ErrUnknownKey) = %t", err, errors.Is(err, ErrUnknownKey))
			}
		})
	}
}

func TestLoadFile(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.toml")
	if _, err := Load(missing, false, nil, "linux"); err != nil {
		t.Errorf("a missing file that nobody asked for: %v", err)
	}
	if _, err := Load(missing, true, nil, "linux"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file that was asked for: %v, want fs.ErrNotExist", err)
	}
	plain := writeFile(t, "")
	if _, err := Load(filepath.Join(plain, "x"), false, nil, "linux"); err == nil {
		t.Error("a file where a directory is needed was taken for a missing one")
	}
	if _, err := Load(dir, false, nil, "linux"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("directory: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(fifo, false, nil, "linux"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("fifo: %v", err)
	}
	large := writeFile(t, strings.Repeat("#\n", maxFile/2+1))
	if _, err := Load(large, false, nil, "linux"); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("large file: %v", err)
	}
}

func TestLoadMode(t *testing.T) {
	for mode, ok := range map[fs.FileMode]bool{
		0o600: true, 0o644: true, 0o400: true, 0o640: true,
		0o664: false, 0o646: false, 0o666: false, 0o620: false,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			path := writeFile(t, "")
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path, false, nil, "linux")
			if (err == nil) != ok {
				t.Errorf("error %v, want one: %t", err, !ok)
			}
			if err != nil && !strings.Contains(err.Error(), "chmod go-w "+path) {
				t.Errorf("error %q does not say how to mend it", err)
			}
		})
	}
}

func TestLoadOwner(t *testing.T) {
	testenv.Root(t)
	path := writeFile(t, "")
	if err := os.Chown(path, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, false, nil, "linux"); err == nil || !strings.Contains(err.Error(), "belongs neither") {
		t.Errorf("file of nobody: %v", err)
	}
}

func TestGet(t *testing.T) {
	c, err := Load("", false, []string{"image.max-size=1536", "pod.stop-grace=90s"}, "freebsd")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"root": "/var/jetpack", "storage.driver": "auto", "linux.runtime": "runc",
		"image.max-size": "1536", "image.max-entries": "1000000", "pod.stop-grace": "1m30s",
		"path.share": "/usr/local/share/jetpack", "path.libexec": "/usr/local/libexec/jetpack", "log.level": "info", "log.format": "text",
	} {
		if got, err := c.Get(key); err != nil || got != want {
			t.Errorf("Get(%q) = %q, %v, want %q", key, got, err, want)
		}
	}
	if _, err := c.Get("path.shar"); !errors.Is(err, ErrUnknownKey) || !strings.Contains(err.Error(), `"path.share"`) {
		t.Errorf("Get of an unknown key: %v", err)
	}
}

func TestAll(t *testing.T) {
	c, err := Load("", false, []string{"log.level=debug"}, "freebsd")
	if err != nil {
		t.Fatal(err)
	}
	all := c.All()
	if len(all) != len(Keys()) {
		t.Fatalf("%d settings, want %d", len(all), len(Keys()))
	}
	for i, s := range all {
		if s.Key != Keys()[i].Name {
			t.Errorf("setting %d is %q, want %q", i, s.Key, Keys()[i].Name)
		}
		if s.Default != (s.Key != "log.level") {
			t.Errorf("%s: Default is %t", s.Key, s.Default)
		}
	}
}

// What is shown can be set again, and changes nothing.
func TestRoundTrip(t *testing.T) {
	c, err := Load("", false, []string{"image.max-size=3M", "pod.stop-grace=1500ms", "log.format=json"}, "linux")
	if err != nil {
		t.Fatal(err)
	}
	var sets []string
	for _, s := range c.All() {
		sets = append(sets, s.Key+"="+s.Value)
	}
	again, err := Load("", false, sets, "linux")
	if err != nil {
		t.Fatal(err)
	}
	if *again != *c {
		t.Errorf("got  %+v\nwant %+v", *again, *c)
	}
}

func TestSize(t *testing.T) {
	tests := []struct {
		text  string
		bytes int64
		shown string
	}{
		{"1", 1, "1"}, {"1023", 1023, "1023"}, {"1024", 1024, "1K"}, {"1k", 1024, "1K"}, {"1536K", 1536 << 10, "1536K"},
		{"64G", 64 << 30, "64G"}, {"65536M", 64 << 30, "64G"}, {"2048T", 2048 << 40, "2048T"},
		{"8388607T", 8388607 << 40, "8388607T"}, {"9223372036854775807", 1<<63 - 1, "9223372036854775807"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			n, err := parseSize(tt.text)
			if err != nil || n != tt.bytes {
				t.Fatalf("parseSize = %d, %v, want %d", n, err, tt.bytes)
			}
			if got := formatSize(n); got != tt.shown {
				t.Errorf("formatSize = %q, want %q", got, tt.shown)
			}
		})
	}
}

// secretTable is a key of its own with a secret, since jetpack has none yet.
func secretTable(secret *string) []Key {
	return []Key{{
		Name: "test.token", Type: String, Secret: true, Doc: "A token.",
		field: func(*Config) any { return secret },
	}}
}

func TestSecret(t *testing.T) {
	const token = "hunter2"
	var secret string
	keys := secretTable(&secret)

	c, err := load(keys, "", false, nil, "linux")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.settings(keys); !reflect.DeepEqual(got, []Setting{{Key: "test.token", Default: true, Secret: true}}) {
		t.Errorf("unset secret: %+v", got)
	}

	path := writeFile(t, "test.token = \""+token+"\"\n")
	_, err = load(keys, path, true, nil, "linux")
	if err == nil || !strings.Contains(err.Error(), "chmod o-r "+path) {
		t.Errorf("a secret in a file that everybody can read: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	c, err = load(keys, path, true, nil, "linux")
	if err != nil {
		t.Fatal(err)
	}
	if secret != token {
		t.Errorf("secret is %q, want %q", secret, token)
	}
	if got := c.settings(keys); !reflect.DeepEqual(got, []Setting{{Key: "test.token", Value: "(secret)", Secret: true}}) {
		t.Errorf("secret: %+v", got)
	}

	for _, set := range []string{"test.token=" + token + "\n", "test.tokn=" + token} {
		_, err := load(keys, "", false, []string{set}, "linux")
		if err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("load with a wrong secret: %v", err)
		}
	}
	for _, file := range []string{"test.token = \"" + token + "\\n\"\n", "test.token = \"" + token + "\n", "test.token = " + token, "test.token = [\"" + token + "\"]"} {
		path := writeFile(t, file)
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := load(keys, path, true, nil, "linux")
		if err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("load of %q: %v", file, err)
		}
	}

	var man bytes.Buffer
	if err := manPage(&man, keys); err != nil {
		t.Fatal(err)
	}
	if s := man.String(); !strings.Contains(s, "Secret") || strings.Contains(s, token) {
		t.Errorf("manual page of a secret:\n%s", s)
	}
}

func TestKeys(t *testing.T) {
	var names []string
	for _, k := range Keys() {
		names = append(names, k.Name)
		if k.Doc == "" || !strings.HasSuffix(k.Doc, ".") || strings.Contains(k.Doc, "\n") {
			t.Errorf("%s: the description is not one paragraph of sentences: %q", k.Name, k.Doc)
		}
		if (k.Type == Choice) != (len(k.Choices) > 0) {
			t.Errorf("%s: a %s with the choices %q", k.Name, k.Type, k.Choices)
		}
		for _, d := range []string{k.Default, k.defaultOn("freebsd")} {
			var c Config
			if err := k.set(&c, d); err != nil {
				t.Errorf("%s: default %q: %v", k.Name, d, err)
			} else if got := k.get(&c); got != d {
				t.Errorf("%s: default %q is shown as %q", k.Name, d, got)
			}
		}
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != len(Keys()) {
		t.Errorf("a key is there twice: %q", names)
	}
	// Every exported field of Config is some key's.
	fields := make(map[any]bool)
	var c Config
	for _, k := range Keys() {
		fields[k.field(&c)] = true
	}
	n := 0
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if f.IsExported() {
			n++
		}
	}
	if len(fields) != n {
		t.Errorf("%d keys for %d fields", len(fields), n)
	}
}

func TestDefaultPath(t *testing.T) {
	for goos, want := range map[string]string{
		"freebsd": "/usr/local/etc/jetpack/jetpack.toml",
		"linux":   "/etc/jetpack/jetpack.toml",
	} {
		if got := DefaultPath(goos); got != want {
			t.Errorf("DefaultPath(%q) = %q, want %q", goos, got, want)
		}
	}
}

func TestManPage(t *testing.T) {
	var b bytes.Buffer
	if err := ManPage(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, k := range Keys() {
		for _, want := range []string{roff(k.Name), roff(k.Doc), roff(k.Default), roff(k.FreeBSD)} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %q", k.Name, want)
			}
		}
	}
	for _, path := range []string{DefaultPath("freebsd"), DefaultPath("linux")} {
		if !strings.Contains(page, path) {
			t.Errorf("no %q", path)
		}
	}
	if !errors.Is(ManPage(brokenWriter{}), io.ErrClosedPipe) {
		t.Error("a failed write was not reported")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// FuzzParse: no document makes the parser panic, and what it accepts is within
// the types' bounds and holds no key that was not understood.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "root = \"/d\"\n[log]\nlevel = \"info\"\n", "[[log]]\n", "log = {level = 'info'}\n", "\"log.level\" = 1\n",
		"image.max-size = \"1k\"\nimage.max-entries = 1\n", "a.b.c.\"\" = {}\n", "[a]\n[a.b]\n[a.c]\nx=[{y=1}]\n", "pod.stop-grace = \"1h\"\r\n",
		"\"\\u006c\\u006fg\".level = \"\"\"\ninfo\"\"\"", "\xef\xbb\xbflog.level = \"info\"",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := defaults("linux")
		if err := c.parse(Keys(), "FILE", data, 0o600); err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error is not one line: %q", err)
			}
			if !strings.HasPrefix(err.Error(), "FILE:") || strings.HasPrefix(err.Error(), "FILE: ") || strings.HasPrefix(err.Error(), "FILE:0:") {
				t.Errorf("error without a line: %q", err)
			}
			return
		}
		for _, s := range c.All() {
			k, err := find(Keys(), s.Key)
			if err != nil {
				t.Fatal(err)
			}
			var again Config
			if err := k.set(&again, s.Value); err != nil {
				t.Errorf("%s: accepted %q, which cannot be set: %v", s.Key, s.Value, err)
			}
		}
	})
}
