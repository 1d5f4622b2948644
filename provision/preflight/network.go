package preflight

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func decideInternalAddress(s subject) []verdict {
	a := internal(s.host)
	if !a.IsValid() {
		return fail("no internal address in the inventory", "an IP address of the host", "set internalAddress")
	}
	if name := s.facts.interfaceOf(a); name != "" {
		return ok("%s on %s", a, name)
	}
	var own []string
	for _, have := range s.facts.Addresses {
		if addr := have.Prefix.Addr(); !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
			own = append(own, addr.String())
		}
	}
	return fail(a.String()+" is on no interface; the host has "+listed(own, 5), "an address of the host itself",
		"set internalAddress to one of them")
}

// decideVIPSubnet looks where keepalived would put the VIP: on a link whose
// subnet does not hold it, nobody would find it there.
func decideVIPSubnet(s subject) []verdict {
	v := vip(s.cluster)
	if !s.cluster.Balances(s.host) || !v.IsValid() {
		return nil
	}
	name := s.cluster.Spec.LoadBalancer.Interface
	if name == "" {
		name = s.facts.interfaceOf(internal(s.host))
	}
	if name == "" {
		return nil // InternalAddress says it
	}
	var subnets []string
	for _, a := range s.facts.Addresses {
		// The VIP itself, when it is here already, proves nothing: it is a /32.
		if a.Interface != name || a.Prefix.Addr() == v {
			continue
		}
		if a.Prefix.Contains(v) {
			if far := routedPeers(s); len(far) > 0 {
				return fail("no subnet of this host holds the internal address of "+listed(far, 5), "balancers on one link: keepalived ignores adverts that were routed",
					"give them internal addresses of one subnet")
			}
			return ok("%s is in %s of %s", v, a.Prefix.Masked(), name)
		}
		if a.Prefix.Addr().Is4() == v.Is4() {
			subnets = append(subnets, a.Prefix.Masked().String())
		}
	}
	if len(subnets) == 0 {
		return fail("no address of its family on "+name, v.String()+" in a subnet of the interface",
			"set loadBalancer.interface to the link that the VIP belongs to")
	}
	return fail(fmt.Sprintf("%s holds %s", name, strings.Join(subnets, ", ")), v.String()+" in a subnet of the interface",
		"choose a VIP from the balancers' subnet, or set loadBalancer.interface")
}

// routedPeers are the other balancers that a router is on the way to.
func routedPeers(s subject) []string {
	var far []string
	for _, peer := range s.cluster.Balancers() {
		a := internal(peer)
		near := slices.ContainsFunc(s.facts.Addresses, func(own Address) bool { return own.Prefix.Contains(a) })
		if a.IsValid() && !near {
			far = append(far, fmt.Sprintf("%s (%s)", peer.Name, a))
		}
	}
	return far
}

// ownProcesses hold the ports on a host that belongs to this cluster; the
// kernel cuts names at 15 bytes.
var ownProcesses = []string{"kube-apiserver", "etcd", "kubelet", "kube-controller", "kube-controller-manager", "kube-scheduler", "haproxy"}

func decidePorts(s subject) []verdict {
	wanted := portsOf(s.cluster, s.host)
	var taken []string
	for _, port := range wanted {
		if l, found := s.listener(port); found {
			taken = append(taken, fmt.Sprintf("%d by %s", port, cmp.Or(l.Process, "a process that is not known")))
		}
	}
	if len(taken) > 0 {
		return fail("taken: "+strings.Join(taken, ", "), "free ports", "stop what listens there, or use another host")
	}
	return ok("free or our own: %s", strings.Trim(fmt.Sprint(wanted), "[]"))
}

// listener finds who stands in the way on a port.
func (s subject) listener(port int) (Listener, bool) {
	for _, l := range s.facts.Listeners {
		name, _, _ := strings.Cut(l.Process, " (pid ")
		if l.Port == port && !(s.ours() && (name == "" || slices.Contains(ownProcesses, name))) {
			return l, true
		}
	}
	return Listener{}, false
}

func decideFirewall(s subject) []verdict {
	if len(s.facts.Firewalls) == 0 {
		return ok("neither firewalld nor ufw is active")
	}
	return warn(strings.Join(s.facts.Firewalls, ", ")+" is active", "open to the other hosts: "+openPortsOf(s.cluster, s.host),
		"allow them, or stop it")
}

func decideEndpointName(s subject) []verdict {
	name := endpointName(s.cluster)
	if name == "" || !s.facts.ResolvedAsked || !s.node() {
		return nil
	}
	got := make([]string, 0, len(s.facts.Resolved))
	for _, a := range s.facts.Resolved {
		got = append(got, a.String())
	}
	v := vip(s.cluster)
	fix := "add it to DNS, or to /etc/hosts of every host"
	switch {
	case len(got) == 0 && v.IsValid():
		return fail(name+" does not resolve", v.String(), fix)
	case len(got) == 0:
		return fail(name+" does not resolve", "the balancer's address", fix)
	case managed(s.cluster) && v.IsValid() && !slices.ContainsFunc(s.facts.Resolved, func(a netip.Addr) bool { return a.Unmap() == v }):
		return fail(name+" resolves to "+strings.Join(got, ", "), v.String()+", the VIP", fix)
	}
	return ok("%s resolves to %s", name, strings.Join(got, ", "))
}
