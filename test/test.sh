#!/bin/sh
# All checks, in the order in which a slip is cheapest to find. Installs what is
# missing (Debian). Privileged suites run in mount and network namespaces of their own.
set -eu
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "make test needs root: its suites run containers" >&2; exit 1; }
command -v go >/dev/null 2>&1 || PATH=$PATH:/usr/local/go/bin
cache=$PWD/.cache
mkdir -p "$cache/bin"
lint=v2.15.0

step() { printf '\n== %s\n' "$*"; }

./test/install.sh runc:runc gcc:gcc shellcheck:shellcheck xz-utils:xz bzip2:bzip2 tmux:tmux bmake:bmake gnupg:gpg chromium:chromium iproute2:ip curl:curl

step "cross-builds and vet"
for target in linux/amd64 linux/arm64 freebsd/amd64 freebsd/arm64; do
	echo "$target"
	GOOS=${target%/*} GOARCH=${target#*/} CGO_ENABLED=0 go vet ./...
	GOOS=${target%/*} GOARCH=${target#*/} CGO_ENABLED=0 go build -o /dev/null ./cmd/jetpack
done

step "lint"
if [ ! -x "$cache/bin/golangci-lint-$lint" ]; then
	GOBIN=$cache/bin CGO_ENABLED=0 go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$lint"
	mv "$cache/bin/golangci-lint" "$cache/bin/golangci-lint-$lint"
fi
"$cache/bin/golangci-lint-$lint" run
GOOS=freebsd "$cache/bin/golangci-lint-$lint" run
shellcheck test/*.sh .ci/run share/rc.d/* share/jetpack.make examples/*/run.sh
[ -z "$(go mod tidy -diff)" ] || { echo "go.mod is not tidy: run 'go mod tidy'" >&2; exit 1; }

step "base images for the examples"
./test/images.sh

step "tests, with the race detector"
# -count=1: what a test runs as a command is not seen by the cache. -p 1: the privileged suites measure and count what is on the host.
export GORACE=atexit_sleep_ms=10 # not a second at the end of each process that a test starts of itself
measured='/test/(hostile|render)$' # memory and time are, which the race detector multiplies
go list ./... | grep -vE "$measured" | CGO_ENABLED=1 xargs go test -race -count=1 -p 1 -timeout 20m -json >"$cache/test.json" 2>"$cache/test.err" || failed=1
go list ./... | grep -E "$measured" | CGO_ENABLED=0 xargs go test -count=1 -p 1 -timeout 20m -json >>"$cache/test.json" 2>>"$cache/test.err" || failed=1
cat "$cache/test.err" >&2
go run ./test/report <"$cache/test.json"
[ -z "${failed:-}" ] || exit 1

step "the demo, and the commands of the documents"
# In network namespaces of their own: pods are connected, and the host does not notice.
offline() { unshare --net sh -c 'ip link set lo up && exec "$@"' sh "$@"; }
{ ./test/demo.sh images && offline ./test/demo.sh; } >"$cache/demo.log" 2>&1 || { tail -20 "$cache/demo.log"; exit 1; }
grep 'nothing is left behind' "$cache/demo.log"
offline ./test/readme.sh README.md
offline ./test/readme.sh IMAGES.md
rm -rf "$cache/install"
make -s install DESTDIR="$cache/install" PREFIX=/usr
"$cache/install/usr/bin/jetpack" version

step "nothing is left behind"
./test/leftovers.sh
