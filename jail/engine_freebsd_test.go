package jail

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/reexec"

	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/sandbox/sandboxtest"
	"github.com/jetpack-run/jetpack/internal/testenv"
)

// testRuleset is a devfs rule set of the tests alone; it stays until the next boot.
const testRuleset = 54999

var suite = sandboxtest.Suite{
	New: func(dir string) (sandbox.Engine, error) {
		return New(Config{StateDir: dir, Interface: os.Getenv(testenv.Loopback), Ruleset: testRuleset})
	},
	Leftovers: leftovers,
	Owner:     "jail-owner",
}

func init() { suite.Register() }

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(testenv.WithLoopback(m))
}

func TestSuite(t *testing.T) {
	testenv.Root(t)
	suite.Run(t)
}

// leftovers looks wherever a pod leaves something.
func leftovers(dir, podID string) (left []string, err error) {
	if _, err := os.Lstat(filepath.Join(dir, podID)); err == nil {
		left = append(left, "its directory")
	}
	table, err := mountTable()
	if err != nil {
		return nil, err
	}
	for _, m := range table {
		if strings.Contains(m.path, podID) {
			left = append(left, "mount "+m.path)
		}
	}
	limits, err := rules(":")
	if err != nil {
		return nil, err
	}
	for _, rule := range limits {
		if ruleOf(rule, podID) {
			left = append(left, "limit "+rule)
		}
	}
	var alive []string
	for j, err := range jails() {
		if err != nil {
			return nil, err
		}
		alive = append(alive, j.name)
		if strings.Contains(j.name, podID) {
			left = append(left, "jail "+j.name)
		}
	}
	rules, err := exec.Command("rctl").CombinedOutput()
	if err == nil && strings.Contains(string(rules), podID) {
		left = append(left, "rules "+string(rules))
	}
	i, err := net.InterfaceByName(os.Getenv(testenv.Loopback))
	if err != nil {
		return nil, err
	}
	addrs, err := i.Addrs()
	if err != nil {
		return nil, err
	}
	single := 0 // those of pods
	for _, a := range addrs {
		if ones, bits := a.(*net.IPNet).Mask.Size(); ones == bits {
			single++
		}
	}
	if single > 2*len(alive) { // one of each family
		left = append(left, fmt.Sprintf("addresses %v of %d jails", addrs, len(alive)))
	}
	return left, nil
}
