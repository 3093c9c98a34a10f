package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jetpack-run/jetpack/image"
	"github.com/jetpack-run/jetpack/internal/platform"
	"github.com/jetpack-run/jetpack/internal/sandbox"
	"github.com/jetpack-run/jetpack/internal/storage"
	"github.com/jetpack-run/jetpack/runtime"
	"github.com/jetpack-run/jetpack/runtime/volume"
)

// host is an initialized root, opened.
type host struct {
	root    platform.Root
	driver  storage.Driver
	images  *image.Store
	volumes *volume.Store
}

func imagesDir(root string) string  { return filepath.Join(root, "images") }
func podsDir(root string) string    { return filepath.Join(root, "pods") }
func volumesDir(root string) string { return filepath.Join(root, "volumes") }

var errNotRoot = errors.New("needs root; run it with doas or sudo")

// open opens the root that the configuration names.
func (c *cli) open() (*host, error) {
	if os.Geteuid() != 0 {
		return nil, errNotRoot
	}
	root, err := platform.ReadRoot(c.cfg.Root)
	if errors.Is(err, platform.ErrNotInitialized) {
		return nil, fmt.Errorf("%w; run 'jetpack --root %s init'", err, c.cfg.Root)
	}
	if err != nil {
		return nil, err
	}
	driver, err := platform.Storage(c.cfg.Root, root)
	if err != nil {
		return nil, err
	}
	images, err := image.Open(imagesDir(c.cfg.Root), driver)
	if err != nil {
		return nil, err
	}
	h := &host{root: root, driver: driver, images: images}
	h.volumes = c.volumes(h)
	return h, nil
}

// pods opens the root with what runs pods.
func (c *cli) pods() (*host, *runtime.Runtime, error) {
	h, err := c.open()
	if err != nil {
		return nil, nil, err
	}
	engine, err := platform.Engine(c.cfg.Root, h.root, c.engineConfig())
	if err != nil {
		return nil, nil, err
	}
	rt := c.runtime(h, engine)
	if rt.BootID, err = platform.BootID(); err != nil {
		return nil, nil, err
	}
	return h, rt, nil
}

func (c *cli) engineConfig() platform.EngineConfig {
	cfg := platform.EngineConfig{
		Runtime: c.cfg.LinuxRuntime, Bridge: c.cfg.LinuxBridge, Networks: c.cfg.LinuxNetworks,
		Interface: c.cfg.FreeBSDInterface, Ruleset: c.cfg.FreeBSDRuleset,
	}
	if c.cfg.FreeBSDAllow != "none" {
		cfg.Allow = strings.Fields(c.cfg.FreeBSDAllow)
	}
	return cfg
}

// runtime is the pods of a root; without an engine, for reading only.
func (c *cli) runtime(h *host, engine sandbox.Engine) *runtime.Runtime {
	return &runtime.Runtime{
		Dir: podsDir(c.cfg.Root), Images: h.images, Volumes: h.volumes, Storage: h.driver, Engine: engine,
		OS: platform.OS(), Arch: platform.Arch(), Grace: c.cfg.PodStopGrace, Notice: c.notice, Report: c.report,
		Metadata: metadata{c},
	}
}
