package lab

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed inventory.yaml.tmpl
var inventoryTemplate string

// InventoryOptions says how an inventory of the lab differs from the standard one.
type InventoryOptions struct {
	Hosts   []string // names; default: all but the spares
	Version string   // default DefaultVersion
}

const (
	// DefaultVersion is the Kubernetes release that the lab's inventory asks for.
	DefaultVersion = "v1.36.3"
	// OlderVersion is the release, one minor before it, that upgrades start from.
	OlderVersion = "v1.35.4"
)

// WriteInventory writes an inventory of the lab's hosts to path.
func (l *Lab) WriteInventory(path string, opts InventoryOptions) error {
	hosts, err := l.Select(opts.Hosts...)
	if err != nil {
		return err
	}
	if opts.Version == "" {
		opts.Version = DefaultVersion
	}
	tmpl, err := template.New("inventory.yaml").Option("missingkey=error").Parse(inventoryTemplate)
	if err != nil {
		return fmt.Errorf("lab: inventory template: %w", err)
	}
	var out bytes.Buffer
	if err := tmpl.Execute(&out, map[string]any{
		"Version": opts.Version, "VIP": l.VIP, "Key": l.Key(), "KnownHosts": l.KnownHosts(),
		"Bundle": l.Bundle(opts.Version), "Hosts": hosts, "Containers": l.Provider == providerLXC, "CgroupV1": cgroupV1(),
	}); err != nil {
		return fmt.Errorf("lab: inventory template: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("lab: write the inventory: %w", err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("lab: write the inventory: %w", err)
	}
	return nil
}

// cgroupV1 says whether this machine, hence its containers, has the old hierarchies.
func cgroupV1() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err != nil
}
