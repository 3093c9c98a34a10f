#!/bin/sh
# Builds the Debian guest with ZFS unless it is there already, and prints its
# directory: disk.ext4, vmlinuz, initrd.img and id_ed25519, the key of its root.
# Debian's ZFS is source code, built for one kernel: this machine's may have no
# headers, the guest's has.
set -eu
cd "$(dirname "$0")"

suite=bookworm
packages="linux-image-cloud-amd64 linux-headers-cloud-amd64 zfs-dkms zfsutils-linux
	systemd-sysv udev initramfs-tools openssh-server iproute2 procps
	runc tar gzip xz-utils bzip2"

cache=$(cd ../.. && pwd)/.cache/guest
out=$cache/$(sha256sum build.sh | cut -c1-12)

if [ "${1:-}" != inside ]; then
	mkdir -p "$cache"
	exec 9>"$cache/lock"
	flock 9
	if [ ! -d "$out" ]; then
		[ "$(id -u)" = 0 ] || { echo "building the guest needs root" >&2; exit 1; }
		[ "$(uname -m)" = x86_64 ] || { echo "the guest is built on amd64 only" >&2; exit 1; }
		../install.sh debootstrap:debootstrap e2fsprogs:mke2fs openssh-client:ssh-keygen >&2
		echo "building the ZFS guest, once: $cache/build.log" >&2
		# Mounts and processes of its own: nothing is left of a build that is interrupted.
		unshare --mount --pid --fork --kill-child --mount-proc ./build.sh inside >"$cache/build.log" 2>&1 ||
			{ tail -20 "$cache/build.log" >&2; exit 1; }
	fi
	echo "$out"
	exit
fi

export DEBIAN_FRONTEND=noninteractive LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
root=$cache/root
part=$cache/part
begin=$(date +%s)
step() { echo "== $(($(date +%s) - begin)) s: $*"; }

rm -rf "$part"
for old in "$cache"/*/disk.ext4; do
	[ ! -e "$old" ] || flock -n "${old%/*}" rm -rf "${old%/*}" || true # unless a guest runs from it
done
mkdir -p "$root" "$part"
mount -t tmpfs -o mode=755,size=6g tmpfs "$root" # many small files, for minutes

step debootstrap
# From the machine's own mirrors, through its proxies, when it is this Debian.
sources=$(apt-get indextargets --format "deb \$(REPO_URI) \$(RELEASE) main contrib" \
	"Created-By: Packages" "Origin: Debian" "Component: main" | grep -E " $suite(-| )" | sort -u) ||
	sources="deb http://deb.debian.org/debian $suite main contrib"
mirror=$(echo "$sources" | awk -v suite="$suite" '$3 == suite { print $2; exit }')
set -a
eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
set +a
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror"
echo "$sources" >"$root/etc/apt/sources.list"
apt-config dump | grep -E '^Acquire::(https?|Check-|ForceIPv)' >"$root/etc/apt/apt.conf.d/99host" || true
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cat >"$root/etc/dpkg/dpkg.cfg.d/small" <<-'END'
	force-unsafe-io
	path-exclude=/usr/share/doc/*
	path-exclude=/usr/share/man/*
	path-exclude=/usr/share/locale/*
END
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # start no services
chmod +x "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"

step packages
# A small initrd: what the root file system needs.
mkdir -p "$root/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nCOMPRESS=gzip\nRESUME=none\n' >"$root/etc/initramfs-tools/conf.d/guest"
printf 'virtio_pci\nvirtio_blk\next4\n' >"$root/etc/initramfs-tools/modules"
chroot "$root" apt-get update
# shellcheck disable=SC2086 # a list of words
chroot "$root" apt-get install -y --no-install-recommends $packages
kernel=$(basename "$root"/lib/modules/*)
[ -n "$(find "$root/lib/modules/$kernel" -name 'zfs.ko*')" ] || { echo "no zfs.ko for $kernel" >&2; exit 1; }

step settings
echo guest >"$root/etc/hostname"
echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
echo '/dev/vda / ext4 noatime 0 0' >"$root/etc/fstab"
# qemu's user-mode network always looks like this.
printf '[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' >"$root/etc/systemd/network/guest.network"
echo zfs >"$root/etc/modules-load.d/zfs.conf"
ssh-keygen -q -t ed25519 -N '' -C guest -f "$part/id_ed25519"
install -d -m 700 "$root/root/.ssh"
install -m 600 "$part/id_ed25519.pub" "$root/root/.ssh/authorized_keys"
# A login starts no session of systemd's.
printf 'UsePAM no\n' >"$root/etc/ssh/sshd_config.d/guest.conf"
chroot "$root" systemctl -q enable systemd-networkd
chroot "$root" systemctl -q set-default multi-user
# The pool is the tests' business; the rest only takes time.
chroot "$root" systemctl -q mask zfs-import-cache.service zfs-import-scan.service zfs-zed.service zfs-share.service \
	systemd-udev-settle.service systemd-timesyncd.service systemd-tmpfiles-clean.timer apt-daily.timer \
	apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
	getty@tty1.service serial-getty@ttyS0.service

step image
umount -R "$root/dev" "$root/sys" "$root/proc"
cp "$root/boot/vmlinuz-$kernel" "$part/vmlinuz"
cp "$root/boot/initrd.img-$kernel" "$part/initrd.img"
# What built the modules has done its work.
for done in usr/src/* var/lib/dkms usr/lib/gcc usr/libexec/gcc var/cache/apt var/lib/apt/lists boot/* \
	usr/sbin/policy-rc.d etc/apt/apt.conf.d/99host; do
	# shellcheck disable=SC2086 # patterns
	rm -rf "${root:?}"/$done
done
mke2fs -q -t ext4 -d "$root" "$part/disk.ext4" 8G
umount "$root"
rmdir "$root"
sync -f "$part"
mv "$part" "$out"
step "built $out"
