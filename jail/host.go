package jail

import (
	"fmt"
	"strconv"
	"strings"
)

// advisory is the newest one on ways out of a jail. A kernel that has its patch
// has those of all earlier ones: patch levels only grow.
const advisory = "FreeBSD-SA-26:66.jail"

// patched are the first patch levels of releases with it, from the advisory
// (CVE-2026-101304, CVE-2026-101305, CVE-2026-101306), newest first. Later releases
// of these branches have it from the start.
var patched = []struct{ major, minor, patch int }{
	{15, 1, 4},
	{15, 0, 14},
	{14, 5, 1},
	{14, 4, 10},
}

// unpatched says what is wrong with a kernel of that kern.osrelease
// ("14.4-RELEASE-p9"), and what mends it, or "". Only releases can be judged.
func unpatched(osrelease string) string {
	words := strings.Split(osrelease, "-")
	if len(words) < 2 || words[1] != "RELEASE" {
		return ""
	}
	major, minor := release(osrelease)
	level := 0
	if len(words) > 2 {
		level, _ = strconv.Atoi(strings.TrimPrefix(words[2], "p")) // 0 is the least
	}
	for _, p := range patched {
		switch {
		case major > p.major || major == p.major && minor > p.minor:
			return ""
		case major != p.major || minor != p.minor:
			continue
		case level >= p.patch:
			return ""
		}
		return fmt.Sprintf("kernel %s lets processes out of jails that share a writable volume (%s); 'freebsd-update fetch install' and a reboot mend it", osrelease, advisory)
	}
	return fmt.Sprintf("kernel %s gets no security patches any more, such as that of %s; upgrade FreeBSD", osrelease, advisory)
}

// networkMend says how an interface, which the system clones or has, gets a network for
// pods that is there after the next boot, too.
func networkMend(name string, cloned bool) string {
	clone := ""
	if cloned {
		clone = "cloned_interfaces+=" + name + " "
	}
	return fmt.Sprintf(`'sysrc %sifconfig_%s="inet 172.23.0.1/16"' and 'service netif start %s' mend it`, clone, name, name)
}
