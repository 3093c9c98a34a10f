package self

// executable is what this process runs, even if that has been replaced on disk.
func executable() (string, error) { return "/proc/self/exe", nil }
