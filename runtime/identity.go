package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/appc/spec/schema/types"
	"github.com/moby/sys/user"

	"github.com/jetpack-run/jetpack/internal/inroot"
)

// identity is who an app runs as.
type identity struct {
	uid, gid    uint32
	groups      []uint32
	name        string // "" when the image has no such user
	home, shell string
}

// maxAccounts bounds an image's passwd and group files, in bytes.
const maxAccounts = 4 << 20

// lookUp finds who an app runs as, inside its root (appc spec, "app" object): a
// string is a name in the image's passwd or group file, else a number, else, if
// it is a path, the owner or group of that file.
func lookUp(root *inroot.Root, app *types.App) (id identity, err error) {
	id = identity{home: "/", shell: "/bin/sh"}
	passwd, err := accounts(root, "/etc/passwd", user.ParsePasswd)
	if err != nil {
		return id, err
	}
	groups, err := accounts(root, "/etc/group", user.ParseGroup)
	if err != nil {
		return id, err
	}
	if id.uid, err = userID(root, passwd, app.User); err != nil {
		return id, err
	}
	if id.gid, err = groupID(root, groups, app.Group); err != nil {
		return id, err
	}
	if n := len(app.SupplementaryGIDs); n > maxGroups {
		return id, fmt.Errorf("%w: %d supplementary groups, at most %d", ErrInvalid, n, maxGroups)
	}
	for _, g := range app.SupplementaryGIDs {
		n, err := checkID(int64(g))
		if err != nil {
			return id, fmt.Errorf("supplementary group %d: %w", g, err)
		}
		id.groups = append(id.groups, n)
	}
	if u, ok := account(passwd, app.User, id.uid); ok {
		id.name, id.home, id.shell = u.Name, first(u.Home, id.home), first(u.Shell, id.shell)
	}
	return id, nil
}

// account finds a user by name, or else by number: several may have that (root, toor).
func account(passwd []user.User, name string, uid uint32) (user.User, bool) {
	i := slices.IndexFunc(passwd, func(u user.User) bool { return u.Name == name })
	if i < 0 {
		i = slices.IndexFunc(passwd, func(u user.User) bool { return int64(u.Uid) == int64(uid) })
	}
	if i < 0 {
		return user.User{}, false
	}
	return passwd[i], true
}

// accounts parses a passwd or group file; an image without one has no names.
func accounts[T any](root *inroot.Root, name string, parse func(io.Reader) ([]T, error)) ([]T, error) {
	data, err := root.ReadFile(name, maxAccounts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image's %s: %w", name, err)
	}
	list, err := parse(bytes.NewReader(wellFormed(data)))
	if err != nil {
		return nil, fmt.Errorf("image's %s: %w", name, err)
	}
	return list, nil
}

// wellFormed leaves the lines whose third field, the ID, is a number. Of the
// others the parser would make accounts with the ID 0, which is root's.
func wellFormed(data []byte) []byte {
	var lines []byte
	for line := range bytes.Lines(data) {
		fields := bytes.SplitN(bytes.TrimSpace(line), []byte(":"), 4)
		if len(fields) < 3 {
			continue
		}
		if _, err := strconv.ParseUint(string(fields[2]), 10, 64); err == nil {
			lines = append(lines, line...)
		}
	}
	return lines
}

func userID(root *inroot.Root, passwd []user.User, want string) (uint32, error) {
	for _, u := range passwd {
		if u.Name == want {
			return checkID(int64(u.Uid))
		}
	}
	if strings.HasPrefix(want, "/") {
		st, err := root.Stat(want)
		if err != nil {
			return 0, fmt.Errorf("user %q: %w", want, err)
		}
		return st.Uid, nil
	}
	return number("user", want)
}

func groupID(root *inroot.Root, groups []user.Group, want string) (uint32, error) {
	for _, g := range groups {
		if g.Name == want {
			return checkID(int64(g.Gid))
		}
	}
	if strings.HasPrefix(want, "/") {
		st, err := root.Stat(want)
		if err != nil {
			return 0, fmt.Errorf("group %q: %w", want, err)
		}
		return st.Gid, nil
	}
	return number("group", want)
}

func number(what, want string) (uint32, error) {
	n, err := strconv.ParseUint(want, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%w: unknown %s %q: the image's /etc has no such name", ErrInvalid, what, want)
	}
	return checkID(int64(n))
}

// checkID refuses what is no ID: -1 means "leave it as it is" to setuid(2) and chown(2).
func checkID(n int64) (uint32, error) {
	if n < 0 || n >= math.MaxUint32 {
		return 0, fmt.Errorf("%w: id %d is out of range", ErrInvalid, n)
	}
	return uint32(n), nil
}
