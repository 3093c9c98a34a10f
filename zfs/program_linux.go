package zfs

// program is the file of a command.
func program(command string) string { return command }
