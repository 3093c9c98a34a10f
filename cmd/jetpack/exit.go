package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jetpack-run/jetpack/discovery"
	"github.com/jetpack-run/jetpack/discovery/repository"
	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/image/oci"
	"github.com/jetpack-run/jetpack/image/trust"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/runtime"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

// The exit codes. Commands that run apps give the app's own code, and 125 to 127
// for what is not the app's.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 2
	exitNotFound  = 3
	exitUntrusted = 4
	exitBusy      = 5
	exitJetpack   = 125
)

const exitHelp = `Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 refused for want of trust,
5 busy (in use). pod run, start and wait give the app's own code (128+N when signal
N killed it; of several apps the first that is not 0), 125 when jetpack itself failed,
126 when the command could not be executed, 127 when it was not found.`

// exitStatus is an app's exit code on its way out; there is nothing to say of it.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is a command line that cannot be meant.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (e usageError) Unwrap() error { return e.error }

// annotationRunsApps marks commands that give the app's exit code.
const annotationRunsApps = "runs-apps"

func runsApps(cmd *cobra.Command) bool {
	return cmd != nil && cmd.Annotations[annotationRunsApps] != ""
}

func exitCode(err error, runsApps bool) int {
	var status exitStatus
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case runsApps:
		return runtime.FailureStatus(err)
	case errors.As(err, &usage), errors.Is(err, volume.ErrInvalid):
		return exitUsage
	case errors.Is(err, errNoSuchKey), errors.Is(err, errNoMDS):
		return exitNotFound
	case errors.Is(err, image.ErrUntrusted), errors.Is(err, trust.ErrUntrusted):
		return exitUntrusted
	case isNotFound(err):
		return exitNotFound
	case errors.Is(err, image.ErrInUse), errors.Is(err, runtime.ErrBusy), errors.Is(err, volume.ErrInUse), errors.Is(err, errMDSRuns):
		return exitBusy
	}
	return exitFailed
}

func isNotFound(err error) bool {
	return slices.ContainsFunc([]error{
		image.ErrNotFound, runtime.ErrNotFound, sandbox.ErrNotFound, volume.ErrNotFound,
		discovery.ErrNotFound, oci.ErrNotFound, repository.ErrNone, repository.ErrNotFound,
	}, func(target error) bool { return errors.Is(err, target) })
}

// mend says what to do about an error, where its text does not.
func mend(err error) string {
	switch {
	case strings.Contains(err.Error(), "'jetpack "):
	case errors.Is(err, image.ErrNoTag):
		return "; 'jetpack image list' shows all tags"
	case errors.Is(err, image.ErrNotFound):
		return "; 'jetpack image list' shows what there is, 'jetpack fetch' and 'jetpack image import' take in more"
	case errors.Is(err, runtime.ErrNotFound):
		return "; 'jetpack pod list' shows what there is"
	case errors.Is(err, volume.ErrNotFound):
		return "; 'jetpack volume list' shows what there is"
	}
	return ""
}

func isGone(err error) bool       { return errors.Is(err, runtime.ErrNotFound) }
func isBusy(err error) bool       { return errors.Is(err, runtime.ErrBusy) }
func isNotRunning(err error) bool { return errors.Is(err, runtime.ErrNotRunning) }
