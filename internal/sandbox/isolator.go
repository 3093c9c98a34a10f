package sandbox

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Isolators of the appc specification (ace.md, "Isolators"; three only in its
// schema), and jetpack's own for FreeBSD.
const (
	CPU              = "resource/cpu"               // Resource, thousandths of a core
	Memory           = "resource/memory"            // Resource, bytes
	BlockBandwidth   = "resource/block-bandwidth"   // Resource, bytes a second
	BlockIOPS        = "resource/block-iops"        // Resource, operations a second
	NetworkBandwidth = "resource/network-bandwidth" // Resource, bytes a second

	CapabilitiesRetain = "os/linux/capabilities-retain-set" // Set
	CapabilitiesRemove = "os/linux/capabilities-remove-set" // Set
	SeccompRetain      = "os/linux/seccomp-retain-set"      // Set
	SeccompRemove      = "os/linux/seccomp-remove-set"      // Set
	NoNewPrivileges    = "os/linux/no-new-privileges"       // Switch
	OOMScoreAdj        = "os/linux/oom-score-adj"           // Number
	CPUShares          = "os/linux/cpu-shares"              // Number
	SELinuxContext     = "os/linux/selinux-context"         // Text
	AppArmorProfile    = "os/linux/apparmor-profile"        // Text
	Sysctl             = "os/unix/sysctl"                   // Settings

	FreeBSDRctl      = "os/freebsd/rctl"       // Settings: RESOURCE:ACTION to amount
	FreeBSDCpuset    = "os/freebsd/cpuset"     // Text: a list of processors, as "0-2,5"
	FreeBSDJailParam = "os/freebsd/jail-param" // Settings: parameter to value
)

// Isolators are the names of all.
func Isolators() []string {
	return []string{
		CPU, Memory, BlockBandwidth, BlockIOPS, NetworkBandwidth, CapabilitiesRetain, CapabilitiesRemove, SeccompRetain,
		SeccompRemove, NoNewPrivileges, OOMScoreAdj, CPUShares, SELinuxContext, AppArmorProfile, Sysctl, FreeBSDRctl,
		FreeBSDCpuset, FreeBSDJailParam,
	}
}

// Isolator is a limit or a privilege that is asked for a pod or an app.
type Isolator struct {
	Name string
	// Value is of the type that stands beside the name's constant; Text for a name that
	// none of them is.
	Value Value
	// Image says that an image asks for it, and not the operator: it can take away of
	// what the profile gives, and add nothing.
	Image bool
}

// Text is the value for people: processors are counted in cores.
func (i Isolator) Text() string {
	if r, ok := i.Value.(Resource); ok && i.Name == CPU {
		return r.text(func(n int64) string { return strconv.FormatFloat(float64(n)/1000, 'f', -1, 64) })
	}
	return i.Value.String()
}

// Value is what an isolator is set to. String is for people.
type Value interface{ String() string }

// Resource is an amount in the isolator's unit. A Limit of 0 is none; Request is the
// limit unless something else was asked for.
type Resource struct{ Request, Limit int64 }

// String implements Value.
func (r Resource) String() string {
	return r.text(func(n int64) string { return strconv.FormatInt(n, 10) })
}

func (r Resource) text(amount func(int64) string) string {
	switch {
	case r.Limit == 0:
		return "request " + amount(r.Request)
	case r.Request != r.Limit:
		return "request " + amount(r.Request) + ", limit " + amount(r.Limit)
	}
	return amount(r.Limit)
}

// Set are capabilities, as "CAP_CHOWN", or system calls and groups of them, as "mount"
// and "@appc.io/all". A system call that is not allowed gives Errno, as "EPERM"; it
// ends the process with SIGSYS if that is empty.
type Set struct {
	Names []string
	Errno string
}

// String implements Value.
func (s Set) String() string {
	text := strings.Join(s.Names, " ")
	if s.Errno != "" {
		text += " (" + s.Errno + ")"
	}
	return text
}

// Switch is on or off.
type Switch bool

// String implements Value.
func (s Switch) String() string { return strconv.FormatBool(bool(s)) }

// Number is without unit.
type Number int64

// String implements Value.
func (n Number) String() string { return strconv.FormatInt(int64(n), 10) }

// Settings are values by name.
type Settings map[string]string

// String implements Value.
func (s Settings) String() string {
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		fields = append(fields, name+"="+s[name])
	}
	return strings.Join(fields, " ")
}

// Text is anything else.
type Text string

// String implements Value.
func (t Text) String() string { return string(t) }

// Status is what becomes of an isolator.
type Status string

// The statuses.
const (
	Enforced Status = "enforced" // as it says
	Modified Status = "modified" // in part, or in another way: Outcome.Detail
	Ignored  Status = "ignored"  // not at all: Outcome.Detail says why
)

// Outcome tells what becomes of one isolator (appc spec, ace.md, "Isolators": a user
// is to know which were ignored, enforced or modified).
type Outcome struct {
	App      string `json:"app" doc:"name of the app, or empty for the pod"`
	Isolator string `json:"isolator" doc:"name"`
	Value    string `json:"value" doc:"what it asks for: cores, bytes, and bytes or operations a second"`
	Status   Status `json:"status" doc:"enforced, modified or ignored"`
	Detail   string `json:"detail,omitempty" doc:"how it was modified, or why it is ignored" null:"if it is enforced as it says"`
}

// Outcome is that of the isolator, for the pod ("") or an app: enforced if detail is
// empty, and else what applies is.
func (i Isolator) Outcome(app string, otherwise Status, detail string) Outcome {
	o := Outcome{App: app, Isolator: i.Name, Value: i.Text(), Status: Enforced}
	if detail != "" {
		o.Status, o.Detail = otherwise, detail
	}
	return o
}

// Profile is how closely pods are confined where no isolator says otherwise.
type Profile string

// The profiles. What they mean on a platform is the engine's; docs/security.md tells.
const (
	ProfileStrict  Profile = "strict"
	ProfileDefault Profile = "default"
	ProfileRelaxed Profile = "relaxed"
)

// Profiles are all of them, from the closest on.
func Profiles() []Profile { return []Profile{ProfileStrict, ProfileDefault, ProfileRelaxed} }
