//go:build !linux

package runtime

// maxGroups is FreeBSD's NGROUPS_MAX less the primary group, which is the first one
// of the list (setgroups(2)).
const maxGroups = 1022
