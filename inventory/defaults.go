package inventory

import "net/netip"

// What a field is when the inventory leaves it out.
const (
	DefaultPort            = 6443
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
func setDefaults(c *Cluster) {
	spec := &c.Spec
	orElse(&spec.Endpoint.Port, DefaultPort)
	orElse(&spec.LoadBalancer.Mode, BalancerDedicated)
	if spec.LoadBalancer.Mode == BalancerDedicated {
		orElse(&spec.LoadBalancer.VirtualRouterID, DefaultVirtualRouterID)
		if _, err := netip.ParseAddr(spec.Endpoint.Host); err == nil {
			orElse(&spec.LoadBalancer.VIP, spec.Endpoint.Host)
		}
	}
	if spec.SSH.Agent == nil {
		spec.SSH.Agent = new(true)
	}
	orElse(&spec.Network.PodCIDR, DefaultPodCIDR)
	orElse(&spec.Network.ServiceCIDR, DefaultServiceCIDR)
	orElse(&spec.Network.DNSDomain, DefaultDNSDomain)
	orElse(&spec.Network.CNI.Plugin, CNIFlannel)
	if spec.Network.CNI.Plugin == CNIFlannel {
		orElse(&spec.Network.CNI.Backend, CNIBackendVXLAN)
	}
	orElse(&spec.Software.Source, SourceBundle)
	for i := range spec.Hosts {
		h := &spec.Hosts[i]
		if h.Role == roleMaster {
			h.Role = RoleControlPlane
		}
		if ip, err := netip.ParseAddr(h.Address); err == nil && usable(ip) == "" {
			orElse(&h.InternalAddress, h.Address)
		}
	}
}

func orElse[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
