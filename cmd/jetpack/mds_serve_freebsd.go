package main

import "golang.org/x/sys/unix"

// confineMDS enters capability mode (capsicum(4)): what the service needs is open.
func confineMDS() error { return unix.CapEnter() }
