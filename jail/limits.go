package jail

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/jetpack-run/jetpack/internal/lazyregexp"
	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// profile is what a pod has where neither its annotations, nor its isolators, nor the
// configuration say otherwise. The rule set of /dev is the configured one in all.
type profile struct {
	secureLevel     int32
	enforceStatfs   int32 // 0 as in Options
	sysV            int32
	allow           []string
	noNewPrivileges bool // where the kernel can
}

var profiles = map[sandbox.Profile]profile{
	sandbox.ProfileStrict:  {secureLevel: 3, sysV: sysDisable, noNewPrivileges: true},
	sandbox.ProfileDefault: {secureLevel: 2, sysV: sysNew},
	sandbox.ProfileRelaxed: {
		secureLevel: -1, enforceStatfs: 1, sysV: sysNew,
		allow: []string{"allow.mlock", "allow.raw_sockets", "allow.set_hostname", "allow.unprivileged_proc_debug"},
	},
}

// info is for sandbox.Info.
func (p profile) info() string {
	fields := []string{"securelevel " + strconv.Itoa(int(p.secureLevel)), "enforce_statfs 2, for Linux images 1", "System V IPC of its own"}
	if p.secureLevel < 0 {
		fields[0] = "securelevel of the host"
	}
	if p.enforceStatfs > 0 {
		fields[1] = "enforce_statfs " + strconv.Itoa(int(p.enforceStatfs))
	}
	if p.sysV == sysDisable {
		fields[2] = "no System V IPC"
	}
	var allowed []string
	for _, permission := range permissions {
		if permission.standard || slices.Contains(p.allow, permission.name) {
			allowed = append(allowed, permission.name)
		}
	}
	fields = append(fields, strings.Join(allowed, ", "))
	if p.noNewPrivileges {
		fields = append(fields, "no new privileges")
	}
	return strings.Join(fields, "; ")
}

// effects is for sandbox.Info.
var effects = map[string]string{
	sandbox.CPU:                "rctl `pcpu:deny`, in whole percents of a core",
	sandbox.Memory:             "rctl `memoryuse:sigkill`; the kernel looks once a second",
	sandbox.BlockBandwidth:     "rctl `readbps:throttle` and `writebps:throttle`, of file systems",
	sandbox.BlockIOPS:          "rctl `readiops:throttle` and `writeiops:throttle`, likewise",
	sandbox.CapabilitiesRetain: "permissions of the jail that all its apps give up: of NET_BIND_SERVICE `allow.reserved_ports`, and of IPC_LOCK, LINUX_IMMUTABLE, NET_ADMIN, NET_RAW, SETFCAP, SYSLOG, SYS_PTRACE, SYS_TIME what else was allowed",
	sandbox.CapabilitiesRemove: "the same",
	sandbox.SeccompRetain:      "only `@appc.io/all`, which is what there is",
	sandbox.SeccompRemove:      "only `@appc.io/empty`, likewise",
	sandbox.NoNewPrivileges:    "procctl `PROC_NO_NEW_PRIVS_CTL`, where the kernel has it",
	sandbox.OOMScoreAdj:        "protect(1), for the operator's below 0",
	sandbox.Sysctl:             "kern.osrelease and kern.securelevel, as parameters of the jail",
	sandbox.FreeBSDRctl:        "rules for the jail: `{\"RESOURCE:ACTION\": \"AMOUNT\"}`, as in rctl(8), with plain numbers",
	sandbox.FreeBSDCpuset:      "cpuset(2) of the jail: a list of processors, as `\"0-2,5\"`",
	sandbox.FreeBSDJailParam:   "parameters of the jail, those that annotations may set: `{\"allow.mlock\": \"true\"}`",
}

// abilities are what the kernel of the host can do about isolators.
type abilities struct {
	racct           bool // resources are counted (kern.racct.enable)
	noNewPrivileges bool // procctl(2) has PROC_NO_NEW_PRIVS_CTL
	processors      int  // hw.ncpu
}

// plan is what the isolators and the profile of a pod come to here.
type plan struct {
	rules       []string // of rctl(8)
	processors  []int    // cpuset(2); nil is all
	annotations map[string]string
	refuse      []string // permissions
	apps        map[string]appPlan
}

type appPlan struct {
	class           string // login class, "" for none of its own
	noNewPrivileges bool
	protect         bool // from being killed for want of memory
}

// rctlRule is what stands behind a subject in a rule of rctl(8).
type rctlRule struct{ resource, action, amount string }

func (r rctlRule) of(subject string) string {
	return subject + ":" + r.resource + ":" + r.action + "=" + r.amount
}

// ruleOf tells whether a rule is for a pod: its jail, one in it, or a login class of its.
func ruleOf(rule, podID string) bool {
	fields := strings.SplitN(rule, ":", 3)
	if len(fields) < 3 {
		return false
	}
	subject := fields[0] + ":" + fields[1]
	return subject == "jail:"+jailName(podID) || strings.HasPrefix(subject, "jail:"+appJailName(podID, "")) ||
		strings.HasPrefix(subject, "loginclass:"+loginClass(podID, ""))
}

const noRacct = "resources are not counted; 'echo kern.racct.enable=1 >>/boot/loader.conf' and a reboot mend it"

// planner makes a plan, and tells what becomes of each isolator.
type planner struct {
	pod      sandbox.Pod
	host     abilities
	plan     plan
	outcomes []sandbox.Outcome
}

// planFor gives the plan for a pod. Errors: ErrBadPod.
func planFor(pod sandbox.Pod, host abilities) (plan, []sandbox.Outcome, error) {
	base, ok := profiles[profileOf(pod)]
	if !ok {
		return plan{}, nil, fmt.Errorf("%w: unknown profile %q", sandbox.ErrBadPod, pod.Profile)
	}
	r := planner{pod: pod, host: host, plan: plan{annotations: maps.Clone(pod.Annotations), apps: map[string]appPlan{}}}
	if r.plan.annotations == nil {
		r.plan.annotations = map[string]string{}
	}
	for _, is := range pod.Isolators {
		if err := r.ofPod(is); err != nil {
			return plan{}, nil, fmt.Errorf("isolator %s: %w: %w", is.Name, sandbox.ErrBadPod, err)
		}
	}
	r.plan.refuse = refusedByAll(pod.Apps)
	for i, app := range pod.Apps {
		a := appPlan{noNewPrivileges: base.noNewPrivileges && host.noNewPrivileges}
		for _, is := range app.Isolators {
			r.ofApp(app, i, is, &a, base)
		}
		r.plan.apps[app.Name] = a
	}
	return r.plan, r.outcomes, nil
}

func profileOf(pod sandbox.Pod) sandbox.Profile {
	if pod.Profile == "" {
		return sandbox.ProfileDefault
	}
	return pod.Profile
}

func (r *planner) tell(app string, is sandbox.Isolator, otherwise sandbox.Status, detail string) {
	r.outcomes = append(r.outcomes, is.Outcome(app, otherwise, detail))
}

func (r *planner) ofPod(is sandbox.Isolator) (err error) {
	switch is.Name {
	case sandbox.Sysctl:
		r.sysctls(is)
	case sandbox.FreeBSDJailParam:
		for name, value := range is.Value.(sandbox.Settings) {
			if _, err := annotationParam(name, value); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			r.plan.annotations[annotationPrefix+name] = value
		}
		r.tell("", is, "", "")
	case sandbox.FreeBSDCpuset:
		if r.plan.processors, err = processors(is.Value.String(), r.host.processors); err != nil {
			return err
		}
		r.tell("", is, "", "")
	case sandbox.FreeBSDRctl:
		rules, err := rctlRules(is.Value.(sandbox.Settings))
		if err != nil {
			return err
		}
		r.limitPod(is, rules, "")
	default:
		rules, detail := resourceRules(is)
		r.limitPod(is, rules, detail)
	}
	return nil
}

// limitPod adds rules for the jails of the pod: those of one do not bind the processes of
// a jail in it.
func (r *planner) limitPod(is sandbox.Isolator, rules []rctlRule, detail string) {
	subjects := []string{"jail:" + jailName(r.pod.ID)}
	for _, app := range r.pod.Apps {
		if app.OS == "linux" {
			subjects = append(subjects, "jail:"+appJailName(r.pod.ID, app.Name))
		}
	}
	if len(subjects) > 1 && len(r.pod.Apps) > 1 && len(rules) > 0 {
		detail = strings.TrimPrefix(detail+"; each app for Linux has as much to itself", "; ")
	}
	r.limit("", is, subjects, rules, detail)
}

// limit adds rules for subjects; without any, detail says why.
func (r *planner) limit(app string, is sandbox.Isolator, subjects []string, rules []rctlRule, detail string) {
	status := sandbox.Modified
	switch {
	case len(rules) == 0:
		status = sandbox.Ignored
	case !r.host.racct:
		status, detail = sandbox.Ignored, noRacct
	default:
		for _, subject := range subjects {
			for _, rule := range rules {
				r.plan.rules = append(r.plan.rules, rule.of(subject))
			}
		}
	}
	r.tell(app, is, status, detail)
}

func (r *planner) ofApp(app sandbox.App, number int, is sandbox.Isolator, a *appPlan, base profile) {
	switch is.Name {
	case sandbox.NoNewPrivileges:
		on := bool(is.Value.(sandbox.Switch))
		switch {
		case on && !r.host.noNewPrivileges:
			r.tell(app.Name, is, sandbox.Ignored, "this kernel cannot (procctl(2) of FreeBSD 13.1 and later can)")
			return
		case !on && is.Image && base.noNewPrivileges:
			r.tell(app.Name, is, sandbox.Ignored, fmt.Sprintf("the profile %s has it on, and an image cannot turn it off", profileOf(r.pod)))
			return
		}
		a.noNewPrivileges = on
		r.tell(app.Name, is, "", "")
	case sandbox.CapabilitiesRetain, sandbox.CapabilitiesRemove:
		r.capabilities(app, is)
	case sandbox.SeccompRetain, sandbox.SeccompRemove:
		detail := "FreeBSD has no filter of system calls"
		if slices.Contains(is.Value.(sandbox.Set).Names, map[string]string{
			sandbox.SeccompRetain: "@appc.io/all", sandbox.SeccompRemove: "@appc.io/empty",
		}[is.Name]) {
			detail = "" // which is what there is
		}
		r.tell(app.Name, is, sandbox.Ignored, detail)
	case sandbox.OOMScoreAdj:
		switch {
		case is.Value.(sandbox.Number) >= 0:
			r.tell(app.Name, is, sandbox.Ignored, "FreeBSD ends the process that is largest")
		case is.Image:
			r.tell(app.Name, is, sandbox.Ignored, "an image cannot have others killed before it")
		default:
			a.protect = true
			r.tell(app.Name, is, sandbox.Modified, "the app is spared altogether (protect(1))")
		}
	default:
		rules, detail := resourceRules(is)
		switch { // what binds a jail binds root as well
		case app.OS == "linux":
			r.limit(app.Name, is, []string{"jail:" + appJailName(r.pod.ID, app.Name)}, rules, detail)
			return
		case len(r.pod.Apps) == 1:
			r.limit(app.Name, is, []string{"jail:" + jailName(r.pod.ID)}, rules, detail)
			return
		}
		if len(rules) > 0 && r.host.racct {
			a.class = loginClass(r.pod.ID, strconv.Itoa(number))
			detail = strings.TrimPrefix(detail+"; it binds a login class, which root in the app can leave", "; ")
		}
		r.limit(app.Name, is, []string{"loginclass:" + a.class}, rules, detail)
	}
}

// resourceRules gives the rules for an isolator that can be of a pod as well as of an
// app. detail says what they do not do; without any, why.
func resourceRules(is sandbox.Isolator) (rules []rctlRule, detail string) {
	value, _ := is.Value.(sandbox.Resource)
	amount := strconv.FormatInt(value.Limit, 10)
	var details []string
	if value.Request != value.Limit {
		details = append(details, "FreeBSD guarantees no resources, so the request is ignored")
	}
	switch is.Name {
	case sandbox.CPU:
		// In percents of a processor.
		if value.Limit > 0 && value.Limit < 10 {
			details = append(details, "0.01 is the least")
		}
		rules = []rctlRule{{"pcpu", "deny", strconv.FormatInt(max(value.Limit/10, 1), 10)}}
	case sandbox.Memory:
		// To deny resident memory only makes the kernel look for pages to write out
		// (rctl(8)), for ever if there is no swap.
		rules = []rctlRule{{"memoryuse", "sigkill", amount}}
	case sandbox.BlockBandwidth:
		rules = []rctlRule{{"readbps", "throttle", amount}, {"writebps", "throttle", amount}}
	case sandbox.BlockIOPS:
		rules = []rctlRule{{"readiops", "throttle", amount}, {"writeiops", "throttle", amount}}
	default:
		return nil, ignored(is.Name)
	}
	if value.Limit == 0 {
		rules = nil
	}
	return rules, strings.Join(details, "; ")
}

// ignored says why nothing is done about an isolator.
func ignored(name string) string {
	switch name {
	case sandbox.NetworkBandwidth:
		return "jetpack does not shape traffic"
	case sandbox.CPUShares:
		return "FreeBSD has no shares of processors"
	case sandbox.SELinuxContext, sandbox.AppArmorProfile:
		return "it is for Linux"
	}
	return "jetpack does not know it"
}

// capabilityPermissions are the permissions of jails that come near to capabilities of
// Linux. What Linux grants by others, as to change the owners of files, a jail cannot
// refuse.
var capabilityPermissions = map[string][]string{
	"CAP_IPC_LOCK":         {"allow.mlock"},
	"CAP_LINUX_IMMUTABLE":  {"allow.chflags"},
	"CAP_NET_ADMIN":        {"allow.routing"},
	"CAP_NET_BIND_SERVICE": {"allow.reserved_ports"},
	"CAP_NET_RAW":          {"allow.raw_sockets"},
	"CAP_SETFCAP":          {"allow.extattr"},
	"CAP_SYS_PTRACE":       {"allow.unprivileged_proc_debug"},
	"CAP_SYS_TIME":         {"allow.adjtime", "allow.settime"},
	"CAP_SYSLOG":           {"allow.read_msgbuf"},
}

// refused are the permissions that an app gives up.
func refused(app sandbox.App) (permissions []string) {
	for _, is := range app.Isolators {
		set, _ := is.Value.(sandbox.Set)
		for name, allowed := range capabilityPermissions {
			listed := slices.Contains(set.Names, name)
			if is.Name == sandbox.CapabilitiesRemove && listed || is.Name == sandbox.CapabilitiesRetain && !listed {
				permissions = append(permissions, allowed...)
			}
		}
	}
	slices.Sort(permissions)
	return permissions
}

// refusedByAll are the permissions that all apps give up: they share the jail.
func refusedByAll(apps []sandbox.App) (permissions []string) {
	for i, app := range apps {
		own := refused(app)
		if i == 0 {
			permissions = own
		}
		permissions = slices.DeleteFunc(permissions, func(p string) bool { return !slices.Contains(own, p) })
	}
	return permissions
}

func (r *planner) capabilities(app sandbox.App, is sandbox.Isolator) {
	var kept, gone []string
	for _, p := range refused(app) {
		if slices.Contains(r.plan.refuse, p) {
			gone = append(gone, p)
		} else {
			kept = append(kept, p)
		}
	}
	detail := "FreeBSD has no capabilities"
	status := sandbox.Ignored
	if len(gone) > 0 {
		status = sandbox.Modified
		detail += ", so the jail goes without " + strings.Join(gone, ", ")
	}
	if len(kept) > 0 {
		detail += "; other apps of the pod do not give up " + strings.Join(kept, ", ")
	}
	r.tell(app.Name, is, status, detail)
}

// jailSysctls are those that a jail has of its own, as parameters.
var jailSysctls = map[string]string{"kern.osrelease": "osrelease", "kern.securelevel": "securelevel"}

func (r *planner) sysctls(is sandbox.Isolator) {
	var set int
	var foreign []string
	for name, value := range is.Value.(sandbox.Settings) {
		parameter, ok := jailSysctls[name]
		if _, err := annotationParam(parameter, value); !ok || err != nil {
			foreign = append(foreign, name)
			continue
		}
		r.plan.annotations[annotationPrefix+parameter] = value
		set++
	}
	detail, status := "", sandbox.Modified
	if len(foreign) > 0 {
		slices.Sort(foreign)
		detail = strings.Join(foreign, " ") + " cannot be set for a jail"
	}
	if set == 0 {
		status = sandbox.Ignored
	}
	r.tell("", is, status, detail)
}

// Resources and actions of rules (rctl(8)), and their amounts.
var (
	rctlResources = []string{
		"coredumpsize", "cputime", "datasize", "maxproc", "memorylocked", "memoryuse", "msgqqueued", "msgqsize", "nmsgq",
		"nsem", "nsemop", "nshm", "nthr", "openfiles", "pcpu", "pseudoterminals", "readbps", "readiops", "shmsize",
		"stacksize", "swapuse", "vmemoryuse", "wallclock", "writebps", "writeiops",
	}
	rctlActions = []string{
		"deny", "devctl", "log", "sigabrt", "sigalrm", "sigbus", "sigchld", "sigemt", "sigfpe", "sighup", "sigill", "siginfo",
		"sigint", "sigio", "sigkill", "sigpipe", "sigprof", "sigquit", "sigsegv", "sigstop", "sigsys", "sigterm", "sigthr",
		"sigtrap", "sigtstp", "sigttin", "sigttou", "sigurg", "sigusr1", "sigusr2", "sigvtalrm", "sigwinch", "sigxcpu",
		"sigxfsz", "throttle",
	}
	// Nothing but these can be throttled, and they, like time, cannot be denied; these others
	// are not counted of a process (rctl(8), sys/kern/kern_rctl.c).
	rctlRates     = []string{"readbps", "readiops", "writebps", "writeiops"}
	rctlTimes     = []string{"cputime", "wallclock"}
	rctlNoProcess = []string{"msgqqueued", "msgqsize", "nmsgq", "nsem", "nshm", "pseudoterminals", "shmsize", "swapuse"}
	rctlAmount    = lazyregexp.New(`^[0-9]{1,18}(/(process|user|loginclass|jail))?$`)
)

// rctlRules decodes RESOURCE:ACTION to amount.
func rctlRules(settings sandbox.Settings) (rules []rctlRule, err error) {
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		resource, action, _ := strings.Cut(key, ":")
		amount := settings[key]
		rate := slices.Contains(rctlRates, resource)
		switch {
		case !slices.Contains(rctlResources, resource) || !slices.Contains(rctlActions, action) || !rctlAmount().MatchString(amount):
			return nil, fmt.Errorf("%s=%s: want RESOURCE:ACTION and an amount, as in rctl(8)", key, amount)
		case action == "deny" && (rate || slices.Contains(rctlTimes, resource)), action == "throttle" && !rate:
			return nil, fmt.Errorf("%s=%s: the kernel cannot %s %s", key, amount, action, resource)
		case strings.HasSuffix(amount, "/process") && slices.Contains(rctlNoProcess, resource):
			return nil, fmt.Errorf("%s=%s: the kernel does not count %s of a process", key, amount, resource)
		}
		rules = append(rules, rctlRule{resource, action, amount})
	}
	return rules, nil
}

// processors decodes a list as cpuset(1) has it: "0-2,5".
func processors(list string, most int) (numbers []int, err error) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		low, err := strconv.ParseUint(first, 10, 16)
		high, err2 := strconv.ParseUint(last, 10, 16)
		switch {
		case errors.Join(err, err2) != nil || low > high:
			return nil, fmt.Errorf(`%q is not a list of processors, as "0-2,5"`, list)
		case int(high) >= most:
			return nil, fmt.Errorf("there is no processor %d: the host has %d", high, most)
		}
		for n := low; n <= high; n++ {
			numbers = append(numbers, int(n))
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}

// cpuMask encodes processors as cpuset_setaffinity(2) takes them, in size bytes.
func cpuMask(numbers []int, size int) []byte {
	mask := make([]byte, size)
	for _, n := range numbers {
		mask[n/8] |= 1 << (n % 8) // long words, but the machines are little-endian
	}
	return mask
}

// loginClass names the login class of an app of a pod; all of a pod begin with that of "".
// A name has at most 32 characters (setloginclass(2)).
func loginClass(podID, app string) string {
	id, _ := uuid.Parse(podID) // check has
	return "jp-" + base64.RawURLEncoding.EncodeToString(id[:]) + "-" + app
}
