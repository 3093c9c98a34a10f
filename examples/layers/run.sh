#!/bin/sh
# Shows what the images cost, and runs pods on a named volume. Arguments: the jetpack command and
# its flags.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
finish() {
	wait
	"$@" volume rm tenants >/dev/null 2>&1 || true
	rm -rf "$work"
}
# shellcheck disable=SC2064 # as they are now: in a function that exits, "$@" is that function's
trap "finish $*" EXIT
run() { "$@" 2>>"$work/log" || { cat "$work/log" >&2; exit 1; }; }

echo "== shared layers are stored once"
"$@" image tree example.com/layers-red
"$@" system df --format '{{.name}} {{.own}}' | grep layers- | sort >"$work/df"
while read -r name own; do
	case $name in
	*-runtime) [ "$own" -gt 8000000 ] ;;
	*) [ "$own" -lt 1000000 ] ;; # the app of a tenant has nothing of the runtime
	esac || { echo "$name takes $own bytes" >&2; exit 1; }
done <"$work/df"
echo "each tenant costs its own files"

echo "== two pods on one volume"
"$@" volume create tenants
run "$@" pod run --rm --net none -v tenants:/data example.com/layers-red -- green >"$work/red" &
run "$@" pod run --rm --net none -v tenants:/data example.com/layers-green -- red >"$work/green"
wait
cmp "$work/red" "$work/green"
cat "$work/red"

echo "== a pod is replaced, the volume stays"
make=$(command -v bmake || command -v make)
"$make" -C app TENANT=red VERSION=2 JETPACK="$1" >"$work/make" 2>&1 || { cat "$work/make" >&2; exit 1; }
run "$@" pod run --rm --net none -v tenants:/data example.com/layers-red:2
