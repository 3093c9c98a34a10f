// Package overlay keeps trees on Linux hosts without ZFS: a clone is an overlayfs
// mount of its own, empty layer over the layers of its origins, so that making
// one costs the same whatever the size of the origin.
//
// A tree is mounted on the directory "merged" beside its "fs" (see treedir). A
// tree without origin is its "fs" itself, bound there. The features of overlayfs
// that would put state into a layer which only the same stack of layers
// understands (redirect_dir, metacopy, index) are off. See overlayfs.rst in the
// Linux documentation.
//
// Limits: the directory must be on a file system that can be an upper layer
// (ext4, xfs, btrfs, tmpfs, not overlayfs itself), Linux must be 5.12 or newer,
// quotas are not supported, and a clone has at most some 200 origins. A character
// device 0/0 made in a tree without origin is a whiteout in its clones: there it
// hides itself. Unmounting a clone that was written to syncs its file system.
//
// Not for: systems other than Linux, choosing a driver (internal/platform).
package overlay
