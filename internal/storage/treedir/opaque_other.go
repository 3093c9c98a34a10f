//go:build unix && !linux

package treedir

// isOpaque is false: there is no overlayfs.
func isOpaque(string) (bool, error) { return false, nil }
