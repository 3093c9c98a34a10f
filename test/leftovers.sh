#!/bin/sh
# Fails when a test has left a mount, a process or a cgroup of jetpack's.
set -eu

left=$(
	grep -E 'jetpack' /proc/self/mounts | grep -v "$PWD " || true
	find /sys/fs/cgroup -maxdepth 3 -name 'jetpack-*' 2>/dev/null || true
	pgrep -a -f 'jetpack-holder' || true
)
[ -z "$left" ] || { echo "left behind:"; echo "$left"; exit 1; }
echo "no mount, no process, no cgroup"
