package network

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// heldFile is the note in a pod's directory of what it holds.
const heldFile = "network.json"

// Held is what a pod holds of a network, or is about to: without addresses, those that it
// gets are not known yet. An engine notes it before it takes anything, so that whoever
// clears up after a crash knows where to look.
type Held struct {
	Interface string       `json:"interface"`
	Addresses []netip.Addr `json:"addresses"`
}

// Write notes it in a pod's directory, not on stable storage: no interface outlives the
// boot.
func (h Held) Write(dir string) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, heldFile)
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// ReadHeld reads the note; where there is none, or what a loss of power has left of one,
// the pod holds nothing.
func ReadHeld(dir string) (h Held, err error) {
	data, err := os.ReadFile(filepath.Join(dir, heldFile))
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil || !json.Valid(data) {
		return h, err
	}
	return h, json.Unmarshal(data, &h)
}
