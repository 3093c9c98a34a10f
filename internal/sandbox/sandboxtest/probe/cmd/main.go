//go:build unix

// Go's runtime would keep files of its cgroup open, and the probe tells of its
// open descriptors.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command probe is the program that the engines' conformance suite runs in pods.
package main

import (
	"os"

	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest/probe"
)

func main() { os.Exit(probe.Main(os.Args, probe.Host())) }
