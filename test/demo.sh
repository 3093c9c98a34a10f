#!/bin/sh
# The demo: two real images, one pod, one shared volume. One image comes from a file, the
# other is signed and published here, and found by its name. Everything it makes is below
# .cache; all but the image files is removed again.
#
#	demo.sh [images]	with "images", no more than the two
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
	"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "localhost/demo/greeter",
	"labels": [{"name": "version", "value": "1"}, {"name": "os", "value": "linux"}, {"name": "arch", "value": "'"$arch"'"}],
	"app": {"exec": ["/greeter"], "user": "0", "group": "0", "mountPoints": [{"name": "shared", "path": "/shared"}]}}'
[ "${1:-}" != images ] || exit 0

# What jetpack is told otherwise by its configuration: that images of localhost are served
# by this script.
site=$cache/site
rm -rf "$site"
mkdir -p "$site"
port=$((20000 + $$ % 20000))
cat >"$site/jetpack.toml" <<EOF
root = "$root"
discovery.port = $port
discovery.ca-file = "$site/ca/ca.pem"
EOF
export JETPACK_CONFIG="$site/jetpack.toml"
jetpack() { echo "# jetpack $*" | sed "s,$cache/,,g" >&2; bin/jetpack "$@"; }
server=
cleanup() {
	if [ -n "$server" ] && kill "$server"; then wait; fi
	if [ -d "$root" ]; then
		bin/jetpack system prune --force >/dev/null
		bin/jetpack mds stop 2>/dev/null || true # it may run or not
		bin/jetpack image list -q | while read -r id; do bin/jetpack image rm "$id"; done
	fi
	rm -rf "$root" "$site"
}
trap cleanup EXIT

# The publisher makes a key, and a directory that any web server could serve.
fingerprint=$(jetpack repo keygen --name Demo --email demo@localhost --no-passphrase "$site/key")
jetpack repo init --prefix localhost/demo --url "https://localhost:$port" "$site/repo"
jetpack repo add --sign "$site/key" "$site/repo" "$cache/greeter.aci"
echo "# jetpack repo serve --listen 127.0.0.1:$port --local-ca ca repo &" >&2
bin/jetpack repo serve --listen "127.0.0.1:$port" --local-ca "$site/ca" "$site/repo" >"$site/access.log" 2>"$site/serve.log" &
server=$!
until grep -q serving "$site/serve.log"; do
	kill -0 "$server" 2>/dev/null || { server=; cat "$site/serve.log" >&2; exit 1; }
	sleep 0.1
done

# The user trusts that key for those names, and runs them.
jetpack init
jetpack image import --insecure=signature "$cache/debian.aci" >/dev/null
jetpack trust add --prefix localhost/demo --fingerprint "$fingerprint"
# shellcheck disable=SC2016 # for the shell in the pod
jetpack pod run --name demo --volume shared \
	example.com/debian --mount shared:/shared --exec /bin/sh -- -c \
	'echo "Debian $(cat /etc/debian_version)" >/shared/guest; until cat /shared/answer 2>/dev/null; do sleep 0.1; done' \
	--- localhost/demo/greeter
jetpack image list
jetpack pod list
jetpack pod rm demo

# Somebody changes what is served.
jetpack image rm localhost/demo/greeter
for file in "$site"/repo/localhost/demo/greeter-*.aci; do
	printf tampered | dd of="$file" bs=1 seek=1000 conv=notrunc 2>/dev/null
done
code=0
jetpack fetch localhost/demo/greeter || code=$?
[ "$code" = 4 ] || { echo "a tampered image was not refused: exit code $code" >&2; exit 1; }

jetpack system check && echo "nothing is left behind"
