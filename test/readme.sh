#!/bin/sh
# Runs the commands of a document, in their order: the lines behind "# " in its
# console blocks, with what a here-document needs. Each must succeed. They work on
# a root of their own. A repository that one of them serves is waited for; it is served at
# another port than the document's, which may be somebody's.
#
#	readme.sh FILE
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d "$PWD/.cache/readme.XXXXXX")
bin=$PWD/bin
cleanup() {
	cd /
	"$bin/jetpack" --config "$work/jetpack.toml" system prune --force >/dev/null 2>&1 || true
	"$bin/jetpack" --config "$work/jetpack.toml" mds stop >/dev/null 2>&1 || true # it may run or not
	rm -rf "$work"
}
trap cleanup EXIT
printf 'root = "%s/root"\npath.libexec = "%s"\npath.share = "%s/share"\n' "$work" "$bin" "$PWD" >"$work/jetpack.toml"

# 'make test' would call this script, and 'make demo' has been run before it.
cat >"$work/commands" <<'EOF'
trap 'if [ -n "${!:-}" ] && kill "$!" 2>/dev/null; then wait; fi' EXIT
EOF
awk -v port=$((20000 + $$ % 20000)) '
	/^```console/ { in_block = 1; next }
	/^```/        { in_block = 0; next }
	!in_block     { next }
	/^# make (demo|test)$/ { next }
	{ gsub(/8443/, port) }
	sub(/^# /, "") || here { print; lines++ }
	/repo serve .* &$/ { print "until grep -q \"^jetpack: serving\" log; do kill -0 \"$!\"; sleep 0.1; done" }
	/<<.EOF/      { here = 1 }
	/^EOF$/       { here = 0 }
	END           { exit !lines }
' "$1" >>"$work/commands" || { echo "$1 has no commands" >&2; exit 1; }

export JETPACK_CONFIG="$work/jetpack.toml" PATH="$bin:$PATH"
ln -s "$PWD/.cache" "$PWD/images" "$PWD/internal" "$PWD/go.mod" "$PWD/go.sum" "$work/"
cd "$work"
sh -eu commands >log 2>&1 || { echo "$1: a command failed:"; cat log; exit 1; }
echo "$1: $(wc -l <commands) lines ran"
