package inventory

import "net/netip"

// ControlPlanes lists the hosts with role control-plane, in the file's order;
// the first is where a cluster begins.
func (c *Cluster) ControlPlanes() []Host { return c.withRole(RoleControlPlane) }

// Workers lists the hosts with role worker, in the file's order.
func (c *Cluster) Workers() []Host { return c.withRole(RoleWorker) }

// Balancers lists the hosts that run HAProxy and keepalived, in the file's
// order: the control planes where spec.loadBalancer.mode is masters, else those
// with role load-balancer; none where the balancer is the user's own.
func (c *Cluster) Balancers() []Host {
	var hosts []Host
	for _, h := range c.Spec.Hosts {
		if c.Balances(h) {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// Balances says whether h is one of the Balancers.
func (c *Cluster) Balances(h Host) bool {
	switch c.Spec.LoadBalancer.Mode {
	case BalancerExternal:
		return false
	case BalancerMasters:
		return h.Role == RoleControlPlane
	}
	return h.Role == RoleLoadBalancer
}

// SoftwareRoles are the roles whose software h needs: its own, and
// load-balancer beside it on a master that balances; none on a host that was to
// balance and is not any more.
func (c *Cluster) SoftwareRoles(h Host) []Role {
	var roles []Role
	if h.Role != RoleLoadBalancer {
		roles = append(roles, h.Role)
	}
	if c.Balances(h) {
		roles = append(roles, RoleLoadBalancer)
	}
	return roles
}

// Nodes lists the hosts that are Nodes of the cluster: control planes first, then workers.
func (c *Cluster) Nodes() []Host { return append(c.ControlPlanes(), c.Workers()...) }

func (c *Cluster) withRole(role Role) []Host {
	var hosts []Host
	for _, h := range c.Spec.Hosts {
		if h.Role == role {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// HostByName finds a host by its name.
func (c *Cluster) HostByName(name string) (Host, bool) {
	for _, h := range c.Spec.Hosts {
		if h.Name == name {
			return h, true
		}
	}
	return Host{}, false
}

// IP is the host's internal address; invalid only for a Host that no Parse has seen.
func (h Host) IP() netip.Addr {
	ip, err := netip.ParseAddr(h.InternalAddress)
	if err != nil {
		return netip.Addr{}
	}
	return ip
}

// NoBastion as a host's bastion address means that this host is reached
// directly although the others are not.
const NoBastion = "none"

// EffectiveSSH is how h is reached: the defaults for all hosts, overridden
// field by field with the host's own; a list or a bastion replaces the default
// as a whole. Files are as they were written. User "", Port 0 and Sudo nil mean
// that nobody said: ~/.ssh/config decides, else root, 22 and "unless root".
func (c *Cluster) EffectiveSSH(h Host) SSH {
	s, own := c.Spec.SSH, h.SSH
	override(&s.User, own.User)
	override(&s.Port, own.Port)
	override(&s.Agent, own.Agent)
	override(&s.Bastion, own.Bastion)
	override(&s.Sudo, own.Sudo)
	if own.IdentityFiles != nil {
		s.IdentityFiles = own.IdentityFiles
	}
	if own.KnownHosts != nil {
		s.KnownHosts = own.KnownHosts
	}
	s.HostKeys = own.HostKeys // pinned per host only
	if s.Bastion != nil && s.Bastion.Address == NoBastion {
		s.Bastion = nil
	}
	return s
}

func override[T comparable](field *T, own T) {
	var zero T
	if own != zero {
		*field = own
	}
}
