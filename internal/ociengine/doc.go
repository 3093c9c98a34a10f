// Package ociengine isolates pods on Linux through an OCI runtime (runc).
//
// A pod's namespaces are made by its owner and its PID namespace is kept by the
// holder, a re-executed jetpack that is the pod's process 1 and ends with the
// owner. Every process that is started is a container of the runtime that joins
// these namespaces and brings a mount namespace of its own. Since the kernel
// kills a PID namespace with its process 1, to end the holder ends the pod.
//
// All that a pod has on the host is its directory below Config.StateDir, a tmpfs
// mounted there, and cgroups that carry its id in their names: Destroy removes
// them, whoever made them and however that one ended.
//
// The program that uses an Engine calls reexec.Init first thing in its main, and
// returns when that is true.
//
// Not for: roots (internal/storage), rootless pods, cgroups managed by systemd.
package ociengine
