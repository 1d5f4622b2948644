package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ha-install/ha-install/inventory"
	"github.com/ha-install/ha-install/provision/host"
	"github.com/ha-install/ha-install/provision/phase"
	"github.com/ha-install/ha-install/templates"
)

// balance configures HAProxy and keepalived on one host that balances. Hosts
// take turns, so that another one holds the VIP meanwhile.
func (a *apply) balance(ih inventory.Host) phase.Phase {
	return a.balanceWith("balancer", ih, leaving(a.Cluster, a.facts))
}

// balanceWith has keepalived know of guests beside the hosts that balance.
func (a *apply) balanceWith(name string, ih inventory.Host, guests []inventory.Host) phase.Phase {
	return phase.Phase{
		Name: name, Host: ih.Name,
		ForAll: true, // what asks the balancers has to wait for it
		Done: func(ctx context.Context) (bool, error) {
			h, files, err := a.balancerFiles(ctx, ih, guests)
			if err != nil {
				return false, err
			}
			owed, err := changes(ctx, h, "balancer", files)
			if err != nil || len(owed) > 0 {
				return false, err
			}
			for _, unit := range []string{"haproxy", "keepalived"} {
				if up, err := active(ctx, h, unit); err != nil || !up {
					return false, err
				}
			}
			return true, nil
		},
		Do: func(ctx context.Context) error {
			h, files, err := a.balancerFiles(ctx, ih, guests)
			if err != nil {
				return err
			}
			return configureBalancer(ctx, h, files)
		},
		Explain: func(ctx context.Context) ([]phase.Change, error) { return a.explainBalancer(ctx, ih, guests) },
		Gate:    []phase.Check{a.unitActive(ih, "haproxy"), a.unitActive(ih, "keepalived")},
	}
}

// balancerFiles renders the files of a balancer with the interface that holds
// its internal address, unless the inventory names one.
func (a *apply) balancerFiles(ctx context.Context, ih inventory.Host, guests []inventory.Host) (host.Host, []host.File, error) {
	h, b, err := a.balancer(ctx, ih, guests)
	if err != nil {
		return nil, nil, err
	}
	rendered, err := templates.BalancerFiles(a.Cluster, ih, b)
	return h, hostFiles(rendered), err
}

func (a *apply) balancer(ctx context.Context, ih inventory.Host, guests []inventory.Host) (host.Host, templates.Balancer, error) {
	b := templates.Balancer{Interface: a.Cluster.Spec.LoadBalancer.Interface, CAPEM: a.secrets.ca.CAPEM(), Guests: guests}
	h, err := a.host(ih.Name)
	if err == nil && b.Interface == "" {
		b.Interface, err = interfaceOf(ctx, h, ih.IP().String())
	}
	return h, b, err
}

func addressesOf(ctx context.Context, h host.Reader, ip string) ([]byte, error) {
	return h.Query(ctx, "ip", "-oneline", "address", "show", "to", ip)
}

// holds says whether an address is on the host now.
func holds(ctx context.Context, h host.Reader, ip string) (bool, error) {
	out, err := addressesOf(ctx, h, ip)
	return len(out) > 0, err
}

// interfaceOf finds the network interface that holds an address.
func interfaceOf(ctx context.Context, h host.Reader, ip string) (string, error) {
	out, err := addressesOf(ctx, h, ip)
	if err != nil {
		return "", err
	}
	// "2: eth0    inet 198.51.100.11/24 ..."
	if fields := strings.Fields(string(out)); len(fields) > 1 {
		name, _, _ := strings.Cut(fields[1], "@")
		return name, nil
	}
	return "", fmt.Errorf("no interface holds %s; set spec.loadBalancer.interface", ip)
}

// balancerUnits are the daemons of a balancer, each with its directory.
var balancerUnits = []struct{ name, dir string }{{"haproxy", "/etc/haproxy/"}, {"keepalived", "/etc/keepalived/"}}

// configureBalancer has the new HAProxy configuration tested by HAProxy itself
// before it takes the place of the old one, and reloads without dropping a
// connection.
func configureBalancer(ctx context.Context, h host.Host, files []host.File) error {
	changed, err := owe(ctx, h, "balancer", files)
	if err != nil {
		return err
	}
	if err := testHAProxy(ctx, h, files); err != nil {
		return err
	}
	if err := testKeepalived(ctx, h, files); err != nil {
		return err
	}
	if err := putFiles(ctx, h, files); err != nil {
		return err
	}
	commands := [][]string{
		{"systemctl", "daemon-reload"},
		{"sysctl", "--system"},
		{"systemctl", "enable", "haproxy.service", "keepalived.service"},
	}
	for _, unit := range balancerUnits {
		verb := "start"
		if slices.ContainsFunc(changed, func(p string) bool { return strings.HasPrefix(p, unit.dir) }) {
			verb = "reload-or-restart"
		}
		commands = append(commands, []string{"systemctl", verb, unit.name + ".service"})
	}
	return settle(ctx, h, "balancer", commands...)
}

// testKeepalived has keepalived itself read its new configuration.
func testKeepalived(ctx context.Context, h host.Host, files []host.File) error {
	for _, f := range files {
		if f.Path == templates.KeepalivedCheckPath { // the test asks for what the configuration names
			if _, err := h.Upload(ctx, f); err != nil {
				return err
			}
		}
	}
	for _, f := range files {
		if f.Path != templates.KeepalivedPath {
			continue
		}
		f.Path += ".candidate"
		if _, err := h.Upload(ctx, f); err != nil {
			return err
		}
		_, err := h.Run(ctx, host.Command{Argv: []string{"keepalived", "--config-test", "--use-file", f.Path}})
		if removal := runAll(ctx, h, []string{"rm", "-f", f.Path}); err == nil {
			err = removal
		}
		if err != nil {
			return fmt.Errorf("keepalived refuses its new configuration, the old one stays: %w", err)
		}
	}
	return nil
}

// testHAProxy uploads configuration and CA beside the ones in use and runs
// HAProxy's own check on them.
func testHAProxy(ctx context.Context, h host.Host, files []host.File) error {
	candidate := templates.HAProxyConfigPath + ".candidate"
	for _, f := range files {
		switch f.Path {
		case templates.HAProxyCAPath:
			if _, err := h.Upload(ctx, f); err != nil {
				return err
			}
		case templates.HAProxyConfigPath:
			f.Path = candidate
			if _, err := h.Upload(ctx, f); err != nil {
				return err
			}
		}
	}
	_, err := h.Run(ctx, host.Command{Argv: []string{"haproxy", "-c", "-f", candidate}})
	if removal := runAll(ctx, h, []string{"rm", "-f", candidate}); err == nil {
		err = removal
	}
	if err != nil {
		return fmt.Errorf("HAProxy refuses its new configuration, the old one stays: %w", err)
	}
	return nil
}
