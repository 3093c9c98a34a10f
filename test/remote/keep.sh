# What the machine gives to the tests: a directory, a ZFS pool and, on FreeBSD, a
# loopback interface, all with the id of this run in their names. They are kept for
# as long as standard input is open, so that they go with whoever started this, and
# whatever ended that. What a crash of the machine left of others goes first.
#
#	ssh HOST /bin/sh -s ID [DISK]
# shellcheck shell=sh

prefix=/tmp/jetpack-test-

take_away() { # ID
	dir=$prefix$1
	if [ -s "$dir/group" ]; then
		read -r group <"$dir/group"
		kill -s KILL -- "-$group" 2>/dev/null
	fi
	# What has a session of its own, such as a metadata service that a pod has started.
	programs | while read -r pid path; do
		case $path in "$dir"/*) kill -s KILL "$pid" ;; esac
	done
	if command -v jls >/dev/null; then
		jls jid path | while read -r jid path; do
			case $path in "$dir"/*) jail -r "$jid" ;; esac
		done
	fi
	# Once or twice fails what is busy until the processes that were killed are gone.
	tries=0
	until free "$1"; do
		tries=$((tries + 1))
		[ $tries -lt 20 ] || return 1
		sleep 1
	done
}

# free fails when something is still in use.
free() { # ID
	dir=$prefix$1
	mounts | sort -r | while read -r at; do
		case $at in "$dir"/*) umount $forced "$at" ;; esac
	done
	case "$(zpool list -H -o name 2>/dev/null)" in
	*jetpacktest-$1*) zpool destroy -f "jetpacktest-$1" || return 1 ;;
	esac
	if [ -s "$dir/interface" ]; then
		read -r interface <"$dir/interface"
		ifconfig "$interface" destroy || return 1
		rm "$dir/interface"
	fi
	rm -rf "$dir" 2>/dev/null || { chflags -R 0 "$dir"; rm -rf "$dir"; }
}

if [ "$(uname -s)" = FreeBSD ]; then
	forced=-f
	mounts() { mount -p | while read -r _ at _; do echo "$at"; done; }
	programs() { procstat -ba 2>/dev/null | while read -r pid _ _ path; do echo "$pid $path"; done; }
else
	forced=-l
	mounts() { while read -r _ at _; do echo "$at"; done </proc/self/mounts; }
	programs() { for p in /proc/[0-9]*; do echo "${p#/proc/} $(readlink "$p/exe")"; done; }
fi

keep() { # ID [DISK]
	trap '' HUP INT TERM PIPE
	id=$1 lives=
	for old in "$prefix"*; do
		[ -d "$old" ] || continue
		case "$(ps -ax -o args 2>/dev/null)" in
		*"sh -s ${old#"$prefix"}"*) lives=yes ;; # a run that lives
		*) echo "taking away what is left of $old"; take_away "${old#"$prefix"}" || exit 1 ;;
		esac
	done
	# Limits of pods are nobody's when there is neither another run nor a pod.
	if [ -z "$lives" ] && ! jls name 2>/dev/null | grep -q '^jetpack-'; then
		rctl 2>/dev/null | grep -E '^(jail:jetpack-|loginclass:jp-)' | while read -r rule; do rctl -r "$rule"; done
	fi
	dir=$prefix$id
	mkdir -m 711 "$dir" && mkdir "$dir/tmp" || exit 1
	if command -v zpool >/dev/null; then
		pool=${2:-$dir/pool}
		[ -n "${2:-}" ] || truncate -s 4G "$pool"
		if zpool create -f -m none -o cachefile=none "jetpacktest-$id" "$pool" &&
			zfs create "jetpacktest-$id/t"; then
			echo "env JETPACK_TEST_ZFS=jetpacktest-$id/t"
		else
			take_away "$id"
			exit 1
		fi
	fi
	if [ "$(uname -s)" = FreeBSD ]; then
		ifconfig lo create >"$dir/interface" || { take_away "$id"; exit 1; }
		read -r interface <"$dir/interface"
		echo "env JETPACK_TEST_LO=$interface"
	fi
	echo "ready $dir"
	while read -r _; do :; done
	take_away "$id"
	exit
}

keep "$@"
