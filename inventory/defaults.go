package inventory

import (
	"fmt"
	"net/netip"
)

// What a field is when the inventory leaves it out.
const (
	DefaultPort = 6443
	// DefaultMastersPort is the endpoint's where HAProxy shares hosts with the
	// API servers, which have 6443 themselves: the port of kubeadm's own example
	// of that layout, below the ports of NodePorts and of outgoing connections.
	DefaultMastersPort     = 8443
	DefaultVirtualRouterID = 51
	DefaultPodCIDR         = "10.244.0.0/16"
	DefaultServiceCIDR     = "10.96.0.0/12"
	DefaultDNSDomain       = "cluster.local"
)

// roleMaster is the synonym of RoleControlPlane that users may write.
const roleMaster Role = "master"

// setDefaults fills what was left out, but nothing over a value that was
// written wrongly. SSH's user, port and sudo stay unset: ~/.ssh/config, which
// this package does not read, has a say in them.
func setDefaults(s *source, c *Cluster) {
	spec := &c.Spec
	fill(s, "spec.loadBalancer.mode", &spec.LoadBalancer.Mode, BalancerDedicated)
	port := DefaultPort
	if spec.LoadBalancer.Mode == BalancerMasters {
		port = DefaultMastersPort
	}
	fill(s, "spec.endpoint.port", &spec.Endpoint.Port, port)
	if spec.LoadBalancer.Mode == BalancerDedicated || spec.LoadBalancer.Mode == BalancerMasters {
		fill(s, "spec.loadBalancer.virtualRouterID", &spec.LoadBalancer.VirtualRouterID, DefaultVirtualRouterID)
		if _, err := netip.ParseAddr(spec.Endpoint.Host); err == nil {
			fill(s, "spec.loadBalancer.vip", &spec.LoadBalancer.VIP, spec.Endpoint.Host)
		}
	}
	fill(s, "spec.ssh.agent", &spec.SSH.Agent, new(true))
	fill(s, "spec.network.podCIDR", &spec.Network.PodCIDR, DefaultPodCIDR)
	fill(s, "spec.network.serviceCIDR", &spec.Network.ServiceCIDR, DefaultServiceCIDR)
	fill(s, "spec.network.dnsDomain", &spec.Network.DNSDomain, DefaultDNSDomain)
	fill(s, "spec.network.cni.plugin", &spec.Network.CNI.Plugin, CNIFlannel)
	if spec.Network.CNI.Plugin == CNIFlannel {
		fill(s, "spec.network.cni.backend", &spec.Network.CNI.Backend, CNIBackendVXLAN)
	}
	fill(s, "spec.software.source", &spec.Software.Source, SourceBundle)
	if spec.Backup.Schedule != "" {
		fill(s, "spec.backup.keep", &spec.Backup.Keep, DefaultBackupKeep)
	}
	for i := range spec.Hosts {
		h := &spec.Hosts[i]
		if h.Role == roleMaster {
			h.Role = RoleControlPlane
		}
		if ip, err := netip.ParseAddr(h.Address); err == nil && usable(ip) == "" {
			fill(s, fmt.Sprintf("spec.hosts[%d].internalAddress", i), &h.InternalAddress, h.Address)
		}
	}
}

// fill sets a field that the user left out; 0 and "" that were written stay,
// to be refused.
func fill[T any](s *source, path string, field *T, value T) {
	if !s.given(path) {
		*field = value
	}
}
