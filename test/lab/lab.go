// Package lab runs the project's test hosts: bare Debian machines with sshd,
// made by Vagrant from one table (hosts.yaml), on a network of their own. The
// lxc provider is the one that the tests and package fault use; it needs root.
package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Host is one row of hosts.yaml.
type Host struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Role    string `json:"role"`   // as in an inventory
	Memory  int    `json:"memory"` // MiB; virtual machines only
	Spare   bool   `json:"spare"`  // started only by name
}

// Container is the host's name for lxc-* commands on the machine.
func (h Host) Container() string { return containerPrefix + h.Name }

const providerLXC = "lxc"

const containerPrefix = "ha-lab-"

// Table is hosts.yaml.
type Table struct {
	Bridge  string `json:"bridge"`
	Network string `json:"network"` // a /24
	Gateway string `json:"gateway"`
	VIP     string `json:"vip"`
	Hosts   []Host `json:"hosts"`
}

// Lab is the lab of one checkout. There is one lab per machine: the names of
// containers and bridge are fixed, and a second checkout takes them over.
type Lab struct {
	Table
	Root  string // the repository's root
	Dir   string // what the lab makes: keys, inventory, Vagrant's state
	Cache string // what outlives the lab: box, bundles
	// Provider is Vagrant's: lxc, or libvirt or virtualbox on a laptop. With
	// virtual machines only Up, Down and what goes over SSH work.
	Provider string
}

// Open finds the repository that holds the working directory and reads its
// table of hosts. HA_INSTALL_LAB_DIR and HA_INSTALL_CACHE override where the
// lab's state (.lab at the root) and the cache (~/.cache/ha-install) lie,
// HA_INSTALL_LAB_PROVIDER the provider (lxc).
func Open() (*Lab, error) {
	root, err := repositoryRoot()
	if err != nil {
		return nil, err
	}
	l := &Lab{Root: root, Dir: os.Getenv("HA_INSTALL_LAB_DIR"), Cache: os.Getenv("HA_INSTALL_CACHE"),
		Provider: os.Getenv("HA_INSTALL_LAB_PROVIDER")}
	if l.Provider == "" {
		l.Provider = providerLXC
	}
	if l.Dir == "" {
		l.Dir = filepath.Join(root, ".lab")
	}
	if l.Cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("lab: find the cache: %w", err)
		}
		l.Cache = filepath.Join(home, ".cache", "ha-install")
	}
	if l.Dir, err = filepath.Abs(l.Dir); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if strings.ContainsAny(l.Dir, " \t'\"") {
		return nil, fmt.Errorf("lab: %q: lxc's hooks cannot take a path with blanks or quotes; set HA_INSTALL_LAB_DIR", l.Dir)
	}
	raw, err := os.ReadFile(l.source("hosts.yaml"))
	if err != nil {
		return nil, fmt.Errorf("lab: read the table of hosts: %w", err)
	}
	if err := yaml.UnmarshalStrict(raw, &l.Table); err != nil {
		return nil, fmt.Errorf("lab: hosts.yaml: %w", err)
	}
	return l, nil
}

// repositoryRoot walks up from the working directory to the project's go.mod,
// so that tests in any package find the same lab.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "test", "lab", "hosts.yaml")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("lab: run it inside the repository: no test/lab/hosts.yaml above the working directory")
		}
		dir = up
	}
}

// source is the path of one of this package's own files.
func (l *Lab) source(elem ...string) string {
	return filepath.Join(append([]string{l.Root, "test", "lab"}, elem...)...)
}

// Key is the private key that logs in to every host as vagrant.
func (l *Lab) Key() string { return filepath.Join(l.Dir, "id_ed25519") }

// KnownHosts names every host's key, spares included.
func (l *Lab) KnownHosts() string { return filepath.Join(l.Dir, "known_hosts") }

// Inventory describes the lab without its spares.
func (l *Lab) Inventory() string { return filepath.Join(l.Dir, "inventory.yaml") }

// Bundle is where the test software's bundle of a Kubernetes version lies.
func (l *Lab) Bundle(version string) string {
	return filepath.Join(l.Cache, "bundles", "ha-install-bundle-"+version+"-amd64.tar")
}

// Host returns the named row.
func (l *Lab) Host(name string) (Host, error) {
	i := slices.IndexFunc(l.Hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return Host{}, fmt.Errorf("lab: no host %q in hosts.yaml; there are %s", name, strings.Join(names(l.Hosts), ", "))
	}
	return l.Hosts[i], nil
}

// Select returns the named hosts, or every host but the spares when none is named.
func (l *Lab) Select(wanted ...string) ([]Host, error) {
	if len(wanted) == 0 {
		return slices.DeleteFunc(slices.Clone(l.Hosts), func(h Host) bool { return h.Spare }), nil
	}
	var out []Host
	for _, name := range wanted {
		h, err := l.Host(name)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

func names(hosts []Host) []string {
	var out []string
	for _, h := range hosts {
		out = append(out, h.Name)
	}
	return out
}
