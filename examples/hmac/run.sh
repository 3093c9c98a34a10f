#!/bin/sh
# Signs in one pod and verifies in another, on a volume. Arguments: the jetpack command and its flags.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
notary() { "$@" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }; }
echo "I owe you a beer." >"$work/letter"
pod() { verb=$1; shift; notary "$@" pod run --rm --with-mdc --volume "desk,kind=host,source=$work" example.com/notary -- "$verb"; }
pod sign "$@"
echo "== as it was signed"
pod verify "$@"
echo "== with another word"
echo "I owe you a car." >"$work/letter"
pod verify "$@"
