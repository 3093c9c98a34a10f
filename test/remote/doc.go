// Command remote runs the tests on another machine, over ssh: it builds them here,
// for that machine's system, and 'go test -exec' has each of them copied there and
// run in its package's directory. There, neither Go nor the checkout is needed, only
// a shell, tar and what the tests themselves use.
//
//	go run ./test/remote -host ssh://root@HOST:PORT
//	go run ./test/remote -host root@HOST './zfs -v' './test/render -run TestRandom -seeds 20'
//
// Each argument is packages and what 'go test' is told about them; without any it is
// all of them. The tests find in their environment
//
//	JETPACK_TEST_BIN   a directory with the programs that they would build, and files of modules
//	JETPACK_TEST_ZFS   an empty ZFS dataset, where the machine has ZFS
//	JETPACK_TEST_LO    a loopback interface, on FreeBSD
//	TMPDIR             a directory that is removed at the end
//
// which are theirs, and taken away at the end, however it ends (keep.sh).
//
// Not for: machines that are in use. Tests that need root have it.
package main
