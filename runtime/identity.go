package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
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
	for _, g := range app.SupplementaryGIDs {
		n, err := checkID(int64(g))
		if err != nil {
			return id, fmt.Errorf("supplementary group %d: %w", g, err)
		}
		id.groups = append(id.groups, n)
	}
	for _, u := range passwd {
		if int64(u.Uid) == int64(id.uid) {
			id.name = u.Name
			if u.Home != "" {
				id.home = u.Home
			}
			if u.Shell != "" {
				id.shell = u.Shell
			}
			break
		}
	}
	return id, nil
}

// accounts parses a passwd or group file; an image without one has no names.
// Parsing stops at lines that are no accounts by skipping them, so a hostile file
// can name users and nothing else.
func accounts[T any](root *inroot.Root, name string, parse func(io.Reader) ([]T, error)) ([]T, error) {
	data, err := root.ReadFile(name, maxAccounts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image's %s: %w", name, err)
	}
	list, err := parse(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("image's %s: %w", name, err)
	}
	return list, nil
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
	n, err := strconv.ParseInt(want, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: unknown %s %q: the image's /etc has no such name", ErrInvalid, what, want)
	}
	return checkID(n)
}

// checkID refuses what is no ID: -1 means "leave it as it is" to setuid(2) and chown(2).
func checkID(n int64) (uint32, error) {
	if n < 0 || n >= math.MaxUint32 {
		return 0, fmt.Errorf("%w: id %d is out of range", ErrInvalid, n)
	}
	return uint32(n), nil
}
