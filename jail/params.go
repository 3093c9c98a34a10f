// Package jail isolates pods on FreeBSD: one jail(8) a pod, one chroot(2) an
// app, file systems mounted from the host.
//
// This file turns a pod into the parameters of its jail and the mounts of its
// apps. It is free of system calls and builds everywhere.
//
// Not for: which addresses a pod gets (internal/network), where root directories
// come from (internal/storage).
package jail

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/jetpack-run/jetpack/internal/lazyregexp"

	"github.com/google/uuid"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// Limits of the kernel: MAXHOSTNAMELEN and OSRELEASELEN of sys/param.h and
// sys/jail.h count the closing NUL, and jail_set(2) wants an osrelease one
// shorter still; MNAMELEN bounds both names of a mount; maxAddresses is the
// default of security.jail.jail_max_af_ips.
const (
	maxHostname  = 255
	maxOSRelease = 30
	maxPath      = 1023
	maxAddresses = 255
	maxRuleset   = 65535 // devfs(8)
)

// The values of parameters that jail(8) writes as disable, new and inherit, in sys/jail.h.
const (
	sysDisable int32 = 0
	sysNew     int32 = 1
	sysInherit int32 = 2
)

var (
	osReleasePattern = lazyregexp.New(`^[0-9]+\.[0-9]+(-[A-Z0-9]+)?(-p[0-9]+)?$`)
	// https://github.com/appc/spec/blob/v0.8.11/spec/types.md#ac-name-type
	appNamePattern  = lazyregexp.New(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	hostnamePattern = lazyregexp.New(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
)

// Options are what the host and the configuration add to a pod.
type Options struct {
	// Path is the absolute directory that becomes the root of the jail. It is
	// the pod's own, holds nothing but one empty directory per app (see AppRoot),
	// and its parents are closed to other users.
	Path string
	// Addresses are the only ones that the pod may use, present on some interface
	// of the host. The first of a family is the source of connections.
	Addresses []netip.Addr
	// OSRelease is what kern.osrelease says in the pod ("14.3-RELEASE"); "" is
	// the host's, as Linux images want it.
	OSRelease string
	// SecureLevel is kern.securelevel in the pod: 1 to 3; 0 is the profile's, by default
	// 2, "highly secure mode" of security(7); -1 is the host's own.
	SecureLevel int32
	// HostSecureLevel is the host's kern.securelevel. A jail gets at least that,
	// since jail_set(2) refuses less.
	HostSecureLevel int32
	// EnforceStatfs is 1 to show the pod its own mounts, 2 to hide them; 0 is the
	// default: 2, or 1 when an app is Linux, whose programs read /proc/mounts.
	EnforceStatfs int32
	// DevfsRuleset is the number of the devfs(8) rule set for /dev: 1 to 65535. A
	// /dev without rules would hold the host's disks. The caller makes sure that
	// the set exists and is not empty.
	DevfsRuleset int32
	// Allow names what the configuration permits beyond the default, as jail(8)
	// does: "allow.raw_sockets".
	Allow []string
	// Refuse names permissions that the pod goes without, though the profile or Allow
	// grants them.
	Refuse []string
	// Annotations are the pod's (not an image's). Those that AnnotationParams
	// accepts win over the above; one that it refuses is an error.
	Annotations map[string]string
	// Linux names the apps whose image is for Linux.
	Linux []string
	// HostMounts are the mounts of the host (getfsstat(2)). Volumes that are
	// mounted recursively take theirs from here.
	HostMounts []HostMount
	// Supports tells whether the kernel has a permission ("allow.settime"), that
	// is, a sysctl of that name below security.jail.param; nil: it has them all.
	Supports func(permission string) bool
}

// HostMount is a mount of the host.
type HostMount struct {
	Path string // where
	Type string // "zfs", "devfs", …
}

// Param is one parameter of jail_set(2).
type Param struct {
	Name string
	// Value is a string, an int32, a []netip.Addr of one family, or nil for a flag
	// that the name alone sets ("persist", "allow.noraw_sockets").
	Value any
}

// Bytes encodes the value as jail_set(2) takes it: strings with a NUL at the end,
// numbers in the order of the machine, addresses in network order, nil for flags.
func (p Param) Bytes() []byte {
	var b []byte
	switch v := p.Value.(type) {
	case string:
		b = append([]byte(v), 0)
	case int32:
		b = binary.NativeEndian.AppendUint32(b, uint32(v))
	case []netip.Addr:
		for _, a := range v {
			b = append(b, a.AsSlice()...)
		}
	}
	return b
}

// Mount is one mount for nmount(2), to be made on the host.
type Mount struct {
	Type    string   // the file system: "nullfs", "devfs"
	Source  string   // for nullfs an absolute path, else the type again
	Target  string   // absolute, on the host
	Options []string // as after mount -o: "ro", "ruleset=4"
}

// permission is a flag of jail(8) that jetpack knows.
type permission struct {
	name string
	// standard: granted unless refused. Without allow.suser root in the pod would
	// not be root; without allow.reserved_ports a server could not be one.
	standard bool
	// pod: an annotation of the pod may set it, since it opens nothing outside the
	// pod. The others open the clock, the kernel's messages, quotas or protocols
	// that know nothing of jails, and are for the configuration alone.
	pod bool
}

// permissions are all that can be granted. What is not granted is refused by
// name, since some are on in the kernel's default. Never here: allow.mount and
// what is below it, since a jail that mounts can get out (CVE-2025-15547,
// FreeBSD-SA-21:10.jail_mount); allow.sysvipc, which sysvmsg and its like replace;
// allow.nfsd and allow.vmm, which serve and run things for the host.
var permissions = []permission{
	{name: "allow.adjtime"},
	{name: "allow.chflags", pod: true},
	{name: "allow.extattr"},
	{name: "allow.mlock", pod: true},
	{name: "allow.quotas"},
	{name: "allow.raw_sockets", pod: true},
	{name: "allow.read_msgbuf"},
	{name: "allow.reserved_ports", standard: true, pod: true},
	{name: "allow.routing"},
	{name: "allow.set_hostname", pod: true},
	{name: "allow.setaudit"},
	{name: "allow.settime"},
	{name: "allow.socket_af"},
	{name: "allow.suser", standard: true},
	{name: "allow.unprivileged_parent_tampering"},
	{name: "allow.unprivileged_proc_debug", pod: true},
}

// flag is the parameter that grants or refuses the permission.
func (p permission) flag(grant bool) Param {
	if grant {
		return Param{p.name, nil}
	}
	return Param{strings.Replace(p.name, "allow.", "allow.no", 1), nil}
}

// annotated are the parameters with a value that an annotation of the pod may
// set, each with the parser of its values.
var annotated = map[string]func(string) (any, error){
	"enforce_statfs": number(1, 2),
	"osrelease":      func(s string) (any, error) { return s, checkOSRelease(s) },
	"securelevel":    number(-1, 3),
	"sysvmsg":        sysV,
	"sysvsem":        sysV,
	"sysvshm":        sysV,
}

func number(least, most int32) func(string) (any, error) {
	return func(s string) (any, error) {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil || int32(n) < least || int32(n) > most {
			return nil, fmt.Errorf("%q is not a number from %d to %d", s, least, most)
		}
		return int32(n), nil
	}
}

// sysV does not take "inherit", which would share the objects of the host.
func sysV(s string) (any, error) {
	switch s {
	case "new":
		return sysNew, nil
	case "disable":
		return sysDisable, nil
	}
	return nil, fmt.Errorf("%q is not new or disable", s)
}

// annotationPrefix is followed by the name of a parameter, with hyphens allowed
// for underscores.
const annotationPrefix = "jetpack/jail.conf/"

// AnnotationParams gives the parameters that a pod's annotations set: those named
// jetpack/jail.conf/PARAMETER, sorted by that name. An error stands for each that
// is refused, because a pod may not set the parameter, or not to that value.
// Other annotations are none of its business.
func AnnotationParams(annotations map[string]string) ([]Param, []error) {
	var (
		params  []Param
		refused []error
		seen    = make(map[string]bool)
	)
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, annotationPrefix)
		if !ok {
			continue
		}
		name = strings.ReplaceAll(name, "-", "_")
		p, err := annotationParam(name, annotations[key])
		if err == nil && seen[name] {
			err = errors.New("is set twice")
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("annotation %q: %w", key, err))
			continue
		}
		seen[name] = true
		params = append(params, p)
	}
	return params, refused
}

func annotationParam(name, text string) (Param, error) {
	if parse, ok := annotated[name]; ok {
		v, err := parse(text)
		return Param{name, v}, err
	}
	i := slices.IndexFunc(permissions, func(p permission) bool { return p.pod && p.name == name })
	switch {
	case i < 0:
		return Param{}, errors.New("a pod may not set this parameter")
	case text != "true" && text != "false":
		return Param{}, fmt.Errorf("%q is not true or false", text)
	}
	return permissions[i].flag(text == "true"), nil
}

// devfsAnnotation gives a pod another devfs(8) rule set than the configured one.
const devfsAnnotation = "jetpack/devfs-ruleset"

// Info is what the engine says of itself (sandbox.Engine). Processes of a pod other
// than those that were started in it go on when the owner dies, until Destroy.
func Info() sandbox.Info {
	info := sandbox.Info{
		Name: "jail", Isolates: true, HostNetwork: true, PrivateNetwork: true, Terminal: true,
		Emulates: []string{"linux"}, Annotations: []string{devfsAnnotation, annotationPrefix},
		Isolators: effects, Profiles: map[sandbox.Profile]string{},
	}
	for name, p := range profiles {
		info.Profiles[name] = p.info()
	}
	return info
}

// jailName is the name of a pod's jail. It has no dot, which would make it the
// child of another jail (jail(8)), and no colon, which separates the fields of
// rules for rctl(8).
func jailName(podID string) string { return "jetpack-" + podID }

// appJailName is that of a Linux app: a name with a dot is that of a jail in another one.
func appJailName(podID, app string) string { return jailName(podID) + ".app-" + app }

// AppRoot is the directory on the host that an app is chrooted to, given the path
// of the jail. The app's own root is mounted there.
func AppRoot(path, app string) string { return filepath.Join(path, app) }

// Params gives the parameters that create a pod's jail, in a fixed order.
//
// A pod with NetworkHost has the host's addresses, one with NetworkPrivate
// opts.Addresses and no others: they bound what it can listen on and be seen as,
// not what it can connect to: every address of the host stays within reach unless
// a packet filter says otherwise. One with NetworkNone has a network stack of its
// own (vnet(9)), whose loopback interface is yet to be turned on.
func Params(pod sandbox.Pod, opts Options) ([]Param, error) {
	ps, err := params(pod, opts)
	if err != nil {
		return nil, fmt.Errorf("jail of pod %q: %w", pod.ID, err)
	}
	return ps, nil
}

func params(pod sandbox.Pod, opts Options) ([]Param, error) {
	if err := check(pod, opts); err != nil {
		return nil, err
	}
	set, refused := AnnotationParams(opts.Annotations)
	if len(refused) > 0 {
		return nil, refused[0]
	}
	base := profiles[profileOf(pod)]
	ps := []Param{
		{"name", jailName(pod.ID)},
		{"path", opts.Path},
		{"host.hostname", pod.Hostname},
		{"host.hostuuid", pod.ID},
		{"persist", nil},
		{"children.max", int32(len(opts.Linux))},
		{"securelevel", cmp.Or(opts.SecureLevel, base.secureLevel)},
		{"enforce_statfs", enforceStatfs(opts, base)},
		{"devfs_ruleset", opts.DevfsRuleset},
		{"sysvmsg", base.sysV},
		{"sysvsem", base.sysV},
		{"sysvshm", base.sysV},
	}
	if opts.OSRelease != "" {
		ps = append(ps, Param{"osrelease", opts.OSRelease})
	}
	addrs, err := addressing(pod.Network, opts.Addresses)
	if err != nil {
		return nil, err
	}
	ps = append(ps, addrs...)
	flagged := make(map[string]bool)
	for _, p := range set {
		if p.Value == nil {
			flagged[p.Name] = true
			continue
		}
		if i := slices.IndexFunc(ps, func(q Param) bool { return q.Name == p.Name }); i >= 0 {
			ps[i] = p
		} else {
			ps = append(ps, p)
		}
	}
	if i := slices.IndexFunc(ps, func(p Param) bool { return p.Name == "osrelease" }); i >= 0 {
		if date, ok := osRelDate(ps[i].Value.(string)); ok {
			ps = append(ps, Param{"osreldate", date})
		}
	}
	level := slices.IndexFunc(ps, func(p Param) bool { return p.Name == "securelevel" })
	ps[level].Value = max(ps[level].Value.(int32), opts.HostSecureLevel)
	flags, err := permit(opts, base, flagged)
	return append(ps, flags...), err
}

// AppParams gives the parameters of a Linux app's own jail within the pod's, after which it
// takes all but its root: the mount table that Linux programs read in /proc has the paths
// that are the jail's, which those of a chroot are not (linprocfs(5)).
func AppParams(pod sandbox.Pod, app string, opts Options) ([]Param, error) {
	all, err := Params(pod, opts)
	if err != nil {
		return nil, err
	}
	// A new jail has no name and no addresses, unless it is to have its parent's.
	ps := []Param{{"name", appJailName(pod.ID, app)}, {"path", AppRoot(opts.Path, app)}, {"host", sysInherit}}
	for _, p := range all {
		switch p.Name {
		case "name", "path", "host.hostname", "host.hostuuid", "devfs_ruleset", "ip4.addr", "ip6.addr":
			continue
		case "vnet":
			ps = append(ps, Param{"ip4", sysInherit}, Param{"ip6", sysInherit})
			continue
		case "children.max":
			p.Value = int32(0)
		case "ip4", "ip6", "sysvmsg", "sysvsem", "sysvshm":
			if p.Value == sysNew {
				p.Value = sysInherit
			}
		}
		ps = append(ps, p)
	}
	return ps, nil
}

func enforceStatfs(opts Options, base profile) int32 {
	switch {
	case opts.EnforceStatfs != 0:
		return opts.EnforceStatfs
	case base.enforceStatfs != 0:
		return base.enforceStatfs
	case len(opts.Linux) > 0:
		return 1
	}
	return 2
}

// permit gives a flag for every permission that the kernel has. The flags in set
// come from annotations and win.
func permit(opts Options, base profile, set map[string]bool) ([]Param, error) {
	for _, name := range opts.Allow {
		if !slices.ContainsFunc(permissions, func(p permission) bool { return p.name == name }) {
			return nil, fmt.Errorf("%q cannot be allowed", name)
		}
	}
	flags := []Param{{"allow.nomount", nil}}
	for _, p := range permissions {
		grant, refuse := set[p.flag(true).Name], set[p.flag(false).Name]
		refuse = refuse || !grant && slices.Contains(opts.Refuse, p.name)
		asked := grant || !refuse && slices.Contains(opts.Allow, p.name)
		given := !refuse && (p.standard || slices.Contains(base.allow, p.name))
		switch {
		case opts.Supports == nil || opts.Supports(p.name):
			flags = append(flags, p.flag(asked || given))
		case asked:
			return nil, fmt.Errorf("this kernel has no %s", p.name)
		}
	}
	return flags, nil
}

// addressing gives the parameters for the network. ip4 and ip6 are always given but
// to a pod with a network stack of its own, so that nothing depends on the kernel's
// default.
func addressing(n sandbox.Network, addrs []netip.Addr) ([]Param, error) {
	switch {
	case n != sandbox.NetworkPrivate && len(addrs) > 0:
		return nil, fmt.Errorf("a pod with network %s has no addresses of its own", n)
	case n == sandbox.NetworkHost:
		return []Param{{"ip4", sysInherit}, {"ip6", sysInherit}}, nil
	case n == sandbox.NetworkNone:
		return []Param{{"vnet", sysNew}}, nil
	case n != sandbox.NetworkPrivate:
		return nil, fmt.Errorf("unknown network %q", n)
	case len(addrs) == 0:
		return nil, errors.New("a pod with a private network needs an address")
	}
	var v4, v6 []netip.Addr
	for i, a := range addrs {
		switch {
		case !usable(a):
			return nil, fmt.Errorf("%v is not an address for a jail", a)
		case slices.Contains(addrs[:i], a):
			return nil, fmt.Errorf("address %v is given twice", a)
		case a.Is4():
			v4 = append(v4, a)
		default:
			v6 = append(v6, a)
		}
	}
	if max(len(v4), len(v6)) > maxAddresses {
		return nil, fmt.Errorf("more than %d addresses of a family", maxAddresses)
	}
	return append(family("ip4", v4), family("ip6", v6)...), nil
}

// usable tells whether jail_set(2) can take an address: it has no place for a
// zone and takes the unspecified and the broadcast address for errors.
func usable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() &&
		!a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func family(name string, addrs []netip.Addr) []Param {
	if len(addrs) == 0 {
		return []Param{{name, sysDisable}}
	}
	return []Param{{name, sysNew}, {name + ".addr", addrs}}
}

// check refuses what the kernel would not take, or would take for something else.
func check(pod sandbox.Pod, opts Options) error {
	id, err := uuid.Parse(pod.ID)
	switch {
	case err != nil || id.String() != pod.ID:
		return errors.New("the ID is not a canonical UUID")
	case len(pod.Hostname) > maxHostname || !hostnamePattern().MatchString(pod.Hostname):
		return fmt.Errorf("%q is not a host name", pod.Hostname)
	case profiles[profileOf(pod)].secureLevel == 0:
		return fmt.Errorf("unknown profile %q", pod.Profile)
	case opts.SecureLevel < -1 || opts.SecureLevel > 3:
		return fmt.Errorf("securelevel %d is not from -1 to 3", opts.SecureLevel)
	case opts.EnforceStatfs < 0 || opts.EnforceStatfs > 2:
		return fmt.Errorf("enforce_statfs %d is not 1 or 2", opts.EnforceStatfs)
	case opts.DevfsRuleset < 1 || opts.DevfsRuleset > maxRuleset:
		return fmt.Errorf("devfs rule set %d is not from 1 to %d", opts.DevfsRuleset, maxRuleset)
	}
	if err := checkPath(opts.Path); err != nil {
		return err
	}
	if opts.OSRelease == "" {
		return nil
	}
	return checkOSRelease(opts.OSRelease)
}

func checkOSRelease(s string) error {
	if len(s) > maxOSRelease || !osReleasePattern().MatchString(s) {
		return fmt.Errorf("%q is not an osrelease such as 14.3-RELEASE", s)
	}
	return nil
}

// release splits what an osrelease begins with: "14.3-RELEASE-p1" is 14 and 3.
func release(s string) (major, minor int) {
	number, _, _ := strings.Cut(s, "-")
	first, second, _ := strings.Cut(number, ".")
	major, _ = strconv.Atoi(first) // 0 is older than all
	minor, _ = strconv.Atoi(second)
	return major, minor
}

// newerThan compares releases of FreeBSD by their numbers; "" is older than all.
func newerThan(a, b string) bool {
	aMajor, aMinor := release(a)
	bMajor, bMinor := release(b)
	return aMajor > bMajor || aMajor == bMajor && aMinor > bMinor
}

// osRelease is kern.osrelease of a release: that of "14.3" is "14.3-RELEASE".
func osRelease(version string) string {
	if strings.Contains(version, "-") {
		return version
	}
	return version + "-RELEASE"
}

// osRelDate is the kern.osreldate, or uname -K, of a release. Those of a .0 go by no rule
// (FreeBSD Porter's Handbook, "__FreeBSD_version Values"): programs see the host's.
func osRelDate(osrelease string) (date int32, ok bool) {
	major, minor := release(osrelease)
	return int32(major*100000 + minor*1000), minor > 0 && minor < 100 && major < 1000
}

// checkPath accepts an absolute path in its shortest form, but not "/".
func checkPath(path string) error {
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/":
		return fmt.Errorf("%q is not a clean absolute path", path)
	case len(path) > maxPath:
		return fmt.Errorf("path of %d bytes is longer than %d", len(path), maxPath)
	case strings.ContainsFunc(path, unicode.IsControl):
		return fmt.Errorf("path %q contains a control character", path)
	}
	return nil
}

// shmSize bounds a Linux app's /dev/shm, in bytes.
const shmSize = 64 << 20

// Mounts gives the mounts of a pod's apps, parents before what is below them;
// unmounting is the reverse. They are made on the host before any process of
// the pod exists, since nmount(2) knows paths only.
//
// An app's root is first mounted at AppRoot with nullfs, read-only if the app
// says so, and everything else in it there. A read-only root thus takes no
// change of the mount below it: mount points are made in App.Root while it is
// writable, before all this; then comes the read-only view of it; then, on top,
// devices and volumes, which have their own switch.
//
// Mount points that have to exist in App.Root: /dev, the volumes' targets, and in
// Linux apps /proc and /sys. devfs(5) itself brings /dev/fd and, with linux(4)
// loaded, /dev/shm, if the rule set shows them. A file is a target for a file,
// a directory for a directory (mount_nullfs(8), FreeBSD 13.2 and later).
//
// A volume that is mounted recursively gets a mount of its own for each of
// opts.HostMounts below its source, since nullfs shows one file system only. No
// root and no volume comes from a devfs, whose devices no rules would hide, and
// recursion leaves it out.
func Mounts(pod sandbox.Pod, opts Options) ([]Mount, error) {
	mounts, err := mounts(pod, opts)
	if err != nil {
		return nil, fmt.Errorf("mounts of pod %q: %w", pod.ID, err)
	}
	return mounts, nil
}

func mounts(pod sandbox.Pod, opts Options) ([]Mount, error) {
	if err := check(pod, opts); err != nil {
		return nil, err
	}
	for _, name := range opts.Linux {
		if !slices.ContainsFunc(pod.Apps, func(a sandbox.App) bool { return a.Name == name }) {
			return nil, fmt.Errorf("there is no app %q", name)
		}
	}
	var all []Mount
	for i, app := range pod.Apps {
		if slices.ContainsFunc(pod.Apps[:i], func(a sandbox.App) bool { return a.Name == app.Name }) {
			return nil, fmt.Errorf("two apps are named %q", app.Name)
		}
		ms, err := appMounts(app, opts)
		if err != nil {
			return nil, fmt.Errorf("app %q: %w", app.Name, err)
		}
		all = append(all, ms...)
	}
	return all, nil
}

func appMounts(app sandbox.App, opts Options) ([]Mount, error) {
	if !appNamePattern().MatchString(app.Name) {
		return nil, errors.New("the name is not an AC Name")
	}
	if err := checkPath(app.Root); err != nil {
		return nil, err
	}
	if inDevfs(app.Root, opts.HostMounts) {
		return nil, fmt.Errorf("root %q is in the device file system", app.Root)
	}
	if within(app.Root, opts.Path) || within(opts.Path, app.Root) {
		return nil, fmt.Errorf("root %q and the jail's path %q overlap", app.Root, opts.Path)
	}
	root := AppRoot(opts.Path, app.Name)
	linux := slices.Contains(opts.Linux, app.Name)
	volumes, err := volumes(app, root, linux, opts.HostMounts)
	if err != nil {
		return nil, err
	}
	ms := []Mount{nullfs(app.Root, root, app.ReadOnly)}
	ms = append(ms, system(root, linux, opts.DevfsRuleset)...)
	ms = append(ms, volumes...)
	for i, m := range ms {
		if err := checkPath(m.Target); err != nil {
			return nil, err
		}
		// mount(8): not on what is already the root of a mount, so that nothing, a
		// leftover of a crash included, is ever covered unnoticed.
		ms[i].Options = append(m.Options, "nocover")
	}
	return ms, nil
}

func nullfs(source, target string, readOnly bool) Mount {
	m := Mount{Type: "nullfs", Source: source, Target: target}
	if readOnly {
		m.Options = []string{"ro"}
	}
	return m
}

// system gives the file systems of the kernel that every app has, and what else
// Linux programs expect (linux(4), linprocfs(5), linsysfs(5), fdescfs(5)).
func system(root string, linux bool, ruleset int32) []Mount {
	at := func(kind, target string, options ...string) Mount {
		return Mount{Type: kind, Source: kind, Target: filepath.Join(root, target), Options: options}
	}
	dev := at("devfs", "/dev", "nosuid", "noexec", "ruleset="+strconv.Itoa(int(ruleset)))
	if !linux {
		return []Mount{dev, at("fdescfs", "/dev/fd")}
	}
	return []Mount{
		dev,
		at("fdescfs", "/dev/fd", "linrdlnk"),
		at("tmpfs", "/dev/shm", "nosuid", "noexec", "mode=1777", "size="+strconv.Itoa(shmSize)),
		at("linprocfs", "/proc", "nosuid", "noexec"),
		at("linsysfs", "/sys", "nosuid", "noexec"),
	}
}

// volumes gives the mounts of an app's volumes, sorted by target.
func volumes(app sandbox.App, root string, linux bool, host []HostMount) ([]Mount, error) {
	reserved := []string{"/dev"}
	if linux {
		reserved = append(reserved, "/proc", "/sys")
	}
	var ms []Mount
	for _, m := range app.Mounts {
		if err := checkPath(m.Target); err != nil {
			return nil, fmt.Errorf("mount target: %w", err)
		}
		for _, dir := range reserved {
			if within(m.Target, dir) {
				return nil, fmt.Errorf("nothing can be mounted at %q", m.Target)
			}
		}
		if m.Source != "/" {
			if err := checkPath(m.Source); err != nil {
				return nil, fmt.Errorf("mount source: %w", err)
			}
		}
		sources, err := expand(m, host)
		if err != nil {
			return nil, err
		}
		for _, source := range sources {
			target := filepath.Join(root, m.Target, strings.TrimPrefix(source, m.Source))
			volume := nullfs(source, target, m.ReadOnly)
			volume.Options = append(volume.Options, "nosuid")
			ms = append(ms, volume)
		}
	}
	slices.SortFunc(ms, func(a, b Mount) int { return cmp.Compare(a.Target, b.Target) })
	for i := 1; i < len(ms); i++ {
		if ms[i].Target == ms[i-1].Target {
			return nil, fmt.Errorf("%q and %q are to be mounted at the same place", ms[i-1].Source, ms[i].Source)
		}
	}
	return ms, nil
}

// expand gives the source of a volume and, if it is recursive, the host's mounts below it.
func expand(m sandbox.Mount, host []HostMount) ([]string, error) {
	if inDevfs(m.Source, host) {
		return nil, fmt.Errorf("source %q is in the device file system", m.Source)
	}
	sources := []string{m.Source}
	for _, h := range host {
		if !m.Recursive || h.Path == m.Source || !within(h.Path, m.Source) || inDevfs(h.Path, host) {
			continue
		}
		if err := checkPath(h.Path); err != nil {
			return nil, fmt.Errorf("mount below source %q: %w", m.Source, err)
		}
		sources = append(sources, h.Path)
	}
	slices.Sort(sources)
	return slices.Compact(sources), nil // mounts can be stacked; the last is seen
}

// inDevfs tells whether a path is in the host's /dev or in another devfs(5), or
// in something mounted there.
func inDevfs(path string, host []HostMount) bool {
	return within(path, "/dev") || slices.ContainsFunc(host, func(h HostMount) bool {
		return h.Type == "devfs" && within(path, h.Path)
	})
}

// within tells whether a clean path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
