// Package config is jetpack's configuration: a table of typed keys, a TOML file
// (https://toml.io/en/v1.0.0) and KEY=VALUE settings from the command line.
//
// Not for: what is chosen per pod (a pod's manifest), acting on the values (the
// packages that need them get them as arguments), finding out the platform (GOOS
// is passed in).
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// ErrUnknownKey means that there is no setting of that name.
var ErrUnknownKey = errors.New("unknown key")

// maxFile is the largest configuration file that is read, in bytes.
const maxFile = 1 << 20

// Setting is a key and its value, for showing.
type Setting struct {
	Key     string
	Value   string // as it may be written in the file; "(secret)" for a secret that is set
	Default bool   // the value is the default
	Secret  bool
}

// DefaultPath is where the configuration file is looked for on an operating
// system, named as GOOS has it.
func DefaultPath(goos string) string {
	if goos == "freebsd" {
		return "/usr/local/etc/jetpack/jetpack.toml" // hier(7)
	}
	return "/etc/jetpack/jetpack.toml"
}

// Load returns the defaults for goos, changed by the file at path, changed by
// sets, each of the form KEY=VALUE, in their order. The file need not exist
// unless explicit. It has to be a regular file that belongs to root or to the
// caller and that nobody else can write.
//
// An error is one line that names the file and line, or the setting, and says
// how to mend it. Errors to test for: ErrUnknownKey, fs.ErrNotExist.
func Load(path string, explicit bool, sets []string, goos string) (*Config, error) {
	return load(Keys(), path, explicit, sets, goos)
}

func load(keys []Key, path string, explicit bool, sets []string, goos string) (*Config, error) {
	c := &Config{goos: goos}
	for _, k := range keys {
		if d := k.defaultOn(goos); d != "" {
			if err := k.set(c, d); err != nil {
				return nil, fmt.Errorf("default of %s: %s %w", k.Name, d, err)
			}
		}
	}
	data, mode, err := readFile(path)
	switch {
	case err == nil:
		if err := c.parse(keys, path, data, mode); err != nil {
			return nil, err
		}
	case explicit || !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("configuration: %w", err)
	}
	for _, s := range sets {
		if err := c.setArgument(keys, s); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// readFile reads a file that others could not have written, checked on the
// descriptor that is read.
func readFile(path string) (_ []byte, _ fs.FileMode, err error) {
	// O_NONBLOCK: opening a fifo would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	case info.Mode()&0o022 != 0:
		return nil, 0, fmt.Errorf("%s can be written by others; run: chmod go-w %[1]s", path)
	case !known || owner.Uid != 0 && int(owner.Uid) != os.Geteuid():
		return nil, 0, fmt.Errorf("%s belongs neither to root nor to you; run: chown root %[1]s", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, info.Mode(), err
}

// parse applies the contents of the file at path, of the given mode.
func (c *Config) parse(keys []Key, path string, data []byte, mode fs.FileMode) error {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		line := 0
		if at := (*toml.DecodeError)(nil); errors.As(err, &at) {
			line, _ = at.Position()
		}
		return fmt.Errorf("%s:%d: %s", path, line, strings.TrimPrefix(err.Error(), "toml: "))
	}
	values := make(map[string]any)
	flatten(values, "", tree)
	// In the order of the file, so that the first error is the one reported.
	for _, at := range positions(data) {
		v, ok := values[at.name]
		if !ok {
			continue // a table, whose keys follow
		}
		delete(values, at.name)
		if isMap(v) && isTable(keys, at.name) {
			continue // a table without keys
		}
		k, err := find(keys, at.name)
		if err == nil {
			err = c.setTOML(k, v)
		}
		if err == nil && k.Secret && mode&0o004 != 0 {
			err = fmt.Errorf("%s is secret and everybody can read the file; run: chmod o-r %s", k.Name, path)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, at.line, err)
		}
	}
	for name := range values { // positions missed it, which must not hide it
		return fmt.Errorf("%s: %w %q", path, ErrUnknownKey, name)
	}
	return nil
}

func isMap(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

// isTable tells whether some key is in the table of that name.
func isTable(keys []Key, name string) bool {
	return slices.ContainsFunc(keys, func(k Key) bool { return strings.HasPrefix(k.Name, name+".") })
}

func (c *Config) setTOML(k Key, v any) error {
	text, err := k.fromTOML(v)
	if err != nil {
		return fmt.Errorf("%s %w", k.Name, err)
	}
	return c.setText(k, text)
}

func (c *Config) setText(k Key, text string) error {
	err := k.set(c, text)
	if err != nil && k.Secret {
		return fmt.Errorf("%s: the value %w", k.Name, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %q %w", k.Name, text, err)
	}
	return nil
}

// setArgument applies one KEY=VALUE of the command line.
func (c *Config) setArgument(keys []Key, s string) error {
	name, text, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("--set %q: want KEY=VALUE", name)
	}
	k, err := find(keys, name)
	if err == nil {
		err = c.setText(k, text)
	}
	if err != nil {
		return fmt.Errorf("--set: %w", err)
	}
	return nil
}

// Get returns the value of a key as it may be written in the file; of a secret,
// only whether it is set. Errors: ErrUnknownKey.
func (c *Config) Get(key string) (string, error) {
	k, err := find(Keys(), key)
	if err != nil {
		return "", err
	}
	return c.setting(k).Value, nil
}

// All returns every setting, in the order of Keys.
func (c *Config) All() []Setting {
	return c.settings(Keys())
}

func (c *Config) settings(keys []Key) []Setting {
	all := make([]Setting, len(keys))
	for i, k := range keys {
		all[i] = c.setting(k)
	}
	return all
}

func (c *Config) setting(k Key) Setting {
	value := k.get(c)
	s := Setting{Key: k.Name, Value: value, Default: value == k.defaultOn(c.goos), Secret: k.Secret}
	if k.Secret && value != "" {
		s.Value = "(secret)"
	}
	return s
}

// flatten puts the values of nested tables under their dotted names. A key with
// a dot in it, which TOML allows in quotes, keeps its quotes, so that it is not
// taken for a nested one.
func flatten(values map[string]any, prefix string, tree map[string]any) {
	for name, v := range tree {
		name = dotted(prefix, name)
		sub, ok := v.(map[string]any)
		if ok && len(sub) > 0 {
			flatten(values, name, sub)
			continue
		}
		values[name] = v
	}
}

func dotted(prefix, name string) string {
	if name == "" || strings.ContainsAny(name, ".\"") {
		name = fmt.Sprintf("%q", name)
	}
	if prefix == "" {
		return name
	}
	return prefix + "." + name
}

// position is where a key or table is first named.
type position struct {
	name string // as flatten has it
	line int    // from 1
}

// positions lists the keys and tables of a TOML document that is known to be
// valid. (The decoder gives positions for its own errors only.)
func positions(data []byte) []position {
	var (
		p     unstable.Parser
		found []position
		table string
	)
	name := func(prefix string, n *unstable.Node) string {
		var line int
		for it := n.Key(); it.Next(); {
			part := it.Node()
			if line == 0 {
				line = 1 + bytes.Count(data[:part.Raw.Offset], []byte("\n"))
			}
			prefix = dotted(prefix, string(part.Data))
			found = append(found, position{prefix, line})
		}
		return prefix
	}
	var keyValue func(prefix string, n *unstable.Node)
	keyValue = func(prefix string, n *unstable.Node) {
		prefix = name(prefix, n)
		if n.Value().Kind == unstable.InlineTable {
			for it := n.Value().Children(); it.Next(); {
				keyValue(prefix, it.Node())
			}
		}
	}
	p.Reset(data)
	for p.NextExpression() {
		switch n := p.Expression(); n.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = name("", n)
		case unstable.KeyValue:
			keyValue(table, n)
		}
	}
	return found
}
