package jail

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/jetpack-run/jetpack/internal/network"
)

// Lacks says what this host does not have that pods want, each with the command
// that mends it.
func (e *Engine) Lacks() []string {
	var lacks []string
	osrelease, err := unix.Sysctl("kern.osrelease")
	if err != nil {
		lacks = append(lacks, fmt.Sprintf("kern.osrelease: %v", err))
	}
	if what := unpatched(osrelease); what != "" {
		lacks = append(lacks, what)
	}
	if _, err := network.Networks(e.cfg.Interface); errors.Is(err, network.ErrNoNetwork) {
		lacks = append(lacks, e.noNetwork(err).Error())
	}
	if on, err := unix.SysctlRaw("kern.racct.enable"); err != nil || len(on) == 0 || on[0] == 0 {
		lacks = append(lacks, "resources are not counted, so limits of pods have no effect; 'echo kern.racct.enable=1 >>/boot/loader.conf' and a reboot mend it")
	}
	if !supports("vnet") {
		lacks = append(lacks, "the kernel has no vnet(9), so no pod can do without the host's network; use the kernel GENERIC")
	}
	if err := defineRules(e.cfg.Ruleset); err != nil {
		lacks = append(lacks, err.Error())
	} else if err := checkRules(e.cfg.Ruleset); err != nil {
		lacks = append(lacks, err.Error())
	}
	return lacks
}

// noNetwork adds the mend.
func (e *Engine) noNetwork(err error) error {
	i, missing := net.InterfaceByName(e.cfg.Interface)
	cloned := missing != nil || i.Flags&net.FlagLoopback != 0 // or else it may be a card
	return fmt.Errorf("%w; %s", err, networkMend(e.cfg.Interface, cloned))
}
