package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// SetBoot marks a pod, running or not, to be started when the host boots, or takes the
// mark away. Errors: ErrNotFound, ErrBusy, ErrDamaged.
func (r *Runtime) SetBoot(ctx context.Context, id string, boot bool) (err error) {
	// A supervisor holds the pod's own lock, and nobody else writes the options of a
	// pod that is made: one lock for all pods keeps two commands from each other.
	unlock, err := r.lockNames(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	info, err := r.read(id)
	if err != nil {
		return err
	}
	switch {
	case info.State.Phase == Embryo:
		return unfinished(id)
	case info.State.Phase == Garbage:
		return fmt.Errorf("%s: %w", id, ErrNotFound)
	case info.Options.Boot == boot:
		return nil
	}
	info.Options.Boot = boot
	raw, err := json.Marshal(info.Options)
	if err != nil {
		return err
	}
	if err := (&Pod{Info: info, rt: r}).write("write options", optionsFile, raw); err != nil {
		return fmt.Errorf("pod %s: write options: %w", id, err)
	}
	return nil
}
