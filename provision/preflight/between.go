package preflight

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// decideBetween compares the hosts with each other.
func decideBetween(all []subject) []Finding {
	var out []Finding
	out = append(out, decideMachines(all)...)
	out = append(out, duplicates(all, CheckHostname, "its own host name", "hostnamectl set-hostname NAME",
		func(s subject) string { return strings.ToLower(s.facts.Hostname) })...)
	out = append(out, duplicates(all, CheckMACAddress, "its own MAC address on the internal network", "give the cloned machine a new MAC address",
		func(s subject) string { return s.facts.MACs[s.facts.interfaceOf(internal(s.host))] })...)
	out = append(out, decideProducts(all)...)
	out = append(out, decideCAs(all)...)
	out = append(out, decidePodNetwork(all)...)
	return append(out, decideClocks(all)...)
}

// groups collects the hosts that share a key; an empty key is shared by none.
// Groups of one are left out, order is the inventory's.
func groups(all []subject, key func(subject) string) [][]subject {
	at := map[string][]subject{}
	var keys []string
	for _, s := range all {
		k := key(s)
		if k == "" {
			continue
		}
		if len(at[k]) == 0 {
			keys = append(keys, k)
		}
		at[k] = append(at[k], s)
	}
	var out [][]subject
	for _, k := range keys {
		if len(at[k]) > 1 {
			out = append(out, at[k])
		}
	}
	return out
}

// duplicates finds hosts that share what must be a host's own: one error for
// each, naming the others.
func duplicates(all []subject, check, wanted, fix string, key func(subject) string) []Finding {
	var out []Finding
	for _, g := range groups(all, key) {
		for _, s := range g {
			seen := key(s) + ", also on " + listed(others(g, s), 4)
			out = append(out, named(s.host.Name, check, fail(seen, wanted, fix))...)
		}
	}
	return out
}

func others(g []subject, s subject) []string {
	var names []string
	for _, o := range g {
		if o.host.Name != s.host.Name {
			names = append(names, o.host.Name)
		}
	}
	return names
}

// decideMachines compares machine IDs. Two entries that lead to one machine
// share everything; clones share the ID only.
func decideMachines(all []subject) []Finding {
	var out []Finding
	for _, s := range all {
		if id := s.facts.MachineID; id == "" || id == "uninitialized" {
			out = append(out, named(s.host.Name, CheckMachineID,
				fail("/etc/machine-id is empty", "an ID of its own", "systemd-machine-id-setup"))...)
		}
	}
	const fix = "rm -f /etc/machine-id /var/lib/dbus/machine-id && systemd-machine-id-setup, then reboot"
	for _, g := range groups(all, func(s subject) string { return strings.TrimSuffix(s.facts.MachineID, "uninitialized") }) {
		for _, s := range g {
			v := fail(s.facts.MachineID+", also on "+listed(others(g, s), 4), "an ID of its own", fix)
			if same := sameMachine(g, s); len(same) > 0 {
				v = fail("the same machine as "+strings.Join(same, ", "), "a machine of its own",
					"correct the addresses in the inventory: they lead to one machine")
			}
			out = append(out, named(s.host.Name, CheckMachineID, v)...)
		}
	}
	return out
}

func sameMachine(g []subject, s subject) []string {
	var names []string
	for _, o := range g {
		if o.host.Name != s.host.Name && o.facts.BootID != "" && o.facts.BootID == s.facts.BootID &&
			slices.Equal(o.facts.Addresses, s.facts.Addresses) {
			names = append(names, o.host.Name)
		}
	}
	return names
}

// decideProducts compares firmware IDs. Containers of one machine show its ID:
// that is no clone, but one power-off takes them all.
func decideProducts(all []subject) []Finding {
	var out []Finding
	containers := func(s subject) string {
		if s.facts.Container == "" {
			return ""
		}
		return s.facts.BootID
	}
	for _, g := range groups(all, containers) {
		for _, s := range g {
			out = append(out, named(s.host.Name, CheckProductUUID, warn("a container on the same machine as "+listed(others(g, s), 4),
				"a machine of its own", "fine for trying out: the machine's power-off takes them all"))...)
		}
	}
	machines := func(s subject) string {
		if s.facts.Container != "" {
			return ""
		}
		return s.facts.ProductUUID
	}
	return append(out, duplicates(all, CheckProductUUID, "a product UUID of its own",
		"give the cloned machine a new UUID in its hypervisor", machines)...)
}

// decideCAs finds hosts of this cluster that hold different CAs: their parts
// would never trust each other.
func decideCAs(all []subject) []Finding {
	holders := map[string][]string{}
	var mine []subject
	for _, s := range all {
		if s.ours() && s.facts.CA != "" {
			mine = append(mine, s)
			holders[s.facts.CA] = append(holders[s.facts.CA], s.host.Name)
		}
	}
	if len(holders) < 2 {
		return nil
	}
	var out []Finding
	for _, s := range mine {
		seen := fmt.Sprintf("CA %s on %s", s.facts.CA[:12], strings.Join(holders[s.facts.CA], ", "))
		out = append(out, named(s.host.Name, CheckClusterCA, fail(seen, "one CA on all hosts of the cluster",
			"find out which CA is the cluster's; reset the hosts with the other"))...)
	}
	return out
}

// decidePodNetwork looks whether flannel's host-gw can work: it makes each node
// the gateway of its pods, so every node must be on the others' link.
func decidePodNetwork(all []subject) []Finding {
	var out []Finding
	for _, s := range all {
		if !s.node() || !flannel(s.cluster) || vxlan(s.cluster) {
			continue
		}
		i := slices.IndexFunc(s.facts.Addresses, func(a Address) bool { return a.Prefix.Addr() == internal(s.host) })
		if i < 0 {
			continue // InternalAddress says it
		}
		link := s.facts.Addresses[i].Prefix.Masked()
		var beyond []string
		for _, o := range all {
			if o.node() && !link.Contains(internal(o.host)) {
				beyond = append(beyond, o.host.Name)
			}
		}
		v := ok("all nodes are in %s", link)
		if len(beyond) > 0 {
			v = fail(listed(beyond, 4)+" not in "+link.String(), "all nodes on one layer-2 network, for flannel's host-gw",
				"set spec.network.cni.backend: vxlan")
		}
		out = append(out, named(s.host.Name, CheckPodNetwork, v)...)
	}
	return out
}

// Beyond clockWarn certificates and leases begin to disagree; beyond
// clockRefuse a fresh certificate may not be valid yet.
const (
	clockWarn   = 500 * time.Millisecond
	clockRefuse = 60 * time.Second
)

func decideClocks(all []subject) []Finding {
	// When the hosts agree with each other, the operator's clock is the odd one.
	fix := "run a time service (systemd-timesyncd, chrony) on the host"
	if len(all) > 1 && spread(all) < clockWarn {
		fix = "the hosts agree with each other: set the clock of the machine that runs ha-install"
	}
	var out []Finding
	for _, s := range all {
		off, within := s.facts.ClockOffset, s.facts.ClockError
		seen := fmt.Sprintf("%+.3f s from this machine's clock, ± %.3f s", off.Seconds(), within.Seconds())
		v := ok("%s", seen)
		switch sure := off.Abs() - within; {
		case sure > clockRefuse:
			v = fail(seen, "within 60 s", fix)
		case sure > clockWarn:
			v = warn(seen, "within 0.5 s", fix)
		}
		out = append(out, named(s.host.Name, CheckClock, v)...)
	}
	return out
}

func spread(all []subject) time.Duration {
	low, high := all[0].facts.ClockOffset, all[0].facts.ClockOffset
	for _, s := range all {
		low, high = min(low, s.facts.ClockOffset), max(high, s.facts.ClockOffset)
	}
	return high - low
}
