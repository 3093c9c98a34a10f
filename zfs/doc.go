// Package zfs keeps trees as ZFS datasets, on FreeBSD and Linux: a clone is a ZFS
// clone, a sealed tree a snapshot.
//
//	DATASET                 the root dataset; jetpack:root is the ID of the root that has it
//	DATASET/KIND            mountpoint=legacy, readonly=on, devices=off, …: inherited by trees
//	DATASET/KIND/ID         a tree: readonly=off and jetpack:created are its own, not inherited
//	DATASET/KIND/ID@sealed  there when, and only when, the tree is sealed
//
// A tree is whole when jetpack:created is its own property. zfs(8) sets it together
// with readonly=off, after the dataset was made, in one transaction; so the tree that a
// crash leaves half-made has neither, and can be told by the kernel, too: it mounts
// read-only. Mount, which thus needs no zfs(8), tries the snapshot first: a sealed
// tree is that, and nobody can write to it. Options.Meta are JSON in jetpack:meta.
// Which tree is a clone of which is not recorded: ZFS knows.
//
// Each zfs(8) costs some milliseconds and one wait for the pool, so Clone and Create
// run one, unasked, and look for the cause only when it fails; Mount and Unmount are
// system calls and run none; Destroy is one channel program (zfs-program(8)), in which
// the kernel refuses what is mounted anywhere and removes snapshot and dataset in
// one transaction, where "zfs destroy" would unmount what it destroys. The library
// go-zfs is used off that path, where its second command after each change and its
// want of a context do no harm: to find, adopt and make the root dataset and the
// kinds, and to seal. The rest runs zfs(8) through run, where alone its messages are
// interpreted. On FreeBSD that is the base system's static /rescue/zfs, if PATH leads to
// /sbin/zfs: its libraries are most of what takes zfs(8) so long to start.
//
// Diff walks both trees rather than read "zfs diff", which names a file with several
// hard links once, a touched directory as changed, and needs both mounted as well.
//
// Trees are mounted on DIR/KIND/ID with DIR being 0700. Options.Quota is the property
// quota, not refquota: that would count what a clone shares with its origin.
//
// Not for: choosing a driver (internal/platform).
package zfs
