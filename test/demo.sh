#!/bin/sh
# The demo: two real images, one pod, one shared volume. Everything it makes is
# below .cache; the pods and their state are removed again.
set -eu
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "the demo needs root: it runs containers" >&2; exit 1; }
command -v go >/dev/null 2>&1 || PATH=$PATH:/usr/local/go/bin
cache=$PWD/.cache
root=$cache/demo
mkdir -p "$cache"

./test/install.sh debootstrap:debootstrap runc:runc
make -s build
export CGO_ENABLED=0

# An ACI is a tar file with a manifest and a rootfs/.
aci() { # FILE ROOTFS MANIFEST
	layout=$(mktemp -d "$cache/layout.XXXXXX")
	mv "$2" "$layout/rootfs"
	printf '%s\n' "$3" >"$layout/manifest"
	tar -C "$layout" --numeric-owner --xattrs -cf - manifest rootfs | gzip -1 >"$1.part"
	mv "$1.part" "$1"
	rm -rf "$layout"
}

arch=$(dpkg --print-architecture | sed s/arm64/aarch64/)
if [ ! -f "$cache/debian.aci" ]; then
	echo "debootstrap: a minimal Debian (once)"
	rm -rf "$cache/debian"
	debootstrap --variant=minbase bookworm "$cache/debian" >"$cache/debootstrap.log" 2>&1 ||
		{ tail -5 "$cache/debootstrap.log" >&2; exit 1; }
	rm -rf "$cache/debian/var/cache/apt/archives" "$cache/debian/var/lib/apt/lists"
	aci "$cache/debian.aci" "$cache/debian" '{
		"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/debian",
		"labels": [{"name": "version", "value": "12"}, {"name": "os", "value": "linux"}, {"name": "arch", "value": "'"$arch"'"}],
		"app": {"exec": ["/bin/sh"], "user": "root", "group": "root"}}'
fi
mkdir -p "$cache/greeter"
go build -trimpath -ldflags '-s -w' -o "$cache/greeter/greeter" ./images/greeter
aci "$cache/greeter.aci" "$cache/greeter" '{
	"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/greeter",
	"labels": [{"name": "version", "value": "1"}, {"name": "os", "value": "linux"}, {"name": "arch", "value": "'"$arch"'"}],
	"app": {"exec": ["/greeter"], "user": "0", "group": "0", "mountPoints": [{"name": "shared", "path": "/shared"}]}}'

jetpack() { echo "# jetpack $*" >&2; bin/jetpack --root "$root" "$@"; }
cleanup() {
	bin/jetpack --root "$root" system prune --force >/dev/null
	bin/jetpack --root "$root" image rm example.com/debian example.com/greeter
	rm -rf "$root"
}
trap cleanup EXIT

jetpack init
jetpack image import --insecure=signature "$cache/debian.aci" >/dev/null
jetpack image import --insecure=signature "$cache/greeter.aci" >/dev/null
jetpack image list
# shellcheck disable=SC2016 # for the shell in the pod
jetpack pod run --name demo --volume shared \
	example.com/debian --mount shared:/shared --exec /bin/sh -- -c \
	'echo "Debian $(cat /etc/debian_version)" >/shared/guest; until cat /shared/answer 2>/dev/null; do sleep 0.1; done' \
	--- example.com/greeter
jetpack pod list
jetpack pod rm demo
jetpack system check && echo "nothing is left behind"
