#!/bin/sh
# Runs the pod and looks at it from outside. Arguments: the jetpack command and its flags.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
pod=
finish() {
	[ -z "$pod" ] || "$@" pod stop "$pod" >/dev/null 2>&1 || true
	wait
	[ -z "$pod" ] || "$@" pod rm "$pod" >/dev/null 2>&1 || true
	rm -rf "$work"
	echo "Bring your own towel." >notes/notes.txt
	chmod go-w notes/notes.txt
}
# shellcheck disable=SC2064 # as they are now: in a function that exits, "$@" is that function's
trap "finish $*" EXIT
fail() { echo "bsdcan: $*" >&2; cat "$work/log" >&2; exit 1; }
# expect TEXT: the page says so, soon.
expect() {
	n=0
	until page=$(get "http://$address:7272/" 2>/dev/null) && printf '%s\n' "$page" | grep -qx "$1"; do
		n=$((n + 1)); [ "$n" -lt 300 ] || fail "the page never says '$1' but: ${page:-}"
		sleep 0.1
	done
	echo "$1"
}
get() { if command -v curl >/dev/null; then curl -sS --max-time 5 "$1"; else fetch -qo - -T 5 "$1"; fi; }

echo "== the pod, reified"
"$@" pod prepare --dry-run --manifest pod.json >"$work/reified"
sed -e 's/sha512-[0-9a-f]*/sha512-ID/' -e "s,$PWD,@DIR@," "$work/reified" >"$work/pod"
diff pod.golden.json "$work/pod" && echo "as in pod.golden.json"

echo "== the board"
chmod a+w notes/notes.txt # only the volume keeps the board from writing to it
"$@" pod run --manifest pod.json --uuid-file "$work/uuid" >"$work/log" 2>&1 &
n=0
until [ -s "$work/uuid" ]; do
	n=$((n + 1)); [ "$n" -lt 300 ] || fail "the pod does not start"
	sleep 0.1
done
pod=$(cat "$work/uuid")
address=$("$@" pod list --format '{{.id}} {{index .addresses 0}}' | sed -n "s/^$pod //p")
[ -n "$address" ] || fail "the pod has no address"
expect "message: (none)"
"$@" run --rm example.com/redis --exec redis-cli -- -h "$address" set message "hello BSDCan" >/dev/null
expect "message: hello BSDCan"
echo "Mind the gap." >notes/notes.txt
expect "notes: Mind the gap."
expect "writable: no: Read-only file system"
