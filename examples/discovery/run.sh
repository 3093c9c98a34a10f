#!/bin/sh
# Publishes an image on one host, names that on another, fetches the image by its name and runs it.
# Arguments: the image's file, the jetpack command and its flags.
set -eu
image=$1
shift
work=$(mktemp -d)
servers=
finish() {
	[ $? = 0 ] || cat "$work/log" >&2
	for server in $servers; do kill "$server" || true; done
	wait
	"$@" trust rm "$fingerprint" >/dev/null 2>&1 || true
	"$@" image rm localhost/apps/hello >/dev/null 2>&1 || true
	rm -rf "$work"
}
# shellcheck disable=SC2064 # as they are now: in a function that exits, "$@" is that function's
trap "finish $*" EXIT
front=$((20000 + $$ % 20000))

# The publisher: an image with its signature, at the second host. That is the https port of this
# machine, since a page that sends users to any other private address is not followed.
fingerprint=$("$@" repo keygen --name Example --email apps@localhost --no-passphrase "$work/key")
"$@" repo init --prefix localhost/apps --url https://localhost "$work/back" 2>"$work/log"
"$@" repo add --sign "$work/key" "$work/back" "$image" 2>>"$work/log"

# The host in the name has the page of the path above, and nothing else of it.
mkdir -p "$work/front/apps"
cp "$work/back/apps/index.html" "$work/front/apps/"
cp "$work/back/index.json" "$work/front/"

serve() { # NAME PORT
	name=$1 port=$2
	shift 2
	"$@" repo serve --listen "127.0.0.1:$port" --local-ca "$work/ca" "$work/$name" >"$work/$name.log" 2>"$work/$name.err" &
	servers="$servers $!"
	n=0
	until grep -q serving "$work/$name.err" 2>/dev/null; do
		n=$((n + 1))
		[ "$n" -lt 300 ] || { cat "$work/$name.err" >&2; exit 1; }
		sleep 0.1
	done
}
serve front "$front" "$@"
serve back 443 "$@"

set -- "$@" --set "discovery.port=$front" --set "discovery.ca-file=$work/ca/ca.pem"
"$@" image rm localhost/apps/hello 2>>"$work/log" || true # the one that was built
"$@" trust add --prefix localhost/apps --fingerprint "$fingerprint" >/dev/null 2>>"$work/log"
echo "== the walk"
"$@" image fetch --dry-run localhost/apps/hello | sed "s/:$front/:FRONT/g"
echo "== the app"
"$@" pod run --rm --net none localhost/apps/hello 2>>"$work/log"
echo "== it came from the other host"
grep -q 'GET .*\.aci ' "$work/back.log" && ! grep 'GET .*\.aci .*" 200' "$work/front.log"
