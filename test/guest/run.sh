#!/bin/sh
# Runs a command while the Debian guest with ZFS is up, with HOST, the ssh:// URL of
# its root, KEY, the private key for that, and DISK, the guest's empty disk, in the
# command's environment:
#
#	test/guest/run.sh sh -c 'ssh -i $KEY $HOST'
#
# PORT is where its ssh listens, a free one when it is not given. ACCEL is qemu's
# accelerator: tcg, which is emulation and works everywhere, or kvm. CPUS is 1: emulated,
# two of them need more time for most things, and now and then one waits for the other
# for ever. What the guest writes is gone with it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
"$here/../install.sh" qemu-system-x86:qemu-system-x86_64 openssh-client:ssh >&2

image=$("$here/build.sh")
cache=${image%/*}
# An image and a directory are removed by others unless they are locked; qemu inherits that.
exec 7>"$cache/lock"
flock 7
for old in "$cache"/run.*; do
	[ ! -d "$old" ] || flock -n "$old" rm -rf "$old" || true
done
dir=$(mktemp -d "$cache/run.XXXXXX")
exec 8<"$image" 9<"$dir"
flock -s 8
flock -s 9
exec 7>&-

guest='' command=''
# shellcheck disable=SC2317,SC2329 # called by the trap
cleanup() {
	code=$?
	trap '' HUP INT TERM
	for pid in $command $guest; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" || true
	done
	if [ "$code" != 0 ] && [ -s "$dir/console" ]; then
		mv "$dir/console" "$cache/console.log"
		echo "the guest's console: $cache/console.log" >&2
	fi
	rm -rf "$dir"
	exit "$code"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

truncate -s 8G "$dir/pool"
start() {
	# In a session of its own: an interrupt is not for it, and what the tests made goes first.
	# With snapshot=on, writes go to a temporary file. The processor is qemu's default: with
	# wider registers, ZFS measures for seconds which of its checksums is emulated worst. Its
	# counter is emulated from one clock: Linux need not mistrust it and take a slower one.
	TMPDIR=$dir setsid setpriv --pdeathsig KILL qemu-system-x86_64 -M q35 -accel "${ACCEL:-tcg}" -smp "${CPUS:-1}" -m 3072 \
		-nodefaults -nographic -no-reboot -serial "file:$dir/console" -device virtio-rng-pci \
		-kernel "$image/vmlinuz" -initrd "$image/initrd.img" \
		-append "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off tsc=reliable panic=-1" \
		-drive "file=$image/disk.ext4,format=raw,if=virtio,snapshot=on,cache=unsafe" \
		-drive "file=$dir/pool,format=raw,if=virtio,cache=unsafe" \
		-nic "user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:$port-:22" \
		</dev/null >"$dir/qemu.log" 2>&1 &
	guest=$!
}
reached() {
	ssh -q -i "$image/id_ed25519" -o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null -p "$port" root@127.0.0.1 true 2>/dev/null
}

begin=$(date +%s)
port=${PORT:-$((20000 + $$ % 20000))}
start
until reached; do
	if ! kill -0 "$guest" 2>/dev/null; then
		if [ -n "${PORT:-}" ] || ! grep -q 'host forwarding' "$dir/qemu.log"; then
			cat "$dir/qemu.log" >&2
			exit 1
		fi
		port=$((port + 1))
		start
	fi
	[ $(($(date +%s) - begin)) -lt 300 ] || { echo "the guest does not come up" >&2; exit 1; }
	sleep 0.3
done
echo "the ZFS guest is up on port $port after $(($(date +%s) - begin)) s" >&2

# In the background, so that a signal is seen at once.
HOST=ssh://root@127.0.0.1:$port KEY=$image/id_ed25519 DISK=/dev/vdb "$@" <&0 8<&- 9<&- &
command=$!
code=0
wait "$command" || code=$?
command=''
exit "$code"
