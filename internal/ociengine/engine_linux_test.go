package ociengine

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/moby/sys/mountinfo"
	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/internal/network"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

const testScope = "enginetest"

var suite = sandboxtest.Suite{
	New: func(dir string) (sandbox.Engine, error) {
		bridge, err := network.NewBridge("jptest0", "10.213.0.0/16 fd6a:6574:7061::/64")
		if err != nil {
			return nil, err
		}
		return New(Config{Runtime: "runc", StateDir: dir, Scope: testScope, Bridge: bridge})
	},
	Leftovers: leftovers,
	Owner:     "oci-owner",
}

func init() { suite.Register() }

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(testenv.PrivateNetwork(m))
}

func TestSuite(t *testing.T) {
	testenv.Root(t)
	suite.Run(t)
	// The last pod took the bridge along, with its rules.
	links, err := net.Interfaces()
	if err != nil || len(links) != 1 {
		t.Errorf("interfaces left: %v, %v", links, err)
	}
	tables, err := new(nftables.Conn).ListTables()
	if err != nil || len(tables) != 0 {
		t.Errorf("nftables tables left: %v, %v", tables, err)
	}
}

// leftovers looks wherever a pod leaves something.
func leftovers(dir, podID string) (left []string, err error) {
	if _, err := os.Lstat(filepath.Join(dir, podID)); err == nil {
		left = append(left, "its directory")
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.Contains(m.Mountpoint, podID), false
	})
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		left = append(left, "mount "+m.Mountpoint)
	}
	owners, err := network.Owners()
	if err != nil {
		return nil, err
	}
	for _, owner := range owners {
		if strings.Contains(owner, podID) {
			left = append(left, "interface of "+owner)
		}
	}
	hierarchies, err := findCgroups()
	if err != nil {
		return nil, err
	}
	for _, mount := range hierarchies.mounts {
		dirs, err := filepath.Glob(filepath.Join(mount, "*"+podID+"*"))
		if err != nil {
			return nil, err
		}
		left = append(left, dirs...)
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range processes {
		// What has ended meanwhile has nothing to read.
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		cgroups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		if string(command) != "" && strings.Contains(string(command)+string(cgroups), podID) {
			left = append(left, fmt.Sprintf("process %s: %q", dir, command))
		}
	}
	return left, nil
}
