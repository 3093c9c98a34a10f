package jail

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests of devfs(8), from fs/devfs/devfs.h.
const (
	devfsAdd  = 0xc0ec4400 // DEVFSIO_RADD
	devfsNext = 0xc0ec4404 // DEVFSIO_RGETNEXT
)

// defineRules makes sure that a set of rules exists: one that is empty becomes ours.
// One with other rules is its administrator's and stays.
func defineRules(set int32) (err error) {
	dev, err := os.Open("/dev")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	for i, r := range devices {
		want, err := r.marshal(int(set), (i+1)*100)
		if err != nil {
			return err
		}
		got, err := nextRule(dev, set, i*100)
		switch {
		case err != nil:
			return err
		case got != nil && bytes.Equal(got, want):
			continue // or what an interrupted command has begun
		case got != nil:
			return nil
		}
		if err := request(dev, devfsAdd, want); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add rule to devfs rule set %d: %w", set, err)
		}
	}
	return nil
}

// nextRule gives the rule after that number in a set, or nil.
func nextRule(dev *os.File, set int32, after int) ([]byte, error) {
	b, err := rule{}.marshal(int(set), after)
	if err != nil {
		return nil, err
	}
	err = request(dev, devfsNext, b)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read devfs rule set %d: %w", set, err)
	}
	if ruleSet(b) != set {
		return nil, nil
	}
	return b, nil
}

func request(dev *os.File, req uintptr, arg []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dev.Fd(), req, uintptr(unsafe.Pointer(&arg[0]))) //nolint:gosec // no wrapper in x/sys
	if errno != 0 {
		return errno
	}
	return nil
}

// forbidden are devices that no pod may see whatever its rules are: one of them in a
// /dev says that rules do not hold there.
var forbidden = []string{"mem", "kmem", "io"}

// checkDevices makes sure that the rules hold in a /dev that was just mounted.
func checkDevices(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, "null")); err != nil {
		return fmt.Errorf("its devfs rule set hides /dev/null: %w", err)
	}
	for _, name := range forbidden {
		_, err := os.Lstat(filepath.Join(dir, name))
		if err == nil {
			return fmt.Errorf("its devfs rule set shows /dev/%s of the host", name)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// checkRules makes sure that a set begins with hiding everything: without any rule, say,
// /dev would have the host's disks.
func checkRules(set int32) (err error) {
	depth, err := unix.SysctlUint32("vfs.devfs.rule_depth")
	if err != nil {
		return fmt.Errorf("vfs.devfs.rule_depth: %w", err)
	}
	dev, err := os.Open("/dev")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	first := func(set int32) ([]byte, error) { return nextRule(dev, set, 0) }
	rule, err := first(set)
	if err != nil {
		return err
	}
	if rule == nil {
		return fmt.Errorf("devfs rule set %d has no rules; define it in /etc/devfs.rules, then 'service devfs restart'", set)
	}
	hidden, err := beginsHidden(set, depth, first)
	if err == nil && !hidden {
		err = fmt.Errorf("devfs rule set %d does not begin with hiding every device; mend it in /etc/devfs.rules, then 'service devfs restart'", set)
	}
	return err
}
