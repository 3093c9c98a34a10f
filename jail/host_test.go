package jail

import (
	"strings"
	"testing"
)

func TestUnpatched(t *testing.T) {
	for release, want := range map[string]string{
		"15.1-RELEASE-p4":  "",
		"15.1-RELEASE-p12": "",
		"15.1-RELEASE-p3":  "freebsd-update",
		"15.1-RELEASE":     "freebsd-update",
		"15.0-RELEASE-p14": "",
		"15.0-RELEASE-p9":  "freebsd-update",
		"14.5-RELEASE-p1":  "",
		"14.5-RELEASE":     "freebsd-update",
		"14.4-RELEASE-p9":  "freebsd-update",
		"14.3-RELEASE-p20": "upgrade",
		"13.2-RELEASE":     "upgrade",
		"15.2-RELEASE":     "",
		"16.0-RELEASE":     "",
		"14.6-RELEASE":     "",
		"16.0-CURRENT":     "",
		"14.3-STABLE":      "",
		"":                 "",
	} {
		got := unpatched(release)
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("unpatched(%q) = %q, want %q", release, got, want)
		}
	}
}

func TestNetworkMend(t *testing.T) {
	for cloned, want := range map[bool]string{
		true:  `'sysrc cloned_interfaces+=lo1 ifconfig_lo1="inet 172.23.0.1/16"' and 'service netif start lo1' mend it`,
		false: `'sysrc ifconfig_lo1="inet 172.23.0.1/16"' and 'service netif start lo1' mend it`,
	} {
		if got := networkMend("lo1", cloned); got != want {
			t.Errorf("cloned %v: %s", cloned, got)
		}
	}
}
