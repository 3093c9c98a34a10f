#!/bin/sh
# Fails when a test has left a mount, a process, a cgroup or an interface of jetpack's.
set -eu

left=$(
	grep -E 'jetpack' /proc/self/mounts | grep -v "$PWD " || true
	find /sys/fs/cgroup -maxdepth 3 -name 'jetpack-*' 2>/dev/null || true
	find /sys/class/net -name 'jetpack*' -o -name 'jp*'
	pgrep -a -f 'jetpack-holder' || true
)
[ -z "$left" ] || { echo "left behind:"; echo "$left"; exit 1; }
echo "no mount, no process, no cgroup, no interface"
