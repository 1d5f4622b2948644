package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ensureBridge makes the hosts' network. Forwarding is off on the bridge
// itself, so no packet of a host leaves the lab, whatever the machine's own
// routing says.
func (l *Lab) ensureBridge(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join("/sys/class/net", l.Bridge)); err != nil {
		if _, err := Run(ctx, "ip", "link", "add", l.Bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0"); err != nil {
			return fmt.Errorf("lab: make the bridge: %w", err)
		}
	}
	_, bits, ok := strings.Cut(l.Network, "/")
	if !ok {
		return fmt.Errorf("lab: hosts.yaml: network %q has no prefix length", l.Network)
	}
	for _, argv := range [][]string{
		{"ip", "addr", "replace", l.Gateway + "/" + bits, "dev", l.Bridge},
		{"ip", "link", "set", l.Bridge, "up"},
		{"sysctl", "--quiet", "--write", "net.ipv4.conf." + l.Bridge + ".forwarding=0"},
		{"sysctl", "--quiet", "--write", "net.ipv6.conf." + l.Bridge + ".disable_ipv6=1"},
	} {
		if _, err := Run(ctx, argv...); err != nil {
			return fmt.Errorf("lab: set up the bridge: %w", err)
		}
	}
	return l.allowBridged(ctx)
}

// allowBridged lets frames between hosts pass where br_netfilter shows them
// to iptables and a policy (Docker's, say) would drop them.
func (l *Lab) allowBridged(ctx context.Context) error {
	called, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err != nil || strings.TrimSpace(string(called)) != "1" {
		return nil
	}
	if _, err := Run(ctx, l.bridgedRule("-C")...); err == nil {
		return nil
	}
	if _, err := Run(ctx, l.bridgedRule("-I")...); err != nil {
		return fmt.Errorf("lab: let the hosts reach each other: %w", err)
	}
	return nil
}

func (l *Lab) bridgedRule(action string) []string {
	return []string{"iptables", "-w", action, "FORWARD", "-i", l.Bridge, "-o", l.Bridge, "-j", "ACCEPT"}
}

// removeBridge takes back what ensureBridge made; nothing there is no error.
func (l *Lab) removeBridge(ctx context.Context) error {
	for {
		if _, err := Run(ctx, l.bridgedRule("-D")...); err != nil {
			break // gone, or there is no iptables
		}
	}
	if _, err := os.Stat(filepath.Join("/sys/class/net", l.Bridge)); err != nil {
		return nil
	}
	if _, err := Run(ctx, "ip", "link", "delete", l.Bridge); err != nil {
		return fmt.Errorf("lab: remove the bridge: %w", err)
	}
	return nil
}
