#!/bin/sh
# Builds the Debian images that tests of the examples start from, once: .cache/images/NAME.aci.
# It alone asks Debian's servers. Arguments: none. As root.
set -eu
cd "$(dirname "$0")/.."
./test/install.sh debootstrap:debootstrap bmake:bmake
cache=$PWD/.cache
mkdir -p "$cache/images"
root=$cache/images-root
cleanup() {
	if [ -d "$root" ]; then
		bmake -s -C images/debian-base clean
		bin/jetpack image list -q | while read -r id; do bin/jetpack image rm "$id"; done
		rm -rf "$root" "$root.toml"
	fi
}
printf 'root = "%s"\npath.share = "%s/share"\n' "$root" "$PWD" >"$root.toml"
export JETPACK_CONFIG="$root.toml" PATH="$PWD/bin:$PATH"
trap cleanup EXIT
image() { # NAME PACKAGES
	[ ! -e "$cache/images/$1.aci" ] || return 0
	[ -d "$root" ] || { make -s build; jetpack init; }
	echo "debootstrap: $1 (once)"
	set -- "$1" "NAME=example.com/$1" "INCLUDE=$2"
	bmake -s -C images/debian-base "$2" clean
	bmake -s -C images/debian-base "$2" "$3" aci >"$cache/images/$1.log" 2>&1 ||
		{ tail -5 "$cache/images/$1.log" >&2; exit 1; }
	mv "images/debian-base/$1.aci" "$cache/images/$1.aci"
	bmake -s -C images/debian-base "$2" clean
}
image debian-base ""
image debian-services nginx-light,redis-server,perl
