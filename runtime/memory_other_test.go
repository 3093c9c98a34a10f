//go:build !linux

package runtime

import "testing"

func memoryDir(t *testing.T) string { return t.TempDir() }
