package runtime

// maxGroups is NGROUPS_MAX, which the primary group does not count for (setgroups(2)).
const maxGroups = 65536
