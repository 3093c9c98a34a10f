// Package self finds the program that is running, for it to be started again as
// something else that it has registered (github.com/moby/sys/reexec).
//
// Not for: other programs.
package self

// Path is the file of the running program, for a process whose argument 0 is to be name.
//
// On FreeBSD, package syscall replaces an argument 0 that is longer than the file's path by
// that path (forkExec): a program at /bin/x would just start once more as what it is. So the
// path is at least as long as the name there.
//
// Errors: those of os.Executable.
func Path(name string) (string, error) {
	path, err := executable()
	if err != nil {
		return "", err
	}
	return pad(path, len(name)), nil
}

// pad makes an absolute path longer that is shorter than that.
func pad(path string, length int) string {
	for len(path) < length {
		path = "/." + path
	}
	return path
}
