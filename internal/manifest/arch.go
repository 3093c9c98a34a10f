package manifest

import "github.com/appc/spec/schema/types"

// The library's list of architectures predates FreeBSD on most of them; the
// specification (aci.md, "labels") lets implementations extend it. "arm64" is
// an alias that is accepted and never written.
func init() {
	types.ValidOSArch["freebsd"] = append(types.ValidOSArch["freebsd"],
		"aarch64", "armv6", "armv7", "powerpc64", "powerpc64le", "riscv64", "arm64")
	types.ValidOSArch["linux"] = append(types.ValidOSArch["linux"], "arm64")
}

// architectures maps GOOS and GOARCH to what appc calls the architecture. The
// library's own table lacks some and swaps others.
var architectures = map[[2]string]string{
	{"linux", "386"}:       "i386",
	{"linux", "amd64"}:     "amd64",
	{"linux", "arm"}:       "armv7l",
	{"linux", "arm64"}:     "aarch64",
	{"linux", "ppc64"}:     "ppc64",
	{"linux", "ppc64le"}:   "ppc64le",
	{"linux", "s390x"}:     "s390x",
	{"freebsd", "386"}:     "i386",
	{"freebsd", "amd64"}:   "amd64",
	{"freebsd", "arm"}:     "armv7",
	{"freebsd", "arm64"}:   "aarch64",
	{"freebsd", "riscv64"}: "riscv64",
}

// Arch is the value of the arch label for a GOOS and GOARCH; false if appc has
// none.
func Arch(goos, goarch string) (string, bool) {
	arch, ok := architectures[[2]string{goos, goarch}]
	return arch, ok
}

// normalLabel gives a label's value the spelling in which it is compared.
func normalLabel(name, value string) string {
	if name == "arch" && value == "arm64" {
		return "aarch64"
	}
	return value
}

// GoArch is the GOARCH of an os and arch label, and the variant of the processor that OCI
// images name beside it, "" if there is none; false if Go has none.
func GoArch(os, arch string) (goarch, variant string, ok bool) {
	switch arch {
	case "armv5l":
		return "arm", "v5", true
	case "armv6", "armv6l":
		return "arm", "v6", true
	case "armv7", "armv7l":
		return "arm", "v7", true
	}
	arch = normalLabel("arch", arch)
	for key, name := range architectures {
		if key[0] == os && name == arch {
			return key[1], "", true
		}
	}
	return "", "", false
}
