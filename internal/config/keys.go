package config

import "time"

// Type says how a value is written and what it may be.
type Type string

// The types of values.
const (
	String   Type = "string"   // text without control characters, not empty
	Path     Type = "path"     // an absolute file name
	Choice   Type = "choice"   // one of Key.Choices
	Size     Type = "size"     // bytes, at least 1, with a binary suffix or none: 512, "64G"
	Integer  Type = "integer"  // a whole number, from 1 to Key.Max
	Duration Type = "duration" // as Go writes them: "10s", "1m30s"; not negative
)

// Key describes one setting. The table of keys is what the parser, jetpack
// config and the manual page all work from.
type Key struct {
	Name    string // dotted, as in TOML: "pod.stop-grace"
	Type    Type
	Choices []string // of a Choice
	Max     int64    // of an Integer; 0 is the greatest there is
	Default string   // as it would be written; "" leaves the field as it is
	FreeBSD string   // the default on FreeBSD, where it differs
	Doc     string   // one paragraph
	Secret  bool     // the value is never shown

	// field points to the value: *string, *int64 (Size, Integer) or *time.Duration.
	field func(*Config) any
}

// MDSUser is the default of mds.user.
const MDSUser = "_jetpack"

// Config holds the values that jetpack runs with.
type Config struct {
	Root           string // root
	StorageDriver  string // storage.driver
	StorageDataset string // storage.dataset
	LinuxRuntime   string // linux.runtime
	LinuxBridge    string // linux.bridge
	LinuxNetworks  string // linux.networks

	FreeBSDInterface string // freebsd.interface
	FreeBSDRuleset   int64  // freebsd.devfs-ruleset
	FreeBSDAllow     string // freebsd.allow

	FetchDiscovery       string // fetch.discovery
	FetchCredentialsFile string // fetch.credentials-file
	DiscoverySimple      string // discovery.simple
	DiscoveryPort        int64  // discovery.port
	DiscoveryCAFile      string // discovery.ca-file
	MDSPort              int64  // mds.port
	MDSUser              string // mds.user
	MDSAutostart         string // mds.autostart
	TrustLegacy          string // trust.legacy

	ImageMaxSize     int64         // image.max-size, bytes
	ImageMaxEntries  int64         // image.max-entries
	ImageCompression string        // image.compression: gzip, xz or none
	PodStopGrace     time.Duration // pod.stop-grace
	PodProfile       string        // pod.profile
	PathShare        string        // path.share
	PathLibexec      string        // path.libexec
	LogLevel         string        // log.level
	LogFormat        string        // log.format

	goos string // whose defaults apply
}

// Keys returns the table of settings, in the order in which they are shown.
func Keys() []Key {
	return []Key{
		{
			Name: "root", Type: Path, Default: "/var/lib/jetpack", FreeBSD: "/var/jetpack",
			Doc:   "The directory with jetpack's state: images, pods and volumes. The option --root sets it, too.",
			field: func(c *Config) any { return &c.Root },
		},
		{
			Name: "storage.driver", Type: Choice, Choices: []string{"auto", "zfs", "overlay", "plaindir"}, Default: "auto",
			Doc:   "What keeps the file trees of images and pods: zfs clones datasets, overlay shares files between clones through overlayfs, plaindir copies them, auto takes zfs where storage.dataset names a dataset or FreeBSD has the pool zroot, else the best that works below root. It counts when a root is made.",
			field: func(c *Config) any { return &c.StorageDriver },
		},
		{
			Name: "storage.dataset", Type: String, Default: "auto",
			Doc:   "The ZFS dataset that trees are kept in: one for jetpack alone, which init makes unless it is there. auto is zroot/jetpack for the default root on FreeBSD, and none elsewhere. It counts when a root is made; the root remembers it.",
			field: func(c *Config) any { return &c.StorageDataset },
		},
		{
			Name: "linux.runtime", Type: String, Default: "runc",
			Doc:   "The OCI runtime that isolates pods on Linux: a command to be found in PATH, or an absolute file name.",
			field: func(c *Config) any { return &c.LinuxRuntime },
		},
		{
			Name: "linux.bridge", Type: String, Default: "jetpack0",
			Doc:   "The bridge that pods have their addresses on, on Linux: an interface that is made for the first of them and removed after the last, and two nftables tables of its name. Roots may share it.",
			field: func(c *Config) any { return &c.LinuxBridge },
		},
		{
			Name: "linux.networks", Type: String, Default: "172.23.0.0/16 fd2c:8b5e:71c4::/64",
			Doc:   "The networks on the bridge, which nothing else on the host may use: one of IPv4 and, if pods shall have it, one of IPv6. The host has the first address of each.",
			field: func(c *Config) any { return &c.LinuxNetworks },
		},
		{
			Name: "freebsd.interface", Type: String, Default: "lo1",
			Doc:   "The interface that pods get addresses of, as aliases, on FreeBSD. It has a network that is theirs: make it with 'ifconfig lo1 create inet 172.23.0.1/16', or with cloned_interfaces and ifconfig_lo1 in rc.conf(5).",
			field: func(c *Config) any { return &c.FreeBSDInterface },
		},
		{
			Name: "freebsd.devfs-ruleset", Type: Integer, Max: 65535, Default: "5470",
			Doc:   "The devfs(8) rule set, 1 to 65535, that decides what is in /dev of pods on FreeBSD. One without rules gets those that every program needs, and no more. The pod's annotation jetpack/devfs-ruleset names another one.",
			field: func(c *Config) any { return &c.FreeBSDRuleset },
		},
		{
			Name: "freebsd.allow", Type: String, Default: "none",
			Doc:   "What all pods on FreeBSD may do beyond the default: permissions of jail(8), separated by blanks, such as \"allow.raw_sockets allow.mlock\", or none. Never allow.mount and what is below it.",
			field: func(c *Config) any { return &c.FreeBSDAllow },
		},
		{
			Name: "fetch.discovery", Type: Choice, Choices: []string{"on", "off"}, Default: "on",
			Doc:   "Whether images and keys are looked for, by their names, beyond the local store.",
			field: func(c *Config) any { return &c.FetchDiscovery },
		},
		{
			Name: "fetch.credentials-file", Type: String, Default: "none",
			Doc:   "A TOML file with what servers ask for, or none. It has a table for each host, such as [\"images.example.com\"], with username and password, or with a token. Nobody else may read it. Credentials are sent by https only, and never to where a redirect leads.",
			field: func(c *Config) any { return &c.FetchCredentialsFile },
		},
		{
			Name: "discovery.simple", Type: Choice, Choices: []string{"on", "off"}, Default: "on",
			Doc:   "Whether an image is first looked for at the URL that its name and version make, before pages are asked where it is.",
			field: func(c *Config) any { return &c.DiscoverySimple },
		},
		{
			Name: "discovery.port", Type: Integer, Max: 65535, Default: "443",
			Doc:   "The port at which the hosts in names are asked.",
			field: func(c *Config) any { return &c.DiscoveryPort },
		},
		{
			Name: "discovery.ca-file", Type: String, Default: "none",
			Doc:   "A PEM file with certificate authorities that are trusted beside the system's, or none.",
			field: func(c *Config) any { return &c.DiscoveryCAFile },
		},
		{
			Name: "trust.legacy", Type: Choice, Choices: []string{"on", "off"}, Default: "off",
			Doc:   "Whether signatures are good that can be forged with some effort: with SHA-1, with RSA keys of 1024 bits, with DSA.",
			field: func(c *Config) any { return &c.TrustLegacy },
		},
		{
			Name: "mds.port", Type: Integer, Max: 65535, Default: "1104",
			Doc:   "The port at which the metadata service answers pods.",
			field: func(c *Config) any { return &c.MDSPort },
		},
		{
			Name: "mds.user", Type: String, Default: MDSUser,
			Doc:   "The user that the metadata service becomes when it has opened what only root can, by name or number. Not root. Without a user " + MDSUser + " the default is nobody.",
			field: func(c *Config) any { return &c.MDSUser },
		},
		{
			Name: "mds.autostart", Type: Choice, Choices: []string{"on", "off"}, Default: "on",
			Doc:   "Whether a pod that finds no metadata service starts one in the background, at the configured port or any other that is free. It ends a minute after its last pod.",
			field: func(c *Config) any { return &c.MDSAutostart },
		},
		{
			Name: "image.max-size", Type: Size, Default: "64G",
			Doc:   "How large an image may be once uncompressed. A larger one is refused while it is read, before it fills the storage.",
			field: func(c *Config) any { return &c.ImageMaxSize },
		},
		{
			Name: "image.max-entries", Type: Integer, Default: "1000000",
			Doc:   "How many files, directories and links an image may have.",
			field: func(c *Config) any { return &c.ImageMaxEntries },
		},
		{
			Name: "image.compression", Type: Choice, Choices: []string{"gzip", "xz", "none"}, Default: "gzip",
			Doc:   "How images that are made here, or exported in another form than that they came in, are compressed. Xz makes smaller files and takes many times as long.",
			field: func(c *Config) any { return &c.ImageCompression },
		},
		{
			Name: "pod.stop-grace", Type: Duration, Default: "10s",
			Doc:   "How long a pod that is told to stop may take before its processes are killed.",
			field: func(c *Config) any { return &c.PodStopGrace },
		},
		{
			Name: "pod.profile", Type: Choice, Choices: []string{"strict", "default", "relaxed"}, Default: "default",
			Doc:   "How closely pods are confined that are made without --profile.",
			field: func(c *Config) any { return &c.PodProfile },
		},
		{
			Name: "path.share", Type: Path, Default: "/usr/local/share/jetpack",
			Doc:   "The directory with the data installed along with jetpack, such as jetpack.image.mk, which makefiles of images include.",
			field: func(c *Config) any { return &c.PathShare },
		},
		{
			Name: "path.libexec", Type: Path, Default: "/usr/local/libexec/jetpack",
			Doc:   "The directory with the programs for apps, such as ac-mdc, which --with-mdc mounts.",
			field: func(c *Config) any { return &c.PathLibexec },
		},
		{
			Name: "log.level", Type: Choice, Choices: []string{"debug", "info", "warn", "error"}, Default: "info",
			Doc:   "The least severe messages that are logged.",
			field: func(c *Config) any { return &c.LogLevel },
		},
		{
			Name: "log.format", Type: Choice, Choices: []string{"text", "json"}, Default: "text",
			Doc:   "How messages are logged: text for people, json, one object a line, for programs.",
			field: func(c *Config) any { return &c.LogFormat },
		},
	}
}

// defaultOn is the default on an operating system, named as GOOS has it.
func (k Key) defaultOn(goos string) string {
	if goos == "freebsd" && k.FreeBSD != "" {
		return k.FreeBSD
	}
	return k.Default
}
