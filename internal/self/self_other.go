//go:build !linux

package self

import "os"

func executable() (string, error) { return os.Executable() }
